"""Semantic entropy of a prompt's rollouts (SENT, arXiv 2512.04359, method figure, panel a).

    SE(q) = - sum_k p_k log p_k        over the K groups of meaning among the G rollouts of q

The paper prints this, no more. *Ours*: p_k = n_k / G and the natural log; with `log_likelihoods`
p_k is the groups' share of the rollouts' likelihood, as in Kuhn et al. (arXiv 2302.09664).
SE is 0 if all rollouts agree, right or wrong, and at most log G.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def semantic_entropy(
    groups: Sequence[int], log_likelihoods: Sequence[float] | None = None, base: float = math.e
) -> float:
    """SE of one prompt.

    Args:
        groups: the group of each rollout, any whole numbers.
        log_likelihoods: of each rollout, for likelihood weights; None: every rollout counts as one.
        base: of the logarithm; nats by default.

    Raises ValueError for no rollouts.
    """
    if not len(groups):
        raise ValueError("semantic entropy needs at least one rollout of a prompt.")
    index = np.unique(np.asarray(groups), return_inverse=True)[1]
    if log_likelihoods is None:
        weights = np.ones(len(index))
    else:
        logs = np.asarray(log_likelihoods, dtype=np.float64)
        weights = np.exp(logs - logs.max())  # the largest is 1, so none that matters underflows
    p = np.bincount(index, weights)
    p = p[p > 0] / p.sum()
    return float(max(0.0, -(p * np.log(p)).sum() / math.log(base)))
