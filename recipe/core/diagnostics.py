"""What AsymGRPO's paper watches (arXiv 2604.04894, sec. 3 and App. B), as pure functions.

Axes: B rows (rollouts), T response tokens. Every function takes the rollout policy's own numbers,
so nothing here needs a forward pass; only `log_prob_gain` compares two policies.
A quantity that no row defines (no right rollout in the batch, say) is left out of the result rather
than logged as zero.
"""

from __future__ import annotations

import torch

ACCURACY_BINS = 8  # one bin a solved rollout at the paper's G = 8


def token_mean(values_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens of `mask_BT`; NaN when there are none."""
    return (values_BT * mask_BT).sum() / mask_BT.sum()


def _present(metrics: dict[str, torch.Tensor]) -> dict[str, float]:
    """To floats in one transfer; drops NaN, which marks a quantity that no row defines."""
    values = torch.stack([value.double() for value in metrics.values()]).tolist()
    return {name: x for name, x in zip(metrics, values, strict=True) if x == x}


def entropy_by_outcome(
    entropy_BT: torch.Tensor, mask_BT: torch.Tensor, correct_B: torch.Tensor
) -> dict[str, float]:
    """Mean token entropy (nats) over right and over wrong rollouts."""
    right_BT = mask_BT & correct_B[:, None]
    wrong_BT = mask_BT & ~correct_B[:, None]
    return _present(
        {
            "entropy/right": token_mean(entropy_BT, right_BT),
            "entropy/wrong": token_mean(entropy_BT, wrong_BT),
        }
    )


def advantage_mass(advantages_BT: torch.Tensor, mask_BT: torch.Tensor) -> dict[str, float]:
    """Mean and mass of positive and of negative advantages.

    mean = average over the tokens of that sign; mass = their sum over all response tokens,
    divided by the number of response tokens: what that sign adds to a token-mean loss.
    """
    positive_BT = mask_BT & (advantages_BT > 0)
    negative_BT = mask_BT & (advantages_BT < 0)
    tokens = mask_BT.sum()
    return _present(
        {
            "advantage/positive_mean": token_mean(advantages_BT, positive_BT),
            "advantage/negative_mean": token_mean(advantages_BT, negative_BT),
            "advantage/positive_mass": (advantages_BT * positive_BT).sum() / tokens,
            "advantage/negative_mass": (advantages_BT * negative_BT).sum() / tokens,
        }
    )


def _group_mean(values_B: torch.Tensor, group_B: torch.Tensor, groups: int) -> torch.Tensor:
    total_P = values_B.new_zeros(groups).index_add_(0, group_B, values_B)
    count_P = values_B.new_zeros(groups).index_add_(0, group_B, torch.ones_like(values_B))
    return total_P / count_P


def group_accuracy(correct_B: torch.Tensor, group_B: torch.Tensor) -> torch.Tensor:
    """(P,) float64: p, the share of right rollouts of each group. Group ids are 0..P-1."""
    return _group_mean(correct_B.double(), group_B, int(group_B.max()) + 1)


def group_outcomes(correct_B: torch.Tensor, group_B: torch.Tensor) -> dict[str, float]:
    """Shares of groups with every rollout right, and with none right."""
    p_P = group_accuracy(correct_B, group_B)
    return _present(
        {
            "groups/all_right": (p_P == 1).double().mean(),
            "groups/all_wrong": (p_P == 0).double().mean(),
        }
    )


def covariance_by_accuracy(
    log_prob_BT: torch.Tensor,
    advantages_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    correct_B: torch.Tensor,
    group_B: torch.Tensor,
) -> dict[str, float]:
    """Covariance of length-normalised log-prob and advantage, by group accuracy (eqs 12-14).

    lbar_i = (1/|y_i|) sum_t log pi(y_it);  Cov = (1/G) sum_i (lbar_i - mean lbar)(A_i - mean A),
    averaged over the groups whose accuracy p falls in ((b-1)/8, b/8], b = 1..8; a name ends in its
    bin's upper edge. At the paper's G = 8 a bin is one accuracy. Groups with p = 0 or 1 are left
    out (their advantages are all alike, so Cov = 0). A_i is the row's token-mean advantage.
    """
    length_B = mask_BT.sum(1).clamp(min=1)
    lbar_B = ((log_prob_BT * mask_BT).sum(1) / length_B).double()
    advantage_B = ((advantages_BT * mask_BT).sum(1) / length_B).double()
    p_P = group_accuracy(correct_B, group_B)
    groups = len(p_P)
    centred_B = (lbar_B - _group_mean(lbar_B, group_B, groups)[group_B]) * (
        advantage_B - _group_mean(advantage_B, group_B, groups)[group_B]
    )
    cov_P = _group_mean(centred_B, group_B, groups)
    mixed_P = (p_P > 0) & (p_P < 1)
    # p = k/G is not exact in floating point: a hair below k/8 must not fall one bin short
    bin_P = torch.ceil(p_P * ACCURACY_BINS - 1e-9).long()
    metrics = {"covariance/all": cov_P[mixed_P].mean()}
    for b in range(1, ACCURACY_BINS + 1):
        metrics[f"covariance/p_{b / ACCURACY_BINS:.3f}"] = cov_P[mixed_P & (bin_P == b)].mean()
    return _present(metrics)


def log_prob_gain(
    new_log_prob_BT: torch.Tensor,
    old_log_prob_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    correct_B: torch.Tensor,
) -> dict[str, float]:
    """E[log pi_new(y) - log pi_old(y)] over right rollouts (nats a rollout): what an update gave
    to the rollouts that it was meant to make likelier. Negative = lazy likelihood displacement.
    Rows without a response token (padding) are left out."""
    gain_B = ((new_log_prob_BT - old_log_prob_BT) * mask_BT).sum(1)
    return _present({"log_prob_gain/right": gain_B[correct_B & mask_BT.any(1)].mean()})


def rollout_diagnostics(
    *,
    entropy_BT: torch.Tensor,
    log_prob_BT: torch.Tensor,
    advantages_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    correct_B: torch.Tensor | None,
    group_B: torch.Tensor,
) -> dict[str, float]:
    """All diagnostics of one rollout batch; rows without a response token (padding) are dropped.
    Without `correct_B`, only those that need no right or wrong."""
    real_B = mask_BT.any(1)
    mask_BT, advantages_BT = mask_BT[real_B], advantages_BT[real_B]
    if correct_B is None:
        return advantage_mass(advantages_BT, mask_BT)
    correct_B = correct_B[real_B]
    group_B = torch.unique(group_B[real_B], return_inverse=True)[1]
    entropy_BT, log_prob_BT = entropy_BT[real_B], log_prob_BT[real_B]
    return {
        **entropy_by_outcome(entropy_BT, mask_BT, correct_B),
        **advantage_mass(advantages_BT, mask_BT),
        **group_outcomes(correct_B, group_B),
        **covariance_by_accuracy(log_prob_BT, advantages_BT, mask_BT, correct_B, group_B),
    }
