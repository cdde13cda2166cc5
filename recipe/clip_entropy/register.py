"""`policy_loss.loss_mode=dynamic_clip`: registers the loss of this folder with verl 0.9.1.

The bounds of a step come from the trainer (`recipe.core.actor_loss`), which moves the schedule on
the driver. Without them only `schedule=static` can run: its bounds are the actor's clip ratios.
"""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY, register_policy_loss
from verl.workers.config import ActorConfig

from recipe.clip_entropy import loss as L
from recipe.clip_entropy.config import LOSS_MODE, NODE, DynamicClipConfig, preset_value
from recipe.core import actor_loss
from recipe.core.clip import MAX_LOG_RATIO, Bounds, Clipped, Line, clipped_objective
from recipe.core.settings import check_free

PREFIX = "actor/clip_entropy/"  # verl prefixes the metrics of a loss with actor/


def pack(bounds: Bounds) -> list:
    """As plain numbers, for `batch.extra_info`."""
    return [list(bounds.upper), list(bounds.lower), bounds.eps_min, bounds.eps_max]


def unpack(numbers: list) -> Bounds:
    upper, lower, eps_min, eps_max = numbers
    return Bounds(Line(*upper), Line(*lower), eps_min, eps_max)


def _bounds(config: ActorConfig, step: actor_loss.Step | None) -> Bounds:
    if step is not None and "clip_bounds" in step.settings:
        return unpack(step.settings["clip_bounds"])
    settings = config.policy_loss
    schedule = settings.get("schedule", "static")
    if schedule != "static":
        raise ValueError(
            f"{NODE}.schedule={schedule} moves with the training step, which reaches the loss only "
            "through trainer.v1.trainer_mode=recipe_sync: use it, or schedule=static."
        )
    low, high = config.clip_ratio_low, config.clip_ratio_high
    if isinstance(settings, DynamicClipConfig):
        lines = settings.levels(low, high)
        return lines.bounds(lines.base_upper, lines.base_lower)
    return Bounds(upper=Line(0.0, high), lower=Line(0.0, low))


