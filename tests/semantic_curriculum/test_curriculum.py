"""The curriculum's plan, how verl's dataloader gives it and goes on with it, and its settings."""

import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torchdata")

from collections import Counter

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchdata.stateful_dataloader import StatefulDataLoader

from recipe.sampling.prompts import prompt_id
from recipe.semantic_curriculum import scores
from recipe.semantic_curriculum.config import CurriculumConfig
from recipe.semantic_curriculum.curriculum import (
    make_plan,
    plan_of,
    stages_by_quantile,
    steps_of_plan,
)


def settings_of(**values) -> CurriculumConfig:
    return CurriculumConfig(**{"order": "semantic_entropy", "scores": "some.parquet", **values})


def score(prompts=60, seed=0):
    """Few values, as the entropies of eight answers are, so that there are ties."""
    return np.random.default_rng(seed).integers(0, 9, prompts) / 4


def test_three_stages_two_epochs():
    """Each prompt exactly twice, in its stage, and the stages in order."""
    score_N = score(61)
    plan = plan_of(score_N, settings_of(stages=3, epochs_per_stage=2))
    assert Counter(plan.prompt_D.tolist()) == dict.fromkeys(range(61), 2)
    assert plan.stage_D.tolist() == [0] * 42 + [1] * 40 + [2] * 40
    assert np.array_equal(plan.stage_N[plan.prompt_D], plan.stage_D)
    highest = [score_N[plan.stage_N == s].max() for s in range(3)]
    lowest = [score_N[plan.stage_N == s].min() for s in range(3)]
    assert highest[0] <= lowest[1] and highest[1] <= lowest[2]
    for start, end in ((0, 21), (21, 42), (42, 62), (62, 82), (82, 102), (102, 122)):
        assert len(set(plan.prompt_D[start:end])) == end - start  # an epoch repeats nothing


def test_the_order_is_the_seeds():
    one, same = (plan_of(score(), settings_of(seed=3)).prompt_D for _ in range(2))
    other = plan_of(score(), settings_of(seed=4)).prompt_D
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_without_shuffling_an_epoch_rises():
    score_N = score()
    plan = plan_of(score_N, settings_of(shuffle=False, epochs_per_stage=1))
    assert (np.diff(score_N[plan.prompt_D]) >= 0).all()


def test_thresholds_split_where_they_say():
    score_N = np.array([0.0, 2.0, 1.99, 3.0, 0.5])
    plan = plan_of(score_N, settings_of(split="threshold", thresholds=(2.0,)))
    assert plan.stage_N.tolist() == [0, 1, 0, 1, 0]


def test_the_control_arms():
    table = pd.DataFrame({"semantic_entropy": [0.0, 1.0, 2.0, 0.5], "pass_rate": [0, 0.9, 0.5, 1]})
    easy_first = {
        order: plan_of(
            scores.score_of(table, order), settings_of(order=order, shuffle=False)
        ).stage_N.tolist()
        for order in ("semantic_entropy", "reversed", "pass_rate", "shuffled")
    }
    assert easy_first["semantic_entropy"] == [0, 1, 1, 0]
    assert easy_first["reversed"] == [1, 0, 0, 1]
    assert easy_first["pass_rate"] == [1, 0, 1, 0]
    ordered, shuffled = (
        plan_of(score(), settings_of(order=order)) for order in ("semantic_entropy", "shuffled")
    )
    assert Counter(shuffled.prompt_D.tolist()) == Counter(ordered.prompt_D.tolist())
    assert not np.array_equal(shuffled.stage_N[shuffled.prompt_D], shuffled.stage_D)


def test_one_stage_alone_is_the_same_part_of_the_whole():
    whole = plan_of(score(), settings_of(stages=3))
    parts = [plan_of(score(), settings_of(stages=3, only_stage=s)).prompt_D for s in (1, 2, 3)]
    assert np.array_equal(np.concatenate(parts), whole.prompt_D)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(2, 80),
    st.integers(1, 4),
    st.integers(1, 3),
    st.floats(0, 0.7),
    st.booleans(),
    st.integers(0, 5),
)
def test_every_prompt_of_a_stage_comes_once_an_epoch(n, stages, epochs, replay, shuffle, seed):
    stages = min(stages, n)
    rng = np.random.default_rng(seed)
    score_N = rng.integers(0, 4, n).astype(float)
    stage_N = stages_by_quantile(score_N, stages, rng)
    sizes = np.bincount(stage_N)
    assert sizes.max() - sizes.min() <= 1
    plan = make_plan(score_N, stage_N, epochs=epochs, replay=replay, shuffle=shuffle, rng=rng)
    assert (np.diff(plan.stage_D) >= 0).all()
    for stage in range(stages):
        drawn = plan.prompt_D[plan.stage_D == stage]
        own = drawn[stage_N[drawn] == stage]
        assert Counter(own.tolist()) == dict.fromkeys(np.flatnonzero(stage_N == stage), epochs)
        again = round(sizes[stage] * replay / (1 - replay)) if stage else 0
        assert len(drawn) == epochs * (sizes[stage] + again)
        assert (stage_N[drawn] <= stage).all()
        old = Counter(drawn[stage_N[drawn] < stage].tolist())
        if old and again <= (stage_N < stage).sum():
            assert max(old.values()) <= epochs  # at most once an epoch


# ---- as verl's dataloader gives it ------------------------------------------------------------


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 60

    def __getitem__(self, index):
        return index


