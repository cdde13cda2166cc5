"""How far a run is, read from its folder alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from recipe.console import log
from recipe.experiment.metrics import (
    ENTROPY,
    TIMES,
    TRAINED,
    Logged,
    Metrics,
    StartReader,
    is_token_mean,
    merged,
    series,
    shared_metric,
)
from recipe.experiment.run import FINISHED, RunFolder, has_finished, planned_steps

STARTING = 900.0  # seconds without a written byte, after which a run without a step is stalled
PATIENCE = 120.0  # the same of a run with steps, at least; else
SLOWER = 5  # times the longest of its last steps
RECENT = 10  # steps, of which the time of the next is estimated


class Column(NamedTuple):
    """A column: its head, its metric (as in `series`), how a value is written, which of several
    metrics it is, and the names of the runs that have another one."""

    head: str
    metric: str
    spec: str
    note: str = ""
    left_out: tuple[str, ...] = ()


COLUMNS = (
    Column("reward", "critic/rewards/mean", ".3f"),
    Column("held-out", "val-core/", ".3f"),
    Column("entropy", ENTROPY, ".3f"),
    Column("clipped", "actor/pg_clipfrac", ".2%"),
    Column("length", "response_length/mean", ".1f"),
    Column("s/step", "timing_s/step", ".1f"),
)
# metrics that are read; those of a whole comparison would take gigabytes
KEPT = (*TIMES, TRAINED, *(name for column in COLUMNS for name in column.metric.split("|")))


@dataclass
class Progress:
    """A run as its folder shows it; `refresh` reads it again.

    Attributes:
        name: What it is called on the screen.
        folder: Its folder, which need not exist yet.
        steps: Its metrics, of which KEPT alone.
        logged: What it has logged of them.
        planned: Its last step, None where it is not known.
        end: How its last start ended, "" where it has not, or nobody was left to write it.
        written: When a start has last written something, in seconds since the epoch.
    """

    name: str
    folder: RunFolder
    planned: int | None = None
    steps: Metrics = field(default_factory=dict)
    logged: Logged = field(default_factory=lambda: Logged(()))
    end: str = ""
    written: float = 0.0
    _starts: dict[Path, StartReader] = field(default_factory=dict)
    _record: Path | None = None
    _series: dict[str, tuple[list[int], list[float]]] = field(default_factory=dict)

    def refresh(self) -> None:
        """Reads what has changed since the last time."""
        files = self.folder.metrics_files()
        self._starts = {file: self._starts.get(file) or StartReader(file, KEPT) for file in files}
        if any([start.read() for start in self._starts.values()]):
            self.steps = merged(start.steps for start in self._starts.values())
            self.logged = self.logged._replace(names=set().union(*self.steps.values()))
            self._series = {}
        file = self.folder.last_record_file()
        if file != self._record:
            record = self.folder.last_record() or {}
            self.planned, self._record = planned_steps(record), file
            self.logged = self.logged._replace(token_mean=is_token_mean(record.get("config") or {}))
        if self.planned is None and self.steps:
            self.planned = log.total_steps(log.end_of(self.folder.log))
        self.end, self.written = self.folder.last_end(), self.folder.last_written()

    @property
    def last_step(self) -> int:
        return max(self.steps, default=0)

    def steps_of(self, start: Path) -> list[int]:
        """Returns the steps that the start with this metrics file has logged."""
        return sorted(self._starts[start].steps) if start in self._starts else []

    def _has_logged(self) -> bool:
        """Says whether the last start has logged a step; one that resumes loads its model first."""
        return self._record is None or bool(self.steps_of(self._record.with_suffix(".jsonl")))

    def column(self, column: Column) -> tuple[list[int], list[float]]:
        """Returns the steps of a column of `columns_of`, and its values."""
        return ([], []) if self.name in column.left_out else self.series(column.metric)

    def series(self, metric: str) -> tuple[list[int], list[float]]:
        """Returns the steps at which a metric was logged, and its values; they are looked up once
        for what has been read."""
        if metric not in self._series:
            self._series[metric] = series(self.steps, metric)
        return self._series[metric]

    def seconds(self) -> list[float]:
        """Returns the seconds of each step with its validation, the first steps first."""
        trained, tested = (dict(zip(*self.series(name), strict=True)) for name in TIMES)
        return [time + tested.get(step, 0.0) for step, time in trained.items() if step > 0]

    def seconds_left(self) -> float | None:
        """Returns the time that is left by the mean of the last steps, None before the first. The
        first step, which compiles and warms up, counts only while it is the only one."""
        seconds = self.seconds()
        if self.planned is None or not seconds:
            return None
        return max(self.planned - self.last_step, 0) * mean((seconds[1:] or seconds)[-RECENT:])

    def state(self, now: float | None = None) -> tuple[str, str]:
        """Returns one of waiting, starting, running, stalled, failed, killed, stopped and finished,
        and a text that says more or is empty.

        Args:
            now: The time in seconds since the epoch; default: now.
        """
        if not self.written:
            return "waiting", ""
        if has_finished(self.last_step, self.planned, self.end):
            return FINISHED, "" if self.end in ("", FINISHED) else f"its last start {self.end}"
        if self.end:
            word, _, detail = self.end.partition(": ")
            return word, detail
        silent = max((time.time() if now is None else now) - self.written, 0.0)
        seconds = self.seconds()[-RECENT:] if self._has_logged() else []
        if silent > (max(PATIENCE, SLOWER * max(seconds)) if seconds else STARTING):
            return "stalled", f"nothing written for {duration(silent)}"
        return ("running", "") if self.steps else ("starting", "")


def columns_of(runs: Sequence[Progress]) -> list[Column]:
    """Returns COLUMNS, each with the one metric by which all these runs are shown."""
    logged = {run.name: run.logged for run in runs}
    columns = []
    for column in COLUMNS:
        metric, note, left_out = shared_metric(logged, column.metric)
        columns.append(column._replace(metric=metric, note=note, left_out=left_out))
    return columns


def note_of(columns: Sequence[Column]) -> str:
    """Returns which of several metrics columns show, "" where each is the preferred one."""
    return "; ".join(f"{column.head}: {column.note}" for column in columns if column.note)


def duration(seconds: float) -> str:
    """Returns a time in two units at most, such as `2 min 05 s`."""
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    if total < 86400:
        return f"{total // 3600} h {total % 3600 // 60:02d} min"
    return f"{total // 86400} d {total % 86400 // 3600:02d} h"
