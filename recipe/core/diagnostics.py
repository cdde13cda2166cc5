"""What a batch of rollouts shows of exploration, as pure functions: entropy and advantages by
outcome, group accuracies, covariances. Source: arXiv 2604.04894, sec. 3 and App. B.

Axes: B rows (rollouts), P prompts (groups), N tokens of all rows, one row after another, without
padding: `length_B` says how many of the N tokens each row has, `mask_N` which of them are response
tokens. What stands on the other tokens has no influence. A row without a response token, with which
verl pads a batch, has none either. Sums are taken in float64.

Every function takes the rollout policy's own numbers, so nothing here needs a forward pass; only
`log_prob_gain` compares two policies. A quantity that no row defines (no correct rollout in the
batch, say) is left out of the result, not logged as zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

ACCURACY_BINS = 8  # one bin per solved rollout at the paper's G = 8


def token_mean(values_N: Tensor, mask_N: Tensor) -> Tensor:
    """Averages over tokens.

    Args:
        values_N: Any shape.
        mask_N: bool, in the same shape: the tokens to average over.

    Returns:
        0-dim float64; NaN where there is no token.
    """
    return _total(values_N, mask_N) / mask_N.count_nonzero()


def _total(values_N: Tensor, mask_N: Tensor) -> Tensor:
    return torch.where(mask_N, values_N, 0).sum(dtype=torch.float64)


def row_sums(values_N: Tensor, mask_N: Tensor, length_B: Tensor) -> Tensor:
    """Sums over each row's response tokens.

    Args:
        values_N: (N,).
        mask_N: (N,) bool, response tokens.
        length_B: (B,) long, tokens of each row; sums to N.

    Returns:
        (B,) float64; 0 for a row without a response token.
    """
    values_N = torch.where(mask_N, values_N, 0).double()
    return torch.segment_reduce(values_N, "sum", lengths=length_B)


def row_tokens(mask_N: Tensor, length_B: Tensor) -> Tensor:
    """Returns (B,) float64: the number of each row's response tokens; arguments as `row_sums`."""
    # in float32 exact below 2^24 tokens per row, and twice as fast
    return torch.segment_reduce(mask_N.float(), "sum", lengths=length_B).double()


def _floats(metrics: dict[str, Tensor]) -> dict[str, float]:
    """Converts in one transfer; drops NaN, which marks a quantity that no row defines."""
    if not metrics:
        return {}
    values = torch.stack([value.double() for value in metrics.values()]).tolist()
    return {name: x for name, x in zip(metrics, values, strict=True) if x == x}


def entropy_by_outcome(
    entropy_N: Tensor, mask_N: Tensor, length_B: Tensor, correct_B: Tensor
) -> dict[str, float]:
    """Averages the token entropy over correct and over incorrect rollouts.

    Args:
        entropy_N: (N,), nats.
        mask_N, length_B: See above.
        correct_B: (B,) bool.

    Returns:
        "entropy/correct" and "entropy/incorrect", nats per token.
    """
    sum_B = row_sums(entropy_N, mask_N, length_B)
    tokens_B = row_tokens(mask_N, length_B)
    return _floats(
        {
            f"entropy/{name}": sum_B[row_B].sum() / tokens_B[row_B].sum()
            for name, row_B in (("correct", correct_B), ("incorrect", ~correct_B))
        }
    )


def advantage_mass(advantages_N: Tensor, mask_N: Tensor) -> dict[str, float]:
    """Sums positive and negative advantages.

    Args:
        advantages_N: (N,).
        mask_N: (N,) bool, response tokens.

    Returns:
        "advantage/<sign>_mean": the average over the tokens of that sign.
        "advantage/<sign>_mass": their sum over all response tokens, divided by the number of
            response tokens: what that sign adds to a token-mean loss.
    """
    tokens = mask_N.count_nonzero()
    metrics = {}
    for sign, member_N in (
        ("positive", mask_N & (advantages_N > 0)),
        ("negative", mask_N & (advantages_N < 0)),
    ):
        total = _total(advantages_N, member_N)
        metrics[f"advantage/{sign}_mean"] = total / member_N.count_nonzero()
        metrics[f"advantage/{sign}_mass"] = total / tokens
    return _floats(metrics)


