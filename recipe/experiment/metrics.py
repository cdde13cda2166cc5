"""What a run has logged: the lines of verl's file logger, and a metric over the steps."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from recipe.experiment.statistics import finite

TRAINED = "training/global_step"  # in verl's row of a step that it has trained
# The policy's entropy in nats per token. verl's is that mean only with loss_agg_mode=token-mean; a
# run of a trainer that has logged no other is shown by it.
ENTROPY = "diagnostics/entropy/all|actor/entropy"
Metrics = dict[int, dict[str, Any]]  # {step: {metric: value}}


def add_lines(steps: Metrics, text: str, kept: tuple[str, ...] = ()) -> None:
    """Adds what lines of verl's file logger say to the steps of a start.

    Left out: lines that are cut off (a start that was killed) or are not a logged step.

    Args:
        steps: Of the start.
        text: The lines.
        kept: Beginnings of the metrics' names that are added; (): all are.
    """
    for line in text.splitlines():
        try:
            row = json.loads(line)
            step, values = row["step"], row["data"]
            if isinstance(step, int) and isinstance(values, dict):
                if kept:
                    values = {name: x for name, x in values.items() if name.startswith(kept)}
                names = map(sys.intern, values)  # json makes new ones for each line
                steps.setdefault(step, {}).update(zip(names, values.values(), strict=True))
        except (ValueError, TypeError, KeyError, RecursionError):
            continue


def merged(starts: Iterable[Metrics]) -> Metrics:
    """Returns what a run has logged at each step.

    What an earlier start logged beyond the first step of a later one is no step of this run: the
    later one resumed, or began anew, before it. Where a resumed start validates first, its first
    row is of the step before, and is joined to that step's; a step that was trained again has the
    later start's values alone.

    Args:
        starts: The steps of each start, in their order.
    """
    steps: Metrics = {}
    for logged in starts:
        if logged:
            steps = {step: row for step, row in steps.items() if step <= min(logged)}
        for step, values in logged.items():
            trained_again = TRAINED in values or step not in steps
            steps[step] = values if trained_again else {**steps[step], **values}
    return dict(sorted(steps.items()))


class StartReader:
    """Reads the metrics file of a start that is running, each line once.

    Args:
        file: The metrics file.
        kept: As in `add_lines`.
    """

    def __init__(self, file: Path, kept: tuple[str, ...] = ()) -> None:
        self.file, self.kept = file, kept
        self.steps: Metrics = {}
        self._read = 0  # bytes

    def read(self) -> bool:
        """Adds the lines that are complete to `steps`; returns whether there were any."""
        with self.file.open("rb") as stream:
            stream.seek(self._read)
            block = stream.read()
        lines = block[: block.rfind(b"\n") + 1]
        self._read += len(lines)
        add_lines(self.steps, lines.decode(errors="replace"), self.kept)
        return bool(lines)


def metric_named(steps: Metrics, name: str) -> str:
    """Returns the logged metric that a name stands for.

    Args:
        steps: A run's metrics.
        name: A metric; or several with | between them, the first that is logged, else the last; or,
            ending in /, the first metric below it, verl's mean over samples if there is one.
    """
    if "|" in name:
        names = name.split("|")
        return next((n for n in names if any(n in row for row in steps.values())), names[-1])
    if not name.endswith("/"):
        return name
    below = sorted(key for key in set().union(*steps.values()) if key.startswith(name))
    return next((key for key in below if "/mean@" in key), below[0] if below else name)


def window_mean(steps: Metrics, name: str, first: int, last: int) -> float | None:
    """Returns the mean of what a metric was at the steps from `first` to `last` at which it was
    logged; None where it was not.

    Args:
        steps: A run's metrics.
        name: As in `metric_named`.
    """
    values = _within(steps, name, first, last)
    return fmean(values) if values else None


def changes(steps: Metrics, name: str, first: int, last: int) -> float | None:
    """Returns how often a metric differs from what it was when it was logged before, among the
    steps from `first` to `last`; None where it was not logged.

    Args:
        steps: A run's metrics.
        name: As in `metric_named`.
    """
    values = _within(steps, name, first, last)
    return float(sum(a != b for a, b in pairwise(values))) if values else None


def _within(steps: Metrics, name: str, first: int, last: int) -> list[float]:
    return [y for step, y in zip(*series(steps, name), strict=True) if first <= step <= last]


def series(steps: Metrics, name: str) -> tuple[list[int], list[float]]:
    """Returns the steps at which a metric was logged, and its values; those that are no finite
    numbers are left out.

    Args:
        steps: A run's metrics.
        name: As in `metric_named`.
    """
    metric = metric_named(steps, name)
    points = {step: finite(row.get(metric)) for step, row in steps.items()}
    logged = {step: value for step, value in points.items() if value is not None}
    return list(logged), list(logged.values())
