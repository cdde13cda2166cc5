"""The runs of a comparison as numbers: curves over seeds, final results with paired differences,
differences of configs, time and tokens. `recipe.report` shows them.

OUT is the folder of `recipe.compare`: matrix.yaml and <arm>/seed<k>/, whose files
`recipe.experiment.run` lists. Any of a run's files may be missing.

Axes: S seeds (runs of one arm), P problems, N samples of a problem.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from recipe.experiment import provenance
from recipe.experiment.matrix import Arm
from recipe.experiment.run import Run
from recipe.experiment.statistics import Estimate, interval, pass_at_k

HELD_OUT = "val-core/*/mean@*"
LAST = 5  # "final entropy" is the mean of that many last steps


class Metric(NamedTuple):
    """Final values: {arm: {seed: values_P}}; P = 1 for a number a run."""

    group: str  # a benchmark, or "training"
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
    def apart(self) -> bool:
        """The difference's interval leaves zero out, and speaks of more than one seed."""
        d = self.difference
        return d is not None and self.paired_seeds > 1 and not d.low <= 0 <= d.high


# curves


def number(value: Any) -> float | None:
    """A finite float, else None: NaN is written as null by verl's logger."""
    return float(value) if isinstance(value, int | float) and isfinite(value) else None


def curve(run: Run, metric: str) -> dict[int, float]:
    """{step: value}; steps without a finite value are left out."""
    points = {step: number(row[metric]) for step, row in run.steps.items() if metric in row}
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


