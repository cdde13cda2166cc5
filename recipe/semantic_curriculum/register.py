"""`policy_loss.loss_mode=sent`: registers the token rule with verl 0.9.1.

With scope=mini_batch or response the classes of the tokens come from the trainer, which chooses
them on the driver before the update, from the old policy's entropies and log-probs; with
scope=micro_batch they are chosen here, from the current policy's, as the released code and verl's
`kl_cov` do. The bounds of the clip come from the schedule (`recipe.clip_entropy`).
"""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor
from verl.trainer.ppo.core_algos import (
    POLICY_LOSS_REGISTRY,
    register_policy_loss,
)
from verl.workers.config import ActorConfig

from recipe.clip_entropy.register import clipped_terms
from recipe.core import actor_loss, masks
from recipe.core.settings import check_free
from recipe.semantic_curriculum import token_rule
from recipe.semantic_curriculum.config import LOSS_MODE, NODE, TokenRule, preset_value

CLASS_FIELD = "sent_class"  # field of the batch: index of token_rule.CLASSES, per token
PREFIX = "actor/sent/"  # verl prefixes the metrics of a loss with actor/


def classes_here(
    rule: TokenRule,
    step: actor_loss.Step | None,
    log_prob_BT: Tensor,
    advantages_BT: Tensor,
    mask_BT: Tensor,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Class, covariance and entropy (where known) of a micro-batch's tokens, by the current policy.
    Each (B, T)."""
    entropy_BT = step.entropy() if step is not None else None
    if entropy_BT is None and rule.needs_entropy:
        raise ValueError(
            f"{NODE}.scope=micro_batch with low_fraction={rule.low_fraction} needs the current "
            "policy's entropy: use trainer.v1.trainer_mode=recipe_sync and set "
            "actor_rollout_ref.actor.calculate_entropy=true."
        )
    class_N, cov_N = token_rule.classify(
        entropy_N=None if entropy_BT is None else entropy_BT.detach().flatten(),
        log_prob_N=log_prob_BT.detach().flatten(),
        advantages_N=advantages_BT.flatten(),
        mask_N=mask_BT.flatten(),
        low_fraction=rule.low_fraction,
        side=rule.side,
        high_cov_fraction=rule.high_cov_fraction,
        low_cov_fraction=rule.low_cov_fraction,
    )
    return class_N.view_as(mask_BT), cov_N.view_as(mask_BT), entropy_BT


def chosen_before(step: actor_loss.Step | None, rule: TokenRule) -> Tensor:
    """(B, T): the classes that the trainer has put into the batch."""
    if step is None or CLASS_FIELD not in step.micro:
        raise ValueError(
            f"{NODE}.scope={rule.scope} chooses tokens over more than a micro-batch, which reaches "
            "the loss only through trainer.v1.trainer_mode=recipe_sync: use it, or "
            "scope=micro_batch."
        )
    return step.padded(CLASS_FIELD)


def anchor_log_prob(
    rule: TokenRule, step: actor_loss.Step | None, old_log_prob_BT: Tensor
) -> Tensor:
    if rule.anchor == "old":
        return old_log_prob_BT
    if step is None or "ref_log_prob" not in step.micro:
        raise ValueError(
            f"{NODE}.anchor=ref needs the reference's log-probs: set "
            "actor_rollout_ref.actor.use_kl_loss=true (kl_loss_coef=0 adds no other KL)."
        )
    return step.padded("ref_log_prob")


def sent_loss(
    old_log_prob: Tensor,
    log_prob: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    loss_agg_mode: str = "token-mean",
    config: ActorConfig | None = None,
    rollout_is_weights: Tensor | None = None,
) -> tuple[Tensor, dict[str, Any]]:
    """verl's policy-loss interface: policy term + beta_class KL(pi_theta || anchor), per token.

    The policy term is that of `dynamic_clip`, or with clip=false -A ratio. Which tokens are in
    which class is decided without gradient.
    """
    rule = config.policy_loss.token_rule
    step = actor_loss.current()
    mask_BT = response_mask.bool()
    measured = {}
    if rule.scope == "micro_batch":
        class_BT, cov_BT, entropy_BT = classes_here(rule, step, log_prob, advantages, mask_BT)
        measured["covariance"] = cov_BT
        if entropy_BT is not None:
            measured["entropy"] = entropy_BT
    else:
        class_BT = chosen_before(step, rule)
    if rule.clip:
        loss_BT, metrics = clipped_terms(old_log_prob, log_prob, advantages, mask_BT, config, step)
    else:
        loss_BT, metrics = -advantages * (log_prob - old_log_prob).exp(), {}
    if rule.policy_tokens == "selected":
        selected_BT = (class_BT != token_rule.UNSELECTED) & mask_BT
        scale = _tokens_per_kept(rule, mask_BT, selected_BT, config)
        loss_BT = loss_BT * masks.number(selected_BT).mul_(scale)
    if rule.constrains:
        anchor_BT = anchor_log_prob(rule, step, old_log_prob)
        beta_BT = token_rule.value_per_token(class_BT, rule.coefficients)
        held_BT, measured["kl"] = token_rule.anchored_kl(
            log_prob, anchor_BT, beta_BT, rule.estimator
        )
        loss_BT = loss_BT + held_BT
    loss = actor_loss.aggregate(loss_BT, response_mask, loss_agg_mode, config, rollout_is_weights)
    if step is not None:
        sums = token_rule.class_sums(class_BT, mask_BT, measured, rule.classes)
        step.sums |= {f"{PREFIX}{name}": value for name, value in sums.items()}
    if not metrics:
        moved_BT = (log_prob.detach() - old_log_prob).abs_().mul_(masks.number(mask_BT))
        metrics = {"actor/ppo_kl": moved_BT.sum() / mask_BT.count_nonzero()}
    return loss, actor_loss.as_numbers(metrics)


def _tokens_per_kept(
    rule: TokenRule, mask_BT: Tensor, selected_BT: Tensor, config: ActorConfig
) -> Tensor | float:
    """Tokens over kept tokens: turns a mean over all tokens into one over the kept ones."""
    tokens = config.global_batch_info.get("batch_num_tokens")
    if rule.scope == "micro_batch" or tokens is None:
        return mask_BT.sum() / selected_BT.sum().clamp(min=1)
    low = token_rule.count_of_fraction(torch.as_tensor(tokens), rule.low_fraction)
    kept = low if rule.side == "low" else tokens - low
    return tokens / kept


def class_metrics(metrics: dict[str, float]) -> dict[str, float]:
    """From verl's reduced metrics (means over tokens, prefixed PREFIX, which are taken out): the
    share of tokens of each class, their mean entropy and covariance, and their summed KL."""
    ours = actor_loss.take_prefixed(metrics, PREFIX)
    measured = {}
    for name in token_rule.CLASSES:
        if f"{name}/tokens" not in ours:
            continue
        share = measured[f"sent/{name}/token_share"] = ours[f"{name}/tokens"]
        for mean in ("entropy", "covariance"):
            if share > 0 and f"{name}/{mean}" in ours:
                measured[f"sent/{name}/{mean}"] = ours[f"{name}/{mean}"] / share
        if f"{name}/kl" in ours:
            measured[f"sent/{name}/kl"] = ours[f"{name}/kl"]
    return measured


check_free("policy loss", LOSS_MODE, POLICY_LOSS_REGISTRY, __name__)
register_policy_loss(LOSS_MODE)(sent_loss)
OmegaConf.register_new_resolver("sent_preset", preset_value, replace=True)
