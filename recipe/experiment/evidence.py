"""What a run's metrics can tell, for `recipe.diagnose` and the findings of recipes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

from recipe.experiment.metrics import ENTROPY, OF_VERL, Metrics, is_token_mean
from recipe.experiment.provenance import flatten
from recipe.experiment.statistics import finite

# share of the run that counts as its beginning, and as its end
PART = 0.1
# True: verl takes the engine's log-probs for the old policy's, and computes no entropy
BYPASS = "algorithm.rollout_correction.bypass_mode"
Points = dict[int, float]  # {step: value}


class Finding(NamedTuple):
    topic: str
    text: str  # a sentence or two, with figures
    source: str  # the metric that it was read from, and the paper where one explains it


@dataclass(frozen=True)
class Evidence:
    """A run's metrics by step, and the config of its last start ({} where no record has one)."""

    steps: Metrics
    config: Mapping[str, Any]

    def points(self, name: str) -> Points:
        """Returns the finite values of a metric by step; step 0 is validation only."""
        logged = {step: finite(row.get(name)) for step, row in self.steps.items() if step > 0}
        return {step: value for step, value in logged.items() if value is not None}

    def values(self, name: str) -> list[float]:
        """Returns the finite values of a metric, step by step."""
        return list(self.points(name).values())

    def mean(self, name: str) -> float | None:
        values = self.values(name)
        return fmean(values) if values else None

    def ends(self, name: str) -> tuple[float, float] | None:
        """Returns `ends` of a metric."""
        return ends(self.points(name))

    def entropies(self) -> tuple[Points, str]:
        """Returns the policy's entropy in nats per token by step, and the metrics that have it.

        Of a step, the first of `ENTROPY` that it has: a resumed start may have switched the
        diagnostics on or off.
        """
        names = ENTROPY.split("|")
        if not self.is_token_mean:
            names.remove(OF_VERL)
        entropies: Points = {}
        used = []
        for name in names:
            points = self.points(name)
            if points.keys() - entropies.keys():
                used.append(name)
            entropies = points | entropies
        return dict(sorted(entropies.items())), ", ".join(used or names)

    @property
    def is_token_mean(self) -> bool:
        """Whether verl's `actor/entropy`, which is aggregated as the loss is, is a token mean."""
        return is_token_mean(self.config)

    def span(self, steps: Collection[int]) -> str:
        """Returns " of steps a to b", the first and the last of `steps`, which have logged a
        metric; "" where these lie in the first and in the last tenth of the run."""
        trained = [step for step in self.steps if step > 0]
        size = tenth(trained)
        first, last = min(steps), max(steps)
        if first <= trained[size - 1] and last >= trained[-size]:
            return ""
        return f" of step {first}" if first == last else f" of steps {first} to {last}"

    def setting(self, key: str) -> Any:
        """Returns a setting of the run, None where its record does not have it."""
        return flatten(self.config).get(key)

    def to_log(self, settings: Mapping[str, Any]) -> str:
        """Returns the end of a sentence on a metric that is missing: which of the settings that log
        it the run does not have."""
        lacking = [
            f"{key}={str(value).lower()}"
            for key, value in settings.items()
            if self.setting(key) != value
        ]
        return f": {' and '.join(lacking)} would log it." if lacking else "."


def tenth(steps: Collection) -> int:
    """Returns how many of a run's steps are its beginning, and how many its end."""
    return max(1, round(len(steps) * PART))


def ends(points: Points) -> tuple[float, float] | None:
    """Returns the means over the first and over the last tenth of the steps that have a value; None
    where none has."""
    values, size = list(points.values()), tenth(points)
    return (fmean(values[:size]), fmean(values[-size:])) if values else None


def percent(share: float, signed: bool = False) -> str:
    """Returns a share as per cent, with a digit behind the point where it is below 10 %, and below
    0.1 % with one digit that is not 0."""
    size = abs(share)
    digits = ".0f" if size >= 0.1 else ".1f" if size >= 0.001 or size == 0 else ".1g"
    return f"{100 * share:{'+' if signed else ''}{digits}} %"
