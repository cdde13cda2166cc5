"""Which problems one method solves and another does not.

Axes: S seeds, P problems, N samples per problem.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from recipe.experiment.evaluation import Problems, read_evaluation
from recipe.experiment.run import Run
from recipe.experiment.statistics import Estimate, interval
from recipe.report.results import Evaluations
from recipe.sampling.prompts import read_prompts

SHOWN = 20  # problems of a list in the page; data/solved.csv has all


class Solved(NamedTuple):
    """A problem that one of two methods solves: more than half of its samples are correct there."""

    benchmark: str
    arm: str  # the method that is compared with the baseline
    solver: str  # that method, or the baseline
    index: int  # row of the problem in the benchmark
    prompt_id: str
    seeds: int  # that both have
    samples: int  # per seed: the first ones, of each as many as the seed with the fewest has
    correct: int  # of the method's seeds x samples
    baseline_correct: int
    difference: Estimate  # of the pass rates, over the seeds; without width at one seed


def solved_by_one(
    correct: Evaluations, problems: Mapping[str, Problems], arms: Sequence[str], baseline: str
) -> list[Solved]:
    """Returns the problems that a method solves and the baseline does not, and the reverse.

    Both are judged on the seeds that both have. The interval is Student's t over the seeds'
    differences: each problem's own, so of many some exclude zero by chance.

    Args:
        correct: {benchmark: {arm: {seed: (P, N) bool}}}.
        problems: Of each benchmark, in the order of the values.
        arms: Methods, the baseline possibly among them.
        baseline: The method that each is compared with.

    Returns:
        By benchmark and arm: first what the arm solves, then what the baseline does, the largest
        difference first.
    """
    rows: list[Solved] = []
    for benchmark, by_arm in correct.items():
        for arm in arms:
            seeds = sorted(by_arm.get(arm, {}).keys() & by_arm.get(baseline, {}).keys())
            if arm == baseline or not seeds:
                continue
            arm_SPN, base_SPN = ([by_arm[name][seed] for seed in seeds] for name in (arm, baseline))
            samples = min(x.shape[1] for x in (*arm_SPN, *base_SPN))
            arm_SP, base_SP = (
                np.stack([x[:, :samples].sum(1) for x in y]) for y in (arm_SPN, base_SPN)
            )
            solves_P, base_solves_P = (
                2 * x.sum(0) > len(seeds) * samples for x in (arm_SP, base_SP)
            )
            for solver, member_P in (
                (arm, solves_P & ~base_solves_P),
                (baseline, base_solves_P & ~solves_P),
            ):
                solved = [
                    Solved(
                        benchmark,
                        arm,
                        solver,
                        *problems[benchmark][p],
                        seeds=len(seeds),
                        samples=samples,
                        correct=int(arm_SP[:, p].sum()),
                        baseline_correct=int(base_SP[:, p].sum()),
                        difference=interval((arm_SP - base_SP)[:, [p]] / samples),
                    )
                    for p in np.flatnonzero(member_P)
                ]
                rows += sorted(solved, key=lambda row: (-abs(row.difference.mean), row.index))
    return rows


def read_problems(
    runs: Iterable[Run], correct: Evaluations
) -> tuple[dict[str, Problems], dict[str, str]]:
    """Reads which problems the values of each benchmark are of, and their texts.

    Returns:
        {benchmark: problems}, and {prompt_id: text}; a text is missing where the benchmark's file
        is no longer where the evaluation has found it.
    """
    problems: dict[str, Problems] = {}
    texts: dict[str, str] = {}
    for run in runs:
        for benchmark, by_arm in correct.items():
            if benchmark in problems or run.seed not in by_arm.get(run.arm, {}):
                continue
            table = run.folder.evaluation / f"{benchmark}.parquet"
            problems[benchmark] = read_evaluation(table)[0]
            texts |= prompt_texts(table.with_suffix(".json"))
    return problems, texts


def prompt_texts(record: Path) -> dict[str, str]:
    """Returns {prompt_id: what the user asks} of the benchmark that an evaluation's record names;
    {} where there is no such file any more."""
    try:
        benchmark = Path(json.loads(record.read_text())["benchmark"])
        prompts = read_prompts([benchmark], judged=False)
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {
        name: " ".join(str(m["content"]) for m in messages if m["role"] == "user")
        for name, messages in zip(prompts["prompt_id"], prompts["prompt"], strict=True)
    }
