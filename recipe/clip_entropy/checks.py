"""What can be known to be wrong with the clip settings before Ray starts, and their summary."""

from __future__ import annotations

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from recipe.clip_entropy.config import LOSS_MODE, PRESETS, ClipSettings
from recipe.clip_entropy.schedules import LINES, SCHEDULES, Static
from recipe.clip_entropy.variant_term import TERMS
from recipe.core import config as run_config
from recipe.core.clip import Bounds
from recipe.core.policy_loss import NODE
from recipe.core.settings import settings_of

LIMITS = ("bound_min", "bound_max")
NEED_SEVERAL_UPDATES = ("cispo", "dppo_tv", "dppo_kl")  # losses of verl


def check(config: DictConfig) -> None:
    """Raises ValueError, in one sentence, for settings that cannot work."""
    settings = run_config.policy_loss(config)
    if not isinstance(settings, ClipSettings):
        return
    actor = config.actor_rollout_ref.actor
    check_variant(settings, config)
    if not settings.takes_clip_bounds:
        for name, none in (("schedule", "static"), ("exact_contribution_freq", 0)):
            if (value := getattr(settings, name)) != none:
                raise ValueError(
                    f"{NODE}.{name}={value} has no effect with loss_mode={settings.loss_mode}: set "
                    f"{NODE}.loss_mode={LOSS_MODE}, or {name}={none}."
                )
        return
    for name in ("clip_ratio_low", "clip_ratio_high"):
        ratio = actor[name]
        if not isinstance(ratio, int | float) or not 0 <= ratio < 1:
            raise ValueError(
                f"actor_rollout_ref.actor.{name}={ratio} is not allowed: use a number from 0, "
                "below 1 (paper: 0.2)."
            )
    lines = settings.lines(actor.clip_ratio_low, actor.clip_ratio_high)
    steps = config.trainer.total_training_steps
    check_bounds(settings, settings.make_schedule(lines, steps))
    check_length(settings, steps)
    check_exact_contributions(settings, config)
    if settings.variant != "ppo" and not settings.acts_at_once:
        check_updates(f"variant={settings.variant}", config)
    moves = settings.schedule != "static" or actor.clip_ratio_low != actor.clip_ratio_high
    if moves and not settings.acts_at_once:
        run_config.check_several_updates(
            config,
            f"{NODE}.schedule={settings.schedule} can clip nothing",
            " (the paper's clip shares show several updates)",
        )
    if settings.schedule == "od":
        run_config.check_entropies(config, f"{NODE}.schedule=od")
    if (freq := settings.exact_contribution_freq) > 0:
        run_config.check_entropies(config, f"{NODE}.exact_contribution_freq={freq}")


def check_variant(settings: ClipSettings, config: DictConfig) -> None:
    """A variant acts in this recipe's loss alone, and reads what verl must have been told to make.

    That the old policy's entropies are there is checked for every part that needs them.
    """
    what, actor = f"{NODE}.variant={settings.variant}", config.actor_rollout_ref.actor
    preset = PRESETS[settings.preset]
    named = {"variant": "ppo", "loss_mode": LOSS_MODE}
    if SCHEDULES[preset.schedule].own_limits:
        named["schedule"] = "static"
    for name, usual in named.items():
        chosen, given = getattr(preset, name), getattr(settings, name)
        if chosen != usual and given != chosen:
            raise ValueError(
                f"{NODE}.preset={settings.preset} has no effect with {name}={given}, which is "
                f"another method: set {NODE}.{name}={chosen}, or another preset."
            )
    if settings.loss_mode in NEED_SEVERAL_UPDATES:
        check_updates(f"loss_mode={settings.loss_mode}", config)
    if settings.loss_mode == "dppo_tv":
        check_divergence(actor)
    if settings.variant != "ppo" and settings.loss_mode != LOSS_MODE:
        raise ValueError(
            f"{what} has no effect with loss_mode={settings.loss_mode}: set {NODE}.loss_mode="
            f"{LOSS_MODE}, or variant=ppo."
        )
    TERMS[settings.variant].check(settings, actor)


def check_divergence(actor: DictConfig) -> None:
    """verl's `dppo_tv` leaves out a token whose probability has moved by more than its bound."""
    low, high = actor.clip_ratio_low, actor.clip_ratio_high
    if low is not None and high is not None and min(low, high) >= 1:
        raise ValueError(
            f"{NODE}.loss_mode=dppo_tv leaves no token out with actor_rollout_ref.actor."
            f"clip_ratio_low={low} and clip_ratio_high={high}, as no probability moves by more "
            "than 1: use numbers below 1 (verl's example: 0.15)."
        )


