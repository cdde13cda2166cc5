"""PPO's clipped term, as every recipe's policy loss uses it: the bounds may move with the step.

Axes: B rows (rollouts), T response tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from recipe.core.actor_loss import MicroBatch
from recipe.core.clip import (
    MAX_LOG_RATIO,
    Bounds,
    Clipped,
    Line,
    TokenBounds,
    clipped_objective,
)
from recipe.core.policy_loss import PolicyLossSettings

if TYPE_CHECKING:
    from verl.workers.config import ActorConfig

CLIP_BOUNDS = "clip_bounds"  # in MicroBatch.settings: the bounds of this update
CLIPPED = "clipped_term"  # in MicroBatch.records


class ClippedRecord(NamedTuple):
    """A clipped term for the parts' observers, all (B, T) and without gradient but the loss."""

    clipped: Clipped
    bounds: Bounds | TokenBounds
    log_prob: Tensor
    old_log_prob: Tensor
    advantages: Tensor
    mask: Tensor


def pack_bounds(bounds: Bounds) -> list:
    """Returns bounds as plain numbers, for `Step.tell_loss`."""
    return [list(bounds.upper), list(bounds.lower), bounds.eps_min, bounds.eps_max]


def unpack_bounds(numbers: list) -> Bounds:
    """The inverse of `pack_bounds`."""
    upper, lower, eps_min, eps_max = numbers
    return Bounds(Line(*upper), Line(*lower), eps_min, eps_max)


def bounds_of(config: ActorConfig, micro_batch: MicroBatch | None) -> Bounds:
    """Returns the clip bounds of this update."""
    if micro_batch is not None and CLIP_BOUNDS in micro_batch.settings:
        return unpack_bounds(micro_batch.settings[CLIP_BOUNDS])
    settings: Any = config.policy_loss
    if not isinstance(settings, PolicyLossSettings):  # verl's own settings
        settings = PolicyLossSettings()
    return settings.constant_bounds(config.clip_ratio_low, config.clip_ratio_high)


def clipped_term(
    old_log_prob_BT: Tensor,
    log_prob_BT: Tensor,
    advantages_BT: Tensor,
    mask_BT: Tensor,
    config: ActorConfig,
    micro_batch: MicroBatch | None,
    bounds: Bounds | TokenBounds | None = None,
    change: Callable[[Clipped], Clipped] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """PPO's clipped objective of each token, and what verl logs of it.

    Args:
        old_log_prob_BT, log_prob_BT, advantages_BT: (B, T).
        mask_BT: (B, T) bool, response tokens.
        config: The actor's config.
        micro_batch: Brings the bounds of a schedule; gets the result in `records`.
        bounds: In place of those of the update.
        change: What a variant makes of PPO's objective.

    Returns:
        The loss (B, T), and verl's metrics of it as scalars.
    """
    if bounds is None:
        bounds = bounds_of(config, micro_batch)
    clipped = clipped_objective(
        log_prob_BT, old_log_prob_BT, advantages_BT, bounds, config.clip_ratio_c
    )
    if change is not None:
        clipped = change(clipped)
    with torch.no_grad():
        log_ratio_BT = (log_prob_BT - old_log_prob_BT).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        sums = {
            "actor/pg_clipfrac": (clipped.clipped & mask_BT).sum(),
            "actor/ppo_kl": (-log_ratio_BT * mask_BT).sum(),
            "actor/pg_clipfrac_lower": (clipped.dual_clipped & mask_BT).sum(),
        }
        tokens = mask_BT.sum() + 1e-8  # as verl's masked_mean
    if micro_batch is not None:
        micro_batch.records[CLIPPED] = ClippedRecord(
            clipped, bounds, log_prob_BT.detach(), old_log_prob_BT, advantages_BT, mask_BT
        )
    return clipped.loss, {name: value / tokens for name, value in sums.items()}