def _group_mean(values_B: Tensor, group_B: Tensor, groups: int) -> Tensor:
    total_P = values_B.new_zeros(groups).index_add_(0, group_B, values_B)
    count_P = values_B.new_zeros(groups).index_add_(0, group_B, torch.ones_like(values_B))
    return total_P / count_P


def group_accuracy(correct_B: Tensor, group_B: Tensor) -> Tensor:
    """Returns (P,) float64: p, the share of correct rollouts of each group.

    Args:
        correct_B: (B,) bool.
        group_B: (B,) long, 0..P-1.
    """
    return _group_mean(correct_B.double(), group_B, int(group_B.max()) + 1)


def group_outcomes(correct_B: Tensor, group_B: Tensor) -> dict[str, float]:
    """Returns the shares of groups whose rollouts are all correct, and all incorrect.

    Args:
        correct_B: (B,) bool.
        group_B: (B,) long, 0..P-1.
    """
    p_P = group_accuracy(correct_B, group_B)
    return _floats(
        {
            "groups/all_correct": (p_P == 1).double().mean(),
            "groups/all_incorrect": (p_P == 0).double().mean(),
        }
    )


def group_pass_at_k(correct_B: Tensor, group_B: Tensor) -> dict[str, float]:
    """Returns pass@k of the groups for k = 2, 4, 8, … up to the largest group's size n.

        1 - C(n - c, k) / C(n, k) = 1 - prod of (n - c - i) / (n - i) over i < k

    c of a group's n rollouts are correct; the mean is over the groups with at least k rollouts.
    Unbiased for the policy that sampled them; at k = n it is the share of groups that are not all
    incorrect.

    Args:
        correct_B: (B,) bool.
        group_B: (B,) long, 0..P-1.

    Source: arXiv 2107.03374, eq. 1.
    """
    n_P = torch.bincount(group_B).double()
    c_P = torch.bincount(group_B, correct_B.double())
    metrics, k = {}, 2
    while k <= n_P.max():
        some_P = n_P >= k
        n, c = n_P[some_P, None], c_P[some_P, None]
        i = torch.arange(k)
        failing = ((n - c - i) / (n - i)).prod(1)  # 0 where n - c < k: a factor is
        metrics[f"groups/pass@{k}"] = (1 - failing).mean()
        k *= 2
    return _floats(metrics)


def response_lengths(length_B: Tensor, correct_B: Tensor | None, limit: int) -> dict[str, float]:
    """Returns the share of responses that the limit of their length has cut off, and the mean
    length in tokens of correct and of incorrect ones.

    verl's `response_length/clip_ratio` is the share of responses as long as the batch's longest.
    One that ends with the last allowed token counts as cut off.

    Args:
        length_B: (B,) tokens of each response.
        correct_B: (B,) bool; None: not known.
        limit: `data.max_response_length`.
    """
    length_B = length_B.double()
    metrics = {"length/truncated": (length_B >= limit).double().mean()}
    if correct_B is not None:
        for name, member_B in (("correct", correct_B), ("incorrect", ~correct_B)):
            metrics[f"length/{name}"] = length_B[member_B].mean()
    return _floats(metrics)


