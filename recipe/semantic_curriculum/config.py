"""Settings of SENT's two halves and the presets: arXiv 2512.04359, its method section, its figure,
its released code, and the columns of its Table I.

A preset is a whole method of the comparison: the policy loss, the token rule, the order of the
data, and every coefficient outside them, which `semantic_curriculum.yaml` reads with the resolver
`${preset:semantic_curriculum,<preset>,<key>}`; a command-line override still wins.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from recipe.core import settings
from recipe.core.policy_loss import NODE as POLICY_LOSS
from recipe.core.policy_loss import PolicyLossSettings
from recipe.core.settings import check_settings, setting

LOSS_MODE = "sent"
NODE = f"{POLICY_LOSS}.token_rule"
CURRICULUM = "data.curriculum"
NO_REFERENCE = (
    f"{NODE}.anchor=ref needs the reference's log-probs: set actor_rollout_ref.actor."
    "use_kl_loss=true (kl_loss_coef=0 adds no other KL)."
)
FRACTION_OR_THRESHOLD = (
    ("low_fraction", "low_threshold"),
    ("high_cov_fraction", "high_cov_threshold"),
)
ORDERS = ("none", "semantic_entropy", "reversed", "pass_rate", "shuffled")


@dataclass(frozen=True)
class Preset:
    """What a method sets; the defaults hold no token to anything."""

    loss_mode: str = LOSS_MODE
    order: str = "none"
    # the token rule, by the names of TokenRule
    low_fraction: float | None = 0.8  # released code
    low_threshold: float | None = None
    side: str = "low"
    scope: str = "mini_batch"  # ours; released code: micro_batch
    cov_mean_over: str = "selected"  # figure, released code
    high_cov_fraction: float | None = 0.0
    high_cov_threshold: float | None = None
    low_cov_fraction: float = 0.0
    coef: float = 0.0
    high_cov_coef: float = 0.0
    low_cov_coef: float = 0.0
    anchor: str = "old"
    estimator: str = "abs"
    clip: bool = True
    policy_tokens: str = "all"
    # outside it
    clip_ratio_low: float = 0.2  # released code
    clip_ratio_high: float = 0.2  # released code
    calculate_entropy: bool = False  # the current policy's, in the training pass
    use_kl_loss: bool = False
    kl_loss_coef: float = 0.0
    entropy_coeff: float = 0.0
    loss_agg_mode: str = "token-mean"  # released code (verl)
    adv_estimator: str = "grpo"
    asymgrpo_preset: str = "grpo"


# As the figure and the abstract describe the rule: KL to the reference on L, stronger on C, beside
# a clipped GRPO. No size is printed; those of the released code are taken. use_kl_loss with
# coefficient 0 is how verl is told to compute the reference's log-probs.
DESCRIBED = Preset(
    high_cov_fraction=2e-4,
    coef=0.05,
    high_cov_coef=0.2,
    anchor="ref",
    estimator="k3",
    use_kl_loss=True,
)
# As the method section has the rule: L and C by thresholds on entropy and covariance, whose means
# are over all response tokens of the batch, and a mean over a response's tokens, then over
# responses. It prints neither tau_H nor tau_cov, which have no default: they are a model's own
# (`recipe.semantic_curriculum.calibrate`). Nor has it the betas and the estimator: as above.
PAPER = replace(
    DESCRIBED,
    low_fraction=None,
    high_cov_fraction=None,
    scope="batch",
    cov_mean_over="all",
    loss_agg_mode="seq-mean-token-mean",
)
# What the released code computes, had its mask been boolean (paper extract, sec. 3.2 and 3.3)
RELEASED = Preset(
    scope="micro_batch",
    high_cov_fraction=2e-4,
    low_cov_fraction=2e-4,
    high_cov_coef=0.2,
    low_cov_coef=0.05,
    clip=False,
    calculate_entropy=True,
    use_kl_loss=True,
    kl_loss_coef=0.001,
)
PRESETS: dict[str, Preset] = {
    "sent": replace(DESCRIBED, order="semantic_entropy"),
    "sent_paper": replace(PAPER, order="semantic_entropy"),
    "sent_released": replace(RELEASED, order="semantic_entropy"),
    "curriculum": Preset(loss_mode="dynamic_clip", order="semantic_entropy"),  # one half of SENT
    "as_described": DESCRIBED,  # its other half
    "paper": PAPER,
    "as_released": RELEASED,
    # Tables I and II
    "grpo": Preset(loss_mode="dynamic_clip"),
    "entropy_bonus": Preset(loss_mode="dynamic_clip", entropy_coeff=0.001),  # an old script's
    "entropy_advantage": Preset(  # arXiv 2506.14758, kappa and alpha as in algorithm.asymgrpo
        loss_mode="dynamic_clip", adv_estimator="asymgrpo", asymgrpo_preset="grpo_entropy_adv"
    ),
    "high_entropy_mask": Preset(side="high", policy_tokens="selected"),  # arXiv 2506.01939
    # arXiv 2505.22617, its scripts: in the place of PPO's clip
    "clip_cov": Preset(loss_mode="clip_cov", clip_ratio_low=1.0, clip_ratio_high=1.0),
    "kl_cov": Preset(  # arXiv 2505.22617, k and beta of its 7B run; equals verl's kl_cov
        low_fraction=1.0,
        scope="micro_batch",
        high_cov_fraction=2e-3,
        high_cov_coef=1.0,
        clip=False,
    ),
    # "High_En", not explained in the paper: the described rule on the complement of L (ours)
    "high_entropy_kl": replace(DESCRIBED, side="high"),
}


@dataclass(frozen=True)
class TokenRule:
    """Which tokens are held to an anchor, and how strongly. A setting that is null is the preset's,
    which takes its place when the rule is made; of a fraction and a threshold one is given, and the
    other is null."""

    preset: str = setting("grpo", "ours: no token rule; the recipe's yaml: sent", choices=PRESETS)
    low_fraction: float | None = setting(
        None, "released code: 0.8; share of tokens in L", above=0, at_most=1
    )
    low_threshold: float | None = setting(
        None,
        "paper: tau_H, in nats, not printed (`recipe.semantic_curriculum.calibrate`); L is below",
        above=0,
    )
    side: str = setting(None, "low: paper, L; high: its complement", choices=("low", "high"))
    scope: str = setting(
        None,
        "paper: batch; released code: micro_batch; else ours; what L and the means are of",
        choices=("micro_batch", "mini_batch", "batch", "response"),
    )
    cov_mean_over: str = setting(
        None,
        "paper: all response tokens; figure, released code: the selected ones; means of Cov",
        choices=("selected", "all"),
    )
    high_cov_fraction: float | None = setting(
        None, "released code: 2e-4; share of C in L", at_least=0, at_most=1
    )
    high_cov_threshold: float | None = setting(
        None, "paper: tau_cov, not printed (`recipe.semantic_curriculum.calibrate`); C is above"
    )
    low_cov_fraction: float = setting(
        None, "released code: 2e-4, the lowest; not in the figure", at_least=0, at_most=1
    )
    coef: float = setting(
        None, "paper: beta_low, no value; released code's 0.05; beta on the rest of L", at_least=0
    )
    high_cov_coef: float = setting(
        None, "paper: beta_high, no value; released code: 0.2; beta on C", at_least=0
    )
    low_cov_coef: float = setting(None, "released code: 0.05; beta on the lowest", at_least=0)
    anchor: str = setting(None, "paper: ref; released code: old", choices=("ref", "old"))
    estimator: str = setting(
        None,
        "paper: not said; released code: abs; of the KL, verl's",
        choices=("abs", "k1", "k2", "k3"),
    )
    clip: bool = setting(
        None,
        "paper: true; released code: false; the policy term is clipped, or -A ratio",
        choices=(True, False),
    )
    policy_tokens: str = setting(
        None,
        "arXiv 2506.01939: selected, no policy gradient outside L",
        choices=("all", "selected"),
    )

    def __post_init__(self) -> None:
        check_settings(self, NODE)
        chosen_otherwise = {self._one_of(*pair) for pair in FRACTION_OR_THRESHOLD}
        for name in settings.settings_of(TokenRule):
            if getattr(self, name) is None and name not in chosen_otherwise:
                object.__setattr__(self, name, getattr(PRESETS[self.preset], name))
        for fraction, threshold in FRACTION_OR_THRESHOLD:
            if getattr(self, fraction) is None and getattr(self, threshold) is None:
                raise ValueError(
                    f"{NODE}.preset={self.preset} takes thresholds, which are the model's own, and "
                    f"{threshold} is not given: set it and its like to what `python -m "
                    "recipe.semantic_curriculum.calibrate` prints for this model."
                )
        if self.side == "high" and self.low_fraction == 1:
            raise ValueError(
                f"{NODE}.side=high with low_fraction=1 leaves no token: use a fraction below 1."
            )
        if self.policy_tokens == "selected" and self.scope in ("response", "batch"):
            raise ValueError(
                f"{NODE}.policy_tokens=selected is normalised over a mini-batch's kept tokens and "
                f"has no scope={self.scope}: use scope=mini_batch or micro_batch."
            )
        if self.policy_tokens == "selected" and self.low_fraction is None:
            raise ValueError(
                f"{NODE}.policy_tokens=selected is normalised over the kept tokens, of which "
                "low_threshold does not say how many there are: use low_fraction."
            )

    def _one_of(self, fraction: str, threshold: str) -> str | None:
        """Returns which of the two the other takes the place of; None if neither is given."""
        given = [name for name in (fraction, threshold) if getattr(self, name) is not None]
        if len(given) == 2:
            raise ValueError(
                f"{NODE}.{fraction}={getattr(self, fraction)} and {threshold}="
                f"{getattr(self, threshold)} say the same thing twice: leave one of them null."
            )
        return None if not given else threshold if given == [fraction] else fraction

    @property
    def selection(self) -> dict[str, Any]:
        """How `token_rule.classify` chooses: its arguments of these names."""
        names = (
            "low_fraction",
            "low_threshold",
            "side",
            "cov_mean_over",
            "high_cov_fraction",
            "high_cov_threshold",
            "low_cov_fraction",
        )
        return {name: getattr(self, name) for name in names}

    @property
    def by_thresholds(self) -> bool:
        """Whether a token's class depends on nothing of the other tokens but the two means of the
        covariance over the batch: the loss then chooses it, of the old policy's values."""
        fractions = (self.low_fraction, self.high_cov_fraction, self.low_cov_fraction)
        ranked = any(fraction not in (None, 0, 1) for fraction in fractions)
        return self.scope == "batch" and not ranked

    @property
    def coefficients(self) -> tuple[float, ...]:
        """beta of each class, in the order of token_rule.CLASSES."""
        return 0.0, self.coef, self.high_cov_coef, self.low_cov_coef

    @property
    def classes(self) -> list[str]:
        """The names of token_rule.CLASSES that a token can have."""
        possible = {
            "unselected": self.needs_entropy,
            "rest": True,
            "high_cov": self.high_cov_fraction != 0,
            "low_cov": self.low_cov_fraction > 0,
        }
        return [name for name, can_be in possible.items() if can_be]

    @property
    def constrains(self) -> bool:
        """Whether any token is held to the anchor."""
        return any(self.coefficients)

    @property
    def acts(self) -> bool:
        """Whether the rule changes the gradient of any token: a class that a token can have has a
        coefficient above 0, or L alone has a policy gradient."""
        sizes = (1.0, 1.0, self.high_cov_fraction, self.low_cov_fraction)
        holds = any(
            coef > 0 and size != 0 for coef, size in zip(self.coefficients, sizes, strict=True)
        )
        return holds or (self.policy_tokens == "selected" and self.needs_entropy)

    @property
    def needs_entropy(self) -> bool:
        """Whether L leaves tokens out, and so needs their entropies."""
        return self.low_fraction != 1


