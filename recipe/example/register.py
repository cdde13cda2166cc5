"""An advantage estimator and a policy loss, registered with verl."""

from typing import Any

import torch
from torch import Tensor
from verl.trainer.ppo.core_algos import register_adv_est, register_policy_loss
from verl.workers.config import ActorConfig

from recipe.core import actor_loss, clip
from recipe.core.clipped_term import clipped_term
from recipe.core.rollouts import group_index, scalar_rewards


@register_adv_est("leave_one_out")
def leave_one_out(
    token_level_rewards: Tensor, response_mask: Tensor, index: Any, config: Any, **_: Any
) -> tuple[Tensor, Tensor]:
    """A_i = r_i - mean of the rewards of the group's other rollouts; 0 in a group of one."""
    reward_B, group_B = scalar_rewards(token_level_rewards), group_index(index)
    n_B = torch.bincount(group_B)[group_B]
    total_B = torch.bincount(group_B, weights=reward_B)[group_B]
    # r_i - (total - r_i) / (n - 1) = (n r_i - total) / (n - 1)
    advantages_B = (n_B * reward_B - total_B) / (n_B - 1).clamp(min=1)
    advantages_BT = advantages_B.float()[:, None] * response_mask
    return advantages_BT, advantages_BT


@register_policy_loss("entropy_target")
def entropy_target_loss(
    old_log_prob: Tensor,
    log_prob: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    loss_agg_mode: str,
    config: ActorConfig,
    rollout_is_weights: Tensor | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """PPO's clipped term - coef H, the entropy by its policy gradient E[ratio log pi]."""
    micro_batch = actor_loss.current()
    coef = 0.0 if micro_batch is None else micro_batch.settings["entropy_target_coef"]
    loss_BT, metrics = clipped_term(
        old_log_prob, log_prob, advantages, response_mask.bool(), config, micro_batch
    )
    ratio = clip.importance_ratio(log_prob, old_log_prob)
    loss_BT = loss_BT + coef * ratio * log_prob.detach()
    loss = actor_loss.aggregate(loss_BT, response_mask, loss_agg_mode, config, rollout_is_weights)
    return loss, actor_loss.to_floats(metrics)
