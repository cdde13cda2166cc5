"""The clipped policy objective with one bound per token, as pure functions.

A bound is a line in the token's probability, eps(p) = slope p + intercept; a constant is a line of
slope 0. So four numbers say where the bounds of a step are, however many tokens there are.

Axes: B rows (rollouts), T response tokens. Nothing here copies to the host.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

MAX_LOG_RATIO = 20.0  # verl's clamp of ln(ratio)


class Line(NamedTuple):
    """eps(p) = slope p + intercept, for a probability p in [0, 1]."""

    slope: float
    intercept: float

    def lerp(self, other: Line, weight: float) -> Line:
        """Returns (1 - weight) self + weight other; exact at weight 0 and 1."""
        slope, intercept = ((1 - weight) * a + weight * b for a, b in zip(self, other, strict=True))
        return Line(slope, intercept)


class Bounds(NamedTuple):
    """How far a token's ratio may go before it loses its gradient.

    A token keeps its gradient while ratio <= 1 + upper(p) if A > 0, and while
    ratio >= 1 - lower(p) if A < 0. eps_min and eps_max cut both lines off.
    """

    upper: Line
    lower: Line
    eps_min: float = 0.0
    eps_max: float = 1.0

    def epsilons(self, p: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Evaluates both lines.

        Args:
            p: probabilities of the tokens, any shape.

        Returns:
            (upper, lower), each of the shape and dtype of p; where the line's slope is 0, a plain
            number, so that constant bounds are rounded as in verl.
        """
        return self._epsilon(self.upper, p), self._epsilon(self.lower, p)

    def _epsilon(self, line: Line, p: Tensor) -> Tensor | float:
        if line.slope == 0:
            return min(max(line.intercept, self.eps_min), self.eps_max)
        return (line.slope * p + line.intercept).clamp(self.eps_min, self.eps_max)


class TokenBounds(NamedTuple):
    """Bounds of their own for each token, (B, T) each and without gradient."""

    upper: Tensor
    lower: Tensor

    def epsilons(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (upper, lower); the probabilities do not matter."""
        return self.upper, self.lower


class Clipped(NamedTuple):
    """The objective of each token and what it did, all (B, T); only the loss has a gradient."""

    loss: Tensor
    ratio: Tensor  # pi_theta / pi_old; what -A grad log pi is multiplied by, where not clipped
    clipped: Tensor  # bool: the token lost its gradient to a bound
    dual_clipped: Tensor  # bool: A < 0, and the dual clip took the token's gradient

    def weight(self) -> Tensor:
        """Returns (B, T): what -A grad log pi is multiplied by in the token's gradient."""
        return torch.where(self.clipped | self.dual_clipped, 0.0, self.ratio)


def importance_ratio(log_prob: Tensor, old_log_prob: Tensor) -> Tensor:
    """Returns pi_theta / pi_old of each token, of any shape.

    ln r is clamped to [-20, 20] as in verl's own losses: beyond, the ratio is finite and has no
    gradient.
    """
    return (log_prob - old_log_prob).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def clipped_objective(
    log_prob_BT: Tensor,
    old_log_prob_BT: Tensor,
    advantages_BT: Tensor,
    bounds: Bounds | TokenBounds,
    clip_ratio_c: float,
) -> Clipped:
    """Computes the clipped objective of PPO with bounds that may depend on the token.

        loss = -min(r A, clip(r, 1 - eps_lower(p), 1 + eps_upper(p)) A)     r = pi_theta / pi_old
        and for A < 0, at most -c A                                         (dual clip)

    With constant bounds, loss and gradient are those of verl's `vanilla` to the bit, whatever the
    dtypes. Where two sides of a maximum tie, each has half of the gradient, as in verl.

    Dtypes are torch's promotions, as in verl: ratio and bounds are in the dtype of the log-probs,
    the loss in that of log-probs and advantages together. bf16 log-probs so give a float32 loss
    with float32 advantages, but a bound of 1.2 is then 1.203, the nearest that the ratio can be.

    Args:
        log_prob_BT: ln of the current policy's probabilities; receives the gradient.
        old_log_prob_BT: the same of the policy that sampled, without gradient.
        advantages_BT: without gradient.
        bounds: of this step.
        clip_ratio_c: c of the dual clip, above 1.

    Returns:
        The loss of each token, to be aggregated, and what happened to it.

    Source: Schulman et al., arXiv 1707.06347, eq 7; bounds per token: arXiv 2602.09782 v1, sec. 4
        (p is the current policy's, detached: *ours*, the paper is silent; with gradient through it
        a clipped token would still push); dual clip: Ye et al., arXiv 1912.09729; ln r is
        clamped to [-20, 20] as in verl, beyond which a token has no gradient.
    """
    A, p = advantages_BT, log_prob_BT.detach().exp()
    # r = pi_theta / pi_old
    ratio = importance_ratio(log_prob_BT, old_log_prob_BT)
    # clip(r, 1 - eps_lower(p), 1 + eps_upper(p))
    upper, lower = bounds.epsilons(p)
    clipped_ratio = ratio.clamp(max=1 + upper).clamp(min=1 - lower)
    # -min(r A, clip(r) A)
    plain, bound = -A * ratio, -A * clipped_ratio
    loss = torch.maximum(plain, bound)
    # min(loss, -c A) for A < 0
    dual = -A * clip_ratio_c
    return Clipped(
        loss=torch.where(A < 0, torch.minimum(loss, dual), loss),
        ratio=ratio.detach(),
        clipped=bound > plain,
        dual_clipped=(A < 0) & (loss > dual),
    )
