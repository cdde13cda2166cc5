"""The runs of a comparison as numbers: curves over seeds, final results with paired differences,
time and tokens. `recipe.report` shows them.

A final metric is one entry of FINAL_METRICS.

Axes: S seeds (runs of one arm), P problems, N samples per problem.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np

from recipe.experiment.matrix import Arm
from recipe.experiment.metrics import ENTROPY, TIMES, shared_metric
from recipe.experiment.run import Run
from recipe.experiment.statistics import Estimate, finite, interval, pass_at_k, pooled_sd

HELD_OUT = "val-core/*/mean@*"
TOKENS = "perf/total_num_tokens"
LAST = 5  # "final entropy" is the mean of that many last steps


# {benchmark: {arm: {seed: values_PN}}} of one column of the evaluated responses
Evaluations = Mapping[str, Mapping[str, Mapping[int, np.ndarray]]]


class FinalMetric(NamedTuple):
    """A number per problem of a run, computed from one column of its evaluated responses."""

    name: str  # {n} stands for the number of samples per problem
    column: str  # of recipe.experiment.evaluation.COLUMNS
    of_problems: Callable[[np.ndarray], np.ndarray]  # (P, N) values of the column -> (P,)
    samples: int = 1  # per problem, fewer than which it says nothing
    same_samples: bool = False  # whether runs with differing numbers of them cannot be compared


def _mean_of_samples(values_PN: np.ndarray) -> np.ndarray:
    return values_PN.mean(1)


def _pass_at(k: int) -> FinalMetric:
    def of_problems(correct_PN: np.ndarray) -> np.ndarray:
        return pass_at_k(correct_PN.sum(1), correct_PN.shape[1], k)

    # with fewer than 2k samples it says little more of a problem than yes or no
    return FinalMetric(f"pass@{k}", "correct", of_problems, samples=2 * k)


FINAL_METRICS = (
    FinalMetric("avg@{n}", "correct", _mean_of_samples),
    *(_pass_at(2**i) for i in range(1, 11)),
    # the same value in each of a problem's rows, by all of a run's samples
    FinalMetric(
        "majority@{n}", "majority_correct", lambda values_PN: values_PN[:, 0], same_samples=True
    ),
    FinalMetric("response length", "tokens", _mean_of_samples),
    FinalMetric("truncated share", "truncated", _mean_of_samples),
)
# (title, logged metric or pattern of several, number of last steps whose mean it is)
TRAINING_METRICS = (("last", HELD_OUT, 1), ("final entropy", ENTROPY, LAST))
TRAINING = "training"


class Metric(NamedTuple):
    """Final values: {arm: {seed: values_P}}; P = 1 for one number per run."""

    group: str  # a benchmark, or TRAINING
    name: str
    values: dict[str, dict[int, np.ndarray]]


class Result(NamedTuple):
    arm: str
    group: str
    metric: str
    seeds: int
    problems: int
    estimate: Estimate | None
    paired_seeds: int
    difference: Estimate | None  # to the baseline

    @property
    def has_interval(self) -> bool:
        return self.seeds > 1 or self.problems > 1

    @property
    def all_equal(self) -> bool:
        """Whether several seeds have the same difference: then its interval has no width, and says
        nothing of chance."""
        d = self.difference
        return d is not None and self.paired_seeds > 1 and d.low == d.high

    @property
    def excludes_zero(self) -> bool:
        """Whether the difference's interval leaves zero out, and speaks of more than one seed."""
        d = self.difference
        several = d is not None and self.paired_seeds > 1 and not self.all_equal
        return several and not d.low <= 0 <= d.high


# curves


def curve(run: Run, metric: str) -> dict[int, float]:
    """{step: value}; steps without a finite value are left out."""
    points = {step: finite(row[metric]) for step, row in run.steps.items() if metric in row}
    return {step: value for step, value in points.items() if value is not None}


