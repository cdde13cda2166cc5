"""Everything that the page of a comparison says, and the page made of it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2

from recipe.experiment.evaluation import read_evaluations
from recipe.experiment.matrix import Arm, Matrix, read_matrix
from recipe.experiment.provenance import comparable
from recipe.experiment.run import Run, drop_unstarted, read_runs, statuses
from recipe.report.charts import (
    COLOURS,
    DARK_COLOURS,
    POINTS,
    Charted,
    chart_data,
    charted_metrics,
    final_charts,
    styles_of,
)
from recipe.report.checks import differing, identical_arms, settings, warnings
from recipe.report.panels import ONE_PANEL
from recipe.report.results import (
    FINAL_METRICS,
    LAST,
    TRAINING,
    Metric,
    Result,
    costs,
    final_metrics,
    results,
    spreads,
)
from recipe.report.solved import SHOWN, Solved, read_problems, solved_by_one
from recipe.report.tables import markdown, table_metrics


@dataclass(frozen=True)
class Page:
    """What is known of a comparison. The template sees these fields and properties."""

    matrix: Matrix  # without arms and seeds of which nothing has started
    runs: list[Run]
    status: dict[str, str]  # {run's name: missing, unfinished or finished}
    warnings: list[str]  # what a reader has to know before the numbers
    charted: list[Charted]
    charts: list[dict[str, Any]]  # over the steps
    final_charts: list[dict[str, Any]]
    evaluated: list[str]  # benchmarks
    metrics: list[Metric]
    results: list[Result]
    tables: dict[str, list[str]]  # {group: metrics of its table}
    configs: dict[str, dict[int, dict[str, str]]]  # {arm: {seed: {key: value}}}
    spreads: list[dict[str, Any]]
    costs: list[dict[str, Any]]  # per arm
    solved: list[Solved]  # problems that only one of a method and the baseline solves
    texts: dict[str, str]  # {prompt_id: what the user asks}, where it is known

    @property
    def arms(self) -> tuple[Arm, ...]:
        return self.matrix.arms

    @property
    def baseline(self) -> Arm:
        return self.matrix.baseline_first()[0]

    @property
    def styles(self) -> dict[str, dict[str, Any]]:
        return styles_of(self.matrix)

    @property
    def run_rows(self) -> list[dict[str, Any]]:
        return [run_row(run, self.status[run.name]) for run in self.runs]

    @property
    def config_seed(self) -> int | None:
        """The seed that most arms have a record of: at it their configs are compared."""
        counts = {s: sum(s in by_seed for by_seed in self.configs.values()) for s in self.seeds}
        return max(counts, key=counts.__getitem__, default=None)

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.matrix.seeds

    @property
    def config_arms(self) -> list[str]:
        return [name for name, by_seed in self.configs.items() if self.config_seed in by_seed]

    @property
    def config(self) -> dict[str, dict[str, str]]:
        """{key: {arm: value}} of the keys that differ."""
        return differing({name: self.configs[name][self.config_seed] for name in self.config_arms})

    @property
    def solved_lists(self) -> list[tuple[str, Arm, dict[str, list[Solved]]]]:
        """(benchmark, method, {solver: problems}) of each comparison with the baseline in which
        both were evaluated."""
        return [
            (group, arm, {s: rows_of(self.solved, group, arm.name, s) for s in (arm.name, base)})
            for group in self.evaluated
            for base in [self.baseline.name]
            for arm in self.arms
            if any(r.paired_seeds for r in self.results if (r.arm, r.group) == (arm.name, group))
        ]

    @property
    def identical_arms(self) -> list[list[str]]:
        return identical_arms(self.configs)

    def markdown(self, arms: Sequence[str] = ()) -> str:
        """The table of results, of all arms or of some."""
        return markdown(self.matrix, self.results, self.tables, arms)


def collect(out: Path, extra: Sequence[str] = (), baseline: str | None = None) -> Page:
    """Reads a comparison.

    Args:
        out: its folder, see `recipe.experiment`; any file of a run may be missing.
        extra: more metrics to chart, names or patterns.
        baseline: an arm's name; default: the matrix's baseline.
    """
    matrix = read_matrix(out).with_baseline(baseline)
    matrix, runs, unstarted = drop_unstarted(matrix, read_runs(matrix))
    status = statuses(runs)
    finished = [run for run in runs if status[run.name] == "finished"]
    evaluations, left_out = {}, []
    for column in dict.fromkeys(metric.column for metric in FINAL_METRICS):
        evaluations[column], sentences = read_evaluations(finished, column)
        left_out += [sentence for sentence in sentences if sentence not in left_out]
    for run in runs:
        if status[run.name] == "unfinished" and run.folder.evaluations():
            left_out.append(f"{run.name}: its evaluation is left out, the run is not finished.")
    metrics = final_metrics(finished, evaluations, runs)
    all_results = results(metrics, matrix.arms, matrix.baseline)
    charted, not_charted = charted_metrics(runs, extra)
    problems, texts = read_problems(finished, evaluations["correct"])
    names = [arm.name for arm in matrix.arms]
    configs: dict[str, dict[int, dict[str, str]]] = {arm.name: {} for arm in matrix.arms}
    compared = runs_named_alike(runs)
    for run in compared:
        if run.record.get("config"):
            configs[run.arm][run.seed] = settings(run.record)
    return Page(
        matrix=matrix,
        runs=runs,
        status=status,
        warnings=unstarted
        + warnings(compared, status, [chart.metric for chart in charted])
        + not_charted
        + left_out,
        charted=charted,
        charts=[chart_data(matrix.arms, runs, chart) for chart in charted],
        final_charts=final_charts(matrix.arms, metrics, all_results),
        evaluated=sorted({metric.group for metric in metrics} - {TRAINING}),
        metrics=metrics,
        results=all_results,
        tables=table_metrics(metrics),
        configs=configs,
        spreads=spreads(metrics, identical_arms(configs)),
        costs=costs(matrix.arms, runs, status),
        solved=solved_by_one(evaluations["correct"], problems, names, matrix.baseline),
        texts=texts,
    )


def runs_named_alike(runs: Sequence[Run]) -> list[Run]:
    """Returns runs whose records name their files so that they can be compared."""
    records = iter(comparable([record for run in runs for record in run.records]))
    return [replace(run, records=[next(records) for _ in run.records]) for run in runs]


def rows_of(solved: Sequence[Solved], benchmark: str, arm: str, solver: str) -> list[Solved]:
    """Returns the problems of one comparison that `solver` solves."""
    wanted = (benchmark, arm, solver)
    return [row for row in solved if (row.benchmark, row.arm, row.solver) == wanted]


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


def render(page: Page) -> str:
    """Returns the page as one HTML file that needs no other and no network."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    drawn = {
        "arms": [page.styles[arm.name] for arm in page.arms],
        "charts": [*page.charts, *page.final_charts],
        "curves": len(page.charts),  # the first so many of them
        "one_panel": ONE_PANEL,
    }
    json.dumps(drawn, allow_nan=False)  # JSON.parse takes no NaN
    template, css, js = (
        Path(__file__).with_name(name).read_text()
        for name in ("page.html", "page.css", "charts.js")
    )
    constants = {"points": POINTS, "last": LAST, "training": TRAINING, "one_panel": ONE_PANEL}
    constants["most_solved"] = SHOWN
    colours = {"colours": COLOURS, "dark_colours": DARK_COLOURS}
    return environment.from_string(template).render(
        page=page, drawn=drawn, css=css, js=js, **constants, **colours
    )
