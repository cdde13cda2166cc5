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

from recipe.core import masks

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
    values_N = _beyond_unless(member_N, values_N)
    if values_N.device.type == "cpu":
        return torch.from_numpy(_smallest_on_cpu(values_N.numpy(), int(k)))
    threshold = values_N.sort().values.gather(0, (k - 1).clamp(min=0).view(1))
    below_N, tied_N = values_N < threshold, (values_N == threshold) & member_N
    room = k - below_N.count_nonzero()
    return below_N | (tied_N & (tied_N.cumsum(0) <= room))


def _smallest_on_cpu(values_N: np.ndarray, k: int) -> np.ndarray:
    if k == 0:
        return np.zeros(len(values_N), bool)
    # numpy selects in vectors, twenty times as fast as torch.kthvalue
    threshold = np.partition(values_N, k - 1)[k - 1]
    chosen_N = values_N <= threshold
    if excess := np.count_nonzero(chosen_N) - k:
        chosen_N[np.flatnonzero(values_N == threshold)[-excess:]] = False
    return chosen_N


def lowest_in_rows(values_N: Tensor, member_N: Tensor, length_R: Tensor, fraction: float) -> Tensor:
    """(N,) bool: of each row's members the `fraction` of smallest value. The tokens are those of R
    rows of `length_R` (which may be 0), one row after another. On a CPU, where a whole batch is."""
    length_R = length_R.numpy()
    if not len(values_N):
        return member_N
    end_R = length_R.cumsum()

    def per_row(flag_N: np.ndarray) -> np.ndarray:
        return np.diff(np.append(0, flag_N.cumsum(dtype=np.int32))[end_R], prepend=0)

    values_N, is_member_N = _beyond_unless(member_N, values_N).numpy(), member_N.numpy()
    sorted_RT = np.full((len(length_R), length_R.max()), np.inf, values_N.dtype)
    sorted_RT[np.arange(sorted_RT.shape[1]) < length_R[:, None]] = values_N
    sorted_RT.sort(axis=1)
    members_R = length_R if is_member_N.all() else per_row(is_member_N)
    k_R = part_of(torch.from_numpy(members_R), fraction).numpy()
    threshold_R = sorted_RT[np.arange(len(length_R)), np.maximum(k_R, 1) - 1]
    threshold_N = np.repeat(threshold_R, length_R)
    chosen_N = (values_N <= threshold_N) & is_member_N
    if np.count_nonzero(chosen_N) > k_R.sum():  # ties go to the earlier token
        excess_R = per_row(chosen_N) - k_R
        tied = np.flatnonzero((values_N == threshold_N) & is_member_N)
        row = np.searchsorted(end_R, tied, side="right")
        later = np.bincount(row, minlength=len(length_R)).cumsum()[row] - 1 - np.arange(len(tied))
        chosen_N[tied[later < excess_R[row]]] = False
    return torch.from_numpy(chosen_N)


def _beyond_unless(member_N: Tensor, values_N: Tensor) -> Tensor:
    """The members' values, all others beyond any of them."""
    return torch.add(values_N.float(), masks.number(member_N).sub_(1), alpha=-LARGE)


def covariance(log_prob_N: Tensor, advantages_N: Tensor, member_N: Tensor) -> Tensor:
    """(N,): (log p - its mean) (A - its mean), means over the members; 0 elsewhere."""
    weight_N = masks.number(member_N, log_prob_N.dtype)
    count = member_N.count_nonzero().clamp(min=1)

    def centred(x_N: Tensor) -> Tensor:
        return x_N - (x_N * weight_N).sum() / count

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
    length_R: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The class of each token (int8, an index of CLASSES), and its covariance.

    Args:
        entropy_N: in nats, detached; may be None where low_fraction is 1.
        mask_N: bool, response tokens; all others are UNSELECTED.
        low_fraction: size of L among the response tokens. side: "low", or "high" for the complement
            of L in its place.
        high_cov_fraction, low_cov_fraction: of L; 0 for none. Where they overlap, low_cov wins, as
            in the released code.
        length_R: of the responses that the tokens are, one after another, to choose L in each by
            itself (CPU only); None: among all. Covariances are always taken over the whole of L,
            since within one response A is constant.
    """
    with torch.no_grad():
        selected_N = mask_N
        if low_fraction < 1:
            entropy_N = entropy_N.float()
            if length_R is None:
                low_N = smallest(entropy_N, mask_N, part_of(mask_N.count_nonzero(), low_fraction))
            else:
                low_N = lowest_in_rows(entropy_N, mask_N, length_R, low_fraction)
            selected_N = low_N if side == "low" else mask_N & ~low_N
        elif side == "high":
            selected_N = torch.zeros_like(mask_N)
        cov_N = covariance(log_prob_N, advantages_N, selected_N)
        class_N = selected_N.view(torch.int8).clone()  # REST or UNSELECTED
        count = selected_N.count_nonzero()
        for fraction, sign, code in (
            (high_cov_fraction, -1, HIGH_COV),
            (low_cov_fraction, 1, LOW_COV),
        ):
            if fraction > 0:
                chosen_N = smallest(sign * cov_N, selected_N, part_of(count, fraction))
                class_N = torch.maximum(class_N, chosen_N.view(torch.int8) * code)
    return class_N, cov_N


def by_class(class_N: Tensor, value_C: Sequence[float]) -> Tensor:
    """(N,) float32: of each token its class's value, in the order of CLASSES."""
    values_N = torch.zeros(class_N.shape, device=class_N.device)
    for code, value in enumerate(value_C):
        if value:
            values_N.add_(masks.number(masks.equal(class_N, code)), alpha=value)
    return values_N


def class_sums(
    class_N: Tensor, mask_N: Tensor, values: dict[str, Tensor], classes: Sequence[str] = CLASSES
) -> dict[str, Tensor]:
    """Scalars "<class>/<name>": the sum of each value over the response tokens of a class; "tokens"
    is their number."""
    class_N, mask_N = class_N.flatten(), mask_N.flatten()
    values = {key: value_N.detach().flatten().float() for key, value_N in values.items()}
    sums = {}
    for name in classes:
        member_N = masks.equal(class_N, CLASSES.index(name)).logical_and_(mask_N)
        sums[f"{name}/tokens"] = member_N.count_nonzero()
        weight_N = masks.number(member_N) if values else None
        for key, value_N in values.items():
            sums[f"{name}/{key}"] = value_N.dot(weight_N)
    return sums
