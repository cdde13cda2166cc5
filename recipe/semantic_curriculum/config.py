"""Settings of SENT's two halves and the presets: arXiv 2512.04359, its figure, its released code,
and the columns of its Table I.

A preset is a whole arm of the comparison: the policy loss, the token rule, the order of the data,
and every coefficient outside them, which `semantic_curriculum.yaml` reads with the resolver
`${sent_preset:<preset>,<key>}`; a command-line override still wins.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from recipe.clip_entropy.config import DynamicClipConfig
from recipe.core.settings import check_known, check_number

LOSS_MODE = "sent"
NODE = "actor_rollout_ref.actor.policy_loss.token_rule"
CURRICULUM = "data.curriculum"
ORDERS = ("none", "semantic_entropy", "reversed", "pass_rate", "shuffled")


class Preset(NamedTuple):
    loss_mode: str = LOSS_MODE
    order: str = "none"
    # the token rule, by the names of TokenRule
    low_fraction: float = 0.8  # released code
    side: str = "low"
    scope: str = "mini_batch"  # ours; released code: micro_batch
    high_cov_fraction: float = 0.0
    low_cov_fraction: float = 0.0
    coef: float = 0.0
    high_cov_coef: float = 0.0
    low_cov_coef: float = 0.0
    anchor: str = "old"
    estimator: str = "abs"
    clip: bool = True
    policy_tokens: str = "all"
    # outside it
    calculate_entropy: bool = False  # the current policy's, in the training pass
    use_kl_loss: bool = False
    kl_loss_coef: float = 0.0
    entropy_coeff: float = 0.0
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
    "sent": DESCRIBED._replace(order="semantic_entropy"),
    "sent_released": RELEASED._replace(order="semantic_entropy"),
    "curriculum": Preset(loss_mode="dynamic_clip", order="semantic_entropy"),  # one half of SENT
    "as_described": DESCRIBED,  # its other half
    "as_released": RELEASED,
    # Tables I and II
    "grpo": Preset(loss_mode="dynamic_clip"),
    "entropy_bonus": Preset(loss_mode="dynamic_clip", entropy_coeff=0.001),  # an old script's
    "entropy_advantage": Preset(  # arXiv 2506.14758, kappa and alpha as in algorithm.asymgrpo
        loss_mode="dynamic_clip", adv_estimator="asymgrpo", asymgrpo_preset="grpo_entropy_adv"
    ),
    "high_entropy_mask": Preset(side="high", policy_tokens="selected"),  # arXiv 2506.01939
    "clip_cov": Preset(loss_mode="clip_cov"),  # verl's, with its settings
    "kl_cov": Preset(  # arXiv 2505.22617, k and beta of its 7B run; equals verl's kl_cov
        low_fraction=1.0,
        scope="micro_batch",
        high_cov_fraction=2e-3,
        high_cov_coef=1.0,
        clip=False,
    ),
    # "High_En", not explained in the paper: the described rule on the complement of L (ours)
    "high_entropy_kl": DESCRIBED._replace(side="high"),
}
RULE = Preset._fields[2:14]  # what a preset sets in the token rule


def preset_value(preset: str, key: str) -> Any:
    """What `preset` sets for `key`, a field of Preset."""
    check_known(f"{NODE}.preset={preset}", preset, tuple(PRESETS))
    check_known(f"${{sent_preset:{preset},{key}}}", key, Preset._fields)
    return getattr(PRESETS[preset], key)


@dataclass(frozen=True)
class TokenRule:
    """Which tokens are held to an anchor, and how strongly. None stands for the preset's value and
    is replaced by it."""

    preset: str = "grpo"
    low_fraction: float | None = None  # size of L; released code 0.8
    side: str | None = None  # low: L; high: its complement in its place
    scope: str | None = None  # among which tokens L is chosen: micro_batch, mini_batch, response
    high_cov_fraction: float | None = None  # size of C, of L; released code 2e-4
    low_cov_fraction: float | None = None  # released code 2e-4, not in the figure
    coef: float | None = None  # beta on the rest of L
    high_cov_coef: float | None = None  # beta on C
    low_cov_coef: float | None = None
    anchor: str | None = None  # ref (figure) or old (released code)
    estimator: str | None = None  # abs, k1, k2, k3: verl's
    clip: bool | None = None  # the policy term: clipped by the schedule, or -A ratio
    policy_tokens: str | None = None  # all, or selected: no policy gradient outside L (80/20)

    def __post_init__(self) -> None:
        check_known(f"{NODE}.preset={self.preset}", self.preset, tuple(PRESETS))
        for name in RULE:
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(PRESETS[self.preset], name))
        for name, known in (
            ("side", ("low", "high")),
            ("scope", ("micro_batch", "mini_batch", "response")),
            ("anchor", ("ref", "old")),
            ("estimator", ("abs", "k1", "k2", "k3")),
            ("policy_tokens", ("all", "selected")),
            ("clip", (True, False)),
        ):
            check_known(f"{NODE}.{name}={getattr(self, name)}", getattr(self, name), known)
        self._number("low_fraction", "a number above 0, at most 1", lambda x: 0 < x <= 1)
        for name in ("high_cov_fraction", "low_cov_fraction"):
            self._number(name, "a number from 0 to 1", lambda x: 0 <= x <= 1)
        for name in ("coef", "high_cov_coef", "low_cov_coef"):
            self._number(name, "a finite number from 0 up", lambda x: x >= 0)
        if self.side == "high" and self.low_fraction == 1:
            raise ValueError(
                f"{NODE}.side=high with low_fraction=1 leaves no token: use a fraction below 1."
            )
        if self.policy_tokens == "selected" and self.scope == "response":
            raise ValueError(
                f"{NODE}.policy_tokens=selected is normalised over a batch's kept tokens and has "
                "no scope=response: use scope=mini_batch or micro_batch."
            )

    def _number(self, name: str, allowed: str, holds) -> None:
        check_number(f"{NODE}.{name}", getattr(self, name), allowed, holds)

    @property
    def coefficients(self) -> tuple[float, float, float, float]:
        """By class, in the order of token_rule.CLASSES."""
        return 0.0, self.coef, self.high_cov_coef, self.low_cov_coef

    @property
    def classes(self) -> list[str]:
        """The names of token_rule.CLASSES that a token can have."""
        there = {
            "unselected": self.low_fraction < 1,
            "rest": True,
            "high_cov": self.high_cov_fraction > 0,
            "low_cov": self.low_cov_fraction > 0,
        }
        return [name for name, can_be in there.items() if can_be]

    @property
    def constrains(self) -> bool:
        """Whether any token is held to the anchor."""
        return any(self.coefficients)

    @property
    def needs_entropy(self) -> bool:
        return self.low_fraction < 1


@dataclass
class SentConfig(DynamicClipConfig):
    """The node policy_loss: verl's settings, the clip schedule's, and the token rule."""

    token_rule: TokenRule = field(default_factory=TokenRule)

    @classmethod
    def from_mapping(cls, node: Mapping[str, Any]) -> SentConfig:
        """From the resolved node policy_loss; raises ValueError for a key that it does not have."""
        values = {key: value for key, value in node.items() if key != "_target_"}
        known = [one.name for one in dataclasses.fields(cls)]
        for key in values:
            check_known(f"actor_rollout_ref.actor.policy_loss.{key}", key, known)
        rule = {k: v for k, v in dict(values.pop("token_rule")).items() if k != "_target_"}
        known = [one.name for one in dataclasses.fields(TokenRule)]
        for key in rule:
            check_known(f"{NODE}.{key}", key, known)
        return cls(**values, token_rule=TokenRule(**rule))

    def summary(self) -> str:
        """The settings that this loss uses."""
        used = {}
        if self.scheduled:
            used |= {name: getattr(self, name) for name in DynamicClipConfig.__annotations__}
        if self.loss_mode == LOSS_MODE:
            used |= {"token_rule": dataclasses.asdict(self.token_rule)}
        return str(used) if used else ""

    @property
    def scheduled(self) -> bool:
        return super().scheduled or (self.loss_mode == LOSS_MODE and self.token_rule.clip)


@dataclass(frozen=True)
class CurriculumConfig:
    """data.curriculum: in which order the prompts come."""

    order: str = "none"  # a name of ORDERS; none: verl's own sampler
    scores: str | None = None  # parquet of `python -m recipe.semantic_curriculum.measure`
    stages: int = 2  # README of the released code
    split: str = "quantile"  # not in paper; or "threshold"
    thresholds: tuple[float, ...] = ()  # of the score, stages - 1 rising ones
    epochs_per_stage: int = 5  # released scripts
    shuffle: bool = True  # inside a stage; released scripts (verl's default)
    replay: float = 0.0  # released scripts: none
    only_stage: int | None = None  # 1, 2 …: this stage alone, for the paper's form of one run each
    optimizer: str = "keep"  # at a stage change
    reference: str = "keep"
    seed: int = 0

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> CurriculumConfig:
        known = tuple(one.name for one in dataclasses.fields(cls))
        for key in settings:
            check_known(f"{CURRICULUM}.{key}", key, known)
        settings = dict(settings)
        if isinstance(settings.get("thresholds"), list):
            settings["thresholds"] = tuple(settings["thresholds"])
        return cls(**settings)

    def __post_init__(self) -> None:
        check_known(f"{CURRICULUM}.order={self.order}", self.order, ORDERS)
        check_known(f"{CURRICULUM}.split={self.split}", self.split, ("quantile", "threshold"))
        for name in ("optimizer", "reference"):
            value = getattr(self, name)
            check_known(f"{CURRICULUM}.{name}={value}", value, ("keep", "reset"))
        check_known(f"{CURRICULUM}.shuffle={self.shuffle}", self.shuffle, (True, False))
        self._number("stages", "a whole number above 0", lambda x: x > 0, int)
        self._number("epochs_per_stage", "a whole number above 0", lambda x: x > 0, int)
        self._number("replay", "a number from 0, below 1", lambda x: 0 <= x < 1)
        self._number("seed", "a whole number from 0 up", lambda x: x >= 0, int)
        if self.only_stage is not None:
            allowed = f"a whole number from 1 to stages={self.stages}, or null"
            self._number("only_stage", allowed, lambda x: 1 <= x <= self.stages, int)
        if self.order == "none":
            return
        if not self.scores:
            raise ValueError(
                f"{CURRICULUM}.order={self.order} needs a score for each prompt: write them with "
                f"`python -m recipe.semantic_curriculum.measure` and set {CURRICULUM}.scores."
            )
        rising = list(self.thresholds) == sorted(set(self.thresholds))
        numbers = all(
            isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)
            for x in self.thresholds
        )
        wanted = self.stages - 1 if self.split == "threshold" else 0
        if len(self.thresholds) != wanted or not numbers or not rising:
            raise ValueError(
                f"{CURRICULUM}.thresholds={list(self.thresholds)} does not fit split={self.split} "
                f"and stages={self.stages}: give {wanted} rising numbers."
            )
        for name in ("optimizer", "reference"):
            if getattr(self, name) == "reset" and self.only_stage is None and self.stages > 1:
                raise ValueError(
                    f"{CURRICULUM}.{name}=reset is not possible within one run, since verl's "
                    f"checkpoints could not tell a resumed run of it: run the stages one by one "
                    f"({CURRICULUM}.only_stage; recipe/semantic_curriculum/two_runs.sh), where a "
                    f"run begins with a new optimizer and its own model as reference."
                )

    def _number(self, name: str, allowed: str, holds, kind=float) -> None:
        check_number(f"{CURRICULUM}.{name}", getattr(self, name), allowed, holds, kind)
