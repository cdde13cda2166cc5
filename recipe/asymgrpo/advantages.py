"""Advantages of AsymGRPO (arXiv 2604.04894 v1), of the baselines in its Table 1, and of others.

Axes: B rows (rollouts), P prompts (groups), T response tokens.

Every estimator of a row's advantage has these in common. p is a group's accuracy: the share of
correct rows among its n counted rows.

Args:
    correct_B: bool, is the rollout correct.
    group_B: long, the row's group, 0..P-1; groups may differ in size.
    valid_B: bool, rows to count; None for all.

Returns:
    (B,) float32, computed in float64. A row that is not counted gets 0 and touches no group.
"""

from __future__ import annotations

import torch
from torch import Tensor


def group_counts(
    correct_B: Tensor, group_B: Tensor, valid_B: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Returns (correct_P, incorrect_P), float64: how many counted rows of each group are which."""
    incorrect_B = ~correct_B
    if valid_B is not None:
        correct_B, incorrect_B = correct_B & valid_B, incorrect_B & valid_B
    return (
        torch.bincount(group_B, weights=correct_B.double()),
        torch.bincount(group_B, weights=incorrect_B.double()),
    )


def _by_outcome(
    pos_P: Tensor, neg_P: Tensor, correct_B: Tensor, group_B: Tensor, valid_B: Tensor | None
) -> Tensor:
    """Gives each row its group's value for its outcome; 0 if the row is not counted."""
    adv_B = torch.where(correct_B, pos_P[group_B], neg_P[group_B])
    if valid_B is not None:
        adv_B = torch.where(valid_B, adv_B, 0.0)
    return adv_B.float()


# --- the paper's estimators ---


def odds_advantage(
    correct_B: Tensor,
    group_B: Tensor,
    beta_pos: float,
    beta_neg: float,
    valid_B: Tensor | None = None,
) -> Tensor:
    """Computes AsymGRPO's advantage (eq 10).

        A = ((1-p)/p)^beta_pos if correct, -(p/(1-p))^beta_neg if incorrect

    (0, 0) is REINFORCE's +1/-1 (eq 5); (0.5, 0.5) GRPO, population std, no epsilon (eq 6).
    One-sided groups follow from 0^0 = 1 (*ours*, the paper is silent): all correct gets 0 if
    beta_pos > 0 and +1 at 0; all incorrect gets 0 if beta_neg > 0 and -1 at 0. So does a group of
    one.
    """
    correct_P, incorrect_P = group_counts(correct_B, group_B, valid_B)
    # ((1-p)/p)^beta_pos, as (1-p)/p = incorrect/correct
    pos_P = (incorrect_P / correct_P) ** beta_pos
    # -(p/(1-p))^beta_neg
    neg_P = -((correct_P / incorrect_P) ** beta_neg)
    return _by_outcome(pos_P, neg_P, correct_B, group_B, valid_B)


def ent_decrease_advantage(
    correct_B: Tensor, group_B: Tensor, valid_B: Tensor | None = None
) -> Tensor:
    """Computes EntDecrease (sec. 3.2, App. D eqs 15-18): GRPO with the positive curve flipped.

    Correct rows get Atilde(p) = A_pos(1-p) = sqrt(p/(1-p)) up to p = (n-1)/n, from there the line
    through the last two points, up to V = 2 Atilde((n-1)/n) - Atilde((n-2)/n) at p = 1. As p is a
    multiple of 1/n, only the line's end is ever used: all-correct groups get V (3.56 at n = 8), not
    GRPO's 0. n = 2: (n-2)/n = 0 and V = 2. n = 1: there is no line; 0, as GRPO (*ours*).
    """
    correct_P, incorrect_P = group_counts(correct_B, group_B, valid_B)
    # Atilde(p) = sqrt(p/(1-p))
    curve_P = (correct_P / incorrect_P).sqrt()
    # V, where n = correct: Atilde((n-1)/n) = sqrt(n-1), Atilde((n-2)/n) = sqrt((n-2)/2)
    before_P, two_before_P = (correct_P - 1).clamp(min=0), (correct_P - 2).clamp(min=0)
    end_P = 2 * before_P.sqrt() - (two_before_P / 2).sqrt()
    pos_P = torch.where(incorrect_P > 0, curve_P, end_P)
    return _by_outcome(pos_P, -curve_P, correct_B, group_B, valid_B)


def ent_increase_advantage(
    correct_B: Tensor, group_B: Tensor, valid_B: Tensor | None = None
) -> Tensor:
    """Computes EntIncrease (sec. 3.2, App. D eqs 15-18): GRPO with the negative curve flipped.

    Incorrect rows get A_neg(1-p) = -sqrt((1-p)/p), and -V in all-incorrect groups (-3.56 at n = 8):
    it is EntDecrease with correct and incorrect, and the sign, exchanged.
    """
    return -ent_decrease_advantage(~correct_B, group_B, valid_B)


# --- its baselines ---


def _group_std(correct_P: Tensor, incorrect_P: Tensor, std: str) -> Tensor:
    """Returns (P,): the std of each group's 0/1 rewards, population (n) or sample (n-1)."""
    n_P = correct_P + incorrect_P
    # std^2 = sum (r - p)^2 / n, or / (n-1), and the sum is n p (1-p) = correct incorrect / n
    return (correct_P * incorrect_P / n_P / (n_P if std == "population" else n_P - 1)).sqrt()


def grpo_advantage(
    correct_B: Tensor,
    group_B: Tensor,
    std: str = "population",
    eps: float = 0.0,
    valid_B: Tensor | None = None,
) -> Tensor:
    """Computes GRPO's advantage on 0/1 rewards: A = (r - p) / (std + eps), 0 in one-sided groups.

    std "population", eps 0 is the paper's (eq 6, = odds 0.5/0.5); "sample" (n-1), eps 1e-6 verl's.
    A group of one has no sample std: 0 (*ours*; verl's gives it its plain reward).
    """
    correct_P, incorrect_P = group_counts(correct_B, group_B, valid_B)
    n_P = correct_P + incorrect_P
    std_P = _group_std(correct_P, incorrect_P, std)
    mixed_P = (correct_P > 0) & (incorrect_P > 0)
    # (1 - p) / (std + eps), and (0 - p) / (std + eps)
    pos_P = torch.where(mixed_P, incorrect_P / n_P / (std_P + eps), 0.0)
    neg_P = torch.where(mixed_P, -correct_P / n_P / (std_P + eps), 0.0)
    return _by_outcome(pos_P, neg_P, correct_B, group_B, valid_B)


def pass_at_k_advantage(
    correct_B: Tensor, group_B: Tensor, k: int, valid_B: Tensor | None = None
) -> Tensor:
    """Computes the advantage of Pass@k training, in its analytic form.

        Rbar = 1 - C(n_neg, k)/C(n, k)      sigma = sqrt(Rbar (1 - Rbar))
        A_pos = (1 - Rbar)/sigma            A_neg = (1 - Rbar - C(n_neg-1, k-1)/C(n-1, k-1))/sigma

    With C(m-1, k-1) = C(m, k) k/m the second is A_neg = -A_pos n_pos/n_neg: the group mean is 0.
    sigma = 0 (fewer than k incorrect, or none correct): 0, as the authors' code, which adds 1e-6 to
    it. A group of fewer than k rows has no sample of k: 0 (*ours*). k = 1 is GRPO.

    Source: Chen et al., arXiv 2508.10751; github RUCAIBox/Passk_Training.
    """
    correct_P, incorrect_P = group_counts(correct_B, group_B, valid_B)
    n_P = correct_P + incorrect_P

    def log_choose_k(m_P: Tensor) -> Tensor:  # up to log k!, which cancels; C(m, k) = 0 if m < k
        m_k_P = (m_P - k + 1).clamp(min=1)
        return torch.where(m_P >= k, torch.lgamma(m_P + 1) - torch.lgamma(m_k_P), -torch.inf)

    # 1 - Rbar = C(n_neg, k)/C(n, k)
    fail_P = (log_choose_k(incorrect_P) - log_choose_k(n_P)).exp()
    signal_P = (n_P >= k) & (incorrect_P >= k) & (correct_P > 0)
    # A_pos = (1 - Rbar)/sigma = sqrt((1 - Rbar)/Rbar)
    pos_P = torch.where(signal_P, (fail_P / (1 - fail_P)).sqrt(), 0.0)
    # A_neg = -A_pos n_pos/n_neg
    neg_P = torch.where(signal_P, -pos_P * correct_P / incorrect_P, 0.0)
    return _by_outcome(pos_P, neg_P, correct_B, group_B, valid_B)


def entropy_shaped_advantage(
    advantages: Tensor, entropy: Tensor, kappa: float, alpha: float
) -> Tensor:
    """Adds to each advantage a share of the token's entropy: A + min(alpha H, |A|/kappa).

    Args:
        advantages: A, any shape.
        entropy: H in nats, of the same shape; detached.
        kappa: above 1 keeps the sign of A.
        alpha: weight of H.

    Returns:
        The shaped advantages; where A = 0, as outside the mask, 0.

    Source: Cheng et al., arXiv 2506.14758.
    """
    return advantages + torch.minimum(alpha * entropy.detach(), advantages.abs() / kappa)


# --- methods of other papers ---


def weighted_sign_advantage(
    correct_B: Tensor,
    group_B: Tensor,
    correct_weight: float,
    incorrect_weight: float,
    valid_B: Tensor | None = None,
) -> Tensor:
    """Computes the advantage of PSR, NSR and W-REINFORCE: no baseline, a weight per outcome.

        A = correct_weight if correct, -incorrect_weight if incorrect

    (1, 0) is PSR, which learns from correct rollouts alone; (0, 1) NSR, from incorrect ones;
    (lambda, 1) W-REINFORCE, lambda 0.1; (1, 1) REINFORCE. A group of one is like any other.

    The authors train PSR and NSR on the batch without the rows of advantage 0, so that their token
    mean is over the others; here these rows count in it (*ours*: a token mean over all responses,
    as for every method of this table).

    Source: Zhu et al., arXiv 2506.01347, eqs 3, 4 and 9, and its code, github
        TianHongZXY/RLVR-Decomposed, whose history has the paper (both read).
    """
    correct_P, _ = group_counts(correct_B, group_B, valid_B)
    pos_P = torch.full_like(correct_P, correct_weight)
    neg_P = torch.full_like(correct_P, -incorrect_weight)
    return _by_outcome(pos_P, neg_P, correct_B, group_B, valid_B)


def quantile_advantage(
    correct_B: Tensor,
    group_B: Tensor,
    quantile: float = 0.4,
    std: str = "population",
    eps: float = 0.0,
    valid_B: Tensor | None = None,
) -> Tensor:
    """Computes QAE's advantage: GRPO's with the group's K-quantile as baseline, not its mean.

        A = (r - b) / (std + eps)      b = 0 if p <= 1 - K (hard), 1 if p > 1 - K (easy)

    b is the smallest reward that at least a share K of the group does not exceed. A hard group
    trains its correct rollouts alone, an easy one its incorrect ones: the rest gets 0. One-sided
    groups get 0, as b is then their reward; so does a group of one.

    Source: Wu et al., arXiv 2509.22611, eq. 3 and 4. By a public note on its code, A is
        divided by verl's std (std="sample", eps 1e-6), and b is `torch.quantile`, which
        interpolates: with 3 of 8 incorrect it is 0.8, here 1; with any other count of 8 the same.
        The paper chooses K = 0.4 beside Clip-Higher (0.28) and 0.6 where the entropy is low.
    """
    correct_P, incorrect_P = group_counts(correct_B, group_B, valid_B)
    std_P = _group_std(correct_P, incorrect_P, std)
    mixed_P = (correct_P > 0) & (incorrect_P > 0)
    # p <= 1 - K is 1 - p >= K; counts are whole numbers, and K n is rounded
    hard_P = incorrect_P >= quantile * (correct_P + incorrect_P) - 1e-9
    pos_P = torch.where(mixed_P & hard_P, 1 / (std_P + eps), 0.0)
    neg_P = torch.where(mixed_P & ~hard_P, -1 / (std_P + eps), 0.0)
    return _by_outcome(pos_P, neg_P, correct_B, group_B, valid_B)


def max_likelihood_advantage(
    correct_B: Tensor, group_B: Tensor, valid_B: Tensor | None = None
) -> Tensor:
    """Computes MaxRL's advantage: the centred reward over its mean, A = (r - p) / p.

        A = (1-p)/p if correct, -1 if incorrect, 0 in groups without a correct rollout

    It is AsymGRPO's at (1, 0), which gives -1 to all-incorrect groups. All-correct groups get 0; so
    does a group of one.

    Source: arXiv 2602.02710, as its authors' code (p + 1e-6 below) and PrimeIntellect-ai/prime-rl
        compute it (read; the paper was not).
    """
    correct_P, incorrect_P = group_counts(correct_B, group_B, valid_B)
    signal_P = correct_P > 0
    pos_P = torch.where(signal_P, incorrect_P / correct_P, 0.0)
    neg_P = torch.where(signal_P, -1.0, 0.0).to(pos_P)
    return _by_outcome(pos_P, neg_P, correct_B, group_B, valid_B)


# --- from rows to tokens ---


def token_advantages(adv_B: Tensor, mask_BT: Tensor) -> Tensor:
    """Gives each response token its row's advantage.

    Args:
        adv_B: float32.
        mask_BT: 0/1 of any dtype.

    Returns:
        (B, T) float32, 0 outside the mask.
    """
    return torch.where(mask_BT.bool(), adv_B[:, None], 0.0)
