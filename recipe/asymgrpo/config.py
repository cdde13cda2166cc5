"""Settings of `algorithm.asymgrpo` and the presets: the rows of arXiv 2604.04894 v1, Table 1, and
methods of other papers that are functions of correct, incorrect and the group's accuracy.

A preset is a whole method of the comparison. It fixes the advantage rule and also what the method
needs outside the estimator, so that no coefficient of a baseline is hidden: `asymgrpo.yaml` reads
those with the resolver `${preset:asymgrpo,<preset>,<key>}`, and a command-line override still wins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recipe.core import settings
from recipe.core.rollouts import CorrectnessRule
from recipe.core.settings import check_settings, setting

NAME = "asymgrpo"  # of the estimator
NODE = "algorithm.asymgrpo"
FLOAT32_MAX = 3.4e38


@dataclass(frozen=True)
class Preset:
    """How a method differs from GRPO."""

    # grpo, odds, ent_increase, ent_decrease, pass_at_k, signs, quantile, max_likelihood or verl
    rule: str = "grpo"
    betas: tuple[float, float] | None = None  # beta_pos, beta_neg of rule odds
    weights: tuple[float, float] | None = None  # of correct and incorrect rollouts, rule signs
    entropy_shaped: bool = False  # the trainer adds an entropy term to the advantage
    # outside the estimator
    adv_estimator: str = NAME
    norm_adv_by_std_in_grpo: bool = True  # read by verl's own grpo only
    clip_ratio_low: float = 0.2  # not in paper; verl's default
    clip_ratio_high: float = 0.2  # not in paper; verl's default
    entropy_coeff: float = 0.0  # not in paper: none


PRESETS: dict[str, Preset] = {
    "reinforce": Preset("odds", (0.0, 0.0)),  # eq 5
    "grpo": Preset(),  # eq 6
    "pos_only": Preset("odds", (0.5, 0.0)),  # sec. 3.1
    "neg_only": Preset("odds", (0.0, 0.5)),  # sec. 3.1
    "symmetric": Preset("odds", (0.7, 0.7)),  # App. E
    "asymgrpo": Preset("odds", (0.9, 0.4)),  # sec. 4.3
    "asymgrpo_clip_higher": Preset("odds", (0.9, 0.3), clip_ratio_high=0.28),  # App. E
    "ent_increase": Preset("ent_increase"),  # sec. 3.2, App. D
    "ent_decrease": Preset("ent_decrease"),  # sec. 3.2, App. D
    # verl's own estimator without the std: Dr.GRPO's advantage; the loss stays token-mean (App. C)
    "dr_grpo": Preset("verl", adv_estimator="grpo", norm_adv_by_std_in_grpo=False),  # Table 1
    "grpo_entropy_bonus": Preset(entropy_coeff=0.001),  # App. E
    "grpo_clip_higher": Preset(clip_ratio_high=0.28),  # App. E
    "grpo_entropy_adv": Preset(entropy_shaped=True),  # App. E
    "pass_at_k": Preset("pass_at_k"),  # App. E
    # methods of other papers, each with this paper's clip, aggregation and optimizer
    "psr": Preset("signs", weights=(1.0, 0.0)),  # arXiv 2506.01347
    "nsr": Preset("signs", weights=(0.0, 1.0)),  # arXiv 2506.01347
    "w_reinforce": Preset("signs", weights=(0.1, 1.0)),  # arXiv 2506.01347
    "qae": Preset("quantile"),  # arXiv 2509.22611
    "max_rl": Preset("max_likelihood"),  # arXiv 2602.02710
    "rloo": Preset("verl", adv_estimator="rloo"),  # arXiv 2402.14740
    # arXiv 2501.03262; with gamma = 1, verl's default
    "reinforce_plus_plus": Preset("verl", adv_estimator="reinforce_plus_plus"),
    "reinforce_plus_plus_baseline": Preset("verl", adv_estimator="reinforce_plus_plus_baseline"),
}
WITHOUT_GROUPS = {"psr", "nsr", "w_reinforce", "reinforce_plus_plus"}  # compare no two rollouts
GRPO_BETAS = (0.5, 0.5)  # eq 6: GRPO is the odds rule at these


@dataclass(frozen=True)
class AsymGRPOConfig:
    """The estimator's settings. A beta of None is the preset's; a preset of None, asymgrpo."""

    preset: str = setting(
        None, "a row of paper's Table 1; null, and the recipe's yaml: asymgrpo", choices=PRESETS
    )
    beta_pos: float | None = setting(
        None, "paper sec. 4.3: 0.9, on correct rollouts; null: the preset's", at_least=0
    )
    beta_neg: float | None = setting(
        None, "paper sec. 4.3: 0.4, on incorrect rollouts; null: the preset's", at_least=0
    )
    std: str = setting(
        "population",
        "paper eq 6, of grpo and qae; sample: verl's",
        choices=("population", "sample"),
    )
    eps: float = setting(0.0, "paper eq 6, of grpo and qae; verl: 1e-6", at_least=0)
    correct_weight: float | None = setting(
        None, "arXiv 2506.01347: lambda of preset=w_reinforce; null: 0.1", above=0
    )
    quantile: float = setting(0.4, "arXiv 2509.22611: K of preset=qae", above=0, below=1)
    pass_k: int = setting(5, "paper App. E: K of Pass@K training", at_least=1)
    entropy_kappa: float = setting(
        2.0, "paper App. E; the entropy term is at most abs(A) / kappa", above=1
    )
    entropy_alpha: float = setting(0.4, "paper App. E: factor of the entropy", above=0)
    correct_threshold: float | None = setting(
        None, "ours: correct if the reward is above it; null: rewards are {0, 1} or {-1, 1}"
    )
    correct_field: str | None = setting(
        None, "ours: the key of the reward function's result that says correct or not", kind=str
    )

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> AsymGRPOConfig:
        """Makes the settings of the node `algorithm.asymgrpo` as plain containers."""
        return settings.build(cls, mapping, NODE)

    @property
    def rule(self) -> str:
        """The advantage rule: the preset's, and the odds rule where a beta is given to GRPO's."""
        rule = PRESETS[self.preset].rule
        given = (self.beta_pos, self.beta_neg) != (None, None)
        return "odds" if rule == "grpo" and given else rule

    @property
    def betas(self) -> tuple[float, float] | None:
        """(beta_pos, beta_neg); None where the rule has none."""
        preset = PRESETS[self.preset]
        if preset.rule not in ("grpo", "odds"):
            return None
        pos, neg = preset.betas or GRPO_BETAS
        return (
            pos if self.beta_pos is None else self.beta_pos,
            neg if self.beta_neg is None else self.beta_neg,
        )

    @property
    def weights(self) -> tuple[float, float] | None:
        """The weights of correct and incorrect rollouts; None where the rule has none."""
        weights = PRESETS[self.preset].weights
        if weights is None or self.correct_weight is None:
            return weights
        return self.correct_weight, weights[1]

    @property
    def entropy_shaped(self) -> bool:
        """Whether the trainer adds the entropy term to the estimator's advantage."""
        return PRESETS[self.preset].entropy_shaped

    def correctness(self, required: bool) -> CorrectnessRule:
        """Returns which rollouts are correct; `required`: the estimator cannot do without."""
        asked = self.correct_field is not None or self.correct_threshold is not None
        return CorrectnessRule(self.correct_threshold, self.correct_field, NODE, required or asked)

    def __post_init__(self) -> None:
        check_settings(self, NODE)
        if self.preset is None:
            object.__setattr__(self, "preset", NAME)
        for name in ("beta_pos", "beta_neg"):
            if getattr(self, name) is not None and self.betas is None:
                self._refuse(name, f"has no meaning for preset={self.preset}", "set it to null")
        if self.correct_field is not None and self.correct_threshold is not None:
            self._refuse("correct_field", "competes with correct_threshold", "set only one")
        divides = self.rule in ("grpo", "quantile")
        for name, applies, cure in (
            ("std", divides, "preset=grpo with beta_pos = beta_neg = null"),
            ("eps", divides, "preset=grpo with beta_pos = beta_neg = null"),
            ("correct_weight", self.preset == "w_reinforce", "preset=w_reinforce"),
            ("quantile", self.rule == "quantile", "preset=qae"),
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
        raise ValueError(f"{NODE}.{name}={getattr(self, name)} {problem}: {cure}.")


def check_group_size(config: AsymGRPOConfig, n: int) -> None:
    """Raises ValueError where n rollouts per prompt (`actor_rollout_ref.rollout.n`) cannot serve
    the preset."""
    rollouts = f"actor_rollout_ref.rollout.n={n}"
    if config.rule == "pass_at_k" and n <= config.pass_k:
        raise ValueError(
            f"{rollouts} is not above {NODE}.pass_k={config.pass_k}, so that no group with a "
            "correct rollout has a sample of that many incorrect ones, and every advantage is 0: "
            f"use n >= {config.pass_k + 1}, or a smaller pass_k."
        )
    if n < 2 and config.betas != (0, 0) and config.preset not in WITHOUT_GROUPS:
        raise ValueError(
            f"{rollouts} leaves preset={config.preset} nothing to compare a rollout with: use "
            "n >= 2 (paper: 8), or preset=reinforce, which needs no group."
        )
    if config.rule == "quantile" and not 1 < config.quantile * n <= n - 1:
        side, alone = ("correct", "psr") if config.quantile * n <= 1 else ("incorrect", "nsr")
        cure = f"a number above {1 / n:.3g}, at most {1 - 1 / n:.3g}" if n > 2 else "n >= 3"
        raise ValueError(
            f"{NODE}.quantile={config.quantile} at {rollouts} is the same baseline in every mixed "
            f"group, so that only {side} rollouts are trained: use {cure}, or preset={alone}."
        )
    if config.betas and max(config.betas) * math.log(max(n - 1, 1)) > math.log(FLOAT32_MAX):
        raise ValueError(
            f"{NODE}.beta_pos, beta_neg={config.betas} at {rollouts} give advantages of "
            f"(n-1)^beta, which float32 does not hold: use smaller ones (paper: up to 0.9)."
        )
