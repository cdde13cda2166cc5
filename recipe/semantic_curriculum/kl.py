"""The KL term of SENT's objective (arXiv 2512.04359, method figure, panel b), as a pure function.

Axes: B rows (rollouts), T response tokens. Nothing here copies to the host.
"""

from __future__ import annotations

from torch import Tensor

from recipe.core.clip import MAX_LOG_RATIO

MAX_K3 = 10.0  # verl's clamp of k3


def anchored_kl(
    log_prob_BT: Tensor, anchor_BT: Tensor, beta_BT: Tensor, estimator: str
) -> tuple[Tensor, Tensor]:
    """Computes beta KL(pi_theta || anchor) of each token.

    The estimators are those of verl's `kl_penalty`, of d = anchor - log p:

        abs  |d|        k1  -d        k2  d^2 / 2        k3  exp(d) - d - 1

    Beyond verl's clamps of k3, |d| > 20 and k3 > 10, a token has no gradient.

    Args:
        log_prob_BT: ln of the current policy's probabilities; receives the gradient.
        anchor_BT: the same of the reference or of the old policy, without gradient.
        beta_BT: coefficient of each token.
        estimator: "abs", "k1", "k2" or "k3".

    Returns:
        beta KL, to be added to the loss, and the KL itself without gradient, both (B, T).

    Raises:
        ValueError: if there is no such estimator.

    Source: arXiv 2512.04359, method figure, panel b; the estimators: J. Schulman, Approximating KL
        Divergence (2020). The paper names none.
    """
    d = anchor_BT - log_prob_BT
    if estimator == "abs":
        kl = d.abs()
    elif estimator == "k1":
        kl = -d
    elif estimator == "k2":
        kl = d**2 / 2
    elif estimator == "k3":
        d = d.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        kl = (d.exp() - d - 1).clamp(max=MAX_K3)
    else:
        raise ValueError(f"estimator={estimator} is not known: use abs, k1, k2 or k3.")
    return beta_BT * kl, kl.detach()
