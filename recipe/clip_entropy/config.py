"""Settings of `actor_rollout_ref.actor.policy_loss` and the presets: arXiv 2602.09782 v1, Table 1.

A preset is a whole arm of the comparison. It names the loss and the schedule and states every
coefficient that the arm needs elsewhere: `clip_entropy.yaml` reads them with the resolver
`${clip_entropy_preset:<preset>,<key>}`, and a command-line override still wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from verl.workers.config import PolicyLossConfig

from recipe.clip_entropy.schedules import SCHEDULES, ClipLines, Static
from recipe.core.clip import Line
from recipe.core.settings import check_known, check_number

LOSS_MODE = "dynamic_clip"
NODE = "actor_rollout_ref.actor.policy_loss"


class Preset(NamedTuple):
    loss_mode: str  # dynamic_clip, or a loss that verl has
    schedule: str
    clip_ratio_low: float  # eps_std of the lower bound
    clip_ratio_high: float  # eps_std of the upper bound
    entropy_coeff: float
    loss_agg_mode: str


# fmt: off
PRESETS: dict[str, Preset] = {
    # loss, schedule, clip low, high, entropy coefficient, aggregation (not in paper: verl's)
    "id":            Preset(LOSS_MODE, "id", 0.2, 0.2, 0.0, "token-mean"),  # sec. 4.2
    "did":           Preset(LOSS_MODE, "did", 0.2, 0.2, 0.0, "token-mean"),  # sec. 4.2
    "od":            Preset(LOSS_MODE, "od", 0.2, 0.2, 0.0, "token-mean"),  # sec. 4.2
    "grpo":          Preset(LOSS_MODE, "static", 0.2, 0.2, 0.0, "token-mean"),  # sec. 5.1
    # 0.28 is DAPO's (arXiv 2503.14476); the paper names the method only
    "clip_higher":   Preset(LOSS_MODE, "static", 0.2, 0.28, 0.0, "token-mean"),
    "clip_lower":    Preset(LOSS_MODE, "static", 0.28, 0.2, 0.0, "token-mean"),  # value is ours
    "entropy_bonus": Preset(LOSS_MODE, "static", 0.2, 0.2, 0.001, "token-mean"),  # value is ours
    "clip_cov":      Preset("clip_cov", "static", 0.2, 0.2, 0.0, "token-mean"),  # verl's settings
    # verl's sapo averages by sequence whatever loss_agg_mode says
    "sapo":          Preset("sapo", "static", 0.2, 0.2, 0.0, "seq-mean-token-mean"),
    # its own paper's bounds and aggregation (arXiv 2507.18071)
    "gspo":          Preset("gspo", "static", 3e-4, 4e-4, 0.0, "seq-mean-token-mean"),
}
# fmt: on


def preset_value(preset: str, key: str) -> Any:
    """What `preset` sets for `key`, a field of Preset."""
    check_known(f"{NODE}.preset={preset}", preset, tuple(PRESETS))
    check_known(f"${{clip_entropy_preset:{preset},{key}}}", key, Preset._fields)
    return getattr(PRESETS[preset], key)


@dataclass
class DynamicClipConfig(PolicyLossConfig):
    """verl's policy-loss settings and ours. clip_ratio_low and clip_ratio_high of the actor are the
    paper's eps_std, so that every arm states them in the same place."""

    preset: str = "id"
    schedule: str = "id"  # a key of SCHEDULES
    total_steps: int | None = None  # T; None: trainer.total_training_steps
    phase_split: float = 0.5  # sec. 4.2; sec. 5.4 tries 0.3 to 0.6
    second_phase: str = "printed"  # or "prose": the paper contradicts itself, sec. 4.2
    upper_slope: float = -0.25  # H(p), sec. 4.1
    upper_intercept: float = 0.5
    lower_slope: float = -0.13  # M(p), sec. 4.1
    lower_intercept: float = 0.3
    bound_min: float = 0.0  # ours; the paper's lines stay within 0.17 and 0.5
    bound_max: float = 1.0  # ours
    od_h_init: float | None = None  # not in paper; None: measured
    od_h_init_steps: int = 1  # ours
    od_ratio: float = 0.2  # sec. 4.2
    od_start: str = "lower"  # not in paper; its curves begin downwards
    od_smoothing: float = 0.0  # not in paper: none
    region_diagnostics: bool = True  # ours
    exact_contribution_freq: int = 0  # ours, steps; 0 = never; costs a forward pass

    def __post_init__(self) -> None:
        check_known(f"{NODE}.preset={self.preset}", self.preset, tuple(PRESETS))
        check_known(f"{NODE}.schedule={self.schedule}", self.schedule, tuple(SCHEDULES))
        phases = ("printed", "prose")
        check_known(f"{NODE}.second_phase={self.second_phase}", self.second_phase, phases)
        check_known(f"{NODE}.od_start={self.od_start}", self.od_start, ("lower", "raise"))
        if self.total_steps is not None:
            self._number("total_steps", "a whole number above 0, or null", lambda x: x > 0, int)
        self._number("phase_split", "a number above 0 and below 1", lambda x: 0 < x < 1)
        self._number("bound_min", "a number from 0 up", lambda x: x >= 0)
        low = self.bound_min
        self._number("bound_max", "a number from bound_min to 1", lambda x: low <= x <= 1)
        for bound in ("upper", "lower"):
            self._number(f"{bound}_slope", "a finite number", lambda x: True)
            self._number(f"{bound}_intercept", "a finite number", lambda x: True)
            slope, intercept = (getattr(self, f"{bound}_{part}") for part in ("slope", "intercept"))
            if min(intercept, slope + intercept) < 0:
                raise ValueError(
                    f"{NODE}.{bound}_slope={slope} and {bound}_intercept={intercept} make the "
                    f"{bound} bound negative for some probability: use values with intercept >= 0 "
                    "and slope + intercept >= 0."
                )
        if self.od_h_init is not None:
            self._number("od_h_init", "a number of nats above 0, or null", lambda x: x > 0)
        self._number("od_h_init_steps", "a whole number above 0", lambda x: x > 0, int)
        self._number("od_ratio", "a number above 0 and below 1", lambda x: 0 < x < 1)
        self._number("od_smoothing", "a number from 0, below 1", lambda x: 0 <= x < 1)
        self._number("exact_contribution_freq", "a whole number from 0", lambda x: x >= 0, int)

    @property
    def scheduled(self) -> bool:
        """Whether the loss that runs takes its bounds from the schedule."""
        return self.loss_mode == LOSS_MODE

    def _number(self, name: str, allowed: str, holds, kind=float) -> None:
        check_number(f"{NODE}.{name}", getattr(self, name), allowed, holds, kind)

    def levels(self, clip_ratio_low: float, clip_ratio_high: float) -> ClipLines:
        return ClipLines(
            wide_upper=Line(self.upper_slope, self.upper_intercept),
            wide_lower=Line(self.lower_slope, self.lower_intercept),
            base_upper=Line(0.0, clip_ratio_high),
            base_lower=Line(0.0, clip_ratio_low),
            eps_min=self.bound_min,
            eps_max=self.bound_max,
        )

    def make_schedule(self, lines: ClipLines, total_training_steps: int | None) -> Static:
        """The schedule object; total_training_steps is the trainer's setting, T if none is here."""
        total_steps = self.total_steps or total_training_steps
        if self.schedule == "static":
            return Static(lines)  # without T: such a run may be made longer
        if not total_steps:
            raise ValueError(
                f"{NODE}.schedule={self.schedule} moves over training, whose length T is not set: "
                f"set trainer.total_training_steps (paper: 400) or {NODE}.total_steps."
            )
        return SCHEDULES[self.schedule].from_settings(lines, total_steps, self)