def final_metrics(runs: Iterable[Run], evaluations: Mapping) -> list[Metric]:
    """Of finished runs. avg@n and pass@k for k = 2, 4, ... n / 2: pass@k needs more samples than k
    to say anything of a problem but yes or no."""
    metrics = []
    for benchmark, by_arm in evaluations.items():
        n = min(right.shape[1] for some in by_arm.values() for right in some.values())
        for k in [1, *(2**i for i in range(1, n.bit_length()) if 2**i <= n // 2)]:
            name = f"avg@{n}" if k == 1 else f"pass@{k}"
            values = {
                arm: {s: pass_at_k(r.sum(1), r.shape[1], k) for s, r in sorted(some.items())}
                for arm, some in by_arm.items()
            }
            metrics.append(Metric(benchmark, name, values))
    runs = list(runs)
    logged = {name for run in runs for row in run.steps.values() for name in row}
    held_out = sorted(name for name in logged if fnmatchcase(name, HELD_OUT))
    for title, metric, last in [
        *((f"last {name.removeprefix('val-core/')}", name, 1) for name in held_out),
        ("final entropy", "actor/entropy", LAST),
    ]:
        values: dict[str, dict[int, np.ndarray]] = {}
        for run in runs:
            if points := list(curve(run, metric).values())[-last:]:
                values.setdefault(run.arm, {})[run.seed] = np.array([np.mean(points)])
        if values:
            metrics.append(Metric("training", title, values))
    return metrics


def results(metrics: Iterable[Metric], arms: Sequence[Arm], baseline: str) -> list[Result]:
    """Every metric of every arm with its paired difference to the baseline (same seeds, same
    problems)."""
    found = []
    for group, name, values in metrics:
        base = values.get(baseline, {})
        for arm in arms:
            own = values.get(arm.name, {})
            shared = sorted(own.keys() & base.keys()) if arm.name != baseline else []
            problems = max((len(v) for v in own.values()), default=0)
            estimate = interval([own[s] for s in sorted(own)]) if own else None
            difference = interval([own[s] - base[s] for s in shared]) if shared else None
            row = (arm.name, group, name, len(own), problems, estimate, len(shared), difference)
            found.append(Result(*row))
    return found


def spreads(metrics: Iterable[Metric], twins: Iterable[Sequence[str]]) -> list[dict[str, Any]]:
    """Standard deviations of a run's value: between reruns of one seed (arms of one config), and
    between the seeds of one such arm. Pooled: sqrt(sum of squares / degrees of freedom)."""

    def pooled(samples: Iterable[Sequence[float]]) -> tuple[float | None, int]:
        samples = [sample for sample in samples if len(sample) > 1]
        freedom = sum(len(sample) - 1 for sample in samples)
        squares = sum(np.var(sample) * len(sample) for sample in samples)
        return (float(np.sqrt(squares / freedom)) if freedom else None), freedom

    found = []
    for names in twins:
        for group, metric, values in metrics:
            one = {a: {s: v.mean() for s, v in values.get(a, {}).items()} for a in names}
            seeds = sorted({seed for some in one.values() for seed in some})
            rerun, rerun_freedom = pooled(
                [some[seed] for some in one.values() if seed in some] for seed in seeds
            )
            between, seed_freedom = pooled(list(some.values()) for some in one.values())
            row = {"arms": " = ".join(names), "group": group, "metric": metric}
            row |= {"rerun_sd": rerun, "rerun_df": rerun_freedom}
            found.append(row | {"seed_sd": between, "seed_df": seed_freedom})
    return found


# configs


def text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def settings(record: Mapping[str, Any]) -> dict[str, str]:
    """A start's resolved config, without names and folders of the run; files by content."""
    found = provenance.config_identity(record) if record.get("config") else {}
    return {key: text(value) for key, value in found.items() if not key.startswith("package ")}


def differing(named: Mapping[Any, Mapping[str, str]]) -> dict[str, dict[Any, str]]:
    """{key: {name: value}} of the keys whose values are not all the same."""
    keys = sorted(set().union(*named.values()))
    table = {key: {n: some.get(key, "(absent)") for n, some in named.items()} for key in keys}
    return {key: row for key, row in table.items() if len(set(row.values())) > 1}


def identical(configs: Mapping[str, Mapping[int, Mapping]], a: str, b: str) -> bool:
    shared = configs[a].keys() & configs[b].keys()
    return bool(shared) and all(configs[a][seed] == configs[b][seed] for seed in shared)


def twin_arms(configs: Mapping[str, Mapping[int, Mapping]]) -> list[list[str]]:
    """Groups of arms whose configs are the same at every seed that they share."""
    groups: list[list[str]] = []
    for name in configs:
        home = next((group for group in groups if identical(configs, group[0], name)), None)
        if home is None:
            groups.append([name])
        else:
            home.append(name)
    return [group for group in groups if len(group) > 1]


# what a reader has to know first


def checks(runs: Sequence[Run], status: Mapping[str, str], metrics: Sequence[str]) -> list[str]:
    """Sentences on what is incomplete or not alike."""
    found = []
    for what, names in {
        "missing": [run.name for run in runs if status[run.name] == "missing"],
        "unfinished": [run.name for run in runs if status[run.name] == "unfinished"],
        "without a record of command and config": [
            run.name for run in runs if run.steps and not run.record.get("config")
        ],
    }.items():
        if names:
            listed = f": {', '.join(names)}" if len(names) < len(runs) else ""
            found.append(f"{len(names)} of {len(runs)} runs are {what}{listed}.")
    commits = {run.record["commit"] for run in runs if run.record.get("commit")}
    if len(commits) > 1:
        found.append(f"The runs are of {len(commits)} commits: {', '.join(sorted(commits))}.")
    if any(commit.endswith("-dirty") or commit == "unknown" for commit in commits):
        found.append("Some runs are of code that no commit holds (-dirty or unknown).")
    packages = {run.name: run.record.get("packages") or {} for run in runs if run.record}
    for key, row in differing(packages).items():
        found.append(f"Package {key} differs: {', '.join(sorted(set(row.values())))}.")
    for arm in dict.fromkeys(run.arm for run in runs):
        own = {run.seed: settings(run.record) for run in runs if run.arm == arm and run.record}
        for key, row in differing(own).items():
            if "seed" not in key.rpartition(".")[2]:
                values = ", ".join(f"seed {seed}: {value}" for seed, value in row.items())
                found.append(f"{arm}: its seeds differ in {key} ({values}).")
    for run in runs:
        for metric in metrics:
            rows = {s: row[metric] for s, row in run.steps.items() if metric in row}
            if bad := [step for step, value in rows.items() if number(value) is None]:
                shown = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
                found.append(f"{run.name}: {metric} is no finite number at step {shown}.")
    return found


def costs(arms: Sequence[Arm], runs: Sequence[Run], status: Mapping[str, str]) -> list[dict]:
    """Time and tokens an arm, from verl's timing_s/step and perf/total_num_tokens."""
    rows = []
    for arm in arms:
        own = [run for run in runs if run.arm == arm.name and run.steps]
        done = [run for run in own if status[run.name] == "finished"]
        seconds = {run.name: curve(run, "timing_s/step") for run in own}
        tokens = {run.name: curve(run, "perf/total_num_tokens") for run in own}
        steps = [s for points in seconds.values() for s in points.values()]

        def mean_total(points, done=done):
            totals = [sum(points[run.name].values()) for run in done if points[run.name]]
            return float(np.mean(totals)) if totals else None

        hours = mean_total(seconds)
        rows.append(
            {
                "arm": arm.name,
                "finished_runs": len(done),
                "steps": sum(len(run.steps.keys() - {0}) for run in own),
                "hours_a_run": None if hours is None else hours / 3600,
                "seconds_a_step_median": float(np.median(steps)) if steps else None,
                "tokens_a_run": mean_total(tokens),
                "tokens_a_second": sum(t for p in tokens.values() for t in p.values()) / sum(steps)
                if sum(steps)
                else None,
            }
        )
    return rows
