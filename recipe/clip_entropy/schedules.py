"""How the clip bounds move over training (arXiv 2602.09782 v1, sec. 4.2): ID, DID, OD and static;
and BAPO's, which follow what the update before measured.

A schedule lives on the driver. `advance(k, entropy)` is called once a training step, k = 0 .. T-1
(verl's global step minus one), before the actor's update, and returns that step's bounds; a run
that is longer than T keeps those of the end. Its state is a few numbers, in the checkpoint. A new
one is a class here and its line in SCHEDULES.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from recipe.clip_entropy import balance
from recipe.clip_entropy.bounds import STANDARD, H, M
from recipe.core.clip import Bounds, Line
from recipe.core.part import changed
from recipe.core.policy_loss import NODE

if TYPE_CHECKING:
    from recipe.clip_entropy.config import ClipSettings

# Settings of every schedule that moves
LINES = ("total_steps", "upper_slope", "upper_intercept", "lower_slope", "lower_intercept")


@dataclass(frozen=True)
class ClipLines:
    """The lines between which a schedule moves the bounds, and the limits of both bounds."""

    wide_upper: Line = H  # H(p)
    wide_lower: Line = M  # M(p)
    base_upper: Line = STANDARD  # eps_std of the upper bound
    base_lower: Line = STANDARD  # eps_std of the lower bound
    eps_min: float = 0.0
    eps_max: float = 1.0

    def bounds(self, upper: Line, lower: Line) -> Bounds:
        """Makes the bounds of a step from its two lines, within eps_min and eps_max."""
        return Bounds(upper, lower, self.eps_min, self.eps_max)


class Static:
    """The same constant bounds at every step: plain PPO, Clip-Higher, Clip-Lower.

    Base class of the schedules, which override `at`, `measure` if they follow the entropy
    (then `possible` too), and name in `reads` their settings, which are arguments.

    Args:
        lines: between which the bounds move.
        total_steps: T; None only where the bounds do not depend on it.
    """

    name = "static"
    reads: tuple[str, ...] = ()  # the settings that it has, beside those of all
    own_limits = False  # its bounds end at its own settings, not at bound_min and bound_max
    timed = True  # it needs T, but for constant bounds
    measures_prefix: ClassVar[str] = ""  # of the metrics of an update that it follows

    def __init__(self, lines: ClipLines, total_steps: int | None = None):
        self.lines = lines
        self.total_steps = total_steps
        self.entropy: float | None = None
        self.entropy_start: float | None = None

    @classmethod
    def from_settings(
        cls, lines: ClipLines, total_steps: int | None, settings: ClipSettings
    ) -> Static:
        """Makes the schedule from the recipe's settings; T is there where it is `timed`. What it
        reads beside the lines are its arguments, without its name: `od_ratio` is `ratio`."""
        names = [name for name in cls.reads if name not in LINES]
        given = {name.removeprefix(f"{cls.name}_"): getattr(settings, name) for name in names}
        return cls(lines, total_steps, **given)

    def advance(self, k: int, entropy: float | None) -> Bounds:
        """Moves the schedule to step k and returns the bounds of that step.

        Every schedule ends at T: a later step has the bounds of k = T (*ours*; the paper trains T
        steps), since a line that was drawn further would leave what it was drawn between.

        Args:
            k: the training step, from 0.
            entropy: the policy's before the step's update, in nats per token; None if verl computes
                none. At one that is no number (a step whose tokens are all rejected) what follows
                the entropy stays as it was.
        """
        if self.total_steps is not None:
            k = min(k, self.total_steps)
        if entropy is None or math.isfinite(entropy):
            self.measure(k, entropy)
            if self.entropy_start is None:
                self.entropy_start = entropy
            self.entropy = entropy
        return self.at(k)

    def measure(self, k: int, entropy: float | None) -> None:
        """Takes the entropy of step k into the state of a schedule that follows it."""

    def at(self, k: int) -> Bounds:
        """Returns the bounds of step k in the present state."""
        return self.lines.bounds(self.lines.base_upper, self.lines.base_lower)

    def possible(self) -> Iterator[Bounds]:
        """Yields all bounds that it can have, of each step here; needs T."""
        assert self.total_steps is not None
        for k in range(self.total_steps + 1):
            yield self.at(k)

    def asks(self) -> dict[str, Any]:
        """Returns what the workers must know to measure what the schedule follows, plain values for
        `Step.tell_loss`."""
        return {}

    def learn(self, means: Mapping[str, float]) -> None:
        """Takes what an update has measured, the metrics below `measures_prefix`."""

    def metrics(self) -> dict[str, float]:
        """Returns what the schedule has measured and where it is, by metric name."""
        measured = {"entropy": self.entropy, "entropy_start": self.entropy_start}
        return {name: value for name, value in measured.items() if value is not None}

    def state_dict(self) -> dict[str, Any]:
        """Returns the state as plain numbers and strings, for JSON."""
        names = ("name", "total_steps", "entropy", "entropy_start")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state.

        Raises:
            ValueError: if it is of another schedule or another T, as the bounds would jump. (All
                settings are compared by the trainer; these two stand in the state itself, so that
                they are compared in checkpoints that were written before it kept the settings.)
        """
        for name, setting in (("name", "schedule"), ("total_steps", "total_steps")):
            if state.get(name) != getattr(self, name):
                raise ValueError(changed(f"{NODE}.{setting}", state.get(name), getattr(self, name)))
        for name in self.state_dict().keys() - {"name", "total_steps"}:
            setattr(self, name, state[name])


