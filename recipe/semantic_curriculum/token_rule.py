"""SENT's token rule (arXiv 2512.04359, method figure, panel b) as pure functions.

    L = the tokens of lowest entropy H_t
    Cov_t = (log p_t - mean_L log p) (A_t - mean_L A)        for t in L
    C = the tokens of L of highest covariance
    J = J_GRPO - E[ beta_t KL(pi_theta || anchor) ],  beta_t larger on C than on the rest of L

The paper prints no size of L or C and no beta; the released code takes 80 % of a micro-batch's
tokens as L, constrains its 0.02 % of highest and of lowest covariance, and leaves the rest free.
Both are settings of the one rule here.

Axes: N tokens in any order that does not depend on how a batch is split; ties go to the earlier
token. Nothing here copies to the host on an accelerator.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

CLASSES = ("unselected", "rest", "high_cov", "low_cov")
UNSELECTED, REST, HIGH_COV, LOW_COV = range(4)
LARGE = 3e38
MAX_LOG_RATIO, MAX_K3 = 20.0, 10.0  # verl's clamps of k3


def part_of(count: Tensor, fraction: float) -> Tensor:
    """How many of `count` a fraction is: rounded down, and at least one of any."""
    # in doubles: in float32 a fraction of a large count could come out one too high
    return torch.minimum(count, (count.double() * fraction).long().clamp(min=1))


def smallest(values_N: Tensor, member_N: Tensor, k: Tensor) -> Tensor:
    """(N,) bool: the `k` members (a 0-dim whole number, at most their count) of smallest value."""
    # all others beyond any value; by arithmetic, since a CPU guesses wrong at every second branch
    # of torch.where or masked_fill, which makes them ten times as slow as this
    values_N = torch.add(values_N.float(), member_N.float().sub_(1), alpha=-LARGE)
    threshold = _kth_smallest(values_N, k.clamp(min=1))
    below_N = values_N < threshold
    tied_N = (values_N == threshold) & member_N
    if values_N.device.type == "cpu" and int(tied_N.count_nonzero()) == 1:
        return below_N | tied_N  # nothing to choose
    room = k - below_N.count_nonzero()
    return below_N | (tied_N & (tied_N.cumsum(0) <= room))


def _kth_smallest(values_N: Tensor, k: Tensor) -> Tensor:
    if values_N.device.type != "cpu":
        return values_N.sort().values.gather(0, (k - 1).view(1)).squeeze(0)
    # numpy selects in vectors, twenty times as fast as torch.kthvalue
    where = int(k) - 1
    return torch.as_tensor(np.partition(values_N.numpy(), where)[where])


def lowest_in_rows(
    values_N: Tensor, member_N: Tensor, row_N: Tensor, rows: int, fraction: float
) -> Tensor:
    """(N,) bool: of each row's members the `fraction` of smallest value. The tokens of row r are
    those with row_N = r, for r in 0 .. rows - 1, one row after another; a row may have none."""
    if not len(values_N):
        return member_N
    # one sort of whole numbers for all rows: the row above, the value's bits in its order below
    bits_N = (values_N.float() + 0.0).view(torch.int32)  # -0 is 0
    bits_N = bits_N ^ ((bits_N >> 31) & 0x7FFFFFFF)
    bits_N = torch.where(member_N, bits_N, 0x7FFFFFFF)  # beyond any value
    key_N = row_N * 2**32 + bits_N

    def per_row(flag_N: Tensor) -> Tensor:
        total_N = torch.nn.functional.pad(flag_N.cumsum(0), (1, 0))
        return total_N.index_select(0, end_R) - total_N.index_select(0, first_R)

    end_R = torch.searchsorted(row_N, torch.arange(rows, device=row_N.device), right=True)
    first_R = torch.nn.functional.pad(end_R, (1, 0))[:-1]
    k_R = part_of(per_row(member_N), fraction)
    last_R = (first_R + k_R - 1).clamp(min=0)
    threshold_R = _sorted(key_N).index_select(0, last_R)
    threshold_N = threshold_R.index_select(0, row_N)
    below_N, tied_N = key_N < threshold_N, (key_N == threshold_N).logical_and_(member_N)
    room_R = k_R - per_row(below_N)
    if key_N.device.type == "cpu" and bool((per_row(tied_N) == room_R).all()):
        return below_N | tied_N  # nothing to choose
    seen_N = tied_N.cumsum(0)  # ties go to the earlier token
    before_R = torch.nn.functional.pad(seen_N, (1, 0)).index_select(0, first_R)
    return below_N | (tied_N & (seen_N <= (before_R + room_R).index_select(0, row_N)))


def _sorted(key_N: Tensor) -> Tensor:
    if key_N.device.type != "cpu":
        return key_N.sort().values
    return torch.from_numpy(np.sort(key_N.numpy()))


def covariance(log_prob_N: Tensor, advantages_N: Tensor, member_N: Tensor) -> Tensor:
    """(N,): (log p - its mean) (A - its mean), means over the members; 0 elsewhere."""
    weight_N = member_N.to(log_prob_N.dtype)
    count = member_N.count_nonzero().clamp(min=1)

    def centred(x_N: Tensor) -> Tensor:
        mean = (x_N * weight_N).sum(dtype=torch.float64) / count
        return x_N - mean.to(x_N.dtype)

    return centred(log_prob_N).mul_(centred(advantages_N)).mul_(weight_N)


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
                low_N = smallest(entropy_N, mask_N, part_of(mask_N.count_nonzero(), low_fraction))
            else:
                low_N = lowest_in_rows(entropy_N, mask_N, row_N, rows, low_fraction)
            selected_N = low_N if side == "low" else mask_N & ~low_N
        elif side == "high":
            selected_N = torch.zeros_like(mask_N)
        cov_N = covariance(log_prob_N, advantages_N, selected_N)
        class_N = selected_N.to(torch.int8)  # REST or UNSELECTED
        count = selected_N.count_nonzero()
        for fraction, sign, code in (
            (high_cov_fraction, -1, HIGH_COV),
            (low_cov_fraction, 1, LOW_COV),
        ):
            if fraction > 0:
                chosen_N = smallest(sign * cov_N, selected_N, part_of(count, fraction))
                class_N.masked_fill_(chosen_N, code)
    return class_N, cov_N


def anchored_kl(
    log_prob_BT: Tensor, anchor_BT: Tensor, beta_BT: Tensor, estimator: str
) -> tuple[Tensor, Tensor]:
    """beta KL(pi_theta || anchor) of each token, and the KL itself without gradient.

    The estimators are verl's `kl_penalty`, with its clamps, of d = anchor - log p:
        abs |d|      k1 -d      k2 d^2 / 2      k3 exp(d) - d - 1
    """
    return _AnchoredKL.apply(log_prob_BT, anchor_BT, beta_BT, estimator)


class _AnchoredKL(torch.autograd.Function):
    """A gradient by hand, since autograd would go over the tokens twice as often, and keep six
    (B, T) tensors where this keeps one."""

    @staticmethod
    def forward(ctx, log_prob, anchor, beta, estimator):
        d = anchor - log_prob
        if estimator == "k3":
            d = d.clamp_(-MAX_LOG_RATIO, MAX_LOG_RATIO)
            ratio = d.exp()
            kl = (ratio - d).sub_(1)
            # where the estimate is clamped it has no gradient; so it has where d was
            slope = torch.where(kl <= MAX_K3, ratio.neg_().add_(1), 0)
            kl = kl.clamp_(-MAX_K3, MAX_K3)
        elif estimator == "abs":
            kl, slope = d.abs(), -d.sign()
        elif estimator == "k2":
            kl, slope = 0.5 * d * d, -d
        else:
            kl, slope = -d, torch.ones_like(d)
        ctx.save_for_backward(slope.mul_(beta))
        ctx.mark_non_differentiable(kl)
        return beta * kl, kl

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient, _):
        (slope,) = ctx.saved_tensors
        return gradient * slope, None, None, None


def class_sums(
    class_N: Tensor, mask_N: Tensor, values: dict[str, Tensor], classes: Sequence[str] = CLASSES
) -> dict[str, Tensor]:
    """Scalars "<class>/<name>": the sum of each value over the response tokens of a class; "tokens"
    is their number."""
    class_N, mask_N = class_N.flatten(), mask_N.flatten()
    values = {key: value_N.detach().flatten().float() for key, value_N in values.items()}
    sums = {}
    for name in classes:
        member_N = (class_N == CLASSES.index(name)).logical_and_(mask_N)
        sums[f"{name}/tokens"] = member_N.count_nonzero()
        weight_N = member_N.float() if values else None
        for key, value_N in values.items():
            sums[f"{name}/{key}"] = value_N.dot(weight_N)
    return sums
