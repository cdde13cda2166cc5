"""A rollout that fails in the middle of a curriculum run on two ranks: the run continues, and it
trains on what is left. Two sessions of one prompt fail in step 2, and all of another's.

AsymGRPO's advantages, a clip schedule, SENT's token rule and a curriculum together, as in
`test_train.py`, by the agent loop manager of the CPU machine and by verl's own.
"""

import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import psutil
import pytest
from marks import TRAINING_RUN
from training import STOCK_MANAGER

from recipe.asymgrpo.config import PRESETS
from recipe.experiment.run import RunFolder
from recipe.sampling.prompts import prompt_id

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
LIMIT = int(os.environ.get("RECIPE_TEST_LIMIT", 480))  # seconds; seen: 70
STEPS, BATCH, ROLLOUTS = 4, 8, 4  # two stages of two steps
FAIL_STEP, HALF = 2, 2  # of the first prompt HALF sessions fail, of the second all
MANAGERS = {"verl": STOCK_MANAGER}
if os.environ.get("RECIPE_TEST_LONG"):  # of the CPU machine, which shares what starts a rollout
    MANAGERS["lean"] = ()

pytestmark = TRAINING_RUN


def write_scores(train: Path, file: Path) -> pd.DataFrame:
    """Semantic entropies as if measured: they rise with the row, so half of them are a stage."""
    prompts = pd.read_parquet(train)["prompt"][: STEPS * BATCH]
    table = pd.DataFrame(
        {
            "prompt_id": [prompt_id(list(prompt)) for prompt in prompts],
            "text": [prompt[0]["content"] for prompt in prompts],
            "semantic_entropy": [row / 16 for row in range(len(prompts))],
            "pass_rate": [1 - row / 64 for row in range(len(prompts))],
        }
    )
    table.drop(columns="text").to_parquet(file)
    return table.set_index("text")


