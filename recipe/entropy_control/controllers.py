"""Controllers of the entropy as pure functions: of the step, or of the entropy and a state.

Entropies H are in nats per token, of the policy before a step's update; k counts steps from 0.
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
        entropy: H before this update (*ours*: the authors take the mean of the update before,
            whose policy is one mini-batch older).

    Source: Skywork-OR1, arXiv 2505.22312; github SkyworkAI/Skywork-OR1 (read; the paper was not).
    """
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

    Source: Entrocraft, arXiv 2604.26326, abstract (rejection by the advantage, for any estimator).
        Its code (github lblaoke/entrocraft, read) gives what it keeps the plain reward, +1 or -1,
        in place of GRPO's advantage (*ours*: the estimator's stays).
    """
    if entropy < lower:
        return advantages_N.clamp(max=0)
    if entropy > upper:
        return advantages_N.clamp(min=0)
    return advantages_N


class PIState(NamedTuple):
    """EntroPIC's state, and the weight of this step."""

    total: float  # sum of H - target over the steps up to this one
    alpha: float


def pi_weight(
    total: float, entropy: float, target: float, proportional: float, integral: float, limit: float
) -> PIState:
    """Moves EntroPIC's weight by one step.

        e_k = H_k - H*          alpha_k = clip(K_p e_k + K_i sum of e_j, j < k, -limit, limit)

    At H = H* throughout, alpha is 0 and no advantage changes.

    Args:
        total: the sum of e_j over the steps before.

    Source: EntroPIC, arXiv 2511.15248, as github lblaoke/entrocraft compares it (read; paper and
        authors' code were not). The limit is *ours*: beyond 1 a weight would change its sign.
    """
    error = entropy - target
    alpha = proportional * error + integral * total
    return PIState(total + error, min(max(alpha, -limit), limit))


def weigh_signs(advantages_N: Tensor, alpha: float) -> Tensor:
    """Returns the advantages with positive ones times 1 + alpha, negative ones times 1 - alpha.

    Source: as `pi_weight`.
    """
    return advantages_N * torch.where(advantages_N > 0, 1 + alpha, 1 - alpha)
