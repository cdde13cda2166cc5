"""Write the documents' tables and picture of results from the committed values of each run.

    python studies/tables.py
    python studies/tables.py --baseline reinforce         # prints the table, writes nothing

The responses behind docs/study_cpu.csv are not kept, so the intervals are Student's t over the
three runs' values, with the problems held fixed: `recipe.experiment.statistics.interval` of one
number per run. The tables are `recipe.report`'s.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from recipe.core import cli
from recipe.core.files import atomic_write
from recipe.experiment.matrix import Matrix, read_matrix
from recipe.report.charts import final_charts, styles_of
from recipe.report.figures import draw
from recipe.report.results import Metric, Result, results
from recipe.report.tables import fill, markdown, table_metrics

ROOT = Path(__file__).resolve().parents[1]
VALUES = ROOT / "docs/study_cpu.csv"  # data/results_by_run.csv of the report
PICTURE = ROOT / "docs/study_cpu.png"
DOCUMENTS = (ROOT / "docs/study_cpu.md", ROOT / "docs/semantic_curriculum_cpu.md")


def read_metrics(file: Path) -> list[Metric]:
    """Reads data/results_by_run.csv of a report: one number per run."""
    metrics = []
    for (group, name), rows in pd.read_csv(file).groupby(["group", "metric"], sort=False):
        values: dict[str, dict[int, np.ndarray]] = {}
        for arm, seed, value in rows[["arm", "seed", "value"]].itertuples(index=False):
            values.setdefault(arm, {})[seed] = np.array([value])
        metrics.append(Metric(str(group), str(name), values))
    return metrics


def study(baseline: str | None = None) -> tuple[Matrix, list[Metric], list[Result]]:
    """Returns the matrix, the final values and the results of the study."""
    matrix = read_matrix(ROOT / "studies/study_cpu.yaml").with_baseline(baseline)
    metrics = read_metrics(VALUES)
    return matrix, metrics, results(metrics, matrix.arms, matrix.baseline)


def table(arms: Sequence[str] = (), baseline: str | None = None) -> str:
    """Returns the table of results, of all arms or of some."""
    matrix, metrics, rows = study(baseline)
    return markdown(matrix, rows, table_metrics(metrics), arms)


def document(file: Path) -> str:
    """Returns the document's text with its tables made anew."""
    names = [arm.name for arm in study()[0].arms]
    return fill(file.read_text(), str(file), names, table)


def command(arguments: list[str] | None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--baseline", metavar="ARM", help="default: the matrix's")
    args = parser.parse_args(arguments)
    if args.baseline:
        print(table(baseline=args.baseline), end="")
        return
    matrix, metrics, rows = study()
    styles = [styles_of(matrix)[arm.name] for arm in matrix.arms]
    with atomic_write(PICTURE) as temporary:
        draw(final_charts(matrix.arms, metrics, rows), styles, temporary)
    for file in DOCUMENTS:
        text = document(file)
        with atomic_write(file) as temporary:
            temporary.write_text(text)
        print(file.relative_to(ROOT))


if __name__ == "__main__":
    sys.exit(cli.run(command))
