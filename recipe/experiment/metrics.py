"""What a run has logged: the lines of verl's file logger, and a metric over the steps."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from recipe.experiment.provenance import flatten
from recipe.experiment.statistics import finite

TRAINED = "training/global_step"  # in verl's row of a step that it has trained
TIMES = ("timing_s/step", "timing_s/testing")  # seconds of a step, and of its validation
# The policy's entropy in nats per token. verl's is aggregated as the loss is, so that it is that
# mean only with loss_agg_mode=token-mean; a run that has logged no other is shown by it.
OF_VERL = "actor/entropy"
ENTROPY = f"diagnostics/entropy/all|{OF_VERL}"
# verl's name of a validation metric: its data source, and what was measured over how many samples
VALIDATION = re.compile(r"val-\w+/(.+)/[^/]+/[^/]+@\d+(/[^/]+)?")
Metrics = dict[int, dict[str, Any]]  # {step: {metric: value}}


def add_lines(steps: Metrics, text: str, kept: tuple[str, ...] = ()) -> None:
    """Adds what lines of verl's file logger say to the steps of a start.

    Left out: lines that are cut off (a start that was killed) or are not a logged step.

    Args:
        steps: Of the start.
        text: The lines.
        kept: Beginnings of the metrics' names that are added; (): all are.
    """
    for line in text.split("\n"):  # a metric's name may hold what else splitlines() splits at
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

    What an earlier start logged beyond the first step that a later one has trained is no step of
    this run: the later one resumed, or began anew, before it. Rows of a validation alone, which a
    resumed start may begin with, and all that a start with trainer.val_only logs, are joined to
    those of their steps; a step that was trained again has the later start's values alone. Where
    no row says that its step was trained, each start's first one counts.

    Args:
        starts: The steps of each start, in their order.
    """
    starts = list(starts)
    marked = any(TRAINED in row for logged in starts for row in logged.values())
    steps: Metrics = {}
    for logged in starts:
        trained = [step for step, row in logged.items() if TRAINED in row or not marked]
        if trained:
            steps = {step: row for step, row in steps.items() if step <= min(trained)}
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


def metrics_named(logged: Collection[str], name: str) -> list[str]:
    """Returns the logged metrics that a name stands for, the preferred one first.

    Args:
        logged: Names of metrics.
        name: A metric; or several with | between them; or, ending in /, all metrics below it:
            verl's means over samples if there are any.
    """
    if not name.endswith("/"):
        return [metric for metric in name.split("|") if metric in logged]
    below = sorted(metric for metric in logged if metric.startswith(name))
    return [metric for metric in below if "/mean@" in metric] or below


def metric_named(steps: Metrics, name: str) -> str:
    """Returns the logged metric that a name stands for.

    Args:
        steps: A run's metrics.
        name: As in `metrics_named`. Of several that are not logged, the last is returned.
    """
    if not name.endswith("/") and "|" not in name:
        return name
    metrics = metrics_named(set().union(*steps.values()), name)
    return metrics[0] if metrics else name.split("|")[-1]


def is_token_mean(config: Mapping[str, Any]) -> bool:
    """Returns whether verl's `actor/entropy` of a run with this config is a mean over tokens; True
    where the config does not say."""
    return flatten(config).get("actor_rollout_ref.actor.loss_agg_mode") in (None, "token-mean")


class Logged(NamedTuple):
    """What a run has logged."""

    names: Collection[str]  # of its metrics
    token_mean: bool = True  # of its config, see `is_token_mean`

    @classmethod
    def from_run(cls, steps: Metrics, record: Mapping[str, Any]) -> Logged:
        """Returns that of a run with these metrics and this record of its last start."""
        return cls(set().union(*steps.values()), is_token_mean(record.get("config") or {}))

    def comparable(self, name: str) -> list[str]:
        """Returns `metrics_named` without an `actor/entropy` that is no mean over tokens."""
        metrics = metrics_named(self.names, name)
        return [metric for metric in metrics if metric != OF_VERL or self.token_mean]


class Shared(NamedTuple):
    """The one metric by which several runs are shown, so that no two metrics share an axis."""

    metric: str
    note: str  # which of those that were asked for it is, "" where it is the preferred one
    left_out: tuple[str, ...]  # the runs that have logged others of them alone

    def warning(self, title: str) -> str:
        """Returns a sentence on the runs that are left out of what has this title, "" without."""
        if not self.left_out:
            return ""
        of_verl = self.metric in ENTROPY.split("|")
        reason = f"; {OF_VERL} counts with loss_agg_mode=token-mean only" if of_verl else ""
        names = ", ".join(self.left_out)
        return f"{names}: left out of the {title}, which shows {self.metric}{reason}."


def shared_metric(runs: Mapping[str, Logged], name: str) -> Shared:
    """Returns the metric by which runs are shown: of those that a name stands for the one that most
    runs have logged, of several such the preferred one. The note on a validation's metric is its
    data source, and how many more there are.

    Args:
        runs: {its name: what it has logged}. One that has logged none of the metrics, such as the
            entropy before its first step, does not count.
        name: As in `metrics_named`. An `actor/entropy` that is no mean over tokens does not count.
    """
    comparable = {run: logged.comparable(name) for run, logged in runs.items()}
    counts = Counter(metric for metrics in comparable.values() for metric in metrics)
    logged_names = metrics_named(counts, name)
    preferred = name.split("|")[0]
    metric = max(logged_names, key=counts.__getitem__, default=preferred)
    source = VALIDATION.fullmatch(metric)
    note = source[1] if source else metric if metric != preferred else ""
    more = len({match[1] for match in map(VALIDATION.fullmatch, logged_names) if match}) - 1
    left_out = tuple(
        run
        for run, logged in runs.items()
        if metric not in comparable[run] and metrics_named(logged.names, name)
    )
    return Shared(metric, f"{note} (and {more} more, not shown)" if more > 0 else note, left_out)


def window_mean(steps: Metrics, name: str, first: int, last: int) -> float | None:
    """Returns the mean of what a metric was at the steps from `first` to `last` at which it was
    logged; None where it was not.

    Args:
        steps: A run's metrics.
        name: As in `metrics_named`.
    """
    values = _within(steps, name, first, last)
    return fmean(values) if values else None


def changes(steps: Metrics, name: str, first: int, last: int) -> float | None:
    """Returns how often a metric differs from what it was when it was logged before, among the
    steps from `first` to `last`; None where it was not logged.

    Args:
        steps: A run's metrics.
        name: As in `metrics_named`.
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
        name: As in `metrics_named`.
    """
    metric = metric_named(steps, name)
    points = {step: finite(row.get(metric)) for step, row in steps.items()}
    logged = {step: value for step, value in points.items() if value is not None}
    return list(logged), list(logged.values())
