"""Settings of the clip bounds in `actor_rollout_ref.actor.policy_loss`, and the presets: the rows
of arXiv 2602.09782 v1, Table 1, and other papers' losses.

A preset is a whole method of the comparison. It names the loss and the schedule and states every
coefficient that the method needs elsewhere: `clip_entropy.yaml` reads them with the resolver
`${preset:clip_entropy,<preset>,<key>}`, and a command-line override still wins.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recipe.clip_entropy.schedules import SCHEDULES, Balanced, ClipLines, Static
from recipe.core.clip import Bounds, Line
from recipe.core.policy_loss import NODE, PolicyLossSettings
from recipe.core.settings import check_settings, setting, settings_of

LOSS_MODE = "dynamic_clip"


@dataclass(frozen=True)
class Preset:
    """How a method differs from GRPO with constant bounds."""

    loss_mode: str = LOSS_MODE  # or a loss that verl has
    schedule: str = "static"
    clip_ratio_low: float = 0.2  # eps_std of the lower bound
    clip_ratio_high: float = 0.2  # eps_std of the upper bound
    entropy_coeff: float = 0.0
    loss_agg_mode: str = "token-mean"  # not in paper: verl's
    variant: str = "ppo"  # what becomes of PPO's clipped term
    clip_ratio_c: float = 3.0  # not in paper; verl (dual clip: where A < 0 and ratio > 3)
    calculate_entropy: bool = False  # whether the update computes the current policy's entropies
    use_kl_loss: bool = False  # paper App. C: KL coefficient 0
    kl_loss_coef: float = 0.001  # verl's, without effect where use_kl_loss is false
    norm_adv_by_std_in_grpo: bool = True  # paper sec. 5.1


PRESETS: dict[str, Preset] = {
    "id": Preset(schedule="id"),  # sec. 4.2
    "did": Preset(schedule="did"),  # sec. 4.2
    "od": Preset(schedule="od"),  # sec. 4.2
    "grpo": Preset(),  # sec. 5.1
    # 0.28 is DAPO's (arXiv 2503.14476); the paper names the method only
    "clip_higher": Preset(clip_ratio_high=0.28),
    "clip_lower": Preset(clip_ratio_low=0.28),  # value is ours
    "no_upper_bound": Preset(variant="no_upper_bound"),  # ours: a control of comparisons
    "entropy_bonus": Preset(entropy_coeff=0.001),  # value is ours
    # arXiv 2505.22617, its scripts: in the place of PPO's clip
    "clip_cov": Preset("clip_cov", clip_ratio_low=1.0, clip_ratio_high=1.0),
    # verl's sapo averages by sequence whatever loss_agg_mode says
    "sapo": Preset("sapo", loss_agg_mode="seq-mean-token-mean"),
    # its own paper's bounds and aggregation (arXiv 2507.18071)
    "gspo": Preset(
        "gspo", clip_ratio_low=3e-4, clip_ratio_high=4e-4, loss_agg_mode="seq-mean-token-mean"
    ),
    # CISPO, arXiv 2506.13585: loss = -sg(clip(r, 1 - eps_low, 1 + eps_high)) A log pi. It has no
    # lower bound, and no value of the upper one; these are verl's example's
    "cispo": Preset("cispo", clip_ratio_low=10.0, clip_ratio_high=0.2),
    # DPPO, arXiv 2602.04879: loss = -sg(min(r, c)) A log pi, or 0 where (p - q) A > 0 and D > eps;
    # q is the old probability, D = |p - q| (tv) or q ln(q/p) + (1-q) ln((1-q)/(1-p)) (kl). Values
    # of verl's example: bounds of the divergence, ratio hardly truncated, no std
    "dppo_tv": Preset(
        "dppo_tv",
        clip_ratio_low=0.15,
        clip_ratio_high=0.15,
        clip_ratio_c=10000.0,
        loss_agg_mode="seq-mean-token-sum-norm",
        norm_adv_by_std_in_grpo=False,
    ),
    "dppo_kl": Preset(
        "dppo_kl",
        clip_ratio_low=0.05,
        clip_ratio_high=0.05,
        clip_ratio_c=10000.0,
        loss_agg_mode="seq-mean-token-sum-norm",
        norm_adv_by_std_in_grpo=False,
    ),
    # variants of PPO's clipped term, with the bounds of their authors' scripts
    "up": Preset(variant="up"),  # arXiv 2607.06987; bounds: verl's
    "ce_gppo": Preset(variant="ce_gppo", clip_ratio_c=10.0),  # arXiv 2509.20712
    "dcpo": Preset(  # arXiv 2509.02333, bounds of its README (its script: 0.2 and 0.28)
        variant="dcpo",
        clip_ratio_low=0.16,
        clip_ratio_high=0.2,
        clip_ratio_c=10.0,
        loss_agg_mode="seq-mean-token-mean",
    ),
    "erc": Preset(  # arXiv 2512.05591, on DAPO's bounds
        variant="erc", clip_ratio_high=0.28, clip_ratio_c=10.0, calculate_entropy=True
    ),
    "steer": Preset(variant="steer", clip_ratio_high=0.28, clip_ratio_c=10.0),  # arXiv 2510.10150
    # arXiv 2510.18927, sec. 5.1: bounds of the ratio from 0.6 and 1.2 on
    "bapo": Preset(schedule="bapo", clip_ratio_low=0.4),
    "archer": Preset(  # arXiv 2507.15778; the KL per token stands in its variant
        variant="archer", clip_ratio_c=10.0, use_kl_loss=True, kl_loss_coef=0.0
    ),
}


@dataclass(frozen=True)
class VariantRow:
    """What is known of a variant before a run; its class is in `variant_term.TERMS`."""

    settings: tuple[str, ...] = ()  # that it alone reads
    needs_entropy: bool = False  # reads the old policy's entropies in the loss
    own_bounds: bool = False  # in the place of a schedule's
    no_upper: bool = False  # no token meets the upper bound
    at_once: bool = False  # acts in the first update of a rollout too, where the ratio is 1


VARIANTS: dict[str, VariantRow] = {
    "ppo": VariantRow(),
    "up": VariantRow(no_upper=True),
    "no_upper_bound": VariantRow(no_upper=True),
    "ce_gppo": VariantRow(("ce_low", "ce_high")),
    "dcpo": VariantRow(("dcpo_ratio_max",), own_bounds=True),
    "erc": VariantRow(("erc_low", "erc_high"), needs_entropy=True),
    "steer": VariantRow(("steer_weight_min",), needs_entropy=True, at_once=True),
    "archer": VariantRow(
        ("archer_quantile", "archer_clip", "archer_kl"),
        needs_entropy=True,
        own_bounds=True,
        at_once=True,
    ),
}


@dataclass
class ClipSettings(PolicyLossSettings):
    """The bounds and how they move. clip_ratio_low and clip_ratio_high of the actor are the paper's
    eps_std, so that every method states them in the same place."""

    preset: str = setting("grpo", "ours: constant bounds; the recipe's yaml: id", choices=PRESETS)
    schedule: str = setting(
        "static",
        "ours: constant bounds; id, did, od: paper sec. 4.2; bapo: arXiv 2510.18927",
        choices=SCHEDULES,
    )
    total_steps: int | None = setting(
        None, "T; null: trainer.total_training_steps (paper: 400)", kind=int, above=0
    )
    phase_split: float = setting(0.5, "paper sec. 4.2; sec. 5.4 tries 0.3 to 0.6", above=0, below=1)
    second_phase: str = setting(
        "printed",
        "paper sec. 4.2, the formula; prose: what its text says instead",
        choices=("printed", "prose"),
    )
    upper_slope: float = setting(-0.25, "paper sec. 4.1: the upper line H(p)")
    upper_intercept: float = setting(0.5, "paper sec. 4.1: H(0)")
    lower_slope: float = setting(-0.13, "paper sec. 4.1: the lower line M(p)")
    lower_intercept: float = setting(0.3, "paper sec. 4.1: M(0)")
    bound_min: float = setting(
        0.0, "ours: of both bounds; the paper's lines: 0.17 to 0.5", at_least=0
    )
    bound_max: float = setting(
        1.0, "ours: of both bounds; at least bound_min", at_least=0, at_most=1
    )
    od_h_init: float | None = setting(None, "not in paper: H_init in nats; null: measured", above=0)
    od_h_init_steps: int = setting(1, "ours: first steps that H_init is the mean of", above=0)
    od_ratio: float = setting(
        0.2, "paper sec. 4.2: where the floor is, of H_init", above=0, below=1
    )
    od_start: str = setting(
        "lower", "not in paper; ours: its curves begin downwards", choices=("lower", "raise")
    )
    od_smoothing: float = setting(
        0.0, "not in paper; ours: share of the past in the entropy", at_least=0, below=1
    )
    bapo_target: float = setting(
        0.4, "arXiv 2510.18927, sec. 5.1: rho_0; its README: 0.5", above=0, below=1
    )
    bapo_upper_end: float = setting(
        3.0, "arXiv 2510.18927, sec. 5.1: of the ratio's upper bound", above=1
    )
    bapo_lower_end: float = setting(
        0.9,
        "arXiv 2510.18927, sec. 5.1: of the ratio's lower bound",
        above=0,
        at_most=1,
    )
    bapo_upper_step: float = setting(0.05, "arXiv 2510.18927, sec. 5.1", at_least=0.01)
    bapo_lower_step: float = setting(0.02, "arXiv 2510.18927, sec. 5.1", at_least=0.01)
    variant: str = setting(
        "ppo", "ours: PPO's clipped term; others: what a paper makes of it", choices=VARIANTS
    )
    ce_low: float = setting(
        0.75, "arXiv 2509.20712, 7B: beta_1, below the lower bound; 1.5B: 0.5", at_least=0
    )
    ce_high: float = setting(1.0, "arXiv 2509.20712: beta_2, above the upper bound", at_least=0)
    dcpo_ratio_max: float = setting(10.0, "arXiv 2509.02333: of the upper bound", above=1)
    erc_low: float = setting(0.95, "arXiv 2512.05591: of H_new / H_old", at_least=0, below=1)
    erc_high: float = setting(1.05, "arXiv 2512.05591: of H_new / H_old", above=1)
    steer_weight_min: float = setting(
        0.8, "arXiv 2510.10150, its run_exp.sh: smallest weight of a token", above=0, below=1
    )
    archer_quantile: float = setting(
        0.8, "arXiv 2507.15778: of a response's entropies", above=0, below=1
    )
    archer_clip: float = setting(
        0.5, "arXiv 2507.15778: both bounds above the quantile", above=0, at_most=1
    )
    archer_kl: float = setting(
        0.001, "arXiv 2507.15778: KL coefficient up to the quantile", at_least=0
    )
    region_diagnostics: bool = setting(True, "ours: log the four regions of tokens")
    exact_contribution_freq: int = setting(
        0, "ours: steps between two, each a forward pass; 0: never", at_least=0
    )

    def __post_init__(self) -> None:
        check_settings(self, NODE, ClipSettings)
        if self.bound_max < self.bound_min:
            raise ValueError(
                f"{NODE}.bound_max={self.bound_max} is not allowed: use a number from "
                f"bound_min={self.bound_min} to 1."
            )
        for bound in ("upper", "lower"):
            slope, intercept = (getattr(self, f"{bound}_{part}") for part in ("slope", "intercept"))
            if min(intercept, slope + intercept) < 0:
                raise ValueError(
                    f"{NODE}.{bound}_slope={slope} and {bound}_intercept={intercept} make the "
                    f"{bound} bound negative for some probability: use values with intercept >= 0 "
                    "and slope + intercept >= 0."
                )

        self._check_schedule()
        self._check_variant()

    def _check_schedule(self) -> None:
        """Raises ValueError for a setting of another schedule; od_h_init, which run scripts set for
        a model whatever the preset, may stand beside any."""
        fields, read = settings_of(ClipSettings), SCHEDULES[self.schedule].reads
        if SCHEDULES[self.schedule].own_limits:
            self._check_limits(f"schedule={self.schedule}", ("bound_min", "bound_max"))
        for schedule, other in SCHEDULES.items():
            for name in other.reads:
                value, default = getattr(self, name), fields[name].default
                if name not in (*read, "od_h_init") and value != default:
                    usual = "null" if default is None else default
                    raise ValueError(
                        f"{NODE}.{name}={value} has no effect with schedule={self.schedule}: leave "
                        f"it at {usual}, or use schedule={schedule}."
                    )

    def _check_variant(self) -> None:
        """Raises ValueError for a setting of another variant, or one that makes it plain PPO."""
        row = VARIANTS[self.variant]
        for variant, other in VARIANTS.items():
            for name in set(other.settings) - set(row.settings):
                default = settings_of(ClipSettings)[name].default
                if getattr(self, name) != default:
                    raise ValueError(
                        f"{NODE}.{name}={getattr(self, name)} has no effect with variant="
                        f"{self.variant}: leave it at {default}, or use variant={variant}."
                    )
        if self.variant == "ce_gppo" and self.ce_low == self.ce_high == 0:
            raise ValueError(
                f"{NODE}.ce_low=0 and ce_high=0 leave variant=ce_gppo as PPO's clip: use a number "
                "above 0 for one of them, or variant=ppo."
            )
        if row.no_upper and self.schedule == Balanced.name:
            raise ValueError(
                f"{NODE}.schedule={self.schedule} has no effect with variant={self.variant}, which "
                "has no upper bound for it to raise: use another schedule, or variant=ppo."
            )
        if row.own_bounds:
            self._check_limits(f"variant={self.variant}", ("schedule", "bound_min", "bound_max"))

    def _check_limits(self, what: str, names: Sequence[str]) -> None:
        """Raises ValueError for settings of the bounds beside one that has bounds of its own."""
        for name in names:
            value, usual = getattr(self, name), settings_of(ClipSettings)[name].default
            if value != usual:
                raise ValueError(
                    f"{NODE}.{name}={value} has no effect with {what}, which has bounds of its "
                    f"own: use {name}={usual}, or another {what.partition('=')[0]}."
                )

    @property
    def takes_clip_bounds(self) -> bool:
        return self.loss_mode == LOSS_MODE or super().takes_clip_bounds

    @property
    def acts_at_once(self) -> bool:
        """Whether the variant acts where every ratio is 1; Archer's bounds alone do not."""
        row = VARIANTS[self.variant]
        return row.at_once and not (self.variant == "archer" and self.archer_kl == 0)

    def constant_bounds(self, clip_ratio_low: float, clip_ratio_high: float) -> Bounds:
        if self.schedule != "static":
            raise ValueError(
                f"{NODE}.schedule={self.schedule} moves with the training step, which reaches the "
                "loss only through trainer.v1.trainer_mode=recipe_sync: use it, or schedule=static."
            )
        return Static(self.lines(clip_ratio_low, clip_ratio_high)).at(0)

    def lines(self, clip_ratio_low: float, clip_ratio_high: float) -> ClipLines:
        """Returns the lines between which a schedule moves."""
        return ClipLines(
            wide_upper=Line(self.upper_slope, self.upper_intercept),
            wide_lower=Line(self.lower_slope, self.lower_intercept),
            base_upper=Line(0.0, clip_ratio_high),
            base_lower=Line(0.0, clip_ratio_low),
            eps_min=self.bound_min,
            eps_max=self.bound_max,
        )

    def make_schedule(self, lines: ClipLines, total_training_steps: int | None) -> Static:
        """Makes the schedule object.

        Args:
            lines: What it moves between.
            total_training_steps: The trainer's setting; T where `total_steps` is null.

        Raises:
            ValueError: If a schedule that moves has no T.
        """
        total_steps = self.total_steps or total_training_steps
        if self.schedule == "static":
            return Static(lines)  # without T: such a run may be made longer
        if not total_steps and SCHEDULES[self.schedule].timed:
            raise ValueError(
                f"{NODE}.schedule={self.schedule} moves over training, whose length T is not set: "
                f"set trainer.total_training_steps (paper: 400) or {NODE}.total_steps."
            )
        return SCHEDULES[self.schedule].from_settings(lines, total_steps, self)

    def clip_summary(self) -> dict[str, Any]:
        """Returns the settings of the bounds as plain values."""
        values = dataclasses.asdict(self)
        return {name: values[name] for name in settings_of(ClipSettings)}
