"""The clipped policy objective with per-token bounds (arXiv 2602.09782 v1, sec. 4), and what each
kind of token does to the entropy (sec. 3), as pure functions.

Axes: B rows (rollouts), T response tokens, V vocabulary; N any shape. Nothing here copies to the
host.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from recipe.clip_entropy.bounds import Bounds
from recipe.core import masks

MAX_LOG_RATIO = 20.0  # verl's clamp of log(ratio)
LARGE = 3e38  # beyond any loss
REGIONS = ("E1", "E2", "E3", "E4")


class Clipped(NamedTuple):
    """The objective of each token and what it did, all (B, T); only the loss has a gradient."""

    loss: Tensor
    ratio: Tensor  # pi_theta / pi_old
    by_bound: Tensor  # bool: the token lost its gradient to a bound
    by_dual: Tensor  # bool: A < 0 and the dual clip cut it off


def clipped_objective(
    log_prob_BT: Tensor,
    old_log_prob_BT: Tensor,
    advantages_BT: Tensor,
    bounds: Bounds,
    clip_ratio_c: float,
) -> Clipped:
    """-min(r A, clip(r, 1 - eps_minus(p), 1 + eps_plus(p)) A), and PPO's dual clip for A < 0.

    p is the current policy's probability of the token, detached (*ours*; the paper is silent): with
    gradient through it, a clipped token would still push. log r is clamped to [-20, 20] as in
    verl. With flat bounds loss and gradient are those of verl's `vanilla` to the bit.
    """
    return Clipped(
        *_ClippedObjective.apply(log_prob_BT, old_log_prob_BT, advantages_BT, bounds, clip_ratio_c)
    )


class _ClippedObjective(torch.autograd.Function):
    """A gradient by hand, since autograd would keep a dozen (B, T) tensors for it and this keeps
    one: d loss / d log pi = -A r where the token is not clipped, else 0."""

    @staticmethod
    def forward(ctx, log_prob, old_log_prob, advantages, bounds, clip_ratio_c):
        # Masks that only multiply are numbers, 1 and 0 by sign(): see masks.py for what else costs.
        log_ratio = log_prob - old_log_prob
        clamped = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        beyond = log_ratio.sub_(clamped).abs_().sign_()
        ratio = clamped.exp_()
        minus_A = -advantages
        if bounds.flat:
            upper, lower = bounds.epsilons(ratio)
            banded = ratio.clamp(1 - lower, 1 + upper)
        else:
            upper, lower = bounds.epsilons(log_prob.exp())
            banded = torch.minimum(ratio, _edge(upper, 1, ratio))
            banded = torch.maximum(banded, _edge(lower, -1, ratio), out=banded)
        outside = (banded - ratio).abs_().sign_()
        plain, bound = minus_A * ratio, banded.mul_(minus_A)
        by_bound = masks.less(plain, bound)
        # Where the two sides of a maximum tie, autograd gives each half the gradient. In the band
        # they are the same function; outside it they tie only by rounding, and half is lost.
        share = (plain - bound).sign_().sub_(outside).mul_(0.5).add_(1)
        loss = torch.maximum(plain, bound, out=plain)
        negative = minus_A.sign().clamp_(min=0)
        dual = minus_A.mul_(clip_ratio_c).add_(negative.sub_(1), alpha=-LARGE)  # for A < 0 only
        by_dual = masks.less(dual, loss)
        below = (dual - loss).sign_().add_(1).mul_(0.5)
        loss = torch.minimum(loss, dual, out=loss)
        kept = share.mul_(below).mul_(ratio).mul_(beyond.neg_().add_(1))
        ctx.save_for_backward(kept, advantages)
        ctx.mark_non_differentiable(ratio, by_bound, by_dual)
        return loss, ratio, by_bound, by_dual

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient, *_):
        kept, advantages = ctx.saved_tensors
        return (gradient * -advantages).mul_(kept), None, None, None, None


def _edge(eps: Tensor | float, sign: int, like: Tensor) -> Tensor:
    """1 + sign eps as a tensor."""
    return eps.mul_(sign).add_(1) if torch.is_tensor(eps) else like.new_tensor(1 + sign * eps)


def entropy_contribution(
    log_prob_N: Tensor,
    entropy_N: Tensor,
    advantages_N: Tensor,
    baseline_N: Tensor | None = None,
) -> Tensor:
    """First-order change of a position's entropy when its token is pushed by its advantage:

        <grad_z L, grad_z H> = -A [ p_a (ln p_a + H) - sum_x p_x^2 (ln p_x + H) ]       (eq 5)

    in logit space, for a step of size 1. Without `baseline_N`, the sum over x, it is the paper's
    approximation, whose sign is -sgn(A (ln p_a + H)) (eq 6). H in nats.
    """
    inner_N = log_prob_N.exp() * (log_prob_N + entropy_N)
    if baseline_N is not None:
        inner_N = inner_N - baseline_N
    return -advantages_N * inner_N


def entropy_baseline(logits_NV: Tensor, chunk: int = 1024) -> Tensor:
    """(N,): sum_x p_x^2 (ln p_x + H) of eq 5. In chunks of rows, as V is large; no gradient."""
    baseline_N = logits_NV.new_empty(logits_NV.shape[0], dtype=torch.float32)
    with torch.no_grad():
        for start in range(0, logits_NV.shape[0], chunk):
            log_p = logits_NV[start : start + chunk].float().log_softmax(-1)
            p = log_p.exp()
            entropy = -(p * log_p).sum(-1, keepdim=True)
            baseline_N[start : start + chunk] = (p * p * (log_p + entropy)).sum(-1)
    return baseline_N


def region_sums(
    advantages_BT: Tensor,
    log_prob_BT: Tensor,
    entropy_BT: Tensor,
    mask_BT: Tensor,
    values: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Scalars "E1/<name>" … "E4/<name>": the sum of each (B, T) value over a region's tokens.

        E1: A > 0, -ln p < H (entropy down)      E2: A > 0, -ln p > H (up)
        E3: A < 0, -ln p < H (up)                E4: A < 0, -ln p > H (down)
    Tokens outside the mask, with A = 0, or with -ln p = H exactly belong to no region.
    """
    surplus_BT = log_prob_BT + entropy_BT  # H - surprisal
    positive_BT, negative_BT = mask_BT & (advantages_BT > 0), mask_BT & (advantages_BT < 0)
    likely_BT, rare_BT = surplus_BT > 0, surplus_BT < 0
    members = (
        positive_BT & likely_BT,
        positive_BT & rare_BT,
        negative_BT & likely_BT,
        negative_BT & rare_BT,
    )
    sums = {}
    for region, member_BT in zip(REGIONS, members, strict=True):
        for name, value_BT in values.items():
            if value_BT.dtype == torch.bool:
                sums[f"{region}/{name}"] = (value_BT & member_BT).sum()
            else:
                sums[f"{region}/{name}"] = (value_BT * member_BT).sum()
    return sums
