"""What can be known to be wrong with AsymGRPO's settings before Ray starts, and their summary."""

from __future__ import annotations

import dataclasses

from omegaconf import DictConfig

from recipe.asymgrpo.config import NAME, NODE, PRESETS, AsymGRPOConfig, check_group_size
from recipe.core import config as run_config
from recipe.core.settings import plain


def check(config: DictConfig) -> None:
    """Raises ValueError, in one sentence, for settings that cannot work."""
    node = config.algorithm.get(NAME)
    if node is None:
        if config.algorithm.adv_estimator == NAME:
            raise ValueError(
                f"algorithm.adv_estimator={NAME} needs its settings under {NODE}: start from "
                "recipe/common.yaml, as recipe/asymgrpo/asymgrpo.yaml does."
            )
        return
    settings = AsymGRPOConfig.from_mapping(plain(node))
    check_estimator(settings, config.algorithm.adv_estimator, chosen=node.preset is not None)
    check_baseline(settings, config)
    check_group_size(settings, config.actor_rollout_ref.rollout.n)
    if settings.entropy_shaped and run_config.bypasses_old_log_probs(config):
        raise ValueError(
            f"{NODE}.preset={settings.preset} needs the policy's entropy, which verl does not "
            "compute with algorithm.rollout_correction.bypass_mode=true: set it to false."
        )

    if config.algorithm.use_kl_in_reward and config.algorithm.adv_estimator == NAME:
        raise ValueError(
            f"algorithm.use_kl_in_reward=true has no effect with adv_estimator={NAME}, which reads "
            "only which rollouts are correct: set it to false, and use actor_rollout_ref.actor."
            "use_kl_loss=true for a KL term."
        )
    reward_model = config.reward.reward_model
    if settings.correct_field and reward_model.enable and not reward_model.enable_resource_pool:
        raise ValueError(
            f"{NODE}.correct_field={settings.correct_field} is read with the rollouts, before a "
            "reward model on the same GPUs has scored them: set reward.reward_model."
            "enable_resource_pool=true, or use correct_threshold."
        )


def check_estimator(settings: AsymGRPOConfig, estimator: str, chosen: bool) -> None:
    """Raises ValueError where a preset was chosen, or a beta given, whose advantages another
    estimator replaces."""
    preset = PRESETS[settings.preset]
    for name in ("beta_pos", "beta_neg"):
        if (value := getattr(settings, name)) is not None and estimator != NAME:
            raise ValueError(
                f"{NODE}.{name}={value} has no effect with algorithm.adv_estimator={estimator}: "
                f"set algorithm.adv_estimator={NAME}, or leave it at null."
            )
    # GRPO's rows are also verl's grpo with a clip, a bonus or a term of the entropy
    if estimator != preset.adv_estimator and chosen and preset.rule != "grpo":
        raise ValueError(
            f"{NODE}.preset={settings.preset} has no effect with algorithm.adv_estimator="
            f"{estimator}, which computes other advantages: set algorithm.adv_estimator="
            f"{preset.adv_estimator}, or another preset."
        )


def check_baseline(settings: AsymGRPOConfig, config: DictConfig) -> None:
    """Raises ValueError for a preset that another setting makes GRPO: what `launch.check_presets`
    cannot see, since no value of the preset's was set back."""
    what = f"{NODE}.preset={settings.preset}"
    if settings.preset == "dr_grpo" and config.algorithm.norm_adv_by_std_in_grpo:
        raise ValueError(
            f"{what} has no effect with algorithm.norm_adv_by_std_in_grpo=true, which divides by "
            "the std as GRPO does: set it to false, or use preset=grpo."
        )
    if settings.preset == "grpo_clip_higher":
        run_config.check_several_updates(config, f"{what} clips nothing", ", or preset=grpo")


def summary(config: DictConfig) -> dict[str, str]:
    """Returns what the summary of a run says of these settings."""
    if config.algorithm.adv_estimator != NAME:
        return {}
    settings = dataclasses.asdict(AsymGRPOConfig.from_mapping(plain(config.algorithm[NAME])))
    return {"estimator": str({key: value for key, value in settings.items() if value is not None})}