class TwoPhases(Static):
    """What ID and DID share: two linear phases that meet at phase_split * T (paper: T/2).

    With lambda_k = 1 - 2k/T of the paper, u = 1 - lambda_k in the first phase and v = -lambda_k in
    the second: progress from 0 to 1. Other splits keep that reading (*ours*; sec. 5.4 prints none).

    Args:
        lines: between which the bounds move.
        total_steps: T.
        phase_split: above 0, below 1.
        second_phase: of the lower bound. "printed" is sec. 4.2's formula, which jumps to M(p) and
            goes back to eps_std; "prose" is what its text says, from eps_std to M(p).
    """

    reads = (*LINES, "phase_split", "second_phase")

    def __init__(
        self,
        lines: ClipLines,
        total_steps: int,
        phase_split: float = 0.5,
        second_phase: str = "printed",
    ):
        super().__init__(lines, total_steps)
        self.split = phase_split * total_steps
        self.second_phase = second_phase
        self.phase = 1

    def at(self, k: int) -> Bounds:
        self.phase = 1 if k <= self.split else 2
        if self.phase == 1:
            u = k / self.split
            return self.lines.bounds(self.first_upper(u), self.lines.base_lower)
        assert self.total_steps is not None
        v = (k - self.split) / (self.total_steps - self.split)
        # printed: (1 + lambda) M(p) - lambda eps_std, prose: -lambda M(p) + (1 + lambda) eps_std
        weight_of_base = v if self.second_phase == "printed" else 1 - v
        lower = self.lines.wide_lower.lerp(self.lines.base_lower, weight_of_base)
        return self.lines.bounds(self.second_upper(), lower)

    def first_upper(self, u: float) -> Line:
        """Returns the upper bound in the first phase, at progress u."""
        raise NotImplementedError

    def second_upper(self) -> Line:
        """Returns the upper bound in the second phase."""
        raise NotImplementedError

    def metrics(self) -> dict[str, float]:
        return {**super().metrics(), "phase": self.phase}


class IncreaseThenDecrease(TwoPhases):
    """ID. First (lambda H(p) + (1-lambda) eps_std, eps_std), then (eps_std, lower as above)."""

    name = "id"

    def first_upper(self, u: float) -> Line:
        return self.lines.wide_upper.lerp(self.lines.base_upper, u)

    def second_upper(self) -> Line:
        return self.lines.base_upper


