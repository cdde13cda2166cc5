"""The paper's instruments on cases small enough to compute by hand."""

import math

import pytest
import torch

from recipe.core import diagnostics as d

# two prompts (groups 0 and 1) of G = 2: group 0 mixed, group 1 all wrong; lengths 2, 1, 2, 1
MASK = torch.tensor([[1, 1], [1, 0], [1, 1], [1, 0]]).bool()
CORRECT = torch.tensor([True, False, False, False])
GROUP = torch.tensor([0, 0, 1, 1])
ADVANTAGE = torch.tensor([[2.0, 2.0], [-1.0, 9.0], [-0.5, -0.5], [0.0, 9.0]])  # 9: masked out
LOG_PROB = torch.tensor([[-1.0, -3.0], [-4.0, 9.0], [-1.0, -1.0], [-2.0, 9.0]])
ENTROPY = torch.tensor([[0.5, 1.5], [3.0, 9.0], [1.0, 2.0], [0.0, 9.0]])


def test_entropy_by_outcome_is_a_token_mean():
    measured = d.entropy_by_outcome(ENTROPY, MASK, CORRECT)
    # right: (0.5 + 1.5) / 2; wrong: (3 + 1 + 2 + 0) / 4
    assert measured == {"entropy/right": 1.0, "entropy/wrong": 1.5}


def test_entropy_of_an_outcome_that_no_rollout_has_is_left_out():
    measured = d.entropy_by_outcome(ENTROPY, MASK, torch.ones(4, dtype=torch.bool))
    assert set(measured) == {"entropy/right"}


def test_advantage_mass_and_mean():
    measured = d.advantage_mass(ADVANTAGE, MASK)
    # 6 tokens; positive 2 + 2; negative -1 - 0.5 - 0.5
    assert measured == pytest.approx(
        {
            "advantage/positive_mean": 2.0,
            "advantage/negative_mean": -2 / 3,
            "advantage/positive_mass": 4 / 6,
            "advantage/negative_mass": -2 / 6,
        }
    )


def test_masses_add_up_to_the_mean_advantage():
    measured = d.advantage_mass(ADVANTAGE, MASK)
    mean = ADVANTAGE[MASK].mean().item()
    assert measured["advantage/positive_mass"] + measured["advantage/negative_mass"] == (
        pytest.approx(mean)
    )


def test_group_outcomes():
    assert d.group_outcomes(CORRECT, GROUP) == {"groups/all_right": 0.0, "groups/all_wrong": 0.5}
    every = torch.tensor([True, True, False, True])
    assert d.group_outcomes(every, GROUP) == {"groups/all_right": 0.5, "groups/all_wrong": 0.0}


def test_covariance_by_accuracy_of_the_one_mixed_group():
    measured = d.covariance_by_accuracy(LOG_PROB, ADVANTAGE, MASK, CORRECT, GROUP)
    # group 0: lbar = -2, -4 (mean -3); A = 2, -1 (mean 0.5); Cov = (1*1.5 + -1*-1.5) / 2 = 1.5
    assert measured == {"covariance/all": 1.5, "covariance/p_0.500": 1.5}


def test_covariance_agrees_with_a_loop_over_groups():
    generator = torch.Generator().manual_seed(0)
    G, P, T = 8, 40, 5
    mask = torch.ones(G * P, T, dtype=torch.bool)
    log_prob = -torch.rand(G * P, T, generator=generator)
    advantage = torch.randn(G * P, 1, generator=generator).expand(-1, T)
    p = torch.rand(P, generator=generator).repeat_interleave(G)
    correct = torch.rand(G * P, generator=generator) < p
    group = torch.arange(P).repeat_interleave(G)
    expected: dict[str, list[float]] = {}
    for g in range(P):
        rows = group == g
        k = int(correct[rows].sum())
        if 0 < k < G:
            lbar, a = log_prob[rows].mean(1), advantage[rows, 0]
            cov = ((lbar - lbar.mean()) * (a - a.mean())).mean().item()
            expected.setdefault(f"covariance/p_{k / G:.3f}", []).append(cov)
    measured = d.covariance_by_accuracy(log_prob, advantage, mask, correct, group)
    all_values = [x for values in expected.values() for x in values]
    assert measured.pop("covariance/all") == pytest.approx(sum(all_values) / len(all_values))
    assert measured == pytest.approx({k: sum(v) / len(v) for k, v in expected.items()}, abs=1e-6)


