"""What other papers make of PPO's clipped term, as pure functions of its tokens.

Each takes the clipped objective (`core.clip.Clipped`) and returns another, whose `ratio` and
`clipped` say what -A grad log pi is multiplied by; or the bounds of each token that stand in the
place of constant ones. Advantages A, ratio r = pi_theta / pi_old, bounds eps_low and eps_high.

Axes: B rows (rollouts), T response tokens. Nothing here copies to the host, and nothing depends on
how the rows are split over micro-batches and ranks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from recipe.core.clip import Clipped, TokenBounds, importance_ratio


def _anchored(log_prob_BT: Tensor) -> Tensor:
    """Returns pi / sg(pi): 1, with the gradient of log pi."""
    return (log_prob_BT - log_prob_BT.detach()).exp()


def unbounded_positive(clipped: Clipped, log_prob_BT: Tensor, advantages_BT: Tensor) -> Clipped:
    """Computes UP's objective: for A > 0 REINFORCE, without bound and without the old policy.

        loss = -A pi / sg(pi) if A > 0, PPO's clipped loss otherwise

    Its reduction: where no token has A > 0, PPO. With one update per rollout r = 1 and both have
    the same gradient.

    Source: Fan et al., arXiv 2607.06987, eqs 14 and 15, as verl's PR 7022 and TRL's issue 6407
        give them (read; the paper was not).
    """
    positive_BT = advantages_BT > 0
    free_BT = -advantages_BT * _anchored(log_prob_BT)
    return Clipped(
        loss=torch.where(positive_BT, free_BT, clipped.loss),
        ratio=torch.where(positive_BT, 1.0, clipped.ratio).to(clipped.ratio.dtype),
        clipped=clipped.clipped & ~positive_BT,
        dual_clipped=clipped.dual_clipped,
    )


def without_upper_bound(
    clipped: Clipped, log_prob_BT: Tensor, old_log_prob_BT: Tensor, advantages_BT: Tensor
) -> Clipped:
    """Computes PPO's objective without its upper bound: the most that an upper bound can do.

        loss = -r A if A > 0, PPO's clipped loss otherwise

    A control of comparisons, of no paper. Where no token has r > 1 + eps_high, it is PPO.
    """
    positive_BT = advantages_BT > 0
    free_BT = -advantages_BT * importance_ratio(log_prob_BT, old_log_prob_BT)
    return clipped._replace(
        loss=torch.where(positive_BT, free_BT, clipped.loss),
        clipped=clipped.clipped & ~positive_BT,
    )


def preserved_gradient(
    clipped: Clipped,
    log_prob_BT: Tensor,
    advantages_BT: Tensor,
    bounds: tuple[Tensor | float, Tensor | float],
    low: float,
    high: float,
) -> Clipped:
    """Computes CE-GPPO's objective: a clipped token keeps a bounded gradient.

        -A beta_low  (1 - eps_low)  grad log pi    if A < 0 and r < 1 - eps_low
        -A beta_high (1 + eps_high) grad log pi    if A > 0 and r > 1 + eps_high
        PPO's                                      otherwise

    At (0, 0) it is PPO, loss and gradient; (1, 1) is GPPO (arXiv 2508.07629). The loss's *value* is
    PPO's throughout (*ours*: eq. 17's has the factor beta in it, which moves nothing).

    Args:
        bounds: (eps_high, eps_low), each a number or (B, T).
        low, high: beta_low and beta_high, from 0 up; the paper's beta_1 and beta_2.

    Source: Su et al., arXiv 2509.20712 (not read); its code, github Kwai-Klear/CE-GPPO, and eqs 17
        and 18 of GPPO's paper, which is in the history of that repository (both read).
    """
    positive_BT, unit_BT = advantages_BT > 0, torch.ones_like(clipped.ratio)
    beta_BT = torch.where(positive_BT, high, low)
    # -A bound, PPO's value, with the gradient -A beta bound grad log pi
    kept_BT = clipped.loss.detach() * (1 + beta_BT * (_anchored(log_prob_BT) - 1))
    upper, lower = bounds
    bound_BT = torch.where(positive_BT, unit_BT + upper, unit_BT - lower)
    weight_BT = torch.where(clipped.clipped, beta_BT * bound_BT, clipped.ratio)
    return Clipped(
        loss=torch.where(clipped.clipped, kept_BT, clipped.loss),
        ratio=weight_BT.to(clipped.ratio.dtype),
        clipped=clipped.clipped & (beta_BT == 0),
        dual_clipped=clipped.dual_clipped,
    )


def old_probability_bounds(
    old_log_prob_BT: Tensor, eps_low: float, eps_high: float, ratio_max: float
) -> TokenBounds:
    """Computes DCPO's bounds, which are wide where the old probability q is small.

        r_high = (1 + sqrt(1 + 4 eps_high / q)) / 2        at most ratio_max
        r_low  = (1 + sqrt(max(0, 1 - 4 eps_low / q))) / 2

    the solutions of |r - 1| r q <= eps, so that a bound is on (r - 1) p instead of r - 1. r_low is
    at least 1/2.

    Args:
        old_log_prob_BT: ln q.
        eps_low, eps_high: from 0 up.
        ratio_max: of r_high, which grows without limit as q falls.

    Source: Yang et al., arXiv 2509.02333, sec. 4.1; github lime-RL/DCPO, README and code (read).
        Its advantages, smoothed over a prompt's earlier steps, are not part of this.
    """
    q = old_log_prob_BT.float().exp().clamp(min=1e-30)  # eps = 0 at q = 0 is a bound of 0
    high_BT = (1 + (1 + 4 * eps_high / q).sqrt()) / 2
    low_BT = (1 + (1 - 4 * eps_low / q).clamp(min=0).sqrt()) / 2
    return TokenBounds(upper=high_BT.clamp(max=ratio_max) - 1, lower=1 - low_BT)


def within_entropy_ratio(
    clipped: Clipped, entropy_BT: Tensor, old_entropy_BT: Tensor, low: float, high: float
) -> Clipped:
    """Computes ERC's objective: a token whose entropy left a band has no gradient.

        low < H_new / H_old < high, or the token's loss is a constant       (1e-8 added to both)

    With the band (0, infinity) it is PPO. With one update per rollout the ratio is 1 everywhere.

    Args:
        entropy_BT: H_new of the current policy, nats.
        old_entropy_BT: H_old of the policy that sampled, nats.
        low, high: the band, around 1.

    Source: Su et al., arXiv 2512.05591; github Kwai-Klear/ERC (read; the paper was not).
    """
    ratio_BT = (entropy_BT.detach() + 1e-8) / (old_entropy_BT + 1e-8)
    inside_BT = (ratio_BT > low) & (ratio_BT < high)
    return clipped._replace(
        loss=torch.where(inside_BT, clipped.loss, clipped.loss.detach()),
        clipped=clipped.clipped | ~inside_BT,
    )


def entropy_change(
    log_prob_N: Tensor, old_log_prob_N: Tensor, advantages_N: Tensor, entropy_N: Tensor
) -> Tensor:
    """Computes STEER's estimate of how much a token's update changes the entropy, of any shape.

        Omega = |A| (p / q) (1 - p) |ln p + H|

    p is the current probability, q the old one, H the old policy's entropy at the position: of the
    same ln p + H as the four regions, of either sign.

    Source: arXiv 2510.10150; github zz-haooo/STEER (read; the paper was not).
    """
    p = log_prob_N.detach().exp()
    surplus = (log_prob_N.detach() + entropy_N).abs()
    return advantages_N.abs() * (p / old_log_prob_N.exp().clamp(min=1e-8)) * (1 - p) * surplus


def reweighted(clipped: Clipped, change_BT: Tensor, rate: float, weight_min: float) -> Clipped:
    """Computes STEER's objective: PPO's with a weight per token that falls in Omega.

        w = max(exp(-k Omega), w_min)      k = -ln(w_min) / max(largest Omega, 0.02)

    The largest Omega is that of the policy that sampled, over the whole batch of a step: the driver
    knows it (*ours*: the authors take it over the micro-batch, so that the weights depend on the
    split). With w_min = 1 it is PPO.

    Args:
        change_BT: Omega (`entropy_change`).
        rate: k.
        weight_min: w_min, above 0, at most 1.

    Source: as `entropy_change`; its other weight, linear from 1.2 to 0.8, is not here.
    """
    weight_BT = (-rate * change_BT).exp().clamp(min=weight_min)
    return clipped._replace(
        loss=clipped.loss * weight_BT, ratio=(clipped.ratio * weight_BT).to(clipped.ratio.dtype)
    )


def steer_rate(largest_change: float, weight_min: float) -> float:
    """Returns STEER's k of a step (`reweighted`)."""
    return -math.log(weight_min) / max(largest_change, 0.02)


