"""SENT's token rule (arXiv 2512.04359, method figure, panel b) as pure functions.

    L = the tokens of lowest entropy H_t
    Cov_t = (log p_t - mean_L log p) (A_t - mean_L A)        for t in L
    C = the tokens of L of highest covariance
    J = J_GRPO - E[ beta_t KL(pi_theta || anchor) ],  beta_t larger on C than on the rest of L

The paper prints no size of L or C and no beta; the released code takes 80 % of a micro-batch's
tokens as L, constrains its 0.02 % of highest and of lowest covariance, and leaves the rest free.
Both are settings of the one rule here.

Axes: N tokens in any order that does not depend on how a batch is split; ties go to the earlier
token. Nothing here copies to the host on an accelerator, but for the choice by response.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

CLASSES = ("unselected", "rest", "high_cov", "low_cov")
UNSELECTED, REST, HIGH_COV, LOW_COV = range(4)


def part_of(count: Tensor, fraction: float) -> Tensor:
    """How many of `count` a fraction is: rounded down, and at least one of any."""
    # in doubles: in float32 a fraction of a large count could come out one too high
    return torch.minimum(count, (count.double() * fraction).long().clamp(min=1))


def smallest(values_N: Tensor, member_N: Tensor, k: Tensor) -> Tensor:
    """(N,) bool: the `k` members (a 0-dim whole number, at most their count) of smallest value."""
    values_N = values_N.float().masked_fill(~member_N, torch.inf)
    threshold = _kth_smallest(values_N, k.clamp(min=1))
    below_N = values_N < threshold
    tied_N = (values_N == threshold) & member_N
    if values_N.device.type == "cpu" and int(tied_N.sum()) == 1:
        return below_N | tied_N  # nothing to choose
    room = k - below_N.sum()
    return below_N | (tied_N & (tied_N.cumsum(0) <= room))


def _kth_smallest(values_N: Tensor, k: Tensor) -> Tensor:
    if values_N.device.type != "cpu":
        return values_N.sort().values.gather(0, (k - 1).view(1)).squeeze(0)
    number = int(k)  # a CPU selects in linear time, at a position that is a number
    if number * 20 < len(values_N):
        return values_N.topk(number, largest=False, sorted=False).values.max()
    return values_N.kthvalue(number).values


def lowest_in_rows(values_N: Tensor, row_N: Tensor, rows: int, fraction: float) -> Tensor:
    """(N,) bool: of each row's tokens the `fraction` of smallest value. The tokens of row r are
    those with row_N = r, for r in 0 .. rows - 1; a row may have none."""
    by_value = values_N.sort(stable=True).indices
    order = by_value[row_N[by_value].sort(stable=True).indices]  # by row, within it by value
    count_R = torch.zeros(rows, dtype=torch.long, device=row_N.device)
    count_R.scatter_add_(0, row_N, torch.ones_like(row_N))
    first_R = count_R.cumsum(0) - count_R
    rank_N = torch.empty_like(row_N)
    rank_N[order] = torch.arange(len(row_N), device=row_N.device) - first_R[row_N[order]]
    return rank_N < part_of(count_R, fraction)[row_N]


def covariance(log_prob_N: Tensor, advantages_N: Tensor, member_N: Tensor) -> Tensor:
    """(N,): (log p - its mean) (A - its mean), means over the members; 0 elsewhere."""
    count = member_N.sum().clamp(min=1)

    def centred(x_N: Tensor) -> Tensor:
        mean = (x_N * member_N).sum(dtype=torch.float64) / count
        return x_N - mean.to(x_N.dtype)

    return centred(log_prob_N).mul_(centred(advantages_N)).mul_(member_N)


def classify(
    *,
    entropy_N: Tensor | None,
    log_prob_N: Tensor,
    advantages_N: Tensor,
    mask_N: Tensor,
    low_fraction: float,
    side: str = "low",
    high_cov_fraction: float,
    low_cov_fraction: float,
    row_N: Tensor | None = None,
    rows: int = 0,
) -> tuple[Tensor, Tensor]:
    """The class of each token (int8, an index of CLASSES), and its covariance.

    Args:
        entropy_N: in nats, detached; may be None where low_fraction is 1.
        mask_N: bool, response tokens; all others are UNSELECTED.
        low_fraction: size of L among the response tokens. side: "low", or "high" for the complement
            of L in its place.
        high_cov_fraction, low_cov_fraction: of L; 0 for none. Where they overlap, low_cov wins, as
            in the released code.
        row_N: the response of each token, 0 .. rows - 1, to choose L in each response by itself;
            None: among all. Covariances are always taken over the whole of L, since within one
            response A is constant.
    """
    with torch.no_grad():
        selected_N = mask_N
        if low_fraction < 1:
            entropy_N = entropy_N.float()
            if row_N is None:
                low_N = smallest(entropy_N, mask_N, part_of(mask_N.sum(), low_fraction))
            else:
                in_mask = mask_N.nonzero().squeeze(1)
                low_N = torch.zeros_like(mask_N)
                low_N[in_mask] = lowest_in_rows(
                    entropy_N[in_mask], row_N[in_mask], rows, low_fraction
                )
            selected_N = low_N if side == "low" else mask_N & ~low_N
        elif side == "high":
            selected_N = torch.zeros_like(mask_N)
        cov_N = covariance(log_prob_N, advantages_N, selected_N)
        class_N = selected_N.to(torch.int8)  # REST or UNSELECTED
        count = selected_N.sum()
        for fraction, sign, code in (
            (high_cov_fraction, -1, HIGH_COV),
            (low_cov_fraction, 1, LOW_COV),
        ):
            if fraction > 0:
                chosen_N = smallest(sign * cov_N, selected_N, part_of(count, fraction))
                class_N.masked_fill_(chosen_N, code)
    return class_N, cov_N


def class_sums(
    class_N: Tensor, mask_N: Tensor, values: dict[str, Tensor], classes: Sequence[str] = CLASSES
) -> dict[str, Tensor]:
    """Scalars "<class>/<name>": the sum of each value over the response tokens of a class; "tokens"
    is their number."""
    sums = {}
    for name in classes:
        member_N = mask_N & (class_N == CLASSES.index(name))
        sums[f"{name}/tokens"] = member_N.sum()
        for key, value_N in values.items():
            sums[f"{name}/{key}"] = (value_N.detach() * member_N).sum()
    return sums