class Trained:
    """A run whose rollouts failed, and what it left."""

    def __init__(self, folder: Path, model: Path, data: Path, overrides: Sequence[str]):
        self.run, self.failed_folder = RunFolder(folder / "run"), folder / "failed"
        self.failed_folder.mkdir()
        self.scores = write_scores(data / "train.parquet", folder / "scores.parquet")
        env = {
            **os.environ,
            "PYTHON": sys.executable,
            "CKPTS_DIR": str(self.run.path),
            "MODEL_PATH": str(model),
            "DATA_DIR": str(data),
            "NGPUS_PER_NODE": "2",
            "TRAIN_BATCH_SIZE": str(BATCH),
            "ROLLOUT_N": str(ROLLOUTS),
            "STEPS": str(STEPS),
            "SAVE_FREQ": str(STEPS),
            "TEST_FREQ": "-1",
            "PYTHONPATH": f"{HERE}:{os.environ.get('PYTHONPATH', '')}",
            "VERL_USE_EXTERNAL_MODULES": "fail_rollouts",
            "RECIPE_TEST_FAILED": str(self.failed_folder),
            "RECIPE_TEST_FAIL_STEP": str(FAIL_STEP),
            "RECIPE_TEST_FAIL_SESSIONS": str(HALF),
        }
        loss = "actor_rollout_ref.actor.policy_loss"
        command = ["bash", str(ROOT / "recipe/asymgrpo/run_cpu.sh")]
        command += [
            "trainer.val_before_train=false",
            f"trainer.rollout_data_dir={folder}/rollouts",
            "actor_rollout_ref.actor.ppo_mini_batch_size=4",
            f"{loss}.loss_mode=sent",
            f"{loss}.schedule=od",
            f"{loss}.exact_contribution_freq=2",
            f"{loss}.token_rule.preset=as_described",
            f"{loss}.token_rule.high_cov_fraction=0.1",
            "actor_rollout_ref.actor.use_kl_loss=true",
            "actor_rollout_ref.actor.kl_loss_coef=0",
            "data.curriculum.order=semantic_entropy",
            f"data.curriculum.scores={folder}/scores.parquet",
            "data.curriculum.epochs_per_stage=1",
            f"data.train_max_samples={STEPS * BATCH}",
            "data.shuffle=false",
            f"reward.custom_reward_function.path={HERE}/half_correct.py",
            *overrides,
        ]
        self.log = folder / "log.txt"
        with self.log.open("w") as log:
            process = subprocess.Popen(
                command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            self.code = process.wait(LIMIT)
        finally:
            end(process)
        self.steps = self.run.metrics()
        self.rollouts = folder / "rollouts"

    def records(self, name: str) -> list[dict]:
        file = self.failed_folder / f"{name}.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def real_rows(self, step: int) -> list[dict]:
        """The rollouts of a step as verl dumps them, without its padding rows."""
        rows = [json.loads(line) for line in (self.rollouts / f"{step}.jsonl").open()]
        return [row for row in rows if not row["uid"].startswith("pad")]


def end(process: subprocess.Popen) -> None:
    try:
        members = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return
    for member in members:
        member.send_signal(signal.SIGKILL)
    process.kill()
    process.wait(60)


@pytest.fixture(scope="module", params=MANAGERS)
def trained(request, tmp_path_factory, small) -> Trained:
    folder = tmp_path_factory.mktemp(request.param)
    made = Trained(folder, *small, MANAGERS[request.param])
    assert made.code == 0, made.log.read_text()[-4000:]
    return made


def test_the_run_continues_to_its_last_step(trained):
    assert sorted(trained.steps) == list(range(1, STEPS + 1))
    assert trained.run.checkpoint_step() == STEPS
    for row in trained.steps.values():
        values = [value for value in row.values() if isinstance(value, float)]
        assert all(value == value for value in values), "a metric is not a number"


def test_the_rollouts_failed_as_they_should(trained):
    failed = trained.records("failed")
    assert len(failed) == HALF + ROLLOUTS and len({row["uid"] for row in failed}) == 2
    left = trained.real_rows(FAIL_STEP)
    assert len(left) == BATCH * ROLLOUTS - len(failed)
    for step in trained.steps.keys() - {FAIL_STEP}:
        assert len(trained.real_rows(step)) == BATCH * ROLLOUTS


def test_the_curriculum_s_table_is_that_of_the_rollouts_that_are_left(trained):
    for step, logged in trained.steps.items():
        rows = trained.real_rows(step)
        measured = [trained.scores.loc[text_of(row, trained.scores)] for row in rows]
        for name in ("semantic_entropy", "pass_rate"):
            expected = sum(row[name] for row in measured) / len(measured)
            assert logged[f"curriculum/{name}"] == pytest.approx(expected, rel=1e-12)
        stage = 1 if step <= STEPS // 2 else 2
        assert logged["curriculum/stage"] == stage
        accuracy = sum(row["score"] for row in rows) / len(rows)
        assert logged[f"curriculum/accuracy/stage_{stage}"] == pytest.approx(accuracy)
        assert logged["critic/rewards/mean"] == pytest.approx(accuracy)


def text_of(row: dict, scores: pd.DataFrame) -> str:
    """The prompt of a dumped rollout, whose input is the whole chat."""
    (text,) = (text for text in scores.index if text in row["input"])
    return text


def by_group(rows: list[dict]) -> list[list[float]]:
    groups = defaultdict(list)
    for row in rows:
        groups[row["uid"].rsplit("_", 2)[0]].append(row["score"])
    return list(groups.values())


def test_each_group_s_statistics_are_those_of_its_rollouts_that_are_left(trained):
    """A = ((1-p)/p)^beta_pos if correct, -(p/(1-p))^beta_neg if not, p of what is left of the
    group; verl's padding gets no advantage."""
    beta_pos, beta_neg = PRESETS["asymgrpo"].betas
    expected: list[float] = []
    for step, logged in trained.steps.items():
        groups = by_group(trained.real_rows(step))
        for scores in groups:
            p = sum(scores) / len(scores)
            for score in scores:
                if p in (0, 1):
                    expected.append(0.0)
                elif score:
                    expected.append(((1 - p) / p) ** beta_pos)
                else:
                    expected.append(-((p / (1 - p)) ** beta_neg))
        for name, accuracy in (("correct", 1), ("incorrect", 0)):
            share = sum(set(scores) == {accuracy} for scores in groups) / len(groups)
            assert logged[f"diagnostics/groups/all_{name}"] == pytest.approx(share)
    sizes = sorted(len(scores) for scores in by_group(trained.real_rows(FAIL_STEP)))
    assert sizes == [ROLLOUTS - HALF] + [ROLLOUTS] * (BATCH - 2)
    seen = [
        advantage
        for rank in (0, 1)
        for record in trained.records(f"rank{rank}")
        for advantage, tokens in zip(record["advantages"], record["tokens"], strict=True)
        if tokens
    ]
    assert sorted(seen) == pytest.approx(sorted(expected), rel=1e-6)
    padding = [
        advantage
        for rank in (0, 1)
        for record in trained.records(f"rank{rank}")
        for advantage, tokens in zip(record["advantages"], record["tokens"], strict=True)
        if not tokens
    ]
    assert padding == [0.0] * (HALF + ROLLOUTS)


def test_the_loss_is_a_mean_over_the_tokens_that_are_left(trained):
    """In each mini-batch of both ranks; the token rule chooses four fifths of the same tokens."""
    ranks = [trained.records(f"rank{rank}") for rank in (0, 1)]
    assert len(ranks[0]) == len(ranks[1]) == 2 * STEPS  # of one micro-batch each
    for one, other in zip(*ranks, strict=True):
        tokens = sum(one["tokens"]) + sum(other["tokens"])
        assert one["tokens_of_mini_batch"] == other["tokens_of_mini_batch"] == tokens
        assert one["low"] + other["low"] == int(0.8 * tokens)
