"""How the clip bounds move over training (arXiv 2602.09782 v1, sec. 4.2): ID, DID, OD and static.

A schedule lives on the driver. `advance(k, entropy)` is called once a training step, k = 0 .. T-1
(verl's global step minus one), before the actor's update, and returns that step's bounds.
Its state is a few numbers, in the checkpoint. A new one is a class here and its line in SCHEDULES.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recipe.clip_entropy.bounds import STANDARD, Bounds, H, Line, M


@dataclass(frozen=True)
class Levels:
    """The lines between which a schedule moves, and the cut-offs of both."""

    high: Line = H  # H(p)
    low: Line = M  # M(p)
    upper: Line = STANDARD  # eps_std of the upper bound
    lower: Line = STANDARD  # eps_std of the lower bound
    floor: float = 0.0
    ceiling: float = 1.0

    def bounds(self, upper: Line, lower: Line) -> Bounds:
        return Bounds(upper, lower, self.floor, self.ceiling)


class Static:
    """The same constant bounds at every step: plain PPO, Clip-Higher, Clip-Lower."""

    name = "static"

    def __init__(self, levels: Levels, total_steps: int | None = None):
        self.levels = levels
        self.total_steps = total_steps
        self.entropy: float | None = None
        self.entropy_start: float | None = None

    @classmethod
    def from_settings(cls, levels: Levels, total_steps: int, settings) -> Static:
        """From the recipe's settings (`DynamicClipConfig`); a schedule with some of its own
        overrides this."""
        return cls(levels, total_steps)

    def advance(self, k: int, entropy: float | None) -> Bounds:
        """Bounds of step k; entropy (nats a token) is the policy's, before the step's update."""
        if self.entropy_start is None:
            self.entropy_start = entropy
        self.entropy = entropy
        return self.at(k)

    def at(self, k: int) -> Bounds:
        return self.levels.bounds(self.levels.upper, self.levels.lower)

    def metrics(self) -> dict[str, float]:
        measured = {"entropy": self.entropy, "entropy_start": self.entropy_start}
        return {name: value for name, value in measured.items() if value is not None}

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, for JSON."""
        names = ("name", "total_steps", "entropy", "entropy_start")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, where in (("name", "schedule"), ("total_steps", "total_steps")):
            if state.get(name) != getattr(self, name):
                raise ValueError(
                    f"actor_rollout_ref.actor.policy_loss.{where} is {getattr(self, name)}, but "
                    f"the checkpoint was written with {state.get(name)}, so the bounds would jump: "
                    f"set it to {state.get(name)}, or start in another folder."
                )
        for name in self.state_dict().keys() - {"name", "total_steps"}:
            setattr(self, name, state[name])


class TwoPhases(Static):
    """What ID and DID share: two linear phases that meet at phase_split * T (paper: T/2).

    With lambda_k = 1 - 2k/T of the paper, u = 1 - lambda_k in the first phase and v = -lambda_k in
    the second: progress from 0 to 1. Other splits keep that reading (*ours*; sec. 5.4 prints none).

    Second phase, lower bound. second_phase = "printed" is sec. 4.2's formula, which jumps to M(p)
    and goes back to eps_std; "prose" is what its text says, from eps_std to M(p).
    """

    def __init__(
        self,
        levels: Levels,
        total_steps: int,
        phase_split: float = 0.5,
        second_phase: str = "printed",
    ):
        super().__init__(levels, total_steps)
        self.split = phase_split * total_steps
        self.second_phase = second_phase
        self.phase = 1

    @classmethod
    def from_settings(cls, levels: Levels, total_steps: int, settings) -> TwoPhases:
        return cls(levels, total_steps, settings.phase_split, settings.second_phase)

    def at(self, k: int) -> Bounds:
        self.phase = 1 if k <= self.split else 2
        if self.phase == 1:
            return self.levels.bounds(self.first_upper(k / self.split), self.levels.lower)
        v = (k - self.split) / (self.total_steps - self.split)
        from_M = v if self.second_phase == "printed" else 1 - v
        return self.levels.bounds(
            self.second_upper(), self.levels.low.mixed(self.levels.lower, from_M)
        )

    def first_upper(self, u: float) -> Line:
        raise NotImplementedError

    def second_upper(self) -> Line:
        raise NotImplementedError

    def metrics(self) -> dict[str, float]:
        return {**super().metrics(), "phase": self.phase}


