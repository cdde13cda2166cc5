"""The four regions of tokens (arXiv 2602.09782, sec. 3): what is measured of them in a run.

On the workers `observe_regions` sums over each micro-batch; on the driver `region_metrics` makes
shares of the sums, and `exact_contributions` measures eq 5 with its baseline.

Axes: B rows (rollouts), T response tokens, N response tokens of all rows, V vocabulary.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from recipe.clip_entropy import loss as L
from recipe.core.actor_loss import MicroBatch, take_prefixed
from recipe.core.clipped_term import CLIPPED

PREFIX = "actor/clip_entropy/"  # verl prefixes the metrics of a loss with actor/
BASELINE = "entropy_baseline"  # field of the batch: eq 5's sum over the vocabulary, per token


def observe_regions(micro_batch: MicroBatch) -> None:
    """Leaves, for each region, the sums over this micro-batch's response tokens: its tokens, its
    clipped tokens, and what its gradients do to the entropy; and those of both bounds.

    Region and contribution are those of the policy that sampled, at its entropy, which the trainer
    has computed anyway; the current policy enters by the ratio, and by what is clipped.
    """
    if CLIPPED not in micro_batch.records:
        return
    record = micro_batch.records[CLIPPED]
    clipped, mask_BT = record.clipped, record.mask
    epsilons = record.bounds.epsilons(record.log_prob.exp())
    for name, eps in zip(("upper", "lower"), epsilons, strict=True):
        micro_batch.sums[f"{PREFIX}bound_{name}"] = (mask_BT * eps).sum()
    if "entropy" not in micro_batch.fields:  # verl's bypass mode computes none
        return
    entropy_BT = micro_batch.padded("entropy")
    cut_BT = clipped.clipped | clipped.dual_clipped
    change_BT = L.entropy_contribution(record.old_log_prob, entropy_BT, record.advantages)
    values = {
        "tokens": mask_BT,
        "clipped": cut_BT,
        "entropy_change": change_BT * clipped.weight(),
    }
    sums = L.region_sums(record.advantages, record.old_log_prob, entropy_BT, mask_BT, values)
    micro_batch.sums.update({f"{PREFIX}{name}": value for name, value in sums.items()})


def region_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    """Takes verl's reduced metrics of PREFIX (means over tokens) out of `metrics`.

    Returns:
        For each region its share of tokens, the share of its tokens that is clipped, and its
        entropy change per response token; the mean bounds; and the share of tokens whose gradient
        a variant changed.
    """
    means = take_prefixed(metrics, PREFIX)
    measured = {f"clip_entropy/{name}": x for name, x in means.items() if "/" not in name}
    for region in L.REGIONS:
        if f"{region}/tokens" not in means:
            continue
        share = means[f"{region}/tokens"]
        measured[f"clip_entropy/{region}/token_share"] = share
        if share > 0:
            measured[f"clip_entropy/{region}/clipped_share"] = means[f"{region}/clipped"] / share
        measured[f"clip_entropy/{region}/entropy_change"] = means[f"{region}/entropy_change"]
    return measured


def exact_baseline(student_logits: Tensor) -> dict[str, Tensor]:
    """A logit hook of `core.actor_loss`: (1, tokens, V) to one (1, tokens) field."""
    return {BASELINE: L.entropy_baseline(student_logits.squeeze(0)).unsqueeze(0)}


def exact_contributions(
    *,
    log_prob_N: Tensor,
    entropy_N: Tensor,
    advantages_N: Tensor,
    baseline_N: Tensor,
    mask_N: Tensor,
) -> dict[str, float]:
    """Each region's summed exact contribution (eq 5) over the number of response tokens, and the
    share of tokens with A != 0 where the paper's approximation (eq 6) has the same sign.

    Args:
        log_prob_N, entropy_N, advantages_N: (N,) of the policy that sampled; entropy in nats.
        baseline_N: (N,) eq 5's sum over the vocabulary.
        mask_N: (N,) bool.
    """
    exact_N = L.entropy_contribution(log_prob_N, entropy_N, advantages_N, baseline_N)
    rough_N = L.entropy_contribution(log_prob_N, entropy_N, advantages_N)
    values = {"entropy_change": exact_N.double()}
    sums = L.region_sums(advantages_N, log_prob_N, entropy_N, mask_N, values)
    tokens = mask_N.sum()
    pushed_N = mask_N & (advantages_N != 0)
    agree_N = pushed_N & (exact_N.sign() == rough_N.sign())
    measured = {name: (value / tokens).item() for name, value in sums.items()}
    if pushed_N.any():
        measured["sign_agreement"] = (agree_N.sum() / pushed_N.sum()).item()
    return measured
