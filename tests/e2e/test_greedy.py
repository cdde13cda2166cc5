"""With greedy decoding the CPU machine's rollouts are those of verl's own agent loop, field by
field: prompts, responses, masks, rewards, tags and what the dataset says of a row."""

import json
import os

import pytest
from marks import TRAINING_RUN
from training import STOCK_MANAGER, train

LIMIT = int(os.environ.get("RECIPE_TEST_LIMIT", 480))  # seconds; seen: 60
BATCH, ROLLOUTS = 8, 2
MANAGERS = {"verl": STOCK_MANAGER, "lean": ()}
LOG_PROBS = ("rollout_log_probs", "old_log_probs")

pytestmark = TRAINING_RUN


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory, small) -> dict[str, list[dict]]:
    """The rollouts of the first step by each manager, in one order."""
    found_by = {}
    for name, overrides in MANAGERS.items():
        folder = tmp_path_factory.mktemp(name)
        train(
            "asymgrpo/run_cpu.sh",
            folder,
            small,
            LIMIT,
            ["actor_rollout_ref.rollout.top_k=1", *overrides],
            TRAIN_BATCH_SIZE=str(BATCH),
            ROLLOUT_N=str(ROLLOUTS),
            PRESET="grpo",  # AsymGRPO is GRPO in groups of two, and refused
            STEPS="1",
            SAVE_FREQ="-1",
            VERL_USE_EXTERNAL_MODULES="record_rollouts",
            RECIPE_TEST_ROLLOUTS=str(folder / "rollouts.jsonl"),
        )
        rows = [json.loads(line) for line in (folder / "rollouts.jsonl").open()]
        found_by[name] = sorted(rows, key=lambda row: (row["prompts"], row["session"]))
    return found_by


def test_responses_rewards_and_masks_are_identical(rollouts):
    ours, stock = rollouts["lean"], rollouts["verl"]
    assert len(ours) == len(stock) == BATCH * ROLLOUTS
    for row, expected in zip(ours, stock, strict=True):
        assert row.keys() == expected.keys()
        for name in row.keys() - set(LOG_PROBS):
            assert row[name] == expected[name], name
    assert len({tuple(row["responses"]) for row in ours}) > 1
    assert all(row["response_mask"] == [1] * len(row["responses"]) for row in ours)


def test_log_probs_agree_to_what_a_batch_of_another_shape_rounds(rollouts):
    for row, expected in zip(rollouts["lean"], rollouts["verl"], strict=True):
        for name in LOG_PROBS:
            assert row[name] == pytest.approx(expected[name], abs=1e-5), name
