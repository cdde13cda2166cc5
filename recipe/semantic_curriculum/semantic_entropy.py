"""Semantic entropy of a prompt's rollouts (SENT, arXiv 2512.04359, method section and figure).

    SE(q) = - sum_k p_k log p_k     over the K clusters of equivalent answers among q's G rollouts

with p_k the share of cluster k in the rollouts' weights, p_k = sum_{i in k} w_i / sum_i w_i:

    likelihood           w_i = P(o_i given q)                        the method section
    length_normalised    w_i = P(o_i given q)^(1 / tokens of o_i)    ours
    counts               w_i = 1, so p_k = n_k / G                   ours

The natural log is *ours*. SE is 0 if all rollouts agree, correct or incorrect, and at most log G.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

WEIGHTS = ("counts", "likelihood", "length_normalised")


def log_weights(
    weights: str, log_likelihoods: Sequence[float] | None, tokens: Sequence[int] | None
) -> np.ndarray | None:
    """Returns the logarithm of each rollout's weight; None if all are equal.

    Args:
        weights: One of WEIGHTS.
        log_likelihoods: (G,) ln P(o_i given q) in nats; not read for "counts".
        tokens: (G,) of each rollout, at least 1; read for "length_normalised" only.

    Raises:
        ValueError: for other weights, or if what they need is not there.
    """
    if weights == "counts":
        return None
    if weights not in WEIGHTS:
        raise ValueError(f"weights={weights} is not known: use one of {', '.join(WEIGHTS)}.")
    if log_likelihoods is None or (weights == "length_normalised" and tokens is None):
        raise ValueError(
            f"weights={weights} needs the responses' log-likelihoods and numbers of tokens, which "
            "these do not have: sample them anew, or use counts."
        )
    logs_G = np.asarray(log_likelihoods, dtype=np.float64)
    # ln P^(1 / tokens) = mean of the tokens' log-probs
    return logs_G / np.asarray(tokens) if weights == "length_normalised" else logs_G


def semantic_entropy(
    clusters: Sequence[int],
    log_weights: Sequence[float] | np.ndarray | None = None,
    base: float = math.e,
) -> float:
    """Computes the semantic entropy of one prompt.

    Args:
        clusters: (G,) the cluster of each rollout, any integers.
        log_weights: (G,) of each rollout (`log_weights`); None: every rollout has the same weight.
        base: of the logarithm; nats by default.

    Returns:
        SE, from 0 to log G.

    Raises:
        ValueError: for no rollouts.
    """
    if not len(clusters):
        raise ValueError("semantic entropy needs at least one rollout of a prompt.")
    index = np.unique(np.asarray(clusters), return_inverse=True)[1]
    if log_weights is None:
        weights = np.ones(len(index))
    else:
        logs = np.asarray(log_weights, dtype=np.float64)
        weights = np.exp(logs - logs.max())  # the largest is 1, so none that matters underflows
    p = np.bincount(index, weights)
    p = p[p > 0] / p.sum()
    return float(max(0.0, -(p * np.log(p)).sum() / math.log(base)))
