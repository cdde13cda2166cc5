"""Advantages of AsymGRPO (arXiv 2604.04894 v1) and of the baselines in its Table 1.

Axes: B rows (rollouts), P prompts (groups), T response tokens.
Every estimator takes `correct_B` (bool: is the rollout right), `group_B` (long: the row's group,
0..P-1) and `valid_B` (bool: rows to count; None = all), and returns float32 `(B,)`, computed in
float64. p is a group's accuracy: the share of right rows among its n counted rows. Groups may
differ in size. A row that is not counted gets 0 and touches no group.

On a CPU the two passes over (B, T) run in numpy: torch would start threads, which cost more than
they save beside other processes, and has no huge pages, with which writing takes half as long.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# --- reading a batch ---


def scalar_rewards(token_level_rewards_BT: Tensor) -> Tensor:
    """(B,): r = sum_t r_t. Not masked, as in verl: the reward stands on the response's last token,
    which in a multi-turn rollout may be a tool's, outside the response mask."""
    if token_level_rewards_BT.device.type != "cpu":
        return token_level_rewards_BT.sum(-1)
    return torch.from_numpy(token_level_rewards_BT.numpy().sum(-1))


def real_rows(mask_BT: Tensor) -> Tensor:
    """(B,) bool: rows with a response token. verl pads a batch with rows whose mask is all zero."""
    real_B = mask_BT[:, 0] != 0
    rest = (~real_B).nonzero()[:, 0]  # nearly always few: a response starts with its own token
    real_B[rest] = (mask_BT[rest] != 0).any(-1)
    return real_B


def right_or_wrong(
    reward_B: Tensor, threshold: float | None = None, valid_B: Tensor | None = None
) -> Tensor:
    """(B,) bool: which rollouts are right. The paper's formulas know only right and wrong.

    threshold None: counted rewards must all be in {0, 1} or all in {-1, 1}; right iff 1.
    threshold c: right iff reward > c. NaN and infinities are errors either way.
    """
    cure = (
        "set algorithm.asymgrpo.correct_threshold (right if the reward is above it) or "
        "algorithm.asymgrpo.correct_field (a key of the reward function's result that says right "
        "or wrong)."
    )

    def refuse(bad_B: Tensor, problem: str) -> None:
        bad_B = bad_B if valid_B is None else bad_B & valid_B
        if bad_B.any():
            raise ValueError(f"A rollout's reward is {reward_B[bad_B][0].item():g}, {problem}")

    refuse(~reward_B.isfinite(), "not finite: mend the reward function.")
    if threshold is not None:
        return reward_B > threshold
    zero_B, minus_B = reward_B == 0, reward_B == -1
    refuse((reward_B != 1) & ~zero_B & ~minus_B, f"neither right (1) nor wrong (0 or -1): {cure}")
    some_zero = (zero_B if valid_B is None else zero_B & valid_B).any()
    refuse(minus_B & some_zero, f"another's is 0, and only one of them can mean wrong: {cure}")
    return reward_B == 1