def loader(workers: int) -> StatefulDataLoader:
    plan = plan_of(score(), settings_of(stages=3, epochs_per_stage=2, replay=0.2))
    return StatefulDataLoader(
        Rows(), batch_size=8, num_workers=workers, drop_last=True, sampler=plan.prompt_D.tolist()
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_goes_on_exactly_after_any_step(workers):
    whole = [batch.tolist() for batch in loader(workers)]
    plan = plan_of(score(), settings_of(stages=3, epochs_per_stage=2, replay=0.2))
    assert [i for batch in whole for i in batch] == plan.prompt_D[: 8 * len(whole)].tolist()
    first = loader(workers)
    iterator, states = iter(first), []
    for _ in whole:
        next(iterator)
        states.append(first.state_dict())
    for step in range(0, len(whole), 1 if workers == 0 else 5):
        resumed = loader(workers)
        resumed.load_state_dict(states[step])
        assert [batch.tolist() for batch in resumed] == whole[step + 1 :]


PROGRAM = """
import os, signal, sys, torch
from test_curriculum import loader
folder, workers, die_at = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
made = loader(workers)
if os.path.exists(folder + "/state.pt"):
    made.load_state_dict(torch.load(folder + "/state.pt", weights_only=False))
with open(folder + "/seen.txt", "a") as seen:
    for step, batch in enumerate(made, 1):
        seen.write(" ".join(map(str, batch.tolist())) + "\\n")
        seen.flush()
        torch.save(made.state_dict(), folder + "/state.tmp")
        os.replace(folder + "/state.tmp", folder + "/state.pt")
        if step == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_twice_the_order_is_the_same(workers, tmp_path):
    here = os.path.dirname(os.path.abspath(__file__))
    for die_at, code in ((3, -signal.SIGKILL), (6, -signal.SIGKILL), (0, 0)):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, tmp_path, str(workers), str(die_at)], cwd=here
        )
        assert done.returncode == code
    seen = [[int(i) for i in line.split()] for line in (tmp_path / "seen.txt").open()]
    assert seen == [batch.tolist() for batch in loader(0)]


# ---- settings and scores ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"order": "semantic"}, "did you mean semantic_entropy"),
        ({"scores": None}, "needs a score for each prompt"),
        ({"stages": 0}, "above 0"),
        ({"stages": 2.5}, "whole number"),
        ({"epochs_per_stage": 0}, "above 0"),
        ({"replay": 1.0}, "below 1"),
        ({"split": "half"}, "quantile, threshold"),
        ({"split": "threshold"}, "give 1 rising numbers"),
        ({"split": "threshold", "stages": 3, "thresholds": (2, 1)}, "give 2 rising numbers"),
        ({"thresholds": (1.0,)}, "give 0 rising numbers"),
        ({"only_stage": 3}, "from 1 to stages=2"),
        ({"only_stage": 1, "order": "none"}, "only_stage=1 has no effect with order=none"),
        ({"seed": -1}, "from 0 up"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_sentence(wrong, said):
    with pytest.raises(ValueError, match=said) as error:
        settings_of(**wrong)
    assert "data.curriculum" in str(error.value)


def test_an_unknown_setting_is_refused():
    with pytest.raises(ValueError, match=r"data\.curriculum\.stage .*did you mean stages"):
        CurriculumConfig.from_mapping({"stage": 2})


def test_a_plan_without_a_step_is_refused():
    """verl would divide by its number of steps, after Ray's start."""
    assert steps_of_plan(16, 8, None) == 2
    with pytest.raises(ValueError, match=r"has 7 prompts, less than data\.train_batch_size=8, so"):
        steps_of_plan(7, 8, None)


def test_an_empty_stage_is_refused():
    with pytest.raises(ValueError, match="stage 2 of 2 has no prompt"):
        plan_of(score(), settings_of(split="threshold", thresholds=(99.0,)))


def prompt(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def test_scores_are_found_by_what_the_prompt_says(tmp_path):
    ids = [prompt_id(prompt(text)) for text in "abc"]
    file = tmp_path / "scores.parquet"
    pd.DataFrame(
        {"prompt_id": ids, "semantic_entropy": [0.0, 1, 2], "pass_rate": [1.0, 0, 0]}
    ).to_parquet(file)
    table = scores.read_scores(file)
    rows = scores.rows_of(table, [ids[2], ids[0], ids[2]], file)
    assert rows["semantic_entropy"].tolist() == [2, 0, 2]
    with pytest.raises(ValueError, match="no score for 1 of the 2 training prompts"):
        scores.rows_of(table, [ids[0], prompt_id(prompt("d"))], file)
    table.loc[ids[1], "pass_rate"] = None  # a table of one's own
    with pytest.raises(ValueError, match="no score for 1 of the 3 training prompts"):
        scores.rows_of(table, ids, file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is no file"),
        (b"no parquet", "is not a parquet file"),
        (b"", "is not a parquet file"),
        ({"prompt_id": ["a"], "semantic_entropy": [0.0]}, "lacks the column pass_rate"),
    ],
)
def test_a_bad_score_file_is_refused_in_one_sentence(content, said, tmp_path):
    file = tmp_path / "scores.parquet"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content:
        pd.DataFrame(content).to_parquet(file)
    with pytest.raises((ValueError, FileNotFoundError), match=said) as error:
        scores.read_scores(file)
    assert "data.curriculum.scores" in str(error.value)
    assert "recipe.semantic_curriculum.measure" in str(error.value)
