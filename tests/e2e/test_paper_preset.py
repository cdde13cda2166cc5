"""SENT as its paper has it, on two FSDP ranks: the thresholds are calibrated on the model's own
responses, and every token's class is the one that they and the batch's means say."""

import json
from pathlib import Path

import numpy as np
import pytest
from marks import TRAINING_RUN
from training import train

LIMIT = 900  # seconds for the whole script
STEPS, PROMPTS = 2, 48

pytestmark = TRAINING_RUN


@pytest.fixture(scope="module")
def run(tmp_path_factory, small) -> Path:
    """`run_cpu.sh` by itself: it measures, calibrates and trains for two steps of two updates."""
    folder = tmp_path_factory.mktemp("paper")
    (folder / "classes").mkdir()
    train(
        "semantic_curriculum/run_cpu.sh",
        folder,
        small,
        LIMIT,
        ["actor_rollout_ref.actor.ppo_mini_batch_size=4"],
        PRESET="sent_paper",
        SCORES=str(folder / "scores.parquet"),
        PROMPTS=str(PROMPTS),
        NGPUS_PER_NODE="2",
        TRAIN_BATCH_SIZE="8",
        ROLLOUT_N="8",
        STEPS=str(STEPS),
        SAVE_FREQ="-1",
        VERL_USE_EXTERNAL_MODULES="record_thresholds",
        RECIPE_TEST_CLASSES=str(folder / "classes"),
    )
    return folder


def steps_of(run: Path) -> list[dict]:
    lines = (run / "run/metrics/000.jsonl").read_text().splitlines()
    rows = {row["step"]: row["data"] for row in map(json.loads, lines)}
    return [rows[step] for step in range(1, STEPS + 1)]


def thresholds_of(run: Path) -> tuple[float, float]:
    lines = (run / "scores_thresholds.txt").read_text().splitlines()
    return tuple(float(line.partition("=")[2]) for line in lines)


def batches_of(run: Path) -> list[list[dict]]:
    """The micro-batches of each step, those of both ranks, which were told the same means."""
    by_means: dict[tuple, list[dict]] = {}
    for rank in (0, 1):
        for line in (run / f"classes/{rank}.jsonl").read_text().splitlines():
            row = json.loads(line)
            by_means.setdefault(tuple(row["means"]), []).append(row)
    return list(by_means.values())


def test_the_means_are_those_of_the_whole_batch_on_both_ranks(run):
    """Each token of a step is in one of its updates, on one rank: together they are the batch."""
    batches = batches_of(run)
    assert len(batches) == STEPS
    for batch in batches:
        assert len(batch) >= 2 * 2  # ranks and updates
        for place, name in enumerate(("log_prob", "advantage")):
            values = np.concatenate([row[name] for row in batch])
            assert batch[0]["means"][place] == pytest.approx(values.mean(), rel=1e-9, abs=1e-9)
            parts = [np.mean(row[name]) for row in batch if row[name]]
            assert np.ptp(parts) > 0 or name == "advantage"  # no part has the mean of the whole


def test_the_classes_are_those_of_the_thresholds(run):
    tau_H, tau_cov = thresholds_of(run)
    for batch in batches_of(run):
        for row in batch:
            log_prob, advantage = (np.float32(row[name]) for name in ("log_prob", "advantage"))
            means = np.float32(row["means"])
            low = np.float32(row["entropy"]) < np.float32(tau_H)
            high = low & ((log_prob - means[0]) * (advantage - means[1]) > np.float32(tau_cov))
            expected = {
                "unselected": int((~low).sum()),
                "rest": int((low & ~high).sum()),
                "high_cov": int(high.sum()),
            }
            assert row["counts"] == expected


def test_the_constrained_share_is_logged_and_begins_where_it_was_calibrated(run):
    """At 80 % of the tokens of the measured responses; the first step's are of other draws."""
    first, last = steps_of(run)
    for row in (first, last):
        share = row["sent/rest/token_share"] + row["sent/high_cov/token_share"]
        assert row["sent/constrained_share"] == pytest.approx(share)
        assert share + row["sent/unselected/token_share"] == pytest.approx(1)
        assert row["sent/rest/entropy"] < thresholds_of(run)[0] < row["sent/unselected/entropy"]
    assert first["sent/constrained_share"] == pytest.approx(0.8, abs=0.1)
    assert last["sent/rest/kl"] > 0  # the policy has left its reference
    assert first["curriculum/stage"] == 1


def test_the_run_says_what_it_was_given(run):
    """A mean over a response's tokens, then over responses; clipped; no KL but the rule's."""
    log = (run / "run/log.txt").read_text()
    assert "aggregation seq-mean-token-mean" in log
    assert "'cov_mean_over': 'all'" in log and f"'low_threshold': {thresholds_of(run)[0]}" in log