def group_counts(
    correct_B: Tensor, group_B: Tensor, valid_B: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(right_P, wrong_P), float64: how many counted rows of each group are right, and wrong."""
    right_B, wrong_B = correct_B, ~correct_B
    if valid_B is not None:
        right_B, wrong_B = right_B & valid_B, wrong_B & valid_B
    return (
        torch.bincount(group_B, weights=right_B.double()),
        torch.bincount(group_B, weights=wrong_B.double()),
    )


def _by_outcome(
    pos_P: Tensor, neg_P: Tensor, correct_B: Tensor, group_B: Tensor, valid_B: Tensor | None
) -> Tensor:
    """Gives each row its group's value for right or for wrong; 0 to rows that are not counted."""
    # index_select, as indexing starts threads even for a few thousand rows
    adv_B = torch.where(correct_B, pos_P.index_select(0, group_B), neg_P.index_select(0, group_B))
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
    """AsymGRPO, eq 10: A = ((1-p)/p)^beta_pos if right, -(p/(1-p))^beta_neg if wrong.

    (0, 0) is REINFORCE's +1/-1 (eq 5); (0.5, 0.5) GRPO, population std, no epsilon (eq 6).
    One-sided groups follow from 0^0 = 1 (*ours*, the paper is silent): all right gets 0 if
    beta_pos > 0 and +1 at 0; all wrong gets 0 if beta_neg > 0 and -1 at 0. So does a group of one.
    """
    right_P, wrong_P = group_counts(correct_B, group_B, valid_B)
    # (1-p)/p = wrong/right
    pos_P = (wrong_P / right_P) ** beta_pos
    neg_P = -((right_P / wrong_P) ** beta_neg)
    return _by_outcome(pos_P, neg_P, correct_B, group_B, valid_B)


def ent_decrease_advantage(
    correct_B: Tensor, group_B: Tensor, valid_B: Tensor | None = None
) -> Tensor:
    """EntDecrease (sec. 3.2, App. D eqs 15-18): GRPO with the positive curve flipped.

    Right rows get Atilde(p) = A_pos(1-p) = sqrt(p/(1-p)) up to p = (n-1)/n, from there the line
    through the last two points, up to V = 2 Atilde((n-1)/n) - Atilde((n-2)/n) at p = 1. As p is a
    multiple of 1/n, only the line's end is ever used: all-right groups get V (3.56 at n = 8), not
    GRPO's 0. n = 2: (n-2)/n = 0 and V = 2. n = 1: there is no line; 0, as GRPO (*ours*).
    """
    right_P, wrong_P = group_counts(correct_B, group_B, valid_B)
    # all right, so n = right: Atilde((n-1)/n) = sqrt(n-1), Atilde((n-2)/n) = sqrt((n-2)/2)
    before_P, two_before_P = (right_P - 1).clamp(min=0), (right_P - 2).clamp(min=0)
    end_P = 2 * before_P.sqrt() - (two_before_P / 2).sqrt()
    curve_P = (right_P / wrong_P).sqrt()
    pos_P = torch.where(wrong_P > 0, curve_P, end_P)
    return _by_outcome(pos_P, -curve_P, correct_B, group_B, valid_B)


def ent_increase_advantage(
    correct_B: Tensor, group_B: Tensor, valid_B: Tensor | None = None
) -> Tensor:
    """EntIncrease (sec. 3.2, App. D eqs 15-18): GRPO with the negative curve flipped.

    Wrong rows get A_neg(1-p) = -sqrt((1-p)/p), and -V in all-wrong groups (-3.56 at n = 8): it is
    EntDecrease with right and wrong, and the sign, exchanged.
    """
    return -ent_decrease_advantage(~correct_B, group_B, valid_B)


# --- its baselines ---


def grpo_advantage(
    correct_B: Tensor,
    group_B: Tensor,
    std: str = "population",
    eps: float = 0.0,
    valid_B: Tensor | None = None,
) -> Tensor:
    """GRPO on 0/1 rewards: A = (r - p) / (std + eps), 0 in one-sided groups.

    std "population", eps 0 is the paper's (eq 6, = odds 0.5/0.5); "sample" (n-1), eps 1e-6 verl's.
    A group of one has no sample std: 0 (*ours*; verl's gives it its plain reward).
    """
    right_P, wrong_P = group_counts(correct_B, group_B, valid_B)
    n_P = right_P + wrong_P
    # n p (1-p) = right wrong / n is the sum of squares; over n, or over n-1
    std_P = (right_P * wrong_P / n_P / {"population": n_P, "sample": n_P - 1}[std]).sqrt()
    mixed_P = (right_P > 0) & (wrong_P > 0)
    pos_P = torch.where(mixed_P, wrong_P / n_P / (std_P + eps), 0.0)
    neg_P = torch.where(mixed_P, -right_P / n_P / (std_P + eps), 0.0)
    return _by_outcome(pos_P, neg_P, correct_B, group_B, valid_B)


def pass_at_k_advantage(
    correct_B: Tensor, group_B: Tensor, k: int, valid_B: Tensor | None = None
) -> Tensor:
    """Pass@k training, analytic (Chen et al., arXiv 2508.10751; github RUCAIBox/Passk_Training).

        Rbar = 1 - C(n_neg, k)/C(n, k)      sigma = sqrt(Rbar (1 - Rbar))
        A_pos = (1 - Rbar)/sigma            A_neg = (1 - Rbar - C(n_neg-1, k-1)/C(n-1, k-1))/sigma
    With C(m-1, k-1) = C(m, k) k/m the second is A_neg = -A_pos n_pos/n_neg: the group mean is 0.
    sigma = 0 (fewer than k wrong, or none right): 0, as the authors' code, which adds 1e-6 to it.
    A group of fewer than k rows has no sample of k: 0 (*ours*). k = 1 is GRPO.
    """
    right_P, wrong_P = group_counts(correct_B, group_B, valid_B)
    n_P = right_P + wrong_P

    def log_choose_k(m_P: Tensor) -> Tensor:  # up to log k!, which cancels; C(m, k) = 0 if m < k
        m_k_P = (m_P - k + 1).clamp(min=1)
        return torch.where(m_P >= k, torch.lgamma(m_P + 1) - torch.lgamma(m_k_P), -torch.inf)

    # 1 - Rbar = C(n_neg, k)/C(n, k)
    fail_P = (log_choose_k(wrong_P) - log_choose_k(n_P)).exp()
    signal_P = (n_P >= k) & (wrong_P >= k) & (right_P > 0)
    # (1 - Rbar)/sigma = sqrt((1 - Rbar)/Rbar)
    pos_P = torch.where(signal_P, (fail_P / (1 - fail_P)).sqrt(), 0.0)
    neg_P = torch.where(signal_P, -pos_P * right_P / wrong_P, 0.0)
    return _by_outcome(pos_P, neg_P, correct_B, group_B, valid_B)


def entropy_shaped_advantage(
    advantages: Tensor, entropy: Tensor, kappa: float, alpha: float
) -> Tensor:
    """Per token, any shape (Cheng et al., arXiv 2506.14758): A + min(alpha H, |A|/kappa).

    H (nats) is detached. kappa > 1 keeps the sign of A; A = 0, as outside the mask, stays 0.
    """
    return advantages + torch.minimum(alpha * entropy.detach(), advantages.abs() / kappa)


# --- from rows to tokens ---


def token_advantages(adv_B: Tensor, mask_BT: Tensor) -> Tensor:
    """(B, T) float32: the row's advantage on its response tokens, 0 elsewhere.

    mask_BT is 0/1 of any dtype. Allocates nothing else of size (B, T), unlike
    `adv_B[:, None] * mask_BT`, which first converts an integer mask.
    """
    if mask_BT.device.type != "cpu":
        return mask_BT.to(torch.float32, copy=True).mul_(adv_B[:, None])
    factors = mask_BT.numpy(), adv_B.numpy()[:, None]
    return torch.from_numpy(np.multiply(*factors, dtype=np.float32, casting="unsafe"))
