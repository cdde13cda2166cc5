"""`policy_loss.loss_mode=sent`: registers the token rule with verl 0.9.1.

With scope=mini_batch, batch or response the classes of the tokens come from the trainer
(`TokenRulePart`), which chooses them on the driver before the update, from the old policy's
entropies and log-probs; by thresholds over the batch they are chosen here from the same values, and
the trainer sends the two means alone. With scope=micro_batch they are chosen here from the current
policy's, as the released code and verl's `kl_cov` do. The bounds of the clipped term are the run's
(`core.policy_loss`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY, register_policy_loss
from verl.workers.config import ActorConfig

from recipe.core import actor_loss
from recipe.core.actor_loss import MicroBatch
from recipe.core.clip import importance_ratio
from recipe.core.clipped_term import CLIPPED, clipped_term
from recipe.core.policy_loss import NODE as POLICY_LOSS
from recipe.core.settings import check_free
from recipe.semantic_curriculum import token_rule
from recipe.semantic_curriculum.config import (
    LOSS_MODE,
    NO_REFERENCE,
    NODE,
    TokenRule,
    TokenRuleSettings,
)
from recipe.semantic_curriculum.kl import anchored_kl

CLASS_FIELD = "sent_class"  # field of the batch: index of token_rule.CLASSES, per token
MEANS = "sent_means"  # what the loss is told: token_rule.Means of the batch
PREFIX = "actor/sent/"  # verl prefixes the metrics of a loss with actor/


def classes_from_policy(
    rule: TokenRule,
    micro_batch: MicroBatch | None,
    log_prob_BT: Tensor,
    advantages_BT: Tensor,
    mask_BT: Tensor,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Chooses the classes of a micro-batch's tokens by the current policy.

    Returns:
        Class, covariance and, where known, entropy of each token, (B, T) each.
    """
    entropy_BT = micro_batch.entropy() if micro_batch is not None else None
    if entropy_BT is None and rule.needs_entropy:
        raise ValueError(
            f"{NODE}.scope=micro_batch chooses by the current policy's entropy: use "
            "trainer.v1.trainer_mode=recipe_sync and set "
            "actor_rollout_ref.actor.calculate_entropy=true, or low_fraction=1."
        )
    class_N, cov_N = token_rule.classify(
        entropy_N=None if entropy_BT is None else entropy_BT.detach().flatten(),
        log_prob_N=log_prob_BT.detach().flatten(),
        advantages_N=advantages_BT.flatten(),
        mask_N=mask_BT.flatten(),
        **rule.selection,
    )
    return class_N.view_as(mask_BT), cov_N.view_as(mask_BT), entropy_BT


