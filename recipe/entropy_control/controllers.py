"""Controllers of the entropy as pure functions: of the step, or of the entropy and a state.

Entropies H are in nats per token, of the policy before a step's update; k counts steps from 0. A
step whose tokens are all rejected has none (NaN): it changes neither a state nor an advantage.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


def annealed(start: float, end: float, k: int, total_steps: int, shape: str) -> float:
    """Returns a value on the way from start to end; from k = T on, the end.

        linear: start + (end - start) k / T
        cosine: start + (end - start) (1 - cos(pi k / T)) / 2

    Source: *ours* for an entropy coefficient; for Entrocraft's lines arXiv 2604.26326, github
        lblaoke/entrocraft (read).
    """
    progress = min(k / total_steps, 1.0)
    if shape == "cosine":
        progress = (1 - math.cos(math.pi * progress)) / 2
    return (1 - progress) * start + progress * end


class Coefficient(NamedTuple):
    """The target controller's state, and what it gives the loss."""

    value: float  # kept from step to step
    realized: float  # of this step's update


def follow_target(
    value: float, entropy: float, target: float, delta: float, low: float, high: float
) -> Coefficient:
    """Moves the coefficient of the entropy towards a target by one step.

        c <- clip(c + delta, low, high) if H < target, clip(c - delta, low, high) otherwise
        the loss gets c if H < target, 0 otherwise

    Where H never falls below the target, the loss never has a bonus.

    Args:
        value: c of the step before.
        entropy: H before this update, exact (*ours*: the authors' code takes the mean of -log p of
            the tokens sampled in the step before).

    Source: Skywork-OR1, arXiv 2505.22312, eq. 3.2, and github SkyworkAI/Skywork-OR1 (both read).
        The loss gets the coefficient from after the change, as in the code; in the paper the one
        from before it.
    """
    if not math.isfinite(entropy):
        return Coefficient(value, 0.0)
    below = entropy < target
    value = min(max(value + (delta if below else -delta), low), high)
    return Coefficient(value, value if below else 0.0)


def drop_by_range(advantages_N: Tensor, entropy: float, lower: float, upper: float) -> Tensor:
    """Drops the advantages that would move the entropy further out of a range.

        A > 0 -> 0 if H < lower          A < 0 -> 0 if H > upper          A otherwise

    Positive advantages lower the entropy on the whole, negative ones raise it. Within the range
    nothing changes. The lines may be one.

    Args:
        advantages_N: of any estimator and shape.

    Source: Entrocraft, arXiv 2604.26326, Alg. 1. Its code (github lblaoke/entrocraft, read) gives
        what it keeps the plain reward, +1 or -1, in place of GRPO's advantage; the paper's
        equations, and this, keep the estimator's.
    """
    if not math.isfinite(entropy):
        return advantages_N
    if entropy < lower:
        return advantages_N.clamp(max=0)
    if entropy > upper:
        return advantages_N.clamp(min=0)
    return advantages_N


def over_accepted(advantages_N: Tensor, accepted_N: Tensor, mask_N: Tensor) -> Tensor:
    """Makes a mean over all tokens one over those of the accepted rollouts.

        A <- A N / N_accepted

    Args:
        advantages_N: (N,), 0 where a rollout is rejected.
        accepted_N: (N,) bool.
        mask_N: (N,) bool, response tokens.

    Returns:
        (N,); as it was where no rollout, or every one, is accepted.

    Source: Entrocraft, arXiv 2604.26326, eq. 5: 1 / |S_x| over the accepted rollouts S_x of a
        prompt. *Ours*: tokens in place of rollouts, as the token mean counts them, and the step's
        in place of a prompt's, so that the factor is that of every mini-batch. It makes the loss
        that mean under the token mean; under a mean per rollout (`seq-mean-token-mean`) it is
        not eq. 5, whose factor counts rollouts, unless the accepted ones have the mean length.
    """
    accepted = int((accepted_N & mask_N).sum())
    total = int(mask_N.sum())
    return advantages_N if accepted in (0, total) else advantages_N * (total / accepted)


class PIState(NamedTuple):
    """EntroPIC's state, and the weight of this step."""

    total: float  # sum of H - target over the updates up to this step's
    alpha: float


def pi_weight(
    total: float,
    entropy: float,
    target: float,
    proportional: float,
    integral: float,
    limit: float,
    updates: int = 1,
) -> PIState:
    """Moves EntroPIC's weight by one step.

        e_k = H_k - H*          alpha_k = clip(K_p e_k + K_i sum of e_j, j < k, -limit, limit)

    At H = H* throughout, alpha is 0 and no advantage changes.

    Args:
        total: the sum of e_j over the updates before.
        updates: of the actor in this step: the authors' code measures e in each of them, here it is
            the step's (*ours*).

    Source: EntroPIC, arXiv 2511.15248, github yk7333/EntroPIC (read; the paper was not).
    """
    if not math.isfinite(entropy):
        return PIState(total, 0.0)
    error = entropy - target
    alpha = proportional * error + integral * total
    return PIState(total + updates * error, min(max(alpha, -limit), limit))


def weigh_probable(
    advantages_N: Tensor, log_prob_N: Tensor, mask_N: Tensor, alpha: float, above: float
) -> Tensor:
    """Weighs the advantages of probable tokens: correct rollouts' up and incorrect ones' down
    lowers the entropy, the other way round raises it.

        L = L_PPO - alpha mean of r |A| over the tokens with p > above
        A <- A + alpha |A| N / N_probable    for these of the N response tokens; other A stay

    With `above` 0, A > 0 is multiplied by 1 + alpha and A < 0 by 1 - alpha.

    Args:
        advantages_N: (N,), of any estimator.
        log_prob_N: (N,), nats, of the policy that sampled.
        mask_N: (N,) bool, response tokens.
        alpha: of `pi_weight`.
        above: a probability; 0: all tokens, as github lblaoke/entrocraft compares the method.

    Returns:
        (N,); as it was where no token is that probable.

    Source: as `pi_weight`. There the term takes p, and its mean, from each micro-batch's present
        policy, and has no clip. *Ours:* p is the old policy's and the mean the step's, so that
        neither depends on the split; and PPO's clip holds for the term too, which such a token
        (r < 1.06) meets only where r is below the lower bound and its new advantage negative. The
        weight N / N_probable makes the term a mean over its tokens in a token-mean loss; under
        another aggregation it is weighted as that loss weighs its tokens.
    """
    probable_N = mask_N & (log_prob_N > torch.tensor(above).log())
    weight = alpha * mask_N.sum() / probable_N.sum().clamp(min=1)
    return advantages_N + torch.where(probable_N, weight * advantages_N.abs(), 0.0)
