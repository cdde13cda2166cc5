"""A metric of a run over its steps, for pictures and tables."""

from __future__ import annotations

from recipe.experiment.run import Metrics
from recipe.experiment.statistics import finite


def metric_named(steps: Metrics, name: str) -> str:
    """Returns the logged metric that a name stands for.

    Args:
        steps: A run's metrics.
        name: A metric; or, ending in /, the first metric below it, verl's mean over samples if
            there is one.
    """
    if not name.endswith("/"):
        return name
    below = sorted({key for row in steps.values() for key in row if key.startswith(name)})
    return next((key for key in below if "/mean@" in key), below[0] if below else name)


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