class IncreaseThenDecrease(TwoPhases):
    """ID. First (lambda H(p) + (1-lambda) eps_std, eps_std), then (eps_std, lower as above)."""

    name = "id"

    def first_upper(self, u: float) -> Line:
        return self.levels.high.mixed(self.levels.upper, u)

    def second_upper(self) -> Line:
        return self.levels.upper


class DecreaseIncreaseDecrease(TwoPhases):
    """DID. First (lambda eps_std + (1-lambda) H(p), eps_std), then (H(p), lower as above)."""

    name = "did"

    def first_upper(self, u: float) -> Line:
        return self.levels.upper.mixed(self.levels.high, u)

    def second_upper(self) -> Line:
        return self.levels.high


class OscillatoryDecay(Static):
    """OD. Raise, (H(p), eps_std), or lower, (eps_std, M(p)), by the measured entropy:

        raise once  entropy <= tau_low  = H_min,  H_min = ratio H_init
        lower once  entropy >  tau_high = H_min + (H_init - H_min)(1 - k/T)
    and else go on as before. The paper gives ratio 0.2 and no more. *Ours*: h_init, a number, or
    None = the mean entropy of the first h_init_steps steps, during which the start state holds;
    start, "lower" (its curves begin downwards) or "raise"; smoothing s in [0, 1), which compares
    s * before + (1 - s) * entropy instead of the entropy.
    """

    name = "od"

    def __init__(
        self,
        levels: Levels,
        total_steps: int,
        h_init: float | None = None,
        h_init_steps: int = 1,
        ratio: float = 0.2,
        start: str = "lower",
        smoothing: float = 0.0,
    ):
        super().__init__(levels, total_steps)
        self.h_init, self.h_init_steps, self.ratio = h_init, h_init_steps, ratio
        self.raising = start == "raise"
        self.smoothing, self.smoothed = smoothing, None
        self.seen: list[float] = []  # entropies from which h_init is still to be measured
        self.tau_low = self.tau_high = None

    @classmethod
    def from_settings(cls, levels: Levels, total_steps: int, settings) -> OscillatoryDecay:
        return cls(
            levels,
            total_steps,
            h_init=settings.od_h_init,
            h_init_steps=settings.od_h_init_steps,
            ratio=settings.od_ratio,
            start=settings.od_start,
            smoothing=settings.od_smoothing,
        )

    def advance(self, k: int, entropy: float | None) -> Bounds:
        if entropy is None:
            raise ValueError(
                "actor_rollout_ref.actor.policy_loss.schedule=od needs the policy's entropy, which "
                "verl does not compute in its bypass mode: set "
                "algorithm.rollout_correction.bypass_mode=false."
            )
        before = entropy if self.smoothed is None else self.smoothed
        self.smoothed = self.smoothing * before + (1 - self.smoothing) * entropy
        if self.h_init is None:
            self.seen.append(entropy)
            if len(self.seen) == self.h_init_steps:
                self.h_init, self.seen = sum(self.seen) / len(self.seen), []
        else:
            self._switch(k)
        return super().advance(k, entropy)

    def _switch(self, k: int) -> None:
        self.tau_low = self.ratio * self.h_init
        self.tau_high = self.tau_low + (self.h_init - self.tau_low) * (1 - k / self.total_steps)
        if self.smoothed <= self.tau_low:
            self.raising = True
        elif self.smoothed > self.tau_high:
            self.raising = False

    def at(self, k: int) -> Bounds:
        if self.raising:
            return self.levels.bounds(self.levels.high, self.levels.lower)
        return self.levels.bounds(self.levels.upper, self.levels.low)

    def metrics(self) -> dict[str, float]:
        measured = {
            "raising": float(self.raising),
            "entropy_smoothed": self.smoothed,
            "tau_low": self.tau_low,
            "tau_high": self.tau_high,
        }
        return super().metrics() | {k: v for k, v in measured.items() if v is not None}

    def state_dict(self) -> dict[str, Any]:
        own = ("raising", "smoothed", "h_init", "seen", "tau_low", "tau_high")
        return super().state_dict() | {name: getattr(self, name) for name in own}


SCHEDULES: dict[str, type[Static]] = {
    schedule.name: schedule
    for schedule in (Static, IncreaseThenDecrease, DecreaseIncreaseDecrease, OscillatoryDecay)
}