def high_entropy(entropy_BT: Tensor, mask_BT: Tensor, quantile: float) -> Tensor:
    """Returns (B, T) bool: tokens above the quantile of their own response's entropies.

    Args:
        entropy_BT: H of the policy that sampled, nats.
        mask_BT: bool, response tokens.
        quantile: in (0, 1), between entropies linearly. A response of one token has none above.

    Source: Archer, arXiv 2507.15778; github wizard-III/ArcherCodeR (read; of the paper eq. 5). The
        authors take the current policy's entropies (*ours*: those that the trainer has computed).
    """
    entropy_BT = torch.where(mask_BT, entropy_BT, torch.nan).float()
    threshold_B1 = entropy_BT.nanquantile(quantile, dim=-1, keepdim=True)
    return mask_BT & (entropy_BT > threshold_B1)


def low_entropy_share(tokens_B: Tensor, quantile: float) -> float:
    """Returns the share of all tokens that have at most the quantile of their response's entropies.

        n_low = floor((n - 1) quantile) + 1 of a response of n tokens, without ties

    Args:
        tokens_B: n, the number of response tokens of each row; 0 for a row without.
        quantile: as `high_entropy`.

    Returns:
        In (0, 1]; 1 without any token.
    """
    tokens_B = tokens_B.double()
    low_B = torch.where(tokens_B > 0, ((tokens_B - 1) * quantile).floor() + 1, 0.0)
    return (low_B.sum() / tokens_B.sum()).item() if tokens_B.any() else 1.0


def dual_bounds(high_BT: Tensor, eps: tuple[float, float], high_eps: float) -> TokenBounds:
    """Computes Archer's bounds: wide on tokens of high entropy, (eps_high, eps_low) on the others.

    Args:
        high_BT: bool (`high_entropy`).
        eps: (eps_high, eps_low) of the others.
        high_eps: of both sides of tokens of high entropy.
    """
    upper_BT, lower_BT = (torch.where(high_BT, high_eps, side) for side in eps)
    return TokenBounds(upper_BT, lower_BT)