def binned(points: Mapping[int, float], width: int) -> dict[int, float]:
    """Means over steps 1..width, width+1..2*width, ...; step 0 (before training) for itself."""
    bins: dict[int, list[float]] = {}
    for step, value in points.items():
        bins.setdefault((step - 1) // width, []).append(value)
    return {key: sum(values) / len(values) for key, values in sorted(bins.items())}


def band(curves: Sequence[Mapping[int, float]]) -> dict[int, tuple[int, float, float, float]]:
    """{step: (seeds, mean, lowest, highest)} over the runs that have logged the step."""
    result = {}
    for step in sorted(set().union(*curves)):
        values = [points[step] for points in curves if step in points]
        result[step] = (len(values), sum(values) / len(values), min(values), max(values))
    return result


# final results


def final_metrics(
    runs: Sequence[Run],
    evaluations: Mapping[str, Evaluations] | None = None,
    compared: Sequence[Run] | None = None,
) -> list[Metric]:
    """The final values of finished runs.

    Args:
        runs: finished ones.
        evaluations: {column: its values}; a metric whose column is missing is left out, and so is
            the majority of runs that do not share one number of samples.
        compared: the runs by which one of several metrics is taken; default: `runs`.

    Returns:
        FINAL_METRICS of each benchmark, then TRAINING_METRICS.
    """
    evaluations = evaluations or {}
    metrics = []
    for benchmark in dict.fromkeys(name for column in evaluations.values() for name in column):
        for name, column, of_problems, samples, same_samples in FINAL_METRICS:
            by_arm = evaluations.get(column, {}).get(benchmark)
            if not by_arm:
                continue
            counts = {values.shape[1] for by_seed in by_arm.values() for values in by_seed.values()}
            n = min(counts)
            if n < samples or (same_samples and len(counts) > 1):
                continue
            values = {
                arm: {
                    seed: np.asarray(of_problems(values_PN), np.float64)
                    for seed, values_PN in sorted(by_seed.items())
                }
                for arm, by_seed in by_arm.items()
            }
            metrics.append(Metric(benchmark, name.format(n=n), values))
    return metrics + _training_metrics(runs, runs if compared is None else compared)


def lacks_its_end(run: Run) -> bool:
    """Says whether a run was killed between its last checkpoint and the row of that step, which a
    resumed start that finds nothing to do does not log."""
    return run.last_step < run.folder.checkpoint_step()


def _training_metrics(runs: Sequence[Run], compared: Sequence[Run]) -> list[Metric]:
    logged = sorted(set().union(*(run.logged.names for run in runs)))
    metrics = []
    runs = [run for run in runs if not lacks_its_end(run)]
    for title, names, last in TRAINING_METRICS:
        shared = shared_metric({run.name: run.logged for run in compared}, names)
        pattern = shared.metric
        for name in (name for name in logged if fnmatchcase(name, pattern)):
            values: dict[str, dict[int, np.ndarray]] = {}
            for run in (run for run in runs if run.name not in shared.left_out):
                if points := list(curve(run, name).values())[-last:]:
                    values.setdefault(run.arm, {})[run.seed] = np.array([np.mean(points)])
            if values:
                which = "" if name == pattern else f" {name.removeprefix('val-core/')}"
                metrics.append(Metric(TRAINING, title + which, values))
    return metrics


def results(metrics: Iterable[Metric], arms: Sequence[Arm], baseline: str) -> list[Result]:
    """Every metric of every arm with its paired difference to the baseline (same seeds, same
    problems)."""
    rows = []
    for group, name, values in metrics:
        base = values.get(baseline, {})
        for arm in arms:
            by_seed = values.get(arm.name, {})
            shared = sorted(by_seed.keys() & base.keys()) if arm.name != baseline else []
            rows.append(
                Result(
                    arm=arm.name,
                    group=group,
                    metric=name,
                    seeds=len(by_seed),
                    problems=max((len(values_P) for values_P in by_seed.values()), default=0),
                    estimate=interval([by_seed[s] for s in sorted(by_seed)]) if by_seed else None,
                    paired_seeds=len(shared),
                    difference=interval([by_seed[s] - base[s] for s in shared]) if shared else None,
                )
            )
    return rows


def spreads(metrics: Iterable[Metric], identical: Iterable[Sequence[str]]) -> list[dict[str, Any]]:
    """Standard deviations of a run's value: between reruns of one seed (arms of one config), and
    between the seeds of one such arm. Pooled: sqrt(sum of squares / degrees of freedom)."""
    metrics = list(metrics)
    rows = []
    for names in identical:
        for group, metric, values in metrics:
            by_arm = {a: {s: v.mean() for s, v in values.get(a, {}).items()} for a in names}
            seeds = sorted({seed for by_seed in by_arm.values() for seed in by_seed})
            rerun, rerun_freedom = pooled_sd(
                [by_seed[seed] for by_seed in by_arm.values() if seed in by_seed] for seed in seeds
            )
            between, seed_freedom = pooled_sd(list(by_seed.values()) for by_seed in by_arm.values())
            row = {"arms": " = ".join(names), "group": group, "metric": metric}
            row |= {"rerun_sd": rerun, "rerun_df": rerun_freedom}
            rows.append(row | {"seed_sd": between, "seed_df": seed_freedom})
    return rows


def costs(
    arms: Sequence[Arm], runs: Sequence[Run], status: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Time and tokens per arm, from verl's TIMES and perf/total_num_tokens."""
    rows = []
    for arm in arms:
        started = [run for run in runs if run.arm == arm.name and run.steps]
        done = [run for run in started if status[run.name] == "finished"]
        tokens = [t for run in started for t in curve(run, TOKENS).values()]
        steps = [s for run in started for s in curve(run, TIMES[0]).values()]

        def mean_total(*names, done=done):
            values = [[x for name in names for x in curve(run, name).values()] for run in done]
            totals = [sum(of_run) for of_run in values if of_run]
            return float(np.mean(totals)) if totals else None

        hours = mean_total(*TIMES)
        rows.append(
            {
                "arm": arm.name,
                "finished_runs": len(done),
                "steps": sum(len(run.steps.keys() - {0}) for run in started),
                "hours_per_run": None if hours is None else hours / 3600,
                "seconds_per_step_median": float(np.median(steps)) if steps else None,
                "tokens_per_run": mean_total(TOKENS),
                "tokens_per_second": sum(tokens) / sum(steps) if sum(steps) else None,
            }
        )
    return rows
