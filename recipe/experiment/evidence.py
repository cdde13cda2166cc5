"""What a run's metrics can tell, for `recipe.diagnose` and the findings of recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

from recipe.experiment.metrics import ENTROPY, Metrics, metric_named
from recipe.experiment.provenance import flatten
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
        """Returns the finite values of a metric (as in `metric_named`), step by step; step 0 is
        validation only."""
        name = metric_named(self.steps, name)
        logged = (finite(row.get(name)) for step, row in self.steps.items() if step > 0)
        return [value for value in logged if value is not None]

    def mean(self, name: str) -> float | None:
        values = self.values(name)
        return fmean(values) if values else None

    def ends(self, name: str) -> tuple[float, float] | None:
        """Returns `ends` of a metric."""
        return ends(self.values(name))

    def entropies(self) -> tuple[list[float], str]:
        """Returns the policy's entropy in nats per token, step by step, and the metric that has it.

        There are none where verl alone has logged it, and not as a token mean: its `actor/entropy`
        is aggregated as the loss is.
        """
        name = metric_named(self.steps, ENTROPY)
        mode = self.setting("actor_rollout_ref.actor.loss_agg_mode")
        other = name == "actor/entropy" and mode not in (None, "token-mean")
        return ([] if other else self.values(name)), name

    def setting(self, key: str) -> Any:
        """Returns a setting of the run, None where its record does not have it."""
        return flatten(self.config).get(key)


def ends(values: Sequence[float]) -> tuple[float, float] | None:
    """Returns the means over the first and over the last tenth of a run's values, one per step;
    None for fewer than two."""
    size = max(1, round(len(values) * PART))
    return (fmean(values[:size]), fmean(values[-size:])) if len(values) > 1 else None


def percent(share: float, signed: bool = False) -> str:
    """Returns a share as per cent, with a digit behind the point where it is below 10 %."""
    digits = 0 if abs(share) >= 0.1 else 1
    return f"{100 * share:{'+' if signed else ''}.{digits}f} %"
