"""`policy_loss.loss_mode=dynamic_clip`: registers the loss of this folder with verl 0.9.1.

The bounds of a step come from the trainer (`ClipSchedulePart`), which moves the schedule on the
driver. Without it only `schedule=static` can run: its bounds are the actor's clip ratios.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY, register_policy_loss
from verl.workers.config import ActorConfig

from recipe.clip_entropy.config import LOSS_MODE
from recipe.clip_entropy.variant_term import variant_term
from recipe.core import actor_loss
from recipe.core.settings import check_free


def dynamic_clip_loss(
    old_log_prob: Tensor,
    log_prob: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    loss_agg_mode: str = "token-mean",
    config: ActorConfig | None = None,
    rollout_is_weights: Tensor | None = None,
) -> tuple[Tensor, dict[str, Any]]:
    """verl's policy-loss interface. With flat bounds and variant=ppo: verl's `vanilla`, loss and
    gradient.

    Args:
        old_log_prob, log_prob, advantages, response_mask: (B, T).
        loss_agg_mode: verl's.
        config: The actor's.
        rollout_is_weights: (B, T), of verl's rollout correction.

    Returns:
        The scalar loss, and verl's metrics of it.
    """
    assert config is not None
    loss_BT, metrics = variant_term(
        old_log_prob, log_prob, advantages, response_mask.bool(), config, actor_loss.current()
    )
    loss = actor_loss.aggregate(loss_BT, response_mask, loss_agg_mode, config, rollout_is_weights)
    return loss, actor_loss.to_floats(metrics)


check_free("policy loss", LOSS_MODE, POLICY_LOSS_REGISTRY, __name__)
register_policy_loss(LOSS_MODE)(dynamic_clip_loss)
