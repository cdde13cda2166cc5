"""What a run's metrics can tell, for `recipe.diagnose` and the findings of recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

from recipe.experiment.provenance import flatten
from recipe.experiment.run import Metrics
from recipe.experiment.statistics import finite

# share of the run that counts as its beginning, and as its end
PART = 0.1


class Finding(NamedTuple):
    topic: str
    text: str  # a sentence or two, with figures
    source: str  # the metric that it was read from, and the paper where one explains it


@dataclass(frozen=True)
class Evidence:
    """A run's metrics by step, and the config of its last start ({} where no record has one)."""

    steps: Metrics
    config: Mapping[str, Any]

    def values(self, name: str) -> list[float]:
        """Returns the finite values of a metric, step by step; step 0 is validation only."""
        logged = (finite(row.get(name)) for step, row in self.steps.items() if step > 0)
        return [value for value in logged if value is not None]

    def mean(self, name: str) -> float | None:
        values = self.values(name)
        return fmean(values) if values else None

    def ends(self, name: str) -> tuple[float, float] | None:
        """Returns the means over the first and over the last tenth of the run; None where fewer
        than two steps have logged the metric."""
        values = self.values(name)
        size = max(1, round(len(values) * PART))
        return (fmean(values[:size]), fmean(values[-size:])) if len(values) > 1 else None

    def setting(self, key: str) -> Any:
        """Returns a setting of the run, None where its record does not have it."""
        return flatten(self.config).get(key)


def percent(share: float, signed: bool = False) -> str:
    """Returns a share as per cent, with a digit behind the point where it is below 10 %."""
    digits = 0 if abs(share) >= 0.1 else 1
    return f"{100 * share:{'+' if signed else ''}.{digits}f} %"