@pytest.mark.parametrize("k", range(1, 8))
def test_at_the_paper_s_group_size_a_bin_is_one_accuracy(k):
    correct = torch.arange(8) < k
    rows = torch.ones(8, 1)
    measured = d.covariance_by_accuracy(
        -rows, rows, rows.bool(), correct, torch.zeros(8, dtype=torch.long)
    )
    assert set(measured) == {"covariance/all", f"covariance/p_{k / 8:.3f}"}


def test_log_prob_gain_is_a_sum_over_tokens_and_a_mean_over_right_rollouts():
    new = LOG_PROB + torch.tensor([[0.25, 0.5], [1.0, 7.0], [1.0, 1.0], [1.0, 7.0]])
    assert d.log_prob_gain(new, LOG_PROB, MASK, CORRECT) == {"log_prob_gain/right": 0.75}
    assert d.log_prob_gain(new, LOG_PROB, MASK, torch.zeros(4, dtype=torch.bool)) == {}


def test_padding_rows_change_nothing():
    arguments = {
        "entropy_BT": ENTROPY,
        "log_prob_BT": LOG_PROB,
        "advantages_BT": ADVANTAGE,
        "mask_BT": MASK,
        "correct_B": CORRECT,
        "group_B": GROUP,
    }
    padded = {name: torch.cat([x, x[:1]]) for name, x in arguments.items()}
    padded["mask_BT"][-1] = False
    padded["group_B"][-1] = 2  # verl gives padding a uid of its own
    assert d.rollout_diagnostics(**padded) == d.rollout_diagnostics(**arguments)


def test_every_diagnostic_is_finite_on_a_random_batch_and_inputs_are_not_changed():
    generator = torch.Generator().manual_seed(1)
    arguments = {
        "entropy_BT": torch.rand(64, 6, generator=generator),
        "log_prob_BT": -torch.rand(64, 6, generator=generator),
        "advantages_BT": torch.randn(64, 6, generator=generator),
        "mask_BT": torch.rand(64, 6, generator=generator) < 0.8,
        "correct_B": torch.rand(64, generator=generator) < 0.4,
        "group_B": torch.arange(8).repeat_interleave(8),
    }
    before = {name: x.clone() for name, x in arguments.items()}
    assert all(math.isfinite(x) for x in d.rollout_diagnostics(**arguments).values())
    assert all(torch.equal(before[name], arguments[name]) for name in arguments)


def test_the_gain_of_right_rollouts_leaves_out_padding_rows():
    new = torch.tensor([[-0.5, -0.5], [-1.0, 0.0], [0.0, 0.0]])
    old = torch.tensor([[-1.0, -1.0], [-1.0, 0.0], [0.0, 0.0]])
    mask = torch.tensor([[1, 1], [1, 0], [0, 0]]).bool()  # the last row is verl's padding
    correct = torch.tensor([True, False, True])
    assert d.log_prob_gain(new, old, mask, correct) == {"log_prob_gain/right": 1.0}


def test_without_right_or_wrong_the_advantages_are_still_described():
    measured = d.rollout_diagnostics(
        entropy_BT=ENTROPY,
        log_prob_BT=LOG_PROB,
        advantages_BT=ADVANTAGE,
        mask_BT=MASK,
        correct_B=None,
        group_B=GROUP,
    )
    assert measured == d.advantage_mass(ADVANTAGE, MASK)
