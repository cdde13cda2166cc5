"""What can be known to be wrong with AsymGRPO's settings before Ray starts, and their summary."""

from __future__ import annotations

import dataclasses

import torch
from omegaconf import DictConfig
from torch import Tensor

from recipe.asymgrpo.advantages import grpo_advantage
from recipe.asymgrpo.config import NAME, NODE, PRESETS, AsymGRPOConfig, check_group_size
from recipe.asymgrpo.register import rollout_advantages
from recipe.core import config as run_config
from recipe.core.settings import plain

CENTRED = ("dr_grpo", "rloo")  # verl's own: the reward less the group's mean, times a constant


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
    settings, chosen = AsymGRPOConfig.from_mapping(plain(node)), node.preset is not None
    check_estimator(settings, config.algorithm.adv_estimator, chosen)
    check_baseline(settings, config)
    if chosen or config.algorithm.adv_estimator == NAME:
        check_group_size(settings, config.actor_rollout_ref.rollout.n)
    if config.algorithm.adv_estimator == PRESETS[settings.preset].adv_estimator:
        check_other_than_grpo(settings, config.actor_rollout_ref.rollout.n)
    if settings.entropy_shaped:
        run_config.check_entropies(config, f"{NODE}.preset={settings.preset}")

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


def check_other_than_grpo(settings: AsymGRPOConfig, n: int) -> None:
    """Raises ValueError for a method that is GRPO under another name in groups of n rollouts; one
    that is GRPO's estimator by its definition, such as grpo_clip_higher, differs elsewhere."""
    if PRESETS[settings.preset].rule == "grpo" or not is_grpo(settings, n):
        return
    what = f"{NODE}.preset={settings.preset}"
    if settings.betas is not None:
        what += f" with beta_pos, beta_neg={settings.betas}"
    # in groups of two and three few accuracies tell two methods apart
    larger = next((m for m in (3, 4) if m > n and not is_grpo(settings, m)), None)
    if larger is not None:
        cure = f"use n >= {larger} (paper: 8)"
    elif settings.rule == "pass_at_k":
        what, cure = f"{what} and pass_k={settings.pass_k}", "use a pass_k above 1"
    else:
        cure = "leave beta_pos and beta_neg at null"
    grpo = "grpo_clip_higher" if settings.preset == "asymgrpo_clip_higher" else "grpo"
    raise ValueError(
        f"{what} at actor_rollout_ref.rollout.n={n} gives every group GRPO's advantages, or one "
        f"multiple of them: {cure}, or preset={grpo}."
    )


def is_grpo(settings: AsymGRPOConfig, n: int) -> bool:
    """Returns whether the advantages are GRPO's times one positive number, in every group of n
    rollouts.

    Those of verl's `reinforce_plus_plus` and `reinforce_plus_plus_baseline` are not, since they
    are shifted by the mean of the batch.
    """
    # one group for each number of correct rollouts, 0 .. n
    correct_B = (torch.arange(n) < torch.arange(n + 1)[:, None]).flatten()
    group_B = torch.arange(n + 1).repeat_interleave(n)
    grpo_B = grpo_advantage(correct_B, group_B)
    advantages_B: Tensor
    if PRESETS[settings.preset].adv_estimator == NAME:
        every_B = torch.ones_like(correct_B)
        advantages_B = rollout_advantages(settings, correct_B, group_B, every_B)
    elif settings.preset in CENTRED:
        advantages_B = correct_B.float() - group_B / n
    else:
        return False
    largest, largest_of_grpo = advantages_B.abs().max(), grpo_B.abs().max()
    if largest == 0 or largest_of_grpo == 0:
        return False
    return torch.allclose(advantages_B / largest, grpo_B / largest_of_grpo, atol=1e-6)


def summary(config: DictConfig) -> dict[str, str]:
    """Returns what the summary of a run says of these settings."""
    if config.algorithm.adv_estimator != NAME:
        return {}
    settings = dataclasses.asdict(AsymGRPOConfig.from_mapping(plain(config.algorithm[NAME])))
    return {"estimator": str({key: value for key, value in settings.items() if value is not None})}