class DecreaseIncreaseDecrease(TwoPhases):
    """DID. First (lambda eps_std + (1-lambda) H(p), eps_std), then (H(p), lower as above)."""

    name = "did"

    def first_upper(self, u: float) -> Line:
        return self.lines.base_upper.lerp(self.lines.wide_upper, u)

    def second_upper(self) -> Line:
        return self.lines.wide_upper


class OscillatoryDecay(Static):
    """OD. Raises the entropy, (H(p), eps_std), or lowers it, (eps_std, M(p)), as it is measured:

        raise once  entropy <= tau_low  = H_min,  H_min = ratio H_init
        lower once  entropy >  tau_high = H_min + (H_init - H_min)(1 - k/T)
    and in between keeps its state.

    Args:
        lines: between which the bounds move.
        total_steps: T.
        h_init: H_init in nats per token; None: the mean entropy of the first h_init_steps steps,
            during which the start state holds. *Ours*: the paper gives no number.
        h_init_steps: *ours*.
        ratio: 0.2 in the paper.
        start: "lower", as its curves begin downwards, or "raise". *Ours*.
        smoothing: s in [0, 1): s * previous + (1 - s) * entropy is compared in the entropy's place.
            *Ours*; 0 for none.
    """

    name = "od"
    reads = (*LINES, "od_h_init", "od_h_init_steps", "od_ratio", "od_start", "od_smoothing")

    def __init__(
        self,
        lines: ClipLines,
        total_steps: int,
        h_init: float | None = None,
        h_init_steps: int = 1,
        ratio: float = 0.2,
        start: str = "lower",
        smoothing: float = 0.0,
    ):
        super().__init__(lines, total_steps)
        self.h_init, self.h_init_steps, self.ratio = h_init, h_init_steps, ratio
        self.raising = start == "raise"
        self.smoothing = smoothing
        self.smoothed: float | None = None
        self.seen: list[float] = []  # entropies from which h_init is still to be measured
        self.tau_low: float | None = None
        self.tau_high: float | None = None

    def measure(self, k: int, entropy: float | None) -> None:
        if entropy is None:
            raise ValueError(
                "actor_rollout_ref.actor.policy_loss.schedule=od needs the policy's entropy, which "
                "verl does not compute in its bypass mode: set "
                "algorithm.rollout_correction.bypass_mode=false."
            )
        previous = entropy if self.smoothed is None else self.smoothed
        self.smoothed = self.smoothing * previous + (1 - self.smoothing) * entropy
        if self.h_init is None:
            self.seen = [*self.seen, entropy]  # a saved state keeps the list that it has
            if len(self.seen) == self.h_init_steps:
                self.h_init, self.seen = sum(self.seen) / len(self.seen), []
        else:
            self._switch(k, self.smoothed, self.h_init)

    def _switch(self, k: int, entropy: float, h_init: float) -> None:
        assert self.total_steps is not None
        h_min = self.ratio * h_init
        self.tau_low = h_min
        self.tau_high = h_min + (h_init - h_min) * (1 - k / self.total_steps)
        if entropy <= self.tau_low:
            self.raising = True
        elif entropy > self.tau_high:
            self.raising = False

    def at(self, k: int) -> Bounds:
        raising, lowering = self.possible()
        return raising if self.raising else lowering

    def possible(self) -> Iterator[Bounds]:
        yield self.lines.bounds(self.lines.wide_upper, self.lines.base_lower)
        yield self.lines.bounds(self.lines.base_upper, self.lines.wide_lower)

    def metrics(self) -> dict[str, float]:
        measured = {
            "raising": float(self.raising),
            "entropy_smoothed": self.smoothed,
            "tau_low": self.tau_low,
            "tau_high": self.tau_high,
        }
        return super().metrics() | {k: v for k, v in measured.items() if v is not None}

    def state_dict(self) -> dict[str, Any]:
        names = ("raising", "smoothed", "h_init", "seen", "tau_low", "tau_high")
        return super().state_dict() | {name: getattr(self, name) for name in names}


