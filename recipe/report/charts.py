"""The charts of a comparison as plain data: curves over the steps, final results.

A chart is a dict that `charts.js` and `recipe.report.figures` draw alike. Its "arm" is a number:
the place in the matrix's arms and in the list of their styles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from recipe.experiment.matrix import Arm, Matrix
from recipe.experiment.metrics import ENTROPY, Shared, shared_metric
from recipe.experiment.run import Run
from recipe.report.results import (
    HELD_OUT,
    TRAINING,
    Metric,
    Result,
    band,
    binned,
    curve,
)

POINTS = 200  # of a line in the page, at most; the CSVs hold every step
CHARTS = (  # (title, metric or pattern of several, unit, note)
    ("Reward of training rollouts", "critic/rewards/mean", "mean reward", ""),
    ("Held-out accuracy", HELD_OUT, "share correct", ""),
    (
        "Held-out best@k",
        "val-core/*/best@*/mean",
        "share",
        "as verl logs it: drawn with replacement, below the unbiased pass@k",
    ),
    ("Policy entropy", ENTROPY, "nats per token", ""),
    ("Entropy of correct rollouts", "diagnostics/entropy/correct", "nats per token", ""),
    ("Entropy of incorrect rollouts", "diagnostics/entropy/incorrect", "nats per token", ""),
    (
        "Training groups",
        "diagnostics/groups/*@*",
        "share",
        "unbiased, of each step's groups of rollouts",
    ),
    ("Response length", "response_length/mean", "tokens", ""),
    ("Length of correct rollouts", "diagnostics/length/correct", "tokens", ""),
    ("Length of incorrect rollouts", "diagnostics/length/incorrect", "tokens", ""),
    (
        "Truncated rollouts",
        "diagnostics/length/truncated",
        "share",
        "as long as data.max_response_length",
    ),
    ("Tokens clipped", "actor/pg_clipfrac", "share", ""),
    ("Gradient norm", "actor/grad_norm", "before clipping", ""),
)
# The baseline has the text's colour, the others these, and dashes after six: far apart also under
# simulated red-green blindness, 3:1 and more on the page.
COLOURS = ("#1a5fd0", "#e8590c", "#109870", "#8e2f9e", "#7a5230", "#3a9ad9")
DARK_COLOURS = ("#4a90ff", "#f2672c", "#18b893", "#e38cc8", "#f0cf5a", "#9adcff")
DASHES = ("", "6 3", "2 2", "9 3 2 3")


def style(arm: Arm, order: int) -> dict[str, Any]:
    """Number of the colour (0 = the text's) and the dashes of an arm's lines; order 0 is the
    baseline's."""
    if order == 0:
        return {"label": arm.label, "colour": 0, "dash": ""}
    row, colour = divmod(order - 1, len(COLOURS))
    return {"label": arm.label, "colour": colour + 1, "dash": DASHES[row % len(DASHES)]}


def styles_of(matrix: Matrix) -> dict[str, dict[str, Any]]:
    """{arm: style}."""
    return {arm.name: style(arm, i) for i, arm in enumerate(matrix.baseline_first())}


class Charted(NamedTuple):
    """A logged metric that has a chart."""

    title: str
    metric: str
    unit: str
    note: str
    left_out: tuple[str, ...] = ()  # names of runs

    def curve(self, run: Run) -> dict[int, float]:
        """{step: value} of a run, {} of one that is left out."""
        return {} if run.name in self.left_out else curve(run, self.metric)


def charted_metrics(runs: Sequence[Run], extra: Sequence[str]) -> tuple[list[Charted], list[str]]:
    """CHARTS and the metrics asked for, as far as logged and each once; and sentences on the runs
    that are left out of one.

    Raises:
        ValueError: no run has logged a metric that was asked for, though they have logged others.
    """
    of_runs = {run.name: run.logged for run in runs}
    logged = sorted(set().union(*(of_run.names for of_run in of_runs.values())))
    for pattern in extra:
        if logged and not matching(logged, pattern):
            below = sorted({f"{name.partition('/')[0]}/*" for name in logged})
            near = get_close_matches(pattern, logged, n=5) or below
            raise ValueError(
                f"--metric {pattern} is not allowed, as no run has logged it: give a metric or a "
                f"pattern of several, such as {', '.join(near)}."
            )
    charts = [(title, shared_metric(of_runs, names), *rest) for title, names, *rest in CHARTS]
    charts += [(pattern, Shared(pattern, "", ()), "", "") for pattern in extra]
    charted: dict[str, Charted] = {}
    for title, (metric, which, left_out), unit, note in charts:
        notes = "; ".join(filter(None, (note, which)))
        for name in matching(logged, metric):
            more = "" if name == metric else f": {name.removeprefix(metric.partition('*')[0])}"
            charted.setdefault(name, Charted(title + more, name, unit, notes, left_out))
    sentences = [shared.warning(title.lower()) for title, shared, *_ in charts if shared.left_out]
    return list(charted.values()), sentences


def matching(logged: Sequence[str], pattern: str) -> list[str]:
    """The metrics that are a pattern or match it."""
    return [name for name in logged if name == pattern or fnmatchcase(name, pattern)]


def chart_data(arms: Sequence[Arm], runs: Sequence[Run], chart: Charted) -> dict[str, Any]:
    """A metric over the steps: lines share x, gaps are null, the band is of the seeds."""
    title, _, unit, note, _ = chart
    curves = [[chart.curve(run) for run in runs if run.arm == arm.name] for arm in arms]
    steps = sorted({step for by_run in curves for points in by_run for step in points})
    width = max(-(-steps[-1] // POINTS), 1) if steps else 1
    x = binned({step: step for step in steps}, width)
    lines = []
    for i, by_run in enumerate(curves):
        if any(by_run):
            rows = band([binned(points, width) for points in by_run])
            lines.append(series(i, [rows.get(key) for key in x]))
    return {
        "kind": "line",
        "title": title,
        "unit": unit,
        "note": note,
        "width": width,
        "x": [round_sig(value) for value in x.values()],
        "lines": lines,
    }


def series(arm: int, rows: Sequence[tuple | None]) -> dict[str, Any]:
    """Rows of (n, mean, low, high) as columns."""
    columns = [[None if row is None else round_sig(row[j]) for row in rows] for j in range(4)]
    return {"arm": arm, **dict(zip(("n", "mean", "low", "high"), columns, strict=True))}


def round_sig(value: float) -> float | int:
    """Four significant digits, for the page."""
    rounded = float(f"{value:.4g}")
    return int(rounded) if rounded.is_integer() else rounded


def accuracies(metrics: Sequence[Metric]) -> list[Metric]:
    """avg@n of the benchmarks; without any, the last held-out accuracy of training."""
    evaluated = [m for m in metrics if m.name.startswith("avg@")]
    return evaluated or [m for m in metrics if m.name.startswith("last ")]


def final_charts(
    arms: Sequence[Arm], metrics: Sequence[Metric], results: Sequence[Result]
) -> list[dict[str, Any]]:
    """Differences to the baseline, pass@k against k, entropy against accuracy."""
    index = {arm.name: i for i, arm in enumerate(arms)}
    charts = []
    for metric in accuracies(metrics):
        of_arms = [r for r in results if (r.group, r.metric) == (metric.group, metric.name)]
        rows = [
            {"arm": index[r.arm], "mean": d.mean, "low": d.low, "high": d.high}
            for r in of_arms
            if (d := r.difference) and (r.paired_seeds > 1 or r.problems > 1)
        ]
        title = f"{metric.group}: {metric.name}, difference to the baseline"
        charts.append({"kind": "interval", "title": title, "unit": "95 % interval", "rows": rows})
    benchmarks = list(dict.fromkeys(m.group for m in metrics if m.group != TRAINING))
    charts += [pass_chart(index, results, benchmark, "estimate") for benchmark in benchmarks]
    charts += [pass_chart(index, results, benchmark, "difference") for benchmark in benchmarks]
    entropy = next((m for m in metrics if m.name == "final entropy"), None)
    for metric in accuracies(metrics) if entropy else []:
        points = [
            {"arm": index[arm], "seed": seed}
            | {"x": round_sig(entropy.values[arm][seed].mean()), "y": round_sig(values.mean())}
            for arm, by_seed in metric.values.items()
            for seed, values in by_seed.items()
            if seed in entropy.values.get(arm, {})
        ]
        charts.append(
            {
                "kind": "scatter",
                "title": f"{metric.group}: {metric.name} against final entropy",
                "unit": "share correct over nats per token",
                "note": "small: a run; large: the mean of its method",
                "points": points,
            }
        )
    return [chart for chart in charts if any(map(chart.get, ("rows", "lines", "points")))]


def pass_chart(
    index: Mapping[str, int], results: Sequence[Result], benchmark: str, kind: str
) -> dict[str, Any]:
    """Estimate or difference of pass@k over k; k = 1 is the accuracy."""
    of_k = {}  # {metric: k}
    for name in dict.fromkeys(r.metric for r in results if r.group == benchmark):
        if name.startswith(("avg@", "pass@")):
            of_k[name] = 1 if name.startswith("avg@") else int(name.removeprefix("pass@"))
    lines = []
    for arm, i in index.items():
        rows = [r for r in results if (r.arm, r.group) == (arm, benchmark) and r.metric in of_k]
        if rows and all(getattr(r, kind) for r in rows):
            lines.append(series(i, [(r.seeds, *getattr(r, kind)) for r in rows]))
    what = "pass@k" if kind == "estimate" else "pass@k, difference to the baseline"
    return {
        "kind": "line",
        "title": f"{benchmark}: {what}",
        "unit": "share",
        "note": "band: 95 % interval",
        "log": True,
        "zero": kind == "difference",
        "x": list(of_k.values()),
        "lines": lines,
    }
