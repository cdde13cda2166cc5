"""Semantic entropy of a prompt's rollouts (SENT, arXiv 2512.04359, method figure, panel a).

    SE(q) = - sum_k p_k log p_k     over the K clusters of equivalent answers among q's G rollouts

The paper prints this, no more. *Ours*: p_k = n_k / G and the natural log; with `log_likelihoods`
p_k is the cluster's share of the rollouts' likelihood, as in Kuhn et al. (arXiv 2302.09664).
SE is 0 if all rollouts agree, correct or incorrect, and at most log G.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def semantic_entropy(
    clusters: Sequence[int], log_likelihoods: Sequence[float] | None = None, base: float = math.e
) -> float:
    """Computes the semantic entropy of one prompt.

    Args:
        clusters: (G,) the cluster of each rollout, any integers.
        log_likelihoods: (G,) of each rollout in nats, for likelihood weights; None: every rollout
            has the same weight.
        base: of the logarithm; nats by default.

    Returns:
        SE, from 0 to log G.

    Raises:
        ValueError: for no rollouts.
    """
    if not len(clusters):
        raise ValueError("semantic entropy needs at least one rollout of a prompt.")
    index = np.unique(np.asarray(clusters), return_inverse=True)[1]
    if log_likelihoods is None:
        weights = np.ones(len(index))
    else:
        logs = np.asarray(log_likelihoods, dtype=np.float64)
        weights = np.exp(logs - logs.max())  # the largest is 1, so none that matters underflows
    p = np.bincount(index, weights)
    p = p[p > 0] / p.sum()
    return float(max(0.0, -(p * np.log(p)).sum() / math.log(base)))