class Balanced(Static):
    """BAPO. The bounds of the ratio that `balance.search` finds in what the last step measured:
    each begins at the actor's constant one and moves up to its end, until the tokens with A > 0
    hold `target` of the surrogate.

    *Ours*: the mean over the mini-batches of the step before, chosen once for all mini-batches of
    a step. BAPO chooses for each mini-batch from its own ratios, which verl's loss, called with a
    micro-batch of one rank, does not see; so the first step has the bounds of the start.

    Args:
        lines: whose constant ones are the start, c_high - 1 and 1 - c_low.
        target: rho_0, above 0, below 1.
        upper_end, lower_end: of c_high and c_low, the bounds of the ratio.
        upper_step, lower_step: between two candidates.
    """

    name = "bapo"
    reads = (
        *("bapo_target", "bapo_upper_end", "bapo_lower_end", "bapo_upper_step"),
        "bapo_lower_step",
    )
    own_limits, timed = True, False
    measures_prefix = balance.PREFIX

    def __init__(
        self,
        lines: ClipLines,
        total_steps: int | None = None,
        target: float = 0.4,
        upper_end: float = 3.0,
        lower_end: float = 0.9,
        upper_step: float = 0.05,
        lower_step: float = 0.02,
    ):
        super().__init__(lines, None)  # such a run may be made longer
        self.target = target
        start = 1 + lines.base_upper.intercept, 1 - lines.base_lower.intercept
        for name, first, end in zip(("upper", "lower"), start, (upper_end, lower_end), strict=True):
            if end < first:
                raise ValueError(
                    f"{NODE}.bapo_{name}_end={end} is not allowed: use a number from {first:g} up, "
                    f"where the actor's clip_ratio_{'high' if name == 'upper' else 'low'} puts the "
                    "start of that bound of the ratio."
                )
        self.uppers = balance.candidates(start[0], upper_end, upper_step)
        self.lowers = balance.candidates(start[1], lower_end, lower_step)
        if len(self.uppers) == len(self.lowers) == 1:
            raise ValueError(
                f"{NODE}.bapo_upper_end={upper_end} and bapo_lower_end={lower_end} leave both "
                "bounds where they start: raise one of them, or use schedule=static."
            )
        self.upper, self.lower = 0, 0  # which candidates
        self.share: float | None = None

    def asks(self) -> dict[str, Any]:
        return {balance.CANDIDATES: [self.uppers, self.lowers]}

    def learn(self, means: Mapping[str, float]) -> None:
        positive = balance.by_candidate(means, "positive")
        negative = balance.by_candidate(means, "negative")
        if not (positive and negative) or positive[0] + negative[0] == 0:
            return  # no token has an advantage: the bounds stay
        if not all(map(math.isfinite, [*positive, *negative])):
            return  # verl has skipped the update
        self.upper, self.lower = balance.search(positive, negative, self.target)
        self.share = balance.positive_share(positive[self.upper], negative[self.lower])

    def at(self, k: int) -> Bounds:
        upper, lower = self.uppers[self.upper] - 1, 1 - self.lowers[self.lower]
        return Bounds(Line(0.0, upper), Line(0.0, lower), 0.0, max(self.uppers[-1] - 1, 1.0))

    def metrics(self) -> dict[str, float]:
        share = {} if self.share is None else {"positive_share": self.share}
        return super().metrics() | share

    def state_dict(self) -> dict[str, Any]:
        names = ("upper", "lower", "share")
        return super().state_dict() | {name: getattr(self, name) for name in names}


SCHEDULES: dict[str, type[Static]] = {
    schedule.name: schedule
    for schedule in (
        Static,
        IncreaseThenDecrease,
        DecreaseIncreaseDecrease,
        OscillatoryDecay,
        Balanced,
    )
}
