"""A comparison as one page: `python -m recipe.report OUT [--to FOLDER] [--baseline ARM] …`.

OUT is the folder of `recipe.compare` (see `recipe.report.results`). Writes FOLDER/index.html (one
file, needs no network), the same charts as figures/*.png and every number behind them as
data/*.csv. What is missing is said in the page. The same input gives the same files: no times, no
machine's names.

`--into README.md` also writes the table of results into a Markdown file, in place of what is
between its lines `<!-- results -->`, or `<!-- results: ARM ARM -->` for some arms, and
`<!-- end of results -->`.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import jinja2

from recipe.core.files import whole
from recipe.core.settings import check_choice
from recipe.experiment.evaluation import read_evaluations
from recipe.experiment.matrix import Arm, Matrix, read_matrix
from recipe.experiment.run import Run, drop_unstarted, read_runs, statuses
from recipe.report.results import (
    HELD_OUT,
    LAST,
    Metric,
    Result,
    band,
    binned,
    checks,
    costs,
    curve,
    differing,
    final_metrics,
    results,
    settings,
    spreads,
    twin_arms,
)

POINTS = 200  # of a line in the page, at most; the CSVs hold every step
CHARTS = (  # (title, metric or pattern of several, unit, note)
    ("Reward of training rollouts", "critic/rewards/mean", "mean reward", ""),
    ("Held-out accuracy", HELD_OUT, "share right", ""),
    (
        "Held-out best@k",
        "val-core/*/best@*/mean",
        "share",
        "as verl logs it: drawn with replacement, below the unbiased pass@k",
    ),
    ("Policy entropy", "actor/entropy", "nats a token", ""),
    ("Entropy of right rollouts", "diagnostics/entropy/right", "nats a token", ""),
    ("Entropy of wrong rollouts", "diagnostics/entropy/wrong", "nats a token", ""),
    ("Response length", "response_length/mean", "tokens", ""),
    ("Tokens clipped", "actor/pg_clipfrac", "share", ""),
    ("Gradient norm", "actor/grad_norm", "before clipping", ""),
)
# The baseline has the text's colour, the others these, and dashes after six: far apart also under
# simulated red-green blindness, 3:1 and more on the page.
COLOURS = ("#1a5fd0", "#e8590c", "#109870", "#8e2f9e", "#7a5230", "#3a9ad9")
DARK_COLOURS = ("#4a90ff", "#f2672c", "#18b893", "#e38cc8", "#f0cf5a", "#9adcff")
DASHES = ("", "6 3", "2 2", "9 3 2 3")
BEGIN, END = "<!-- results", "<!-- end of results -->"
PLACE = re.compile(rf"({BEGIN}(?:: ([^>]*))? -->\n).*?({END})", re.DOTALL)


def style(arm: Arm, order: int) -> dict[str, Any]:
    """Number of the colour (0 = the text's) and the dashes of an arm's lines; order 0 is the
    baseline's."""
    if order == 0:
        return {"label": arm.label, "colour": 0, "dash": ""}
    row, colour = divmod(order - 1, len(COLOURS))
    return {"label": arm.label, "colour": colour + 1, "dash": DASHES[row % len(DASHES)]}


def styles_of(matrix: Matrix) -> dict[str, dict[str, Any]]:
    return {arm.name: style(arm, i) for i, arm in enumerate(matrix.baseline_first())}


def charted_metrics(runs: Iterable[Run], extra: Sequence[str]) -> list[tuple[str, str, str, str]]:
    """CHARTS and the metrics asked for, as far as logged: (title, metric, unit, note)."""
    logged = sorted({name for run in runs for row in run.steps.values() for name in row})
    found = []
    for title, pattern, unit, note in [*CHARTS, *((name, name, "", "") for name in extra)]:
        for name in logged:
            if name == pattern:
                found.append((title, name, unit, note))
            elif fnmatchcase(name, pattern):
                which = name.removeprefix(pattern.partition("*")[0])
                found.append((f"{title}: {which}", name, unit, note))
    return found


def chart_data(arms: Sequence[Arm], runs: Sequence[Run], chart: tuple) -> dict[str, Any]:
    """A metric over the steps: lines share x, gaps are null, the band is of the seeds."""
    title, metric, unit, note = chart
    curves = [[curve(run, metric) for run in runs if run.arm == arm.name] for arm in arms]
    steps = sorted({step for some in curves for points in some for step in points})
    width = max(-(-steps[-1] // POINTS), 1) if steps else 1
    x = binned({step: step for step in steps}, width)
    lines = []
    for i, some in enumerate(curves):
        if any(some):
            rows = band([binned(points, width) for points in some])
            lines.append(line(i, [rows.get(key) for key in x]))
    return {
        "kind": "line",
        "title": title,
        "unit": unit,
        "note": note,
        "width": width,
        "x": [short(value) for value in x.values()],
        "lines": lines,
    }


def line(arm: int, rows: Sequence[tuple | None]) -> dict[str, Any]:
    """Rows of (n, mean, low, high) as columns."""
    columns = [[None if row is None else short(row[j]) for row in rows] for j in range(4)]
    return {"arm": arm, **dict(zip(("n", "mean", "low", "high"), columns, strict=True))}


def short(value: float) -> float | int:
    """Four significant digits, for the page."""
    rounded = float(f"{value:.4g}")
    return int(rounded) if rounded.is_integer() else rounded


def accuracies(metrics: Sequence[Metric]) -> list[Metric]:
    """avg@n of the benchmarks; without any, the last held-out accuracy of training."""
    judged = [m for m in metrics if m.name.startswith("avg@")]
    return judged or [m for m in metrics if m.name.startswith("last ")]


def final_charts(
    arms: Sequence[Arm], metrics: Sequence[Metric], found: Sequence[Result]
) -> list[dict[str, Any]]:
    """Differences to the baseline, pass@k against k, entropy against accuracy."""
    index = {arm.name: i for i, arm in enumerate(arms)}
    charts = []
    for metric in accuracies(metrics):
        of_arms = [r for r in found if (r.group, r.metric) == (metric.group, metric.name)]
        rows = [
            {"arm": index[r.arm], "mean": d.mean, "low": d.low, "high": d.high}
            for r in of_arms
            if (d := r.difference) and (r.paired_seeds > 1 or r.problems > 1)
        ]
        title = f"{metric.group}: {metric.name}, difference to the baseline"
        charts.append({"kind": "interval", "title": title, "unit": "95 % interval", "rows": rows})
    benchmarks = list(dict.fromkeys(m.group for m in metrics if m.group != "training"))
    charts += [pass_chart(index, found, benchmark, "estimate") for benchmark in benchmarks]
    charts += [pass_chart(index, found, benchmark, "difference") for benchmark in benchmarks]
    entropy = next((m for m in metrics if m.name == "final entropy"), None)
    for metric in accuracies(metrics) if entropy else []:
        points = [
            {"arm": index[arm], "seed": seed}
            | {"x": short(entropy.values[arm][seed].mean()), "y": short(values.mean())}
            for arm, some in metric.values.items()
            for seed, values in some.items()
            if seed in entropy.values.get(arm, {})
        ]
        charts.append(
            {"kind": "scatter", "title": f"{metric.group}: {metric.name} against final entropy"}
            | {"unit": "share right over nats a token", "note": "small: a run; large: its arm"}
            | {"points": points}
        )
    return [chart for chart in charts if any(map(chart.get, ("rows", "lines", "points")))]


def pass_chart(
    index: Mapping[str, int], found: Sequence[Result], benchmark: str, kind: str
) -> dict[str, Any]:
    """Estimate or difference of pass@k over k; k = 1 is the accuracy."""
    lines, ks = [], []
    for arm, i in index.items():
        own = [r for r in found if (r.arm, r.group) == (arm, benchmark)]
        ks = [1, *(int(r.metric.removeprefix("pass@")) for r in own[1:])]
        if all(getattr(r, kind) for r in own):
            lines.append(line(i, [(r.seeds, *getattr(r, kind)) for r in own]))
    what = "pass@k" if kind == "estimate" else "pass@k, difference to the baseline"
    return {
        "kind": "line",
        "title": f"{benchmark}: {what}",
        "unit": "share",
        "note": "band: 95 % interval",
        "log": True,
        "zero": kind == "difference",
        "x": ks,
        "lines": lines,
    }


def table_metrics(metrics: Sequence[Metric]) -> dict[str, list[str]]:
    """{group: metrics in the page's tables}: of pass@k at most four, the largest k and every
    second one below it."""
    tables: dict[str, list[str]] = {}
    for group in dict.fromkeys(metric.group for metric in metrics):
        names = [metric.name for metric in metrics if metric.group == group]
        passes = [name for name in names if name.startswith("pass@")]
        if len(passes) > 4:
            passes = passes[::-1][::2][:4][::-1]
        tables[group] = [n for n in names if not n.startswith("pass@") or n in passes]
    return tables


def draw(
    charts: Sequence[Mapping[str, Any]], looks: Sequence[Mapping[str, Any]], file: Path
) -> None:
    """The page's charts as one picture; `looks` has each arm's style."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    colours = ["#202124", *COLOURS]
    dashes = {dash: (0, tuple(map(int, dash.split()))) if dash else "-" for dash in DASHES}
    labels = [" " + one["label"].replace("$", r"\$") for one in looks]  # no maths, none hidden
    styles = [{"color": colours[one["colour"]], "linestyle": dashes[one["dash"]]} for one in looks]
    columns = min(3, len(charts))
    rows = -(-len(charts) // columns)
    size = (5 * columns, 3.3 * rows + 0.8)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axis, chart in zip(axes.flat, charts, strict=False):
        axis.set_title(chart["title"].replace("$", r"\$"), fontsize="medium")
        axis.set_ylabel(chart["unit"] if chart["kind"] == "line" else "")
        axis.grid(alpha=0.25)
        for one in chart.get("lines", ()):
            look, low, high = styles[one["arm"]], one["low"], one["high"]
            points = [
                (x, *row)
                for x, *row in zip(chart["x"], one["mean"], low, high, strict=True)
                if row[0] is not None
            ]
            x, mean, low, high = zip(*points, strict=True)
            axis.plot(x, mean, **look, linewidth=1.4)
            axis.fill_between(x, low, high, color=look["color"], alpha=0.1, linewidth=0)
        if chart.get("zero"):
            axis.axhline(0, color=colours[0], linewidth=0.8)
        if chart.get("log"):
            axis.set_xscale("log", base=2)
        for i, row in enumerate(chart.get("rows", ())):
            look = styles[row["arm"]]
            axis.plot([row["low"], row["high"]], [-i, -i], **look)
            axis.plot(row["mean"], -i, "o", color=look["color"])
        if chart["kind"] == "interval":
            axis.axvline(0, color=colours[0], linewidth=0.8)
            axis.locator_params(axis="x", nbins=6)
            axis.set_yticks([-i for i in range(len(chart["rows"]))])
            axis.set_yticklabels([labels[row["arm"]] for row in chart["rows"]], fontsize="small")
        for point in chart.get("points", ()):
            colour = styles[point["arm"]]["color"]
            hollow = "none" if styles[point["arm"]]["linestyle"] != "-" else colour
            axis.plot(point["x"], point["y"], "o", color=colour, markerfacecolor=hollow)
    for axis in axes.flat[len(charts) :]:
        axis.remove()
    parts = ("lines", "rows", "points")
    drawn = {one["arm"] for chart in charts for part in parts for one in chart.get(part, ())}
    handles = [plt.Line2D([], [], **styles[i]) for i in sorted(drawn)]
    names = [labels[i] for i in sorted(drawn)]
    figure.legend(handles, names, loc="outside upper center", ncols=max(1, min(6, len(names))))
    figure.savefig(file, dpi=100, metadata={"Software": None})
    plt.close(figure)


# writing


def write_csv(file: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def markdown(page: Mapping[str, Any], arms: Sequence[str] = ()) -> str:
    """The final results as a table for a README, of all arms or of `arms`: of each group avg@n,
    pass@8 (or its largest k), and the final entropy; with differences to the baseline, in bold
    where zero is outside."""
    shown = [
        (group, metric)
        for group, names in page["tables"].items()
        for metric in names
        if metric.startswith("avg@")
        or metric == "final entropy"
        or metric == ("pass@8" if "pass@8" in names else names[-1])
    ]
    of = {(r.arm, r.group, r.metric): r for r in page["results"]}
    heads = [cell for _, metric in shown for cell in (metric, f"to {page['baseline'].label}")]
    lines = [["arm", "seeds", *heads], ["---"] * (len(heads) + 2)]
    for arm in page["matrix"].baseline_first():
        found = [of.get((arm.name, group, metric)) for group, metric in shown]
        seeds = [row.seeds for row in found if row and row.estimate]
        if not seeds or (arms and arm.name not in arms):
            continue
        least, most = min(seeds), max(seeds)
        cells = [arm.label, str(most) if least == most else f"{least} to {most}"]
        for row in found:
            cells.append(f"{row.estimate}" if row and row.estimate else "")
            difference = row.difference if row else None
            text = f"{difference:+.3f}" if difference else ""
            cells.append(f"**{text}**" if row and row.apart else text)
        lines.append(cells)
    return "".join(f"| {' | '.join(cells)} |\n".replace("|  |", "| |") for cells in lines)


def fill(text: str, page: Mapping[str, Any], name: str) -> str:
    """`text` of the file `name` with its tables of results made anew."""

    def table(place: re.Match) -> str:
        before, arms, after = place.groups()
        arms = (arms or "").split()
        for arm in arms:
            check_choice(f"{name}: arm {arm!r}", arm, page["label"])
        return before + markdown(page, arms) + after

    filled, places = PLACE.subn(table, text)
    begins, ends = text.count(BEGIN), text.count(END)
    if not 0 < places == begins == ends:
        raise ValueError(
            f"--into {name} has {begins} lines {BEGIN} … --> and {ends} lines {END}: give it both "
            "around each place for results."
        )
    return filled


def write_tables(folder: Path, page: Mapping[str, Any], runs: Sequence[Run]) -> None:
    """Every number of the page, unrounded."""
    names = [metric for _, metric, _, _ in page["charted"]]
    write_csv(
        folder / "curves.csv",
        ["arm", "seed", "step", *names],
        (
            [r.arm, r.seed, step, *map(row.get, names)]
            for r in runs
            for step, row in r.steps.items()
        ),
    )
    bands = {
        (arm.name, name): band([curve(run, name) for run in runs if run.arm == arm.name])
        for name in names
        for arm in page["arms"]
    }
    write_csv(
        folder / "bands.csv",
        ["arm", "metric", "step", "seeds", "mean", "lowest", "highest"],
        ([*key, step, *row] for key, rows in bands.items() for step, row in rows.items()),
    )
    nothing = ("", "", "")
    write_csv(
        folder / "results.csv",
        [
            *("arm", "group", "metric", "seeds", "problems", "mean", "low", "high"),
            *("paired_seeds", "difference", "difference_low", "difference_high"),
        ],
        (
            [*r[:5], *(r.estimate or nothing), r.paired_seeds, *(r.difference or nothing)]
            for r in page["results"]
        ),
    )
    (folder / "results.md").write_text(markdown(page))
    write_csv(
        folder / "results_by_run.csv",
        ["arm", "seed", "group", "metric", "problems", "value"],
        (
            [arm, seed, metric.group, metric.name, len(values_P), float(values_P.mean())]
            for metric in page["metrics"]
            for arm, some in metric.values.items()
            for seed, values_P in some.items()
        ),
    )
    write_csv(
        folder / "config.csv",
        ["key", *page["config_arms"]],
        ([key, *row.values()] for key, row in page["config"].items()),
    )
    for name in ("costs", "spreads", "runs"):
        rows = page[name]
        write_csv(folder / f"{name}.csv", rows[0] if rows else [], (row.values() for row in rows))


def collect(
    out: Path, extra: Sequence[str] = (), baseline: str | None = None
) -> tuple[dict[str, Any], list[Run]]:
    """Everything that the page says, and the runs."""
    matrix = read_matrix(out).with_baseline(baseline)
    matrix, runs, later = drop_unstarted(matrix, read_runs(matrix))
    arms, seeds = matrix.arms, matrix.seeds
    status = statuses(runs)
    finished = [run for run in runs if status[run.name] == "finished"]
    evaluations, left_out = read_evaluations(finished)
    for run in runs:
        if status[run.name] == "unfinished" and run.folder.evaluations():
            left_out.append(f"{run.name}: its evaluation is left out, the run is not finished.")
    metrics = final_metrics(finished, evaluations)
    found = results(metrics, arms, matrix.baseline)
    charted = charted_metrics(runs, extra)
    configs = {
        arm.name: {
            run.seed: settings(run.record)
            for run in runs
            if run.arm == arm.name and run.record.get("config")
        }
        for arm in arms
    }
    # arms are compared at the seed that most of them have a record of
    seed = max(seeds, key=lambda s: sum(s in some for some in configs.values()), default=None)
    at_seed = {name: some[seed] for name, some in configs.items() if seed in some}
    page = {
        "title": matrix.title,
        "matrix": matrix,
        "arms": arms,
        "baseline": matrix.baseline_first()[0],
        "label": {arm.name: arm.label for arm in arms},
        "seeds": seeds,
        "status": status,
        "checks": later + checks(runs, status, [metric for _, metric, _, _ in charted]) + left_out,
        "charted": charted,
        "charts": [chart_data(arms, runs, chart) for chart in charted],
        "final_charts": final_charts(arms, metrics, found),
        "metrics": metrics,
        "results": found,
        "tables": table_metrics(metrics),
        "points": POINTS,
        "evaluated": sorted(evaluations),
        "config": differing(at_seed),
        "config_arms": list(at_seed),
        "config_seed": seed,
        "twins": twin_arms(configs),
        "spreads": spreads(metrics, twin_arms(configs)),
        "costs": costs(arms, runs, status),
        "runs": [run_row(run, status[run.name]) for run in runs],
        "style": styles_of(matrix),
        "colours": COLOURS,
        "dark_colours": DARK_COLOURS,
        "last": LAST,
    }
    return page, runs


def run_row(run: Run, status: str) -> dict[str, Any]:
    """Where a run's numbers come from."""
    record = run.record
    return {
        "arm": run.arm,
        "seed": run.seed,
        "status": status,
        "last_step": run.last_step,
        "planned_steps": run.planned(),
        "starts": len(run.records),
        "started": record.get("started", ""),
        "commit": record.get("commit", ""),
        "command": shlex.join(map(str, record.get("command") or [])),
        "packages": " ".join(f"{k}={v}" for k, v in (record.get("packages") or {}).items()),
        "files": " ".join(f"{k}={v}" for k, v in (record.get("files") or {}).items()),
        "log_end": run.log_end,
    }


def render(page: Mapping[str, Any]) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    drawn = {
        "arms": [page["style"][arm.name] for arm in page["arms"]],
        "charts": [*page["charts"], *page["final_charts"]],
    }
    json.dumps(drawn, allow_nan=False)  # JSON.parse takes no NaN
    template = environment.from_string(Path(__file__).with_name("page.html").read_text())
    return template.render(page, drawn=drawn)


def write(
    out: Path,
    to: Path | None = None,
    extra: Sequence[str] = (),
    baseline: str | None = None,
    into: Sequence[Path] = (),
) -> Path:
    """Writes the report; returns the page's path."""
    to = to or out / "report"
    page, runs = collect(out, extra, baseline)
    filled = {file: fill(file.read_text(), page, str(file)) for file in into}
    for file, text in filled.items():
        with whole(file) as temporary:
            temporary.write_text(text)
    for folder in ("data", "figures"):
        (to / folder).mkdir(parents=True, exist_ok=True)
    write_tables(to / "data", page, runs)
    for name in ("charts", "final_charts"):
        picture = to / "figures" / f"{name}.png"
        picture.unlink(missing_ok=True)
        if page[name]:
            draw(page[name], [page["style"][arm.name] for arm in page["arms"]], picture)
    file = to / "index.html"
    file.write_text(render(page))
    return file


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of a comparison")
    parser.add_argument("--to", type=Path, help="folder to write; default OUT/report")
    parser.add_argument("--metric", action="append", default=[], help="one more curve, * allowed")
    parser.add_argument("--baseline", metavar="ARM", help="default: the matrix's")
    parser.add_argument(
        "--into", action="append", default=[], type=Path, metavar="MARKDOWN", help="see above"
    )
    known = parser.parse_args()
    try:
        print(write(known.out, known.to, known.metric, known.baseline, known.into))
    except (OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
