"""Prompts that are replaced, and prompts by their pass rates, in real runs on two ranks."""

import json
import os
from math import log
from pathlib import Path

import pandas as pd
import pytest
from marks import TRAINING_RUN
from training import train

from recipe.core.held_out_entropy import METRIC
from recipe.cpu.model import make_tokenizer
from recipe.experiment.run import RunFolder
from recipe.sampling.prompts import prompt_id

HERE = Path(__file__).parent
LIMIT = 600  # seconds for a start
BATCH, ROLLOUTS, STEPS, PROMPTS = 4, 2, 3, 24  # two stages of 12 draws
HELD_OUT = 5  # prompts: an odd number, of which each of the two ranks gets two

pytestmark = TRAINING_RUN
SIZES = {
    "NGPUS_PER_NODE": "2",
    "TRAIN_BATCH_SIZE": str(BATCH),
    "ROLLOUT_N": str(ROLLOUTS),
    "SAVE_FREQ": "1",
}
HALF_CORRECT = [  # half of all rollouts, so that half of all groups of two have one outcome
    f"reward.custom_reward_function.path={HERE}/half_correct.py",
    "actor_rollout_ref.actor.ppo_mini_batch_size=2",
]


class Trained:
    def __init__(self, folder: Path):
        self.run = RunFolder(folder / "run")
        self.steps = self.run.metrics()
        self.folder = folder

    def rows(self, step: int) -> list[dict]:
        return [json.loads(line) for line in (self.folder / f"rollouts/{step}.jsonl").open()]

    def state(self, step: int) -> dict:
        return json.loads((self.run.path / f"global_step_{step}/recipe_state.json").read_text())


@pytest.fixture(scope="module")
def replaced(tmp_path_factory, small) -> Trained:
    """A curriculum in the order of the data's rows, with DAPO's dynamic sampling, and a validation
    after each step."""
    folder = tmp_path_factory.mktemp("replaced")
    prompts = pd.read_parquet(small[1] / "train.parquet")["prompt"][:PROMPTS]
    ids = [prompt_id(list(prompt)) for prompt in prompts]
    scores = {"prompt_id": ids, "semantic_entropy": range(PROMPTS), "pass_rate": 0.5}
    pd.DataFrame(scores).to_parquet(folder / "scores.parquet")
    overrides = [
        *HALF_CORRECT,
        "data.prompt_sampling.preset=dapo",
        "data.curriculum.order=semantic_entropy",
        f"data.curriculum.scores={folder}/scores.parquet",
        "data.curriculum.epochs_per_stage=1",
        "data.curriculum.shuffle=false",
        f"data.train_max_samples={PROMPTS}",
        "data.shuffle=false",
        f"trainer.rollout_data_dir={folder}/rollouts",
        f"data.val_max_samples={HELD_OUT}",
        "trainer.v1.recipe_sync.held_out_entropy=true",
    ]
    train(
        "prompt_sampling/run_cpu.sh", folder, small, LIMIT, overrides,
        PRESET="dapo", STEPS=str(STEPS), TEST_FREQ="1", **SIZES,
    )  # fmt: skip
    return Trained(folder)


def test_every_group_of_a_step_has_both_outcomes_and_the_batch_is_full(replaced):
    assert sorted(replaced.steps) == list(range(1, STEPS + 1))
    for step in replaced.steps:
        groups: dict[str, list[float]] = {}
        for row in replaced.rows(step):
            groups.setdefault(row["uid"].rsplit("_", 2)[0], []).append(row["score"])
        assert [sorted(scores) for scores in groups.values()] == [[0, 1]] * BATCH


def test_all_drawn_prompts_are_counted_and_are_the_plan_s_next(replaced, small):
    texts = [p[0]["content"] for p in pd.read_parquet(small[1] / "train.parquet")["prompt"]]
    plan = list(range(PROMPTS)) + 4 * list(range(PROMPTS // 2, PROMPTS))
    dropped = drawn = 0
    for step, row in replaced.steps.items():
        names = ("evicted_samples", "discarded_surplus_samples")
        gone = [row.get(f"training/filter_groups/{name}", 0) for name in names]
        assert row["curriculum/stage"] == (1 if drawn < PROMPTS // 2 else 2)
        before, drawn = drawn, int(row["curriculum/drawn"])
        assert drawn - before == BATCH + sum(gone)
        dropped += gone[0]
        possible = [texts[row] for row in plan[before:drawn]]
        for rollout in replaced.rows(step):
            assert any(text in rollout["input"] for text in possible)
        assert replaced.state(step)["curriculum"]["drawn"] == drawn
    assert dropped > 0


def test_each_validation_logs_the_entropy_and_training_goes_on_after_it(replaced):
    assert sorted(replaced.steps) == list(range(1, STEPS + 1))
    for step, row in replaced.steps.items():
        assert any(name.startswith("val-core/") for name in row), step
        # nats per token, at most those of an even draw from all tokens
        assert 0 < row[METRIC] < log(len(make_tokenizer())), step
        # the rollouts of the step after a validation have the weights of the updated policy
        assert row["training/rollout_probs_diff_max"] < 1e-4, step


@pytest.mark.skipif(
    not os.environ.get("RECIPE_TEST_LONG"),
    reason="two starts of verl, and tests/prompt_sampling resumes without them: RECIPE_TEST_LONG=1",
)
def test_the_order_by_pass_rates_is_that_of_the_sampler_also_after_a_resume(tmp_path, small):
    from recipe.prompt_sampling.sampler import PassRateSampler

    overrides = [
        *HALF_CORRECT,
        f"data.train_max_samples={PROMPTS}",
        f"trainer.rollout_data_dir={tmp_path}/rollouts",
    ]
    for steps in (8, 10):  # the second start resumes
        train(
            "prompt_sampling/run_cpu.sh", tmp_path, small, LIMIT, overrides,
            PRESET="variance", STEPS=str(steps), **SIZES,
        )  # fmt: skip
    trained = Trained(tmp_path)
    assert len(list(trained.run.path.glob("metrics/*.jsonl"))) == 2
    final = trained.state(10)["prompt_sampling"]
    assert final["epoch"] >= 1 and None not in final["pass_rates"]
    first = trained.state(8)["prompt_sampling"]
    sampler = PassRateSampler(PROMPTS, "variance", 0.1, 0)
    sampler.load_state_dict(first)
    for step in (9, 10):
        drawn = {sampler.draw() for _ in range(BATCH)}
        state = trained.state(step)["prompt_sampling"]
        changed = {
            row for row, rate in enumerate(state["pass_rates"]) if rate != sampler.pass_rate_N[row]
        }
        assert changed <= drawn
        position = state["epoch"], state["position"]
        assert position == (sampler.epoch, sampler.position)
        sampler.load_state_dict(state)