@dataclass
class TokenRuleSettings(PolicyLossSettings):
    """The mixin of the node policy_loss: the token rule."""

    token_rule: TokenRule = field(default_factory=TokenRule)

    @property
    def takes_clip_bounds(self) -> bool:
        clipped = self.loss_mode == LOSS_MODE and self.token_rule.clip
        return clipped or super().takes_clip_bounds

    def token_rule_summary(self) -> dict[str, Any]:
        """Returns the token rule's settings as plain values."""
        return dataclasses.asdict(self.token_rule)


@dataclass(frozen=True)
class CurriculumConfig:
    """data.curriculum: in which order the prompts come."""

    order: str = setting(
        "none",
        "semantic_entropy: paper; reversed, pass_rate, shuffled: controls; none: verl's sampler",
        choices=ORDERS,
    )
    scores: str | None = setting(
        None, "ours: a parquet of `recipe.semantic_curriculum.measure`", kind=str
    )
    scores_from: str = setting(
        "this_model",
        "paper: the initial policy; any_model: of another one, as in a later stage's own run",
        choices=("this_model", "any_model"),
    )
    stages: int = setting(2, "released README; the paper: N, not printed", above=0)
    split: str = setting("quantile", "not in paper; ours", choices=("quantile", "threshold"))
    thresholds: tuple[float, ...] = setting(
        (), "not in paper; the released file names suggest [2.0]; stages - 1 rising ones"
    )
    epochs_per_stage: int = setting(5, "released scripts", above=0)
    shuffle: bool = setting(True, "released scripts (verl's default): inside a stage")
    replay: float = setting(
        0.0, "released scripts: none; share of earlier stages' prompts", at_least=0, below=1
    )
    only_stage: int | None = setting(
        None, "released scripts: one run per stage; null: one run for all", kind=int, above=0
    )
    seed: int = setting(0, "ours: of the order of draws", at_least=0)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> CurriculumConfig:
        """Makes the settings of the node `data.curriculum` as plain containers."""
        return settings.build(cls, mapping, CURRICULUM)

    def __post_init__(self) -> None:
        check_settings(self, CURRICULUM)
        if self.only_stage is not None and self.only_stage > self.stages:
            raise ValueError(
                f"{CURRICULUM}.only_stage={self.only_stage} is not allowed: use a whole number "
                f"from 1 to stages={self.stages}, or null."
            )
        if self.order == "none":
            if self.only_stage is not None:
                raise ValueError(
                    f"{CURRICULUM}.only_stage={self.only_stage} has no effect with order=none: "
                    "choose an order, by its own setting or by the preset, or leave it null."
                )
            return
        if not self.scores:
            raise ValueError(
                f"{CURRICULUM}.order={self.order} needs a score for each prompt: write them with "
                f"`python -m recipe.semantic_curriculum.measure` and set {CURRICULUM}.scores."
            )
        numbers = all(
            isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)
            for x in self.thresholds
        )
        rising = numbers and list(self.thresholds) == sorted(set(self.thresholds))
        wanted = self.stages - 1 if self.split == "threshold" else 0
        if len(self.thresholds) != wanted or not rising:
            raise ValueError(
                f"{CURRICULUM}.thresholds={list(self.thresholds)} does not fit split={self.split} "
                f"and stages={self.stages}: give {wanted} rising numbers."
            )
