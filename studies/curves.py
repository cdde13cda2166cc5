"""Keep and draw the held-out curves of a comparison: entropy and accuracy at each validation.

    python studies/curves.py outputs/study_acts_cpu
    python studies/curves.py studies/study_acts_cpu.yaml --values docs/study_acts_cpu_curves.csv \\
      --picture docs/study_acts_cpu.png

Each finished run's values go to OUT/curves.csv, which --values reads in their place. The picture,
OUT/curves.png, has a small panel per method: its mean entropy beside the baseline's, then the
differences of entropy and of accuracy to the baseline, paired by seed, with Student's 95 % interval
over the seeds.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from recipe.core import cli
from recipe.core.files import atomic_write
from recipe.experiment.matrix import Matrix, read_matrix
from recipe.experiment.metrics import series, shared_metric
from recipe.experiment.run import finished_runs
from recipe.experiment.statistics import interval
from recipe.report.charts import COLOURS
from recipe.report.panels import HEIGHT, INK, Line, check_ending, draw_panels, rows_of
from recipe.report.tables import read_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS = {"entropy": "diagnostics/held_out_entropy", "accuracy": "val-core/"}
COLUMNS = {"arm": str, "seed": int, "step": int} | dict.fromkeys(METRICS, float)
BLOCKS = (  # (column, as a difference to the baseline, title)
    ("entropy", False, "held-out entropy, nats per token"),
    ("entropy", True, "held-out entropy minus the baseline's, 95 % interval"),
    ("accuracy", True, "held-out accuracy minus the baseline's, 95 % interval"),
)


def run_curves(matrix: Matrix) -> pd.DataFrame:
    """Returns the values of all finished runs, a row per arm, seed and step of a validation; the
    accuracy is of one benchmark, which is named in each row."""
    runs, rows = finished_runs(matrix), []
    accuracy = shared_metric({run.name: run.logged for run in runs}, METRICS["accuracy"])
    if warning := accuracy.warning("accuracy"):
        print(warning, file=sys.stderr)
    for run in runs:
        logged = {
            column: dict(zip(*series(run.steps, metric), strict=True))
            for column, metric in (METRICS | {"accuracy": accuracy.metric}).items()
        }
        for step in sorted(set().union(*logged.values())):
            values = {column: points.get(step) for column, points in logged.items()}
            values |= {"benchmark": accuracy.note}
            rows.append({"arm": run.arm, "seed": run.seed, "step": step, **values})
    return pd.DataFrame(rows, columns=[*COLUMNS, "benchmark"])


def lines_of(matrix: Matrix, curves: pd.DataFrame, column: str, difference: bool) -> list[Line]:
    """Returns the mean of each method over its seeds, the baseline's first; nothing where the
    baseline has no value.

    Args:
        curves: of `run_curves`.
        column: of METRICS.
        difference: to the baseline's run of the same seed, with an interval; the baseline itself
            has no line then, nor has a method with two seeds where others have more: its interval
            would flatten theirs.
    """
    wide = curves.pivot(index="step", columns=["arm", "seed"], values=column)
    of_arm = curves.groupby("arm")["seed"].unique().map(set)
    paired = {name: len(seeds & of_arm[matrix.baseline]) for name, seeds in of_arm.items()}
    most = max(count for name, count in paired.items() if name != matrix.baseline)
    lines = []
    for arm in matrix.baseline_first():
        if arm.name not in wide or (difference and arm.name == matrix.baseline):
            continue
        values = wide[arm.name]
        if difference:
            values = values - wide[matrix.baseline]
            if paired[arm.name] < min(3, most):
                continue
        values = values.dropna(axis="columns", how="all").dropna()
        if values.empty and arm.name == matrix.baseline:
            return []
        if values.empty:
            continue
        estimates = [interval(row[:, None]) for row in values.to_numpy()]
        band = ([e.low for e in estimates], [e.high for e in estimates]) if difference else ((), ())
        means = [e.mean for e in estimates]
        lines.append(Line(arm.label, COLOURS[0], list(values.index), means, *band))
    return lines


def draw(matrix: Matrix, curves: pd.DataFrame) -> Figure:
    """Returns the picture; raises ValueError where there is nothing to draw."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    blocks = []
    for column, difference, title in BLOCKS:
        lines = lines_of(matrix, curves, column, difference)
        baseline = None
        if lines and not difference:
            baseline, lines = lines[0]._replace(colour=INK), lines[1:]
            title += f"; dark: {baseline.label}"
        if column == "accuracy" and "benchmark" in curves:
            named = sorted(set(curves["benchmark"].dropna().map(str)) - {""})
            title = "; ".join((title, *named)).replace("$", r"\$")
        if lines:
            blocks.append((title, lines, baseline))
        else:
            print(
                f"not drawn, as {matrix.baseline} or all others lack it: {title}", file=sys.stderr
            )
    if not blocks:
        raise ValueError(
            f"{matrix.baseline} and another method have no held-out value in common: there is "
            "nothing to draw yet."
        )
    heights = [HEIGHT * rows_of(len(lines)) + 0.5 for _, lines, _ in blocks]
    figure = plt.figure(figsize=(13, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(blocks), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, (title, lines, baseline) in zip(parts, blocks, strict=True):
        draw_panels(part, title, lines, baseline, zero=baseline is None)
    return figure


def command(arguments: list[str] | None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder of a comparison, or its yaml with --values")
    parser.add_argument("--values", type=Path, metavar="CSV", help="in place of the runs")
    parser.add_argument("--picture", type=Path, help="default: OUT/curves.png")
    args = parser.parse_args(arguments)
    matrix = read_matrix(args.out)
    picture = args.picture or matrix.out / "curves.png"
    check_ending(picture)
    curves = read_csv(args.values, COLUMNS) if args.values else run_curves(matrix)
    if curves["arm"].nunique() < 2 or matrix.baseline not in set(curves["arm"]):
        raise ValueError(
            f"{args.values or args.out} has no finished runs of {matrix.baseline} and of another "
            "method: there is nothing to draw yet."
        )
    if not args.values:
        with atomic_write(matrix.out / "curves.csv") as temporary:
            curves.to_csv(temporary, index=False, float_format="%.6f")
    figure = draw(matrix, curves)
    with atomic_write(picture) as temporary:
        figure.savefig(temporary, dpi=90, metadata={"Software": None})
    print(picture)


if __name__ == "__main__":
    sys.exit(cli.run(command))
