"""The numbers of a comparison as CSV files and as a Markdown table."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from recipe.core.files import atomic_write
from recipe.core.settings import check_choice
from recipe.experiment.matrix import Matrix
from recipe.experiment.statistics import Estimate
from recipe.report.results import TRAINING, Metric, Result, band

if TYPE_CHECKING:
    from recipe.report.page import Page


BY_RUN = ("arm", "seed", "group", "metric", "problems", "value")  # data/results_by_run.csv


def write_csv(file: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with atomic_write(file) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def read_csv(file: Path, columns: Mapping[str, type]) -> pd.DataFrame:
    """Reads a CSV file.

    Args:
        file: may have other columns too.
        columns: {name: type} of those that it must have.

    Raises:
        ValueError: it cannot be read, lacks a column, or has a value of another type.
    """
    try:
        rows = pd.read_csv(file, dtype=dict(columns))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read ({error}): give {table_of(columns)}.") from error
    if missing := [name for name in columns if name not in rows]:
        raise ValueError(f"{file} has no column {', '.join(missing)}: give {table_of(columns)}.")
    return rows


def table_of(columns: Mapping[str, type]) -> str:
    named = [name if kind is str else f"{name} ({kind.__name__})" for name, kind in columns.items()]
    return f"a CSV file with the columns {', '.join(named)}"


def rows_by_run(metrics: Iterable[Metric]) -> list[list[Any]]:
    """Returns the rows of data/results_by_run.csv: one number of each metric and run."""
    return [
        [arm, seed, metric.group, metric.name, len(values_P), float(values_P.mean())]
        for metric in metrics
        for arm, by_seed in metric.values.items()
        for seed, values_P in by_seed.items()
    ]


def write_tables(folder: Path, page: Page) -> None:
    """Writes every number of the page, unrounded, as CSV, and the table of results."""
    names = [chart.metric for chart in page.charted]
    write_csv(
        folder / "curves.csv",
        ["arm", "seed", "step", *names],
        (
            [run.arm, run.seed, step, *map(row.get, names)]
            for run in page.runs
            for step, row in run.steps.items()
        ),
    )
    bands = {
        (arm.name, chart.metric): band([chart.curve(r) for r in page.runs if r.arm == arm.name])
        for chart in page.charted
        for arm in page.arms
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
            for r in page.results
        ),
    )
    (folder / "results.md").write_text(page.markdown())
    write_csv(
        folder / "solved.csv",
        [
            *("benchmark", "arm", "solver", "index", "prompt_id", "seeds", "samples"),
            *("correct", "baseline_correct", "difference", "difference_low", "difference_high"),
            "text",
        ],
        ([*row[:-1], *row.difference, page.texts.get(row.prompt_id, "")] for row in page.solved),
    )
    write_csv(folder / "results_by_run.csv", BY_RUN, rows_by_run(page.metrics))
    write_csv(
        folder / "config.csv",
        ["key", *page.config_arms],
        ([key, *row.values()] for key, row in page.config.items()),
    )
    for name, rows in (("costs", page.costs), ("spreads", page.spreads), ("runs", page.run_rows)):
        write_csv(folder / f"{name}.csv", rows[0] if rows else [], (row.values() for row in rows))


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


def markdown(
    matrix: Matrix,
    results: Sequence[Result],
    tables: dict[str, list[str]],
    arms: Sequence[str] = (),
) -> str:
    """The final results as a Markdown table.

    Args:
        matrix: of the comparison; its baseline comes first.
        results: of all arms.
        tables: of `table_metrics`. Shown are, of each group, avg@n, pass@8 (without it the pass@k
            of the largest k) and the final entropy, each with its difference to the baseline, in
            bold where the interval excludes zero.
        arms: these only; default: all that have a result.
    """
    shown = []
    for group, names in tables.items():
        passes = [name for name in names if name.startswith("pass@")]
        wanted = {"final entropy", "pass@8" if "pass@8" in passes else "".join(passes[-1:])}
        shown += [(group, name) for name in names if name.startswith("avg@") or name in wanted]
    by_key = {(r.arm, r.group, r.metric): r for r in results}
    baseline, *_ = matrix.baseline_first()
    several = len({group for group in tables if group != TRAINING}) > 1
    shown_names = [f"{g}: {m}" if several and g != TRAINING else m for g, m in shown]
    heads = [head for metric in shown_names for head in (metric, f"to {baseline.label}")]
    lines = [["method", "seeds", *heads], ["---"] * (len(heads) + 2)]
    for arm in matrix.baseline_first():
        rows = [by_key.get((arm.name, group, metric)) for group, metric in shown]
        seeds = [row.seeds for row in rows if row and row.estimate]
        if not seeds or (arms and arm.name not in arms):
            continue
        least, most = min(seeds), max(seeds)
        cells = [arm.label, str(most) if least == most else f"{least} to {most}"]
        for row in rows:
            value = shown_estimate(row.estimate, ".3f", row.has_interval) if row else ""
            several = row is not None and (row.paired_seeds > 1 or row.problems > 1)
            difference = shown_estimate(row.difference, "+.3f", several) if row else ""
            cells += [value, f"**{difference}**" if row and row.excludes_zero else difference]
        lines.append(cells)
    return "".join(f"| {' | '.join(map(cell, line))} |\n".replace("|  |", "| |") for line in lines)


def shown_estimate(estimate: Estimate | None, spec: str, interval: bool) -> str:
    """Returns an estimate as the page shows it, "" for none: without its interval where it has
    none, which is said of values that are all equal."""
    if estimate is None:
        return ""
    if interval and estimate.low != estimate.high:
        return f"{estimate:{spec}}"
    return f"{estimate.mean:{spec}}{' (all equal)' if interval else ''}"


def cell(text: str) -> str:
    """Returns a text as a cell of a Markdown table, which ends at a | and with its line."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return text.replace("\\", r"\\").replace("|", r"\|")


def fill(
    text: str,
    name: str,
    arms: Iterable[str],
    table: Callable[[Sequence[str]], str],
    word: str = "results",
) -> str:
    """Returns a Markdown text with its tables of results made anew.

    Args:
        text: has at least one pair of lines `<!-- results -->` (or `<!-- results: ARM ARM -->`) and
            `<!-- end of results -->`; what is between them is replaced.
        name: of its file, for the errors.
        arms: the names that may stand there.
        table: makes the table of some arms; of all for [].
        word: in the lines, so that a page can have tables of several commands.

    Raises:
        ValueError: it has no such pair, a line without its partner, or names an unknown arm.
    """
    choices = list(arms)
    begin, end = f"<!-- {word}", f"<!-- end of {word} -->"
    place = re.compile(rf"({begin}(?:: ([^>]*))? -->\n).*?({end})", re.DOTALL)

    def filled(match: re.Match[str]) -> str:
        before, words, after = match.groups()
        names = (words or "").split()
        for arm in names:
            check_choice(f"{name}: arm {arm!r}", arm, choices)
        return before + table(names) + after

    result, places = place.subn(filled, text)
    begins, ends = text.count(begin), text.count(end)
    if not 0 < places == begins == ends:
        raise ValueError(
            f"--into {name} has {begins} lines {begin} … --> and {ends} lines {end}: give it both "
            "around each place for results."
        )
    return result
