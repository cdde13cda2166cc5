"""SENT's token rule (arXiv 2512.04359, method section and figure, panel b) as pure functions.

    L = { t : H_t < tau_H }, or the tokens of lowest entropy H_t
    Cov_t = (log p_t - mean log p) (A_t - mean A)            for t in L
    C = { t in L : Cov_t > tau_cov }, or the tokens of L of highest covariance
    J = J_GRPO - E[ beta_t KL(pi_theta || anchor) ],  beta_t larger on C than on the rest of L

The method section has thresholds and takes the means over all response tokens of the batch; the
figure says "low" and "high" and takes them over L. The paper prints no threshold, no size of L or C
and no beta. The released code takes 80 % of a micro-batch's tokens as L, constrains its 0.02 % of
highest and of lowest covariance, and leaves the rest free. All are settings of the one rule here.

Axes: N tokens in any order that does not depend on how a batch is split; of equal values the
earlier token comes first. C classes. No function here copies to the host on an accelerator, except
`classify` with `length_R`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

CLASSES = ("unselected", "rest", "high_cov", "low_cov")
UNSELECTED, REST, HIGH_COV, LOW_COV = range(4)


def count_of_fraction(count: Tensor, fraction: float) -> Tensor:
    """Returns how many of `count` tokens a fraction is.

    Args:
        count: Whole numbers, any shape.
        fraction: From 0 to 1.

    Returns:
        floor(fraction count), but at least 1 where there is any token, as in the released code.
    """
    # in doubles: in float32 a fraction of a large count could come out one too high
    return torch.minimum(count, (count.double() * fraction).long().clamp(min=1))


def k_smallest_mask(values_N: Tensor, member_N: Tensor, k: Tensor) -> Tensor:
    """Marks the k smallest values.

    Args:
        values_N: (N,), finite where `member_N`.
        member_N: (N,) bool, the tokens to choose from.
        k: 0-dim whole number, at most the number of members.

    Returns:
        (N,) bool; of equal values the earlier ones.
    """
    order_N = torch.where(member_N, values_N, torch.inf).argsort(stable=True)
    first_k_N = torch.arange(len(order_N), device=order_N.device) < k
    return torch.zeros_like(member_N).scatter(0, order_N, first_k_N)


class Means(NamedTuple):
    """The means of the covariance, numbers or 0-dim tensors."""

    log_prob: Tensor | float
    advantage: Tensor | float


def means_over(log_prob_N: Tensor, advantages_N: Tensor, member_N: Tensor) -> Means:
    """Computes the means of the covariance over tokens; 0 where there are none.

    Args:
        log_prob_N: (N,), nats.
        advantages_N: (N,).
        member_N: (N,) bool, the tokens.

    Returns:
        0-dim float64 tensors: no sum depends on the order of the tokens to float32's rounding.
    """
    count = member_N.count_nonzero().clamp(min=1)
    values = (log_prob_N, advantages_N)
    return Means(*(torch.where(member_N, x, 0).sum(dtype=torch.float64) / count for x in values))


def covariance(log_prob_N: Tensor, advantages_N: Tensor, means: Means) -> Tensor:
    """Computes each token's contribution to the covariance of log-prob and advantage.

        Cov_t = (log p_t - mean log p) (A_t - mean A)

    Args:
        log_prob_N: (N,), nats.
        advantages_N: (N,).
        means: Method section: over all response tokens of the batch; figure and released code:
            over L.

    Returns:
        (N,) at least float32.

    Source: method section, and figure, panel b.
    """
    log_prob_N = log_prob_N.to(torch.promote_types(log_prob_N.dtype, torch.float32))
    return (log_prob_N - means.log_prob) * (advantages_N - means.advantage)


@torch.no_grad()
def classify(
    *,
    entropy_N: Tensor | None,
    log_prob_N: Tensor,
    advantages_N: Tensor,
    mask_N: Tensor,
    low_fraction: float | None = None,
    low_threshold: float | None = None,
    side: str = "low",
    cov_mean_over: str = "selected",
    means: Means | None = None,
    high_cov_fraction: float | None = None,
    high_cov_threshold: float | None = None,
    low_cov_fraction: float = 0,
    length_R: Tensor | None = None,
    k_smallest: Callable[[Tensor, Tensor, Tensor], Tensor] = k_smallest_mask,
) -> tuple[Tensor, Tensor]:
    """Chooses the class of each token.

    Args:
        entropy_N: (N,), nats; may be None where L is all tokens.
        log_prob_N, advantages_N: (N,).
        mask_N: (N,) bool, response tokens; all others are UNSELECTED.
        low_fraction: Size of L among the response tokens; 1 for all of them.
        low_threshold: tau_H in nats: L is the tokens below it. Exactly one of the two is given.
        side: "low" selects L; "high" selects its complement in its place.
        cov_mean_over: The tokens over which the covariance's means are taken, of these N:
            "selected", or "all" response tokens.
        means: Those means, where they are of more tokens than these N.
        high_cov_fraction: Size of C among the selected tokens; 0 for none.
        high_cov_threshold: tau_cov: C is the selected tokens above it. At most one of the two.
        low_cov_fraction: Of the selected tokens; 0 for none. Where it overlaps with C, LOW_COV
            wins, as in the released code.
        length_R: (R,), tokens of each of the R responses that the N tokens are, one after another:
            a fraction L is then chosen within each response. None: among all N tokens. Covariances
            are always taken over all responses, since A is constant within one.
        k_smallest: `k_smallest_mask`, or a function that returns the same.

    Returns:
        class_N: (N,) int8, an index of CLASSES.
        cov_N: (N,), the covariance of the selected tokens, 0 elsewhere.

    Raises:
        ValueError: If L is chosen by entropy and there is no entropy.

    Source: method section for thresholds and for means over all tokens; figure, panel b; the
        released code for fractions and for what it constrains.
    """

    def smallest(values_N: Tensor, member_N: Tensor, fraction: float) -> Tensor:
        return k_smallest(values_N, member_N, count_of_fraction(member_N.count_nonzero(), fraction))

    low_N = mask_N
    if low_fraction != 1 and entropy_N is None:
        raise ValueError(
            f"low_fraction={low_fraction} selects by entropy: give entropy_N, or 1 for all."
        )
    if low_threshold is not None:  # L = { t : H_t < tau_H }
        assert entropy_N is not None and low_fraction is None
        low_N = mask_N & (entropy_N.float() < low_threshold)
    elif low_fraction != 1:  # L = the tokens of lowest entropy
        assert entropy_N is not None and low_fraction is not None
        lengths = [len(mask_N)] if length_R is None else length_R.tolist()
        rows = zip(entropy_N.float().split(lengths), mask_N.split(lengths), strict=True)
        low_N = torch.cat([smallest(*row, low_fraction) for row in rows])
    selected_N = low_N if side == "low" else mask_N & ~low_N
    if means is None:
        over_N = mask_N if cov_mean_over == "all" else selected_N
        means = means_over(log_prob_N, advantages_N, over_N)
    cov_N = torch.where(selected_N, covariance(log_prob_N, advantages_N, means), 0)
    class_N = selected_N.to(torch.int8) * REST
    if high_cov_threshold is not None:  # C = { t in L : Cov_t > tau_cov }
        class_N.masked_fill_(selected_N & (cov_N > high_cov_threshold), HIGH_COV)
    elif high_cov_fraction:  # C = the tokens of L of highest covariance
        class_N.masked_fill_(smallest(-cov_N, selected_N, high_cov_fraction), HIGH_COV)
    if low_cov_fraction > 0:  # released code: those of lowest covariance too
        class_N.masked_fill_(smallest(cov_N, selected_N, low_cov_fraction), LOW_COV)
    return class_N, cov_N


def value_per_token(class_N: Tensor, value_C: Sequence[float]) -> Tensor:
    """Gives each token the value of its class: beta_t = beta[class of t].

    Args:
        class_N: Any shape, indices of CLASSES.
        value_C: One number per class, in the order of CLASSES.

    Returns:
        float32, in the shape of `class_N`.
    """
    return torch.tensor(value_C, device=class_N.device)[class_N.long()]


@torch.no_grad()
def class_sums(
    class_N: Tensor, mask_N: Tensor, values: dict[str, Tensor], classes: Sequence[str] = CLASSES
) -> dict[str, Tensor]:
    """Sums values over the response tokens of each class.

    Args:
        class_N: Indices of CLASSES, any shape.
        mask_N: bool, response tokens, in the same shape.
        values: Name to values in the same shape.
        classes: The names of CLASSES to sum over.

    Returns:
        Scalars "<class>/tokens", the number of tokens, and "<class>/<name>", the sum of a value.
    """
    sums = {}
    for name in classes:
        member_N = (class_N == CLASSES.index(name)) & mask_N
        sums[f"{name}/tokens"] = member_N.count_nonzero()
        for key, value_N in values.items():
            sums[f"{name}/{key}"] = torch.where(member_N, value_N.float(), 0).sum()
    return sums