def clipped_terms(
    old_log_prob: Tensor,
    log_prob: Tensor,
    advantages: Tensor,
    mask_BT: Tensor,
    config: ActorConfig,
    step: actor_loss.Step | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """(B, T) of the clipped objective, and verl's metrics of it as scalars; leaves the sums for the
    region diagnostics in `step`."""
    bounds = _bounds(config, step)
    clipped = clipped_objective(log_prob, old_log_prob, advantages, bounds, config.clip_ratio_c)
    with torch.no_grad():
        log_ratio_BT = (old_log_prob - log_prob).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        sums = {
            "actor/pg_clipfrac": (clipped.clipped & mask_BT).count_nonzero(),
            "actor/ppo_kl": torch.where(mask_BT, log_ratio_BT, 0).sum(),
            "actor/pg_clipfrac_lower": (clipped.dual_clipped & mask_BT).count_nonzero(),
        }
        values = torch.stack([value.double() for value in sums.values()])
        means = values / (mask_BT.count_nonzero() + 1e-8)  # as verl's masked_mean
        if step is not None and config.policy_loss.get("region_diagnostics", False):
            p_BT = log_prob.exp()
            for name, eps in zip(("upper", "lower"), bounds.epsilons(p_BT), strict=True):
                step.sums[f"{PREFIX}bound_{name}"] = (mask_BT * eps).sum()
            step.sums |= region_sums(clipped, old_log_prob, advantages, mask_BT, step)
    return clipped.loss, dict(zip(sums, means, strict=True))


def dynamic_clip_loss(
    old_log_prob: Tensor,
    log_prob: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    loss_agg_mode: str = "token-mean",
    config: ActorConfig | None = None,
    rollout_is_weights: Tensor | None = None,
) -> tuple[Tensor, dict[str, Any]]:
    """verl's policy-loss interface. With flat bounds: verl's `vanilla`, loss and gradient."""
    step = actor_loss.current()
    mask_BT = response_mask.bool()
    loss_BT, metrics = clipped_terms(old_log_prob, log_prob, advantages, mask_BT, config, step)
    loss = actor_loss.aggregate(loss_BT, response_mask, loss_agg_mode, config, rollout_is_weights)
    return loss, actor_loss.as_numbers(metrics)


def region_sums(
    clipped: Clipped,
    old_log_prob_BT: Tensor,
    advantages_BT: Tensor,
    mask_BT: Tensor,
    step: actor_loss.Step,
) -> dict[str, Tensor]:
    """For each region, over this micro-batch's response tokens: its tokens, its clipped tokens, and
    the sum of what its gradients do to the entropy.

    Region and contribution are those of the policy that sampled, at its entropy, which the trainer
    has computed anyway; the current policy enters by the ratio, and by what is clipped.
    """
    if "entropy" not in step.micro:  # verl's bypass mode computes none
        return {}
    entropy_BT = step.padded("entropy")
    cut_BT = clipped.clipped | clipped.dual_clipped
    change_BT = L.entropy_contribution(old_log_prob_BT, entropy_BT, advantages_BT)
    values = {
        "tokens": mask_BT,
        "clipped": cut_BT,
        "entropy_change": change_BT.mul_(clipped.ratio).masked_fill_(cut_BT, 0.0),
    }
    sums = L.region_sums(advantages_BT, old_log_prob_BT, entropy_BT, mask_BT, values)
    return {f"{PREFIX}{name}": value for name, value in sums.items()}


def region_metrics(metrics: dict[str, float]) -> dict[str, float]:
    """From verl's reduced metrics (means over tokens, prefixed PREFIX, which are taken out): for
    each region its share of tokens, the share of its tokens clipped, and its entropy change."""
    ours = actor_loss.take_prefixed(metrics, PREFIX)
    measured = {f"clip_entropy/{name}": x for name, x in ours.items() if name.startswith("bound")}
    for region in L.REGIONS:
        if f"{region}/tokens" not in ours:
            continue
        share = ours[f"{region}/tokens"]
        measured[f"clip_entropy/{region}/token_share"] = share
        if share > 0:
            measured[f"clip_entropy/{region}/clipped_share"] = ours[f"{region}/clipped"] / share
        measured[f"clip_entropy/{region}/entropy_change"] = ours[f"{region}/entropy_change"]
    return measured


BASELINE = "entropy_baseline"  # field of the batch: eq 5's sum over the vocabulary, per token


def exact_baseline(student_logits: Tensor) -> dict[str, Tensor]:
    """For `actor_loss(per_token=...)`: (1, tokens, V) to one (1, tokens) field."""
    return {BASELINE: L.entropy_baseline(student_logits.squeeze(0)).unsqueeze(0)}


def exact_contributions(
    *,
    log_prob_BT: Tensor,
    entropy_BT: Tensor,
    advantages_BT: Tensor,
    baseline_BT: Tensor,
    mask_BT: Tensor,
) -> dict[str, float]:
    """Each region's summed exact contribution (eq 5) over the number of response tokens, and the
    share of tokens with A != 0 where the paper's approximation (eq 6) has the same sign."""
    exact_BT = L.entropy_contribution(log_prob_BT, entropy_BT, advantages_BT, baseline_BT)
    rough_BT = L.entropy_contribution(log_prob_BT, entropy_BT, advantages_BT)
    values = {"entropy_change": exact_BT.double()}
    sums = L.region_sums(advantages_BT, log_prob_BT, entropy_BT, mask_BT, values)
    tokens = mask_BT.sum()
    pushed_BT = mask_BT & (advantages_BT != 0)
    agree_BT = pushed_BT & (exact_BT.sign() == rough_BT.sign())
    measured = {name: (value / tokens).item() for name, value in sums.items()}
    if pushed_BT.any():
        measured["sign_agreement"] = (agree_BT.sum() / pushed_BT.sum()).item()
    return measured


check_free("policy loss", LOSS_MODE, POLICY_LOSS_REGISTRY, __name__)
register_policy_loss(LOSS_MODE)(dynamic_clip_loss)
OmegaConf.register_new_resolver("clip_entropy_preset", preset_value, replace=True)
