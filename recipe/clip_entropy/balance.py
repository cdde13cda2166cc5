"""BAPO's balance of positive and negative terms, and the clip bounds that it asks for.

Axes: B rows (rollouts), T response tokens. Nothing of `contributions` copies to the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from recipe.core.actor_loss import MicroBatch
from recipe.core.clip import importance_ratio
from recipe.core.clipped_term import CLIPPED

PREFIX = "actor/balance/"  # verl prefixes the metrics of a loss with actor/
CANDIDATES = "balance_candidates"  # in MicroBatch.settings: the bounds between which is chosen


def candidates(start: float, end: float, step: float) -> list[float]:
    """Returns the bounds from start up to end, a step apart; the last one is end itself."""
    count = int((end - start) / step + 1e-9)
    values = [start + i * step for i in range(count + 1)]
    return values if end - values[-1] < 1e-9 else [*values, end]


def contributions(
    ratio_BT: Tensor,
    old_log_prob_BT: Tensor,
    advantages_BT: Tensor,
    mask_BT: Tensor,
    uppers: Sequence[float],
    lowers: Sequence[float],
) -> tuple[list[Tensor], list[Tensor]]:
    """Sums the absolute clipped surrogate of either sign, for each bound of the ratio.

        P(c) = sum over A > 0 of q min(r, c) A         N(c) = sum over A < 0 of q max(r, c) |A|

    Args:
        ratio_BT: r = pi_theta / q.
        old_log_prob_BT: ln of q, the probability under the policy that sampled.
        advantages_BT: A.
        mask_BT: bool, response tokens.
        uppers, lowers: c of P, and of N: bounds of the ratio, 1.2 and 0.6, and not of r - 1.

    Returns:
        P of each upper bound and N of each lower one, scalars.

    Source: Xi et al., arXiv 2510.18927, eq. 8. The authors' code (github WooooDyy/BAPO, read) has
        no q.
    """
    q_BT = old_log_prob_BT.double().exp()
    positive_BT = torch.where(mask_BT, q_BT * advantages_BT.clamp(min=0), 0)
    negative_BT = torch.where(mask_BT, q_BT * (-advantages_BT).clamp(min=0), 0)
    return (
        [(ratio_BT.clamp(max=c) * positive_BT).sum() for c in uppers],
        [(ratio_BT.clamp(min=c) * negative_BT).sum() for c in lowers],
    )


def positive_share(positive: float, negative: float) -> float | None:
    """Returns P / (P + N); None where no token has an advantage."""
    return positive / (positive + negative) if positive + negative > 0 else None


def search(positive: Sequence[float], negative: Sequence[float], target: float) -> tuple[int, int]:
    """Finds BAPO's bounds: the upper one is raised, then the lower one, until

        P(upper) / (P(upper) + N(lower)) >= target

    which is how we read eq. 8, whose denominator is printed as the absolute value of a sum of both
    signs. A higher lower bound makes N larger, so that where the largest upper bound is not enough,
    the lower one goes to its end too.

    Args:
        positive, negative: P and N of the candidates in the order of `contributions`, at least one
            each; not all 0.
        target: rho_0.

    Returns:
        Which upper and which lower candidate.

    Source: arXiv 2510.18927, Alg. 1 (the authors' code raises the lower one first).
    """
    pairs = [(i, 0) for i in range(len(positive))]
    pairs += [(len(positive) - 1, j) for j in range(1, len(negative))]
    for i, j in pairs:
        share = positive_share(positive[i], negative[j])
        if share is not None and share >= target:
            return i, j
    return pairs[-1]


def observe_balance(micro_batch: MicroBatch) -> None:
    """Leaves P and N of each candidate, summed over this micro-batch."""
    if CLIPPED not in micro_batch.records or CANDIDATES not in micro_batch.settings:
        return
    record, bounds = micro_batch.records[CLIPPED], micro_batch.settings[CANDIDATES]
    ratio_BT = importance_ratio(record.log_prob, record.old_log_prob)
    sums = contributions(ratio_BT, record.old_log_prob, record.advantages, record.mask, *bounds)
    for name, values in zip(("positive", "negative"), sums, strict=True):
        for i, value in enumerate(values):
            micro_batch.sums[f"{PREFIX}{name}/{i}"] = value


def by_candidate(means: Mapping[str, float], name: str) -> list[float]:
    """Returns the values of metrics `name/0`, `name/1`, …"""
    count = sum(key.startswith(f"{name}/") for key in means)
    return [means[f"{name}/{i}"] for i in range(count)]
