"""The order in which SENT's curriculum shows the prompts (arXiv 2512.04359, method figure).

    D = D_1, D_2, ..., D_n by semantic entropy, low to high; trained on one after another

A plan is the whole sequence of draws, a pure function of the scores and the seed: nothing about it
needs to be in a checkpoint but how many draws are done, which verl's dataloader keeps. Axes: N
prompts of the dataset, D draws.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from recipe.semantic_curriculum.config import CURRICULUM, CurriculumConfig
from recipe.semantic_curriculum.scores import read_scores, rows_of, score_of


class Plan(NamedTuple):
    """The whole sequence of draws."""

    prompt_D: np.ndarray  # index into the dataset
    stage_D: np.ndarray  # 0 .. stages - 1; non-decreasing
    stage_N: np.ndarray  # of each prompt

    def stage_at(self, draw: int) -> int:
        """Returns the stage of a draw, which may be one of `Draws` after the plan's end."""
        return int(self.stage_D[min(draw, len(self.stage_D) - 1)])

    def digest(self) -> str:
        """Returns a name of the draws: a checkpoint of the dataloader belongs to one plan."""
        return hashlib.sha256(self.prompt_D.astype("<i8").tobytes()).hexdigest()


class Draws:
    """The draws of a plan; after its end those of its last stage again and again, in their order.

    For a run that may draw more prompts than its steps have: verl replaces groups without signal.
    """

    def __init__(self, plan: Plan):
        self.plan = plan

    def __iter__(self) -> Iterator[int]:
        prompt_D, stage_D = self.plan.prompt_D, self.plan.stage_D
        last_stage = prompt_D[stage_D == stage_D[-1]].tolist()
        return itertools.chain(prompt_D.tolist(), itertools.cycle(last_stage))


class Curriculum(NamedTuple):
    """A plan, and what was measured of its prompts beforehand."""

    plan: Plan
    prompts: pd.DataFrame  # a row per row of the data: stage (1 …), semantic_entropy, pass_rate


def stages_by_quantile(score_N: np.ndarray, stages: int, rng: np.random.Generator) -> np.ndarray:
    """(N,) stage of each prompt: stages of equal size (the first ones larger by one where they
    cannot be), lowest scores first; a tie at a border is broken at random."""
    order = np.lexsort((rng.permutation(len(score_N)), score_N))
    stage_N = np.empty(len(score_N), dtype=np.int64)
    for stage, members in enumerate(np.array_split(order, stages)):
        stage_N[members] = stage
    return stage_N


