"""The clipped term with the variant that the settings name: what reads the settings and the batch
for the formulas of `recipe.clip_entropy.variants`.

Axes: B rows (rollouts), T response tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recipe.clip_entropy import variants as V
from recipe.clip_entropy.config import ClipSettings
from recipe.clip_entropy.regions import PREFIX
from recipe.core.actor_loss import MicroBatch
from recipe.core.clip import Clipped
from recipe.core.clipped_term import bounds_of, clipped_term
from recipe.core.policy_loss import NODE

if TYPE_CHECKING:
    from verl.workers.config import ActorConfig

Tokens = tuple[Tensor, Tensor, Tensor, Tensor]  # old and current log-probs, advantages, mask
# in MicroBatch.settings, of this step: k, and the share of tokens with Archer's KL
STEER_RATE, LOW_SHARE = "steer_rate", "low_entropy_share"


def variant_term(
    old_log_prob_BT: Tensor,
    log_prob_BT: Tensor,
    advantages_BT: Tensor,
    mask_BT: Tensor,
    config: ActorConfig,
    micro_batch: MicroBatch | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the loss (B, T) of the settings' variant, and verl's metrics of it as scalars.

    Args:
        old_log_prob_BT, log_prob_BT, advantages_BT: (B, T).
        mask_BT: (B, T) bool, response tokens.
        config: The actor's.
        micro_batch: None outside the recipes' trainer, where variant=erc, steer and archer are
            refused.
    """
    tokens = (old_log_prob_BT, log_prob_BT, advantages_BT, mask_BT)
    settings = config.policy_loss
    if not isinstance(settings, ClipSettings) or settings.variant == "ppo":
        return clipped_term(*tokens, config, micro_batch)
    if settings.variant == "dcpo":
        bounds = V.old_probability_bounds(
            old_log_prob_BT, config.clip_ratio_low, config.clip_ratio_high, settings.dcpo_ratio_max
        )
        return clipped_term(*tokens, config, micro_batch, bounds)
    if settings.variant == "archer":
        return _archer_term(tokens, settings, config, _of_trainer(micro_batch, settings))
    change = _change(tokens, settings, config, micro_batch)
    if micro_batch is not None:
        change = partial(_measured, change=change, mask_BT=mask_BT, micro_batch=micro_batch)
    return clipped_term(*tokens, config, micro_batch, change=change)


def _change(
    tokens: Tokens, settings: ClipSettings, config: ActorConfig, micro_batch: MicroBatch | None
) -> Callable[[Clipped], Clipped]:
    """Returns what up, no_upper_bound, ce_gppo, erc or steer makes of PPO's objective of tokens."""
    old_log_prob_BT, log_prob_BT, advantages_BT, _ = tokens
    if settings.variant == "up":
        return partial(V.unbounded_positive, log_prob_BT=log_prob_BT, advantages_BT=advantages_BT)
    if settings.variant == "no_upper_bound":
        return partial(
            V.without_upper_bound,
            log_prob_BT=log_prob_BT,
            old_log_prob_BT=old_log_prob_BT,
            advantages_BT=advantages_BT,
        )
    if settings.variant == "ce_gppo":
        return partial(
            V.preserved_gradient,
            log_prob_BT=log_prob_BT,
            advantages_BT=advantages_BT,
            bounds=bounds_of(config, micro_batch).epsilons(log_prob_BT.detach().exp()),
            low=settings.ce_low,
            high=settings.ce_high,
        )
    batch = _of_trainer(micro_batch, settings)
    old_entropy_BT = batch.padded("entropy")
    if settings.variant == "erc":
        return partial(
            V.within_entropy_ratio,
            entropy_BT=_current_entropy(batch),
            old_entropy_BT=old_entropy_BT,
            low=settings.erc_low,
            high=settings.erc_high,
        )
    return partial(
        V.reweighted,
        change_BT=V.entropy_change(log_prob_BT, old_log_prob_BT, advantages_BT, old_entropy_BT),
        rate=batch.settings[STEER_RATE],
        weight_min=settings.steer_weight_min,
    )


def _archer_term(
    tokens: Tokens, settings: ClipSettings, config: ActorConfig, batch: MicroBatch
) -> tuple[Tensor, dict[str, Tensor]]:
    """Archer's term: its bounds, and the KL to the reference on tokens up to the quantile."""
    high_BT = V.high_entropy(batch.padded("entropy"), tokens[3], settings.archer_quantile)
    eps = (config.clip_ratio_high, config.clip_ratio_low)
    bounds = V.dual_bounds(high_BT, eps, settings.archer_clip)
    loss_BT, metrics = clipped_term(*tokens, config, batch, bounds)
    if settings.archer_kl > 0:
        kl_BT = _reference_kl(batch, tokens[1], config)
        # a mean over these tokens alone, which are this share of all
        coefficient = settings.archer_kl / batch.settings[LOW_SHARE]
        loss_BT = loss_BT + torch.where(high_BT, 0.0, coefficient * kl_BT)
    return loss_BT, metrics


def _measured(
    ppo: Clipped,
    change: Callable[[Clipped], Clipped],
    mask_BT: Tensor,
    micro_batch: MicroBatch,
) -> Clipped:
    """Applies `change`, and counts the tokens whose gradient it changed."""
    changed = change(ppo)
    with torch.no_grad():
        touched_BT = (changed.weight() != ppo.weight()) & mask_BT
    micro_batch.sums[f"{PREFIX}variant_share"] = touched_BT.sum()
    return changed


def _of_trainer(micro_batch: MicroBatch | None, settings: ClipSettings) -> MicroBatch:
    """Returns the micro-batch with the old policy's entropies; raises ValueError without them."""
    if micro_batch is None or "entropy" not in micro_batch.fields:
        raise ValueError(
            f"{NODE}.variant={settings.variant} reads the old policy's entropies, which reach the "
            "loss only through trainer.v1.trainer_mode=recipe_sync, with algorithm."
            "rollout_correction.bypass_mode=false: use both, or another variant."
        )
    return micro_batch


def _current_entropy(micro_batch: MicroBatch) -> Tensor:
    """Returns (B, T): the current policy's entropies; raises ValueError where there are none."""
    entropy_BT = micro_batch.entropy()
    if entropy_BT is None:
        raise ValueError(
            f"{NODE}.variant=erc reads the current policy's entropies: set "
            "actor_rollout_ref.actor.calculate_entropy=true."
        )
    return entropy_BT


def _reference_kl(micro_batch: MicroBatch, log_prob_BT: Tensor, config: ActorConfig) -> Tensor:
    """Returns (B, T): verl's estimate of KL(pi_theta || reference) at each token."""
    from verl.trainer.ppo.core_algos import kl_penalty

    return kl_penalty(log_prob_BT, micro_batch.padded("ref_log_prob"), config.kl_loss_type)
