"""Write the documents' tables and pictures of results from the committed values.

    python studies/tables.py
    python studies/tables.py --baseline reinforce         # prints study_cpu's table, writes nothing

Values are data/results_by_run.csv of a report, one number per run: the responses behind
docs/study_cpu.csv are not kept, so its intervals are Student's t over the runs' values, with the
problems held fixed (`recipe.experiment.statistics.interval` of one number per run). Or they are
data/results.csv, whose intervals are the report's own. The tables are `recipe.report`'s.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from recipe.core import cli
from recipe.core.files import atomic_write
from recipe.experiment.matrix import Matrix, read_matrix
from recipe.experiment.statistics import Estimate
from recipe.report.charts import final_charts, styles_of
from recipe.report.figures import draw
from recipe.report.results import Metric, Result, results
from recipe.report.tables import fill, markdown, table_metrics

ROOT = Path(__file__).resolve().parents[1]


class Study(NamedTuple):
    """A comparison whose values are committed, all by their paths from the project's root."""

    matrix: str
    values: str
    documents: tuple[str, ...]
    picture: str = ""

    def read(self, baseline: str | None = None) -> tuple[Matrix, list[Metric], list[Result]]:
        """Returns the matrix, the final values of each run where they are kept, and the results."""
        matrix = read_matrix(ROOT / self.matrix).with_baseline(baseline)
        rows = pd.read_csv(ROOT / self.values)
        if "seed" in rows:
            metrics = metrics_of(rows)
            return matrix, metrics, results(metrics, matrix.arms, matrix.baseline)
        names = rows[["group", "metric"]].drop_duplicates().itertuples(index=False, name=None)
        return matrix, [Metric(*name, {}) for name in names], results_of(rows)

    def table(self, arms: Sequence[str] = (), baseline: str | None = None) -> str:
        """Returns the table of results, of all arms or of some."""
        matrix, metrics, rows = self.read(baseline)
        return markdown(matrix, rows, table_metrics(metrics), arms)

    def texts(self) -> dict[Path, str]:
        """Returns each document's text with its tables made anew."""
        names = [arm.name for arm in self.read()[0].arms]
        files = [ROOT / name for name in self.documents]
        return {file: fill(file.read_text(), str(file), names, self.table) for file in files}


STUDY_CPU = Study(
    "studies/study_cpu.yaml",
    "docs/study_cpu.csv",
    ("docs/study_cpu.md",),
    "docs/study_cpu.png",
)
STUDY_ACTS_CPU = Study(
    "studies/study_acts_cpu.yaml",
    "docs/study_acts_cpu_results.csv",
    ("docs/study_acts_cpu_results.md",),
)
RIVALS_CPU = Study(
    "studies/rivals_cpu.yaml",
    "docs/rivals_cpu_results.csv",
    ("docs/rivals_cpu_results.md",),
)
STUDIES = (STUDY_CPU, STUDY_ACTS_CPU, RIVALS_CPU)


def metrics_of(rows: pd.DataFrame) -> list[Metric]:
    """Returns data/results_by_run.csv of a report: one number per run."""
    metrics = []
    for (group, name), values in rows.groupby(["group", "metric"], sort=False):
        by_arm: dict[str, dict[int, np.ndarray]] = {}
        for arm, seed, value in values[["arm", "seed", "value"]].itertuples(index=False):
            by_arm.setdefault(arm, {})[seed] = np.array([value])
        metrics.append(Metric(str(group), str(name), by_arm))
    return metrics


def results_of(rows: pd.DataFrame) -> list[Result]:
    """Returns data/results.csv of a report, as it was computed from the responses."""

    def estimate(row: dict, *columns: str) -> Estimate | None:
        values = [row[column] for column in columns]
        return None if np.isnan(values).any() else Estimate(*values)

    return [
        Result(
            *(row[name] for name in ("arm", "group", "metric", "seeds", "problems")),
            estimate=estimate(row, "mean", "low", "high"),
            paired_seeds=row["paired_seeds"],
            difference=estimate(row, "difference", "difference_low", "difference_high"),
        )
        for row in rows.to_dict("records")
    ]


def command(arguments: list[str] | None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--baseline", metavar="ARM", help="default: the matrix's")
    args = parser.parse_args(arguments)
    if args.baseline:
        print(STUDY_CPU.table(baseline=args.baseline), end="")
        return
    for study in STUDIES:
        if study.picture:
            matrix, metrics, rows = study.read()
            styles = [styles_of(matrix)[arm.name] for arm in matrix.arms]
            with atomic_write(ROOT / study.picture) as temporary:
                draw(final_charts(matrix.arms, metrics, rows), styles, temporary)
        for file, text in study.texts().items():
            with atomic_write(file) as temporary:
                temporary.write_text(text)
            print(file.relative_to(ROOT))


if __name__ == "__main__":
    sys.exit(cli.run(command))
