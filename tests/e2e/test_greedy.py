"""With greedy decoding the CPU machine's rollouts are those of verl's own agent loop, field by
field: prompts, responses, masks, rewards, tags and what the dataset says of a row."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from marks import TRAINING_RUN

ROOT, HERE = Path(__file__).parents[2], Path(__file__).parent
LIMIT = int(os.environ.get("RECIPE_TEST_LIMIT", 480))  # seconds; seen: 60
BATCH, ROLLOUTS = 8, 2
MANAGERS = {
    "verl": [
        "actor_rollout_ref.rollout.agent.agent_loop_manager_class=null",
        "reward.num_workers=1",
    ],
    "lean": [],
}
LOG_PROBS = ("rollout_log_probs", "old_log_probs")

pytestmark = TRAINING_RUN


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory, small) -> dict[str, list[dict]]:
    """The rollouts of the first step by each manager, in one order."""
    model, data = small
    found_by = {}
    for name, overrides in MANAGERS.items():
        folder = tmp_path_factory.mktemp(name)
        env = {
            **os.environ,
            "PYTHON": sys.executable,
            "CKPTS_DIR": str(folder / "run"),
            "MODEL_PATH": str(model),
            "DATA_DIR": str(data),
            "TRAIN_BATCH_SIZE": str(BATCH),
            "ROLLOUT_N": str(ROLLOUTS),
            "STEPS": "1",
            "SAVE_FREQ": "-1",
            "TEST_FREQ": "-1",
            "PYTHONPATH": f"{HERE}:{os.environ.get('PYTHONPATH', '')}",
            "VERL_USE_EXTERNAL_MODULES": "record_rollouts",
            "RECIPE_TEST_ROLLOUTS": str(folder / "rollouts.jsonl"),
        }
        command = ["bash", str(ROOT / "recipe/asymgrpo/run_cpu.sh")]
        command += ["trainer.val_before_train=false", "actor_rollout_ref.rollout.top_k=1"]
        with (folder / "log.txt").open("w") as log:
            done = subprocess.run(
                [*command, *overrides], env=env, stdout=log, stderr=log, timeout=LIMIT
            )
        assert done.returncode == 0, (folder / "log.txt").read_text()[-4000:]
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