def stages_by_threshold(score_N: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """(N,) stage of each prompt: stage s holds thresholds[s - 1] <= score < thresholds[s]."""
    return np.searchsorted(np.asarray(thresholds, dtype=np.float64), score_N, side="right")


def make_plan(
    score_N: np.ndarray,
    stage_N: np.ndarray,
    *,
    epochs: int,
    shuffle: bool = True,
    replay: float = 0.0,
    rng: np.random.Generator,
) -> Plan:
    """Each stage `epochs` times over.

    Within an epoch the order is random, or with shuffle=False that of the scores. `replay`: the
    share of an epoch's draws that are prompts of earlier stages, drawn anew in each epoch, none
    twice before all have come, and spread over it at random.
    """
    prompts, stages = [], []
    for stage in range(int(stage_N.max()) + 1):
        members = np.flatnonzero(stage_N == stage)
        earlier = np.flatnonzero(stage_N < stage)
        again = round(len(members) * replay / (1 - replay)) if len(earlier) else 0
        for _ in range(epochs):
            if shuffle:
                epoch = rng.permutation(members)
            else:
                epoch = members[np.argsort(score_N[members], kind="stable")]
            if again:
                rounds = -(-again // len(earlier))
                old = np.concatenate([rng.permutation(earlier) for _ in range(rounds)])[:again]
                is_old = np.zeros(len(epoch) + again, dtype=bool)
                is_old[rng.choice(len(is_old), size=again, replace=False)] = True
                mixed = np.empty(len(is_old), dtype=np.int64)
                mixed[is_old], mixed[~is_old] = old, epoch
                epoch = mixed
            prompts.append(epoch)
            stages.append(np.full(len(epoch), stage))
    return Plan(np.concatenate(prompts), np.concatenate(stages), stage_N)


def plan_of(score_N: np.ndarray, settings: CurriculumConfig) -> Plan:
    """The plan of `data.curriculum` for prompts of these scores (`scores.score_of`).

    Raises ValueError where a stage has no prompt.
    """
    rng = np.random.default_rng(settings.seed)
    if settings.split == "quantile":
        stage_N = stages_by_quantile(score_N, settings.stages, rng)
    else:
        stage_N = stages_by_threshold(score_N, settings.thresholds)
    count_S = np.bincount(stage_N, minlength=settings.stages)
    if not count_S.all():
        raise ValueError(
            f"data.curriculum: stage {int(np.argmin(count_S)) + 1} of {settings.stages} has no "
            f"prompt (split={settings.split}, thresholds={list(settings.thresholds)}, scores from "
            f"{score_N.min():.3f} to {score_N.max():.3f} of {len(score_N)} prompts): use other "
            "thresholds or fewer stages."
        )
    plan = make_plan(
        score_N,
        stage_N,
        epochs=settings.epochs_per_stage,
        shuffle=settings.shuffle,
        replay=settings.replay,
        rng=rng,
    )
    if settings.order == "shuffled":  # the same draws, each prompt as often
        plan = plan._replace(prompt_D=rng.permutation(plan.prompt_D))
    if settings.only_stage is not None:
        chosen_D = plan.stage_D == settings.only_stage - 1
        plan = plan._replace(prompt_D=plan.prompt_D[chosen_D], stage_D=plan.stage_D[chosen_D])
    return plan


def curriculum_for(prompt_ids: Sequence[str], settings: CurriculumConfig) -> Curriculum:
    """Makes the curriculum of `data.curriculum` for the prompts of a dataset.

    Args:
        prompt_ids: Of each row of the training data (`sampling.prompts.prompt_id`).
        settings: With an order other than none.

    Raises:
        ValueError, FileNotFoundError: For scores that are missing or of other prompts, or a stage
            without a prompt.
    """
    assert settings.scores is not None  # CurriculumConfig requires it for an order
    rows = rows_of(read_scores(settings.scores), prompt_ids, settings.scores)
    plan = plan_of(score_of(rows, settings.order), settings)
    rows["stage"] = plan.stage_N + 1
    return Curriculum(plan, rows)


def steps_of_plan(
    draws: int, batch_size: int, total_steps: int | None, replaces: bool = False
) -> int:
    """Returns how many training steps a plan is: at most `trainer.total_training_steps`.

    A last batch that is not full is left out, as verl leaves it out. Where groups are replaced, the
    plan's draws are over sooner and its last stage continues (`Draws`): the run then has as many
    steps as `trainer.total_training_steps` says, or as it would have without replacing.

    Args:
        draws: Prompts of the plan.
        batch_size: `data.train_batch_size`.
        replaces: Whether a step may draw more prompts than that.
        total_steps: `trainer.total_training_steps`; None: the whole plan.

    Raises:
        ValueError: If the plan is shorter than `total_steps`, or than a step.
    """
    steps = draws // batch_size
    if total_steps is None:
        if not steps:
            raise ValueError(
                f"the curriculum has {draws} prompts, less than data.train_batch_size={batch_size},"
                f" so that it has no step: use fewer {CURRICULUM}.stages, more epochs_per_stage, "
                "or a smaller batch."
            )
        return steps
    if total_steps > steps and not replaces:
        raise ValueError(
            f"trainer.total_training_steps={total_steps} is more than the {steps} steps of the "
            f"curriculum ({draws} prompts in batches of {batch_size}): raise "
            f"{CURRICULUM}.epochs_per_stage, or leave it null to train for the whole curriculum."
        )
    return total_steps