def check_updates(what: str, config: DictConfig) -> None:
    """What bounds the distance from the policy that sampled acts from the second update on."""
    run_config.check_several_updates(
        config, f"{NODE}.{what} has the gradient of PPO", ", or preset=grpo"
    )


def check_bounds(settings: ClipSettings, schedule: Static) -> None:
    """Raises ValueError for a schedule whose bounds never leave the constant ones, and for two
    constant bounds that bound_min and bound_max make one."""
    lines = schedule.lines
    ratios = f"clip_ratio_low={lines.base_lower.intercept} and clip_ratio_high="
    ratios += f"{lines.base_upper.intercept}"
    limits = ", ".join(f"{name}={getattr(settings, name)}" for name in LIMITS)
    constant = Static(lines).at(0)
    if settings.schedule == "static":
        upper, lower = evaluated(constant)
        if lines.base_upper != lines.base_lower and torch.equal(upper, lower):
            raise ValueError(
                f"actor_rollout_ref.actor.{ratios} are both {upper[0].item():g} within {NODE}."
                f"{limits}, so that their difference has no effect: use a lower bound_min or a "
                "higher bound_max, or the same number for both."
            )
        return
    if SCHEDULES[settings.schedule].own_limits:
        return  # which the schedule has compared
    alike = evaluated(constant)
    if all(torch.allclose(alike, evaluated(bounds)) for bounds in schedule.possible()):
        fields = settings_of(ClipSettings)
        changed = [
            f"{name}={getattr(settings, name)}"
            for name in (*LINES, *LIMITS)
            if name != "total_steps" and getattr(settings, name) != fields[name].default
        ]
        raise ValueError(
            f"{NODE}.schedule={settings.schedule} has no effect with {', '.join(changed)}, as its "
            f"bounds are the constant ones of {ratios} at every step: set one of them back, or "
            "use schedule=static."
        )


def evaluated(bounds: Bounds) -> Tensor:
    """Returns (2, 1001): the upper and the lower bound at probabilities from 0 to 1."""
    p = torch.linspace(0, 1, 1001, dtype=torch.float64)
    both = (torch.as_tensor(x, dtype=p.dtype).expand_as(p) for x in bounds.epsilons(p))
    return torch.stack(tuple(both))


def check_length(settings: ClipSettings, steps: int | None) -> None:
    """A schedule that is over before the run would stand still at its end."""
    if settings.schedule == "static" or settings.total_steps is None or steps is None:
        return
    if settings.total_steps < steps:
        raise ValueError(
            f"{NODE}.total_steps={settings.total_steps} is less than the run's trainer."
            f"total_training_steps={steps}, so schedule={settings.schedule} would be over before "
            f"it: use at least {steps}, or null."
        )


def check_exact_contributions(settings: ClipSettings, config: DictConfig) -> None:
    """They need the logits of whole sequences, which only FSDP without fused kernels has."""
    if not settings.exact_contribution_freq:
        return
    what = f"{NODE}.exact_contribution_freq={settings.exact_contribution_freq} needs the logits"
    strategy = config.actor_rollout_ref.actor.strategy
    if not strategy.startswith("fsdp"):
        raise ValueError(
            f"{what} of the whole vocabulary, which actor_rollout_ref.actor.strategy={strategy} "
            "splits: use fsdp or fsdp2, or set it to 0."
        )
    if OmegaConf.select(config, "actor_rollout_ref.actor.fsdp_config.pad_to_length"):
        raise ValueError(
            f"{what}, which verl does not give with actor_rollout_ref.actor.fsdp_config."
            "pad_to_length=true (by default that of actor.pad_to_length): set one of them back."
        )
    if config.actor_rollout_ref.model.use_fused_kernels:
        raise ValueError(
            f"{what}, which actor_rollout_ref.model.use_fused_kernels=true does not make: set one "
            "of them back."
        )


def summary(config: DictConfig) -> dict[str, str]:
    """Returns what the summary of a run says of these settings."""
    settings = run_config.policy_loss(config)
    if not isinstance(settings, ClipSettings) or not settings.takes_clip_bounds:
        return {}
    return {"loss": str(settings.clip_summary())}
