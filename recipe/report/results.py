"""The runs of a comparison as numbers: curves over seeds, final results with paired differences,
differences of configs, time and tokens. `recipe.report` shows them.

OUT is the folder of `recipe.compare`: matrix.yaml and <arm>/seed<k>/ with metrics/ and, once
judged, evaluation/<benchmark>.parquet. Any of a run's files may be missing.

Axes: S seeds (runs of one arm), P problems, N samples of a problem.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

from recipe import plot
from recipe.core.settings import check_choice
from recipe.experiment import provenance
from recipe.experiment.statistics import Estimate, interval, pass_at_k

HELD_OUT = "val-core/*/mean@*"
LAST = 5  # "final entropy" is the mean of that many last steps
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Arm:
    name: str
    label: str
    declared: Mapping[str, Any]  # recipe, preset, overrides
    order: int  # 0 = the baseline, the others from 1


@dataclass(frozen=True)
class Run:
    arm: str
    seed: int
    steps: dict[int, dict[str, Any]] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)  # one a start
    log_end: str = ""

    @property
    def name(self) -> str:
        return f"{self.arm}/seed{self.seed}"

    @property
    def last_step(self) -> int:
        return max(self.steps, default=0)

    @property
    def record(self) -> dict[str, Any]:
        return self.records[-1] if self.records else {}

    def planned(self) -> int | None:
        return (self.record.get("config") or {}).get("trainer", {}).get("total_training_steps")


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


# reading


def read_matrix(out: Path, baseline: str | None = None) -> tuple[str, list[Arm], list[int]]:
    """Title, arms and seeds; `baseline` instead of the matrix's own."""
    file = out / "matrix.yaml"
    if not file.is_file():
        raise ValueError(f"{out} has no matrix.yaml: is it the folder of a comparison?")
    matrix = yaml.load(file.read_text(), LOADER) or {}
    for key in ("baseline", "seeds", "arms"):
        if key not in matrix:
            raise ValueError(f"{file} has no {key!r}.")
    specs = {str(name): spec or {} for name, spec in matrix["arms"].items()}
    where = f"{file}: baseline" if baseline is None else "--baseline"
    baseline = str(matrix["baseline"]) if baseline is None else baseline
    check_choice(f"{where} {baseline}", baseline, list(specs))
    order = [baseline, *(name for name in specs if name != baseline)]
    arms = [
        Arm(name, str(spec.get("label") or name), spec, order.index(name))
        for name, spec in specs.items()
    ]
    return str(matrix.get("title") or out.name), arms, [int(seed) for seed in matrix["seeds"]]


def read_run(out: Path, arm: str, seed: int) -> Run:
    folder = out / arm / f"seed{seed}"
    try:
        steps = plot.read(folder)
    except FileNotFoundError:
        steps = {}
    records = []
    for file in sorted(folder.glob("metrics/[0-9]*.yaml")):
        try:
            records.append(yaml.load(file.read_text(), LOADER) or {})
        except yaml.YAMLError:
            records.append({})
    log = folder / "log.txt"
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    end = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return Run(arm, seed, steps, records, end[-300:])


def begun(
    arms: list[Arm], seeds: list[int], runs: list[Run]
) -> tuple[list[Arm], list[int], list[Run], list[str]]:
    """Without the arms (but the baseline) and seeds of which no run has begun, and a sentence on
    each kind: a comparison of some arms of a large matrix is a page about those."""
    there = [run for run in runs if run.steps or run.records]
    if not there:
        return arms, seeds, runs, []
    named, numbered = {run.arm for run in there}, {run.seed for run in there}
    said = []
    if absent := [arm.label for arm in arms if arm.order and arm.name not in named]:
        said.append(f"{len(absent)} of {len(arms)} arms have no run yet: {', '.join(absent)}.")
    if absent := [str(seed) for seed in seeds if seed not in numbered]:
        said.append(f"No run yet has seed {', '.join(absent)}.")
    arms = [arm for arm in arms if not arm.order or arm.name in named]
    shown = {arm.name for arm in arms}
    runs = [run for run in runs if run.arm in shown and run.seed in numbered]
    return arms, [seed for seed in seeds if seed in numbered], runs, said


def statuses(runs: Iterable[Run]) -> dict[str, str]:
    """A run is finished when its last logged step is its config's total_training_steps; without a
    record, that of the longest run."""
    runs = list(runs)
    longest = max((run.last_step for run in runs), default=0)
    return {
        run.name: "missing"
        if not run.steps and not run.records
        else "finished"
        if run.last_step >= max(run.planned() or longest, 1)
        else "unfinished"
        for run in runs
    }


def read_evaluation(file: Path) -> tuple[tuple, np.ndarray]:
    """Problems (index, prompt_id) in order and (P, n) bool, which samples are right."""
    frame = pd.read_parquet(file, columns=["index", "prompt_id", "sample", "right"])
    frame = frame.sort_values(["index", "prompt_id", "sample"])
    groups = frame.groupby(["index", "prompt_id"])["right"]
    counts = groups.size()
    if counts.empty or counts.nunique() > 1:
        raise ValueError("its problems have differing numbers of samples")
    return tuple(counts.index), frame["right"].to_numpy(bool).reshape(len(counts), -1)


def read_evaluations(out: Path, runs: Iterable[Run]) -> tuple[dict, list[str]]:
    """{benchmark: {arm: {seed: (P, n) bool}}} and what was left out: all runs of a benchmark have
    the same problems, so that differences are paired."""
    read: dict[str, list[tuple[Run, tuple, np.ndarray]]] = {}
    left_out = []
    for run in runs:
        for file in sorted((out / run.name).glob("evaluation/*.parquet")):
            try:
                read.setdefault(file.stem, []).append((run, *read_evaluation(file)))
            except (OSError, ValueError, KeyError) as error:
                left_out.append(f"{run.name}: {file.name} is left out: {error}.")
    found: dict[str, dict[str, dict[int, np.ndarray]]] = {}
    for benchmark, judged in sorted(read.items()):
        sets = [problems for _, problems, _ in judged]
        common = max(sets, key=lambda one: (sets.count(one), len(one)), default=())
        for run, problems, right_PN in judged:
            if problems == common:
                found.setdefault(benchmark, {}).setdefault(run.arm, {})[run.seed] = right_PN
            else:
                left_out.append(
                    f"{run.name}: {benchmark}.parquet is left out: its {len(problems)} problems "
                    f"are not the {len(common)} of most runs."
                )
    return found, left_out


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


def results(metrics: Iterable[Metric], arms: Sequence[Arm]) -> list[Result]:
    """Every metric of every arm with its paired difference to the baseline (same seeds, same
    problems)."""
    baseline = next(arm.name for arm in arms if arm.order == 0)
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
    found = provenance.identity(record) if record.get("config") else {}
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
