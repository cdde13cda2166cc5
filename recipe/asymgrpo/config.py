"""Settings of `algorithm.asymgrpo` and the presets: the rows of arXiv 2604.04894 v1, Table 1.

A preset is a whole arm of the comparison. It fixes the advantage rule and also what the arm needs
outside the estimator, so that no coefficient of a baseline is hidden: `asymgrpo.yaml` reads
those with the resolver `${asymgrpo_preset:<preset>,<key>}`, and a command-line override still wins.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from recipe.core.settings import check_known

FLOAT32_MAX = 3.4e38


class Preset(NamedTuple):
    rule: str  # odds | ent_increase | ent_decrease | pass_at_k | entropy_shaped | verl
    beta_pos: float | None  # None: the rule has no such exponent
    beta_neg: float | None
    adv_estimator: str
    norm_adv_by_std_in_grpo: bool  # read by verl's own grpo only
    clip_ratio_low: float  # not in paper; verl's default
    clip_ratio_high: float  # Clip-higher 0.28: App. E; others not in paper: verl's default
    entropy_coeff: float  # Entro.Regularization 0.001: App. E; others not in paper: none


# fmt: off
PRESETS: dict[str, Preset] = {
    # rule, betas; then outside the estimator: adv_estimator, norm by std, clip low, high, entropy
    "reinforce":            Preset("odds", 0.0, 0.0, "asymgrpo", True, 0.2, 0.2, 0.0),  # eq 5
    "grpo":                 Preset("odds", 0.5, 0.5, "asymgrpo", True, 0.2, 0.2, 0.0),  # eq 6
    "pos_only":             Preset("odds", 0.5, 0.0, "asymgrpo", True, 0.2, 0.2, 0.0),  # sec. 3.1
    "neg_only":             Preset("odds", 0.0, 0.5, "asymgrpo", True, 0.2, 0.2, 0.0),  # sec. 3.1
    "symmetric":            Preset("odds", 0.7, 0.7, "asymgrpo", True, 0.2, 0.2, 0.0),  # App. E
    "asymgrpo":             Preset("odds", 0.9, 0.4, "asymgrpo", True, 0.2, 0.2, 0.0),  # sec. 4.3
    "asymgrpo_clip_higher": Preset("odds", 0.9, 0.3, "asymgrpo", True, 0.2, 0.28, 0.0),  # App. E
    "ent_increase":         Preset("ent_increase", None, None,
                                   "asymgrpo", True, 0.2, 0.2, 0.0),  # sec. 3.2, App. D
    "ent_decrease":         Preset("ent_decrease", None, None,
                                   "asymgrpo", True, 0.2, 0.2, 0.0),  # sec. 3.2, App. D
    # verl's own estimator without the std: Dr.GRPO's advantage; the loss stays token-mean (App. C)
    "dr_grpo":              Preset("verl", None, None, "grpo", False, 0.2, 0.2, 0.0),  # Table 1
    "grpo_entropy_bonus":   Preset("odds", 0.5, 0.5, "asymgrpo", True, 0.2, 0.2, 0.001),  # App. E
    "grpo_clip_higher":     Preset("odds", 0.5, 0.5, "asymgrpo", True, 0.2, 0.28, 0.0),  # App. E
    "grpo_entropy_adv":     Preset("entropy_shaped", 0.5, 0.5,
                                   "asymgrpo", True, 0.2, 0.2, 0.0),  # App. E
    "pass_at_k":            Preset("pass_at_k", None, None,
                                   "asymgrpo", True, 0.2, 0.2, 0.0),  # App. E
}
# fmt: on
OUTSIDE = Preset._fields[3:]  # what a preset sets outside the estimator


def preset_value(preset: str, key: str) -> Any:
    """What `preset` sets for `key`, one of OUTSIDE."""
    check_known(f"algorithm.asymgrpo.preset={preset}", preset, tuple(PRESETS))
    check_known(f"${{asymgrpo_preset:{preset},{key}}}", key, OUTSIDE)
    return getattr(PRESETS[preset], key)


@dataclass(frozen=True)
class AsymGRPOConfig:
    preset: str = "asymgrpo"  # sec. 4.3, Table 1
    beta_pos: float | None = None  # None: the preset's, 0.9 for asymgrpo; sec. 4.3
    beta_neg: float | None = None  # None: the preset's, 0.4 for asymgrpo; sec. 4.3
    std: str = "population"  # eq 6; "sample" is verl's
    eps: float = 0.0  # eq 6; verl has 1e-6
    pass_k: int = 5  # App. E
    entropy_kappa: float = 2.0  # App. E; the source (2506.14758) asks for kappa > 1
    entropy_alpha: float = 0.4  # App. E
    correct_threshold: float | None = None  # ours; None: rewards are in {0, 1} or {-1, 1}
    correct_field: str | None = None  # ours; None: right or wrong is read from the reward

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> AsymGRPOConfig:
        known = tuple(field.name for field in dataclasses.fields(cls))
        for key in settings:
            check_known(f"algorithm.asymgrpo.{key}", key, known)
        return cls(**settings)

    @property
    def rule(self) -> str:
        return PRESETS[self.preset].rule

    @property
    def betas(self) -> tuple[float, float] | None:
        """(beta_pos, beta_neg) as used; None where the rule has none."""
        of = PRESETS[self.preset]
        if of.beta_pos is None or of.beta_neg is None:
            return None
        return (
            of.beta_pos if self.beta_pos is None else self.beta_pos,
            of.beta_neg if self.beta_neg is None else self.beta_neg,
        )

    @property
    def entropy_shaped(self) -> bool:
        """The trainer adds the entropy term to the estimator's advantage."""
        return self.rule == "entropy_shaped"

    def __post_init__(self) -> None:
        check_known(f"algorithm.asymgrpo.preset={self.preset}", self.preset, tuple(PRESETS))
        for name in ("beta_pos", "beta_neg"):
            if getattr(self, name) is None:
                continue
            self._number(name, "a finite number from 0 up (paper: 0 to 0.9)", lambda x: x >= 0)
            if self.betas is None:
                self._refuse(name, f"has no meaning for preset={self.preset}", "set it to null")
        check_known(f"algorithm.asymgrpo.std={self.std}", self.std, ("population", "sample"))
        self._number("eps", "a finite number from 0 up", lambda x: x >= 0)
        self._number("pass_k", "a whole number from 1 up", lambda x: x >= 1 and x == int(x))
        self._number("entropy_kappa", "a number above 1", lambda x: x > 1)
        self._number("entropy_alpha", "a number above 0", lambda x: x > 0)
        if self.correct_threshold is not None:
            self._number("correct_threshold", "a finite number or null", lambda x: True)
        if self.correct_field is not None:
            if not isinstance(self.correct_field, str) or not self.correct_field:
                self._refuse("correct_field", "is not a name", "use a reward key or null")
            if self.correct_threshold is not None:
                self._refuse("correct_field", "competes with correct_threshold", "set only one")
        for name, applies, cure in (
            ("std", self.betas == (0.5, 0.5), "beta_pos = beta_neg = 0.5 (preset=grpo)"),
            ("eps", self.betas == (0.5, 0.5), "beta_pos = beta_neg = 0.5 (preset=grpo)"),
            ("pass_k", self.rule == "pass_at_k", "preset=pass_at_k"),
            ("entropy_kappa", self.entropy_shaped, "preset=grpo_entropy_adv"),
            ("entropy_alpha", self.entropy_shaped, "preset=grpo_entropy_adv"),
        ):
            default = getattr(type(self), name)
            if getattr(self, name) != default and not applies:
                self._refuse(
                    name,
                    f"has no effect with preset={self.preset} and betas {self.betas}",
                    f"leave it at {default}, or use {cure}",
                )

    def _refuse(self, name: str, problem: str, cure: str) -> None:
        raise ValueError(f"algorithm.asymgrpo.{name}={getattr(self, name)} {problem}: {cure}.")

    def _number(self, name: str, allowed: str, holds) -> None:
        value = getattr(self, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not holds(value):
            self._refuse(name, "is not allowed", f"use {allowed}")


def check_group_size(config: AsymGRPOConfig, n: int) -> None:
    """Raises where n rollouts a prompt (`actor_rollout_ref.rollout.n`) cannot serve the preset."""
    setting = f"actor_rollout_ref.rollout.n={n}"
    if config.rule == "pass_at_k" and n < config.pass_k:
        raise ValueError(
            f"{setting} is below algorithm.asymgrpo.pass_k={config.pass_k}, so no group holds a "
            f"sample of that many rollouts: use n >= {config.pass_k}."
        )
    if n < 2 and config.betas != (0, 0):
        raise ValueError(
            f"{setting} leaves preset={config.preset} nothing to compare a rollout with: use "
            "n >= 2 (paper: 8), or preset=reinforce, which needs no group."
        )
    if config.betas and max(config.betas) * math.log(max(n - 1, 1)) > math.log(FLOAT32_MAX):
        raise ValueError(
            f"algorithm.asymgrpo.beta_pos, beta_neg={config.betas} at {setting} give advantages of "
            f"(n-1)^beta, which float32 does not hold: use smaller ones (paper: up to 0.9)."
        )