def classes_by_thresholds(
    rule: TokenRule,
    micro_batch: MicroBatch | None,
    old_log_prob_BT: Tensor,
    advantages_BT: Tensor,
    mask_BT: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Chooses the classes of a micro-batch's tokens by the old policy and the batch's two means.

    Returns:
        Class, covariance and the old policy's entropy of each token, (B, T) each.
    """
    if micro_batch is None or MEANS not in micro_batch.settings:
        raise ValueError(missing_from_trainer(rule))
    entropy_BT = micro_batch.padded("entropy")
    class_N, cov_N = token_rule.classify(
        entropy_N=entropy_BT.flatten(),
        log_prob_N=old_log_prob_BT.flatten(),
        advantages_N=advantages_BT.flatten(),
        mask_N=mask_BT.flatten(),
        means=token_rule.Means(*micro_batch.settings[MEANS]),
        **rule.selection,
    )
    return class_N.view_as(mask_BT), cov_N.view_as(mask_BT), entropy_BT


def missing_from_trainer(rule: TokenRule) -> str:
    """Returns the sentence of the error where the trainer has put nothing into the batch."""
    return (
        f"{NODE}.scope={rule.scope} chooses tokens over more than a micro-batch, which reaches "
        "the loss only through trainer.v1.trainer_mode=recipe_sync: use it, or scope=micro_batch."
    )


def classes_from_trainer(micro_batch: MicroBatch | None, rule: TokenRule) -> Tensor:
    """Returns (B, T): the classes that the trainer has put into the batch."""
    if micro_batch is None or CLASS_FIELD not in micro_batch.fields:
        raise ValueError(missing_from_trainer(rule))
    return micro_batch.padded(CLASS_FIELD)


def anchor_log_prob(
    rule: TokenRule, micro_batch: MicroBatch | None, old_log_prob_BT: Tensor
) -> Tensor:
    """Returns (B, T): the log-probs of the policy to which tokens are held."""
    if rule.anchor == "old":
        return old_log_prob_BT
    if micro_batch is None or "ref_log_prob" not in micro_batch.fields:
        raise ValueError(NO_REFERENCE)
    return micro_batch.padded("ref_log_prob")


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

    The policy term is PPO's clipped one, or with clip=false -A ratio. Which tokens are in which
    class is decided without gradient.

    Args:
        old_log_prob, log_prob, advantages, response_mask: (B, T).
        loss_agg_mode: verl's.
        config: The actor's.
        rollout_is_weights: (B, T) w = pi_old / pi_rollout, of verl's rollout correction. They
            multiply the whole term of a token, as in verl's kl_cov: a sum over rollout tokens of
            w f estimates the expectation of f under the old policy, whatever f is. verl's separate
            KL loss (use_kl_loss) leaves its KL unweighted.

    Returns:
        The scalar loss, and verl's metrics of it.
    """
    assert config is not None
    settings = config.policy_loss
    if not isinstance(settings, TokenRuleSettings):
        raise ValueError(
            f"{POLICY_LOSS}.loss_mode={LOSS_MODE} needs its settings in the same node: start from "
            "recipe/common.yaml."
        )
    rule = settings.token_rule
    micro_batch = actor_loss.current()
    mask_BT = response_mask.bool()
    measured: dict[str, Tensor] = {}
    # the class of each token: unselected, or in L: rest, C (high covariance), low covariance
    if rule.scope == "micro_batch":
        class_BT, measured["covariance"], entropy_BT = classes_from_policy(
            rule, micro_batch, log_prob, advantages, mask_BT
        )
        if entropy_BT is not None:
            measured["entropy"] = entropy_BT
    elif rule.by_thresholds:
        class_BT, measured["covariance"], measured["entropy"] = classes_by_thresholds(
            rule, micro_batch, old_log_prob, advantages, mask_BT
        )
    else:
        class_BT = classes_from_trainer(micro_batch, rule)
    # the policy term
    if rule.clip:
        loss_BT, metrics = clipped_term(
            old_log_prob, log_prob, advantages, mask_BT, config, micro_batch
        )
    else:
        loss_BT = -advantages * importance_ratio(log_prob, old_log_prob)
        moved_BT = (log_prob.detach() - old_log_prob).abs() * mask_BT
        metrics = {"actor/ppo_kl": moved_BT.sum() / (mask_BT.sum() + 1e-8)}  # as masked_mean
    if rule.policy_tokens == "selected":
        selected_BT = (class_BT != token_rule.UNSELECTED) & mask_BT
        loss_BT = loss_BT * selected_BT * _tokens_per_kept(rule, mask_BT, selected_BT, config)
        if micro_batch is not None and CLIPPED in micro_batch.records:
            record = micro_batch.records[CLIPPED]  # the others have no policy term
            left_BT = record.advantages * selected_BT
            micro_batch.records[CLIPPED] = record._replace(advantages=left_BT)
    # + beta_class KL(pi_theta || anchor)
    if rule.constrains:
        anchor_BT = anchor_log_prob(rule, micro_batch, old_log_prob)
        beta_BT = token_rule.value_per_token(class_BT, rule.coefficients)
        held_BT, measured["kl"] = anchored_kl(log_prob, anchor_BT, beta_BT, rule.estimator)
        loss_BT = loss_BT + held_BT
    loss = actor_loss.aggregate(loss_BT, response_mask, loss_agg_mode, config, rollout_is_weights)
    if micro_batch is not None:
        sums = token_rule.class_sums(class_BT, mask_BT, measured, rule.classes)
        micro_batch.sums.update({f"{PREFIX}{name}": value for name, value in sums.items()})
    return loss, actor_loss.to_floats(metrics)


def _tokens_per_kept(
    rule: TokenRule, mask_BT: Tensor, selected_BT: Tensor, config: ActorConfig
) -> Tensor | float:
    """Tokens over kept tokens: turns a mean over all tokens into one over the kept ones."""
    tokens = config.global_batch_info.get("batch_num_tokens")
    if rule.scope == "micro_batch" or tokens is None:
        return mask_BT.sum() / selected_BT.sum().clamp(min=1)
    assert rule.low_fraction is not None  # TokenRule requires it
    low = token_rule.count_of_fraction(torch.as_tensor(tokens), rule.low_fraction)
    kept = low if rule.side == "low" else tokens - low
    return tokens / kept


def class_metrics(metrics: dict[str, Any], rule: TokenRule) -> dict[str, float]:
    """Takes verl's reduced metrics of PREFIX (means over tokens) out of `metrics`.

    Returns:
        The share of tokens that are held to the anchor, if the rule holds any; of each class its
        share of tokens, their summed KL per response token and, where the loss chooses the
        classes, their mean entropy and covariance.
    """
    means = actor_loss.take_prefixed(metrics, PREFIX)
    measured = {}
    if rule.constrains:
        measured["sent/constrained_share"] = sum(
            means.get(f"{name}/tokens", 0.0)
            for name, beta in zip(token_rule.CLASSES, rule.coefficients, strict=True)
            if beta > 0
        )
    for name in token_rule.CLASSES:
        if f"{name}/tokens" not in means:
            continue
        share = measured[f"sent/{name}/token_share"] = means[f"{name}/tokens"]
        for mean in ("entropy", "covariance"):
            if share > 0 and f"{name}/{mean}" in means:
                measured[f"sent/{name}/{mean}"] = means[f"{name}/{mean}"] / share
        if f"{name}/kl" in means:
            measured[f"sent/{name}/kl"] = means[f"{name}/kl"]
    return measured


check_free("policy loss", LOSS_MODE, POLICY_LOSS_REGISTRY, __name__)
register_policy_loss(LOSS_MODE)(sent_loss)
