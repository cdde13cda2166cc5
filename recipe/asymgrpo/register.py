"""`algorithm.adv_estimator=asymgrpo`: registers the estimators of this folder with verl 0.9.1.

What the estimator assumes: every row is one whole rollout (verl merges the several trajectories of
a session for its own `grpo` only), and rows of one prompt share a uid.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, register_adv_est

from recipe.asymgrpo import advantages as adv
from recipe.asymgrpo.config import NAME, NODE, PRESETS, AsymGRPOConfig
from recipe.core import step as training_step
from recipe.core.rollouts import group_index, real_rows, scalar_rewards
from recipe.core.settings import check_free, plain


def rollout_advantages(
    settings: AsymGRPOConfig, correct_B: Tensor, group_B: Tensor, valid_B: Tensor
) -> Tensor:
    """Returns (B,): the advantage that the settings name.

    Args:
        correct_B: (B,) bool.
        group_B: (B,) long, 0..P-1.
        valid_B: (B,) bool, rows to count.
    """
    rows = (correct_B, group_B)
    if settings.rule == "grpo":
        return adv.grpo_advantage(*rows, settings.std, settings.eps, valid_B)
    if settings.rule == "odds":
        assert settings.betas is not None
        return adv.odds_advantage(*rows, *settings.betas, valid_B)
    if settings.rule == "pass_at_k":
        return adv.pass_at_k_advantage(*rows, settings.pass_k, valid_B)
    if settings.rule == "signs":
        assert settings.weights is not None
        return adv.weighted_sign_advantage(*rows, *settings.weights, valid_B)
    if settings.rule == "quantile":
        return adv.quantile_advantage(*rows, settings.quantile, settings.std, settings.eps, valid_B)
    if settings.rule == "max_likelihood":
        return adv.max_likelihood_advantage(*rows, valid_B)
    if settings.rule == "ent_increase":
        return adv.ent_increase_advantage(*rows, valid_B)
    if settings.rule == "ent_decrease":
        return adv.ent_decrease_advantage(*rows, valid_B)
    raise ValueError(
        f"algorithm.adv_estimator={NAME} does not compute preset={settings.preset}: set "
        f"algorithm.adv_estimator={PRESETS[settings.preset].adv_estimator}."
    )


def asymgrpo_advantage(
    token_level_rewards: Tensor, response_mask: Tensor, index: Any, config: Any, **_: Any
) -> tuple[Tensor, Tensor]:
    """verl's estimator interface.

    Within the recipes' trainer, correctness, groups and padding are the step's
    (`core.step.Step`); in verl's own trainer they are read from the arguments.

    Args:
        token_level_rewards: (B, T).
        response_mask: (B, T), 0 or 1.
        index: (B,) uids.
        config: The node `algorithm`.

    Returns:
        One (B, T) float32 tensor, as advantages and as returns.
    """
    settings = AsymGRPOConfig.from_mapping(plain(config.get(NAME, {})))
    step = training_step.current()
    if step is not None:
        correct_B, group_B, valid_B = step.correct_B, step.group_B, step.real_B
        assert correct_B is not None  # AsymGRPOPart requires it
    elif settings.correct_field is not None:
        raise ValueError(
            f"{NODE}.correct_field={settings.correct_field} was not read for this batch: use "
            "trainer.v1.trainer_mode=recipe_sync, which reads it, or set it to null."
        )
    else:
        valid_B, group_B = real_rows(response_mask), group_index(index)
        reward_B = scalar_rewards(token_level_rewards)
        correct_B = settings.correctness(required=True).from_rewards(reward_B, valid_B)
    device = token_level_rewards.device
    rows_B = (correct_B.to(device), group_B.to(device), valid_B.to(device))
    adv_BT = adv.token_advantages(rollout_advantages(settings, *rows_B), response_mask)
    return adv_BT, adv_BT


# verl refuses a second function under a name: this module's own, imported again, is not a clash
check_free("advantage estimator", NAME, ADV_ESTIMATOR_REGISTRY, __name__)
ADV_ESTIMATOR_REGISTRY.pop(NAME, None)
register_adv_est(NAME)(asymgrpo_advantage)