def covariance_by_accuracy(
    log_prob_N: Tensor,
    advantages_N: Tensor,
    mask_N: Tensor,
    length_B: Tensor,
    correct_B: Tensor,
    group_B: Tensor,
    real_B: Tensor | None = None,
) -> dict[str, float]:
    """Computes the covariance of length-normalised log-prob and advantage, by group accuracy.

        lbar_i = (1/|y_i|) sum_t log pi(y_it)                               (eq 12)
        Cov = (1/G) sum_i (lbar_i - mean lbar) (A_i - mean A)               (eqs 13, 14)

    A_i is the row's token-mean advantage.

    Args:
        log_prob_N, advantages_N: (N,); log-probs in nats.
        mask_N, length_B: See above.
        correct_B: (B,) bool.
        group_B: (B,) long, 0..P-1 on the rows of real_B.
        real_B: (B,) bool, the rollouts of which p is the share; None: those with a response token.
            Those among them without a
            response token (verl's rollout correction may reject all tokens of a rollout) have no
            lbar and are left out of the means.

    Returns:
        "covariance/all": Cov, averaged over the groups with 0 < p < 1; in the others the advantages
            are all alike, so Cov = 0.
        "covariance/p_<b/8>": the same over the groups with p in ((b-1)/8, b/8], b = 1..8. At the
            paper's G = 8 a bin is one accuracy.
    """
    tokens_B = row_tokens(mask_N, length_B)
    with_tokens_B = tokens_B > 0 if real_B is None else real_B & (tokens_B > 0)
    counted_B = with_tokens_B if real_B is None else real_B
    p_P = group_accuracy(correct_B[counted_B], group_B[counted_B])
    # lbar_i = (1/|y_i|) sum_t log pi(y_it)
    lbar_B = (row_sums(log_prob_N, mask_N, length_B) / tokens_B)[with_tokens_B]
    advantage_B = (row_sums(advantages_N, mask_N, length_B) / tokens_B)[with_tokens_B]
    group_B = group_B[with_tokens_B]
    # Cov = (1/G) sum_i (lbar_i - mean lbar) (A_i - mean A)
    cov_P = _group_mean(
        (lbar_B - _group_mean(lbar_B, group_B, len(p_P))[group_B])
        * (advantage_B - _group_mean(advantage_B, group_B, len(p_P))[group_B]),
        group_B,
        len(p_P),
    )
    mixed_P = (p_P > 0) & (p_P < 1)
    bin_P = (p_P * ACCURACY_BINS).ceil()  # b with p in ((b-1)/8, b/8]; p = b/8 is exact in float64
    metrics = {"covariance/all": cov_P[mixed_P].nanmean()}
    for b in range(1, ACCURACY_BINS + 1):
        metrics[f"covariance/p_{b / ACCURACY_BINS:.3f}"] = cov_P[mixed_P & (bin_P == b)].nanmean()
    return _floats(metrics)


def log_prob_gain(
    new_log_prob_N: Tensor,
    old_log_prob_N: Tensor,
    mask_N: Tensor,
    length_B: Tensor,
    correct_B: Tensor,
) -> dict[str, float]:
    """Computes what an update gave to the rollouts that it was meant to make likelier.

        E[log pi_new(y) - log pi_old(y)] over correct rollouts

    Args:
        new_log_prob_N, old_log_prob_N: (N,), nats.
        mask_N, length_B: See above.
        correct_B: (B,) bool.

    Returns:
        "log_prob_gain/correct", nats per rollout; negative is lazy likelihood displacement.
    """
    gain_B = row_sums(new_log_prob_N.double() - old_log_prob_N, mask_N, length_B)
    real_B = row_tokens(mask_N, length_B) > 0
    return _floats({"log_prob_gain/correct": gain_B[correct_B & real_B].mean()})


def rollout_diagnostics(
    *,
    entropy_N: Tensor,
    log_prob_N: Tensor,
    advantages_N: Tensor,
    mask_N: Tensor,
    length_B: Tensor,
    correct_B: Tensor | None,
    group_B: Tensor,
    real_B: Tensor | None = None,
) -> dict[str, float]:
    """Computes all diagnostics of one batch of rollouts that need no second policy.

    Args:
        entropy_N, log_prob_N: (N,), nats.
        advantages_N: (N,).
        mask_N, length_B: See above.
        correct_B: (B,) bool; None leaves only the diagnostics that do not need it.
        group_B: (B,) long, the prompt of each row.
        real_B: (B,) bool, rows that are rollouts and count for their group's accuracy; None: those
            with a response token.
    """
    metrics = _floats({"entropy/all": token_mean(entropy_N, mask_N)})
    metrics |= advantage_mass(advantages_N, mask_N)
    if correct_B is None:
        return metrics
    if real_B is None:
        real_B = row_tokens(mask_N, length_B) > 0
    # numbered 0..P-1 over the real rows: padding has groups of its own
    real_group_B = torch.unique(group_B[real_B], return_inverse=True)[1]
    dense_B = torch.zeros_like(group_B).masked_scatter_(real_B, real_group_B)
    return {
        **entropy_by_outcome(entropy_N, mask_N, length_B, correct_B),
        **metrics,
        **group_outcomes(correct_B[real_B], real_group_B),
        **group_pass_at_k(correct_B[real_B], real_group_B),
        **covariance_by_accuracy(
            log_prob_N, advantages_N, mask_N, length_B, correct_B, dense_B, real_B
        ),
    }
