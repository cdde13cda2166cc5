"""What can be known to be wrong with the clip settings before Ray starts, and their summary."""

from __future__ import annotations

from omegaconf import DictConfig

from recipe.clip_entropy.config import LOSS_MODE, PRESETS, ClipSettings
from recipe.clip_entropy.schedules import SCHEDULES
from recipe.clip_entropy.variant_term import TERMS
from recipe.core import config as run_config
from recipe.core.policy_loss import NODE


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
    settings.make_schedule(lines, steps)
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
    for setting, needs_entropy in (
        ("schedule=od", settings.schedule == "od"),
        (
            f"exact_contribution_freq={settings.exact_contribution_freq}",
            settings.exact_contribution_freq > 0,
        ),
    ):
        if needs_entropy and run_config.bypasses_old_log_probs(config):
            raise ValueError(
                f"{NODE}.{setting} needs the policy's entropy, which verl does not compute with "
                "algorithm.rollout_correction.bypass_mode=true: set it to false."
            )


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
    if settings.preset in ("cispo", "dppo_tv", "dppo_kl"):
        check_updates(f"preset={settings.preset}", config)
    if settings.variant != "ppo" and settings.loss_mode != LOSS_MODE:
        raise ValueError(
            f"{what} has no effect with loss_mode={settings.loss_mode}: set {NODE}.loss_mode="
            f"{LOSS_MODE}, or variant=ppo."
        )
    TERMS[settings.variant].check(settings, actor)


def check_updates(what: str, config: DictConfig) -> None:
    """What bounds the distance from the policy that sampled acts from the second update on."""
    run_config.check_several_updates(
        config, f"{NODE}.{what} has the gradient of PPO", ", or preset=grpo"
    )


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
