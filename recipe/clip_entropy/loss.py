"""What each kind of token does to the entropy (arXiv 2602.09782 v1, sec. 3), as pure functions.

The paper's clipped objective (sec. 4) is `recipe.core.clip`.

Axes: B rows (rollouts), T response tokens, V vocabulary; N any shape. Nothing here copies to the
host.
"""

from __future__ import annotations

import torch
from torch import Tensor

REGIONS = ("E1", "E2", "E3", "E4")


def entropy_contribution(
    log_prob_N: Tensor,
    entropy_N: Tensor,
    advantages_N: Tensor,
    baseline_N: Tensor | None = None,
) -> Tensor:
    """Computes how a position's entropy changes, to first order, when its advantage pushes a token.

        <grad_z L, grad_z H> = -A [ p_a (ln p_a + H) - sum_x p_x^2 (ln p_x + H) ]       (eq 5)

    in logit space, for a step of size 1.

    Args:
        log_prob_N: ln p_a of the sampled tokens, any shape.
        entropy_N: H of their positions, in nats.
        advantages_N: A.
        baseline_N: the sum over x (`entropy_baseline`); without it the result is the paper's
            approximation, whose sign is -sgn(A (ln p_a + H)) (eq 6).

    Returns:
        The change in nats, of the shape of the inputs.

    Source: arXiv 2602.09782 v1, eqs 5 and 6.
    """
    # p_a (ln p_a + H)
    inner_N = log_prob_N.exp() * (log_prob_N + entropy_N)
    if baseline_N is not None:
        inner_N = inner_N - baseline_N
    return -advantages_N * inner_N


def entropy_baseline(logits_NV: Tensor, chunk: int = 1024) -> Tensor:
    """Computes sum_x p_x^2 (ln p_x + H) of eq 5, without gradient.

    Args:
        logits_NV: of N positions.
        chunk: positions computed at once, as V is large.

    Returns:
        (N,) float32.
    """
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
    """Sums values over the tokens of each region.

        E1: A > 0, -ln p < H (entropy down)      E2: A > 0, -ln p > H (up)
        E3: A < 0, -ln p < H (up)                E4: A < 0, -ln p > H (down)

    Args:
        advantages_BT: A.
        log_prob_BT: ln p of the sampled tokens.
        entropy_BT: H of their positions, in nats.
        mask_BT: bool, response tokens.
        values: name -> (B, T), numbers or bool.

    Returns:
        Scalars "E1/<name>" ... "E4/<name>". Tokens outside the mask, with A = 0, or with -ln p = H
        exactly belong to no region.

    Source: arXiv 2602.09782 v1, sec. 3.
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
    return {
        f"{region}/{name}": torch.where(member_BT, value_BT, 0).sum()
        for region, member_BT in zip(REGIONS, members, strict=True)
        for name, value_BT in values.items()
    }
