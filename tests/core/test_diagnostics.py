"""The paper's instruments on cases small enough to compute by hand."""

import math

import pytest
import torch

from recipe.core import diagnostics as d

# two prompts (groups 0 and 1) of G = 2: group 0 mixed, group 1 all incorrect; rows of 2, 1, 2 and 3
# tokens, of which the last row has only one in its response
LENGTH = torch.tensor([2, 1, 2, 3])
MASK = torch.tensor([1, 1, 1, 1, 1, 0, 1, 0]).bool()
CORRECT = torch.tensor([True, False, False, False])
GROUP = torch.tensor([0, 0, 1, 1])
ADVANTAGE = torch.tensor([2.0, 2.0, -1.0, -0.5, -0.5, 9.0, 0.0, 9.0])  # 9: not in the response
LOG_PROB = torch.tensor([-1.0, -3.0, -4.0, -1.0, -1.0, 9.0, -2.0, 9.0])
ENTROPY = torch.tensor([0.5, 1.5, 3.0, 1.0, 2.0, 9.0, 0.0, 9.0])
BATCH = {
    "entropy_N": ENTROPY,
    "log_prob_N": LOG_PROB,
    "advantages_N": ADVANTAGE,
    "mask_N": MASK,
    "length_B": LENGTH,
    "correct_B": CORRECT,
    "group_B": GROUP,
}


def random_batch(seed, rows=64, group=8):
    """Rows of 0 to 40 tokens, a tenth of them outside the response."""
    generator = torch.Generator().manual_seed(seed)
    length_B = torch.randint(0, 41, (rows,), generator=generator)
    n = int(length_B.sum())
    return {
        "entropy_N": torch.rand(n, generator=generator),
        "log_prob_N": -torch.rand(n, generator=generator),
        "advantages_N": torch.randn(n, generator=generator),
        "mask_N": torch.rand(n, generator=generator) < 0.9,
        "length_B": length_B,
        "correct_B": torch.rand(rows, generator=generator) < 0.4,
        "group_B": torch.arange(rows // group).repeat_interleave(group),
    }


def test_entropy_by_outcome_is_a_token_mean():
    measured = d.entropy_by_outcome(ENTROPY, MASK, LENGTH, CORRECT)
    # correct: (0.5 + 1.5) / 2; incorrect: (3 + 1 + 2 + 0) / 4
    assert measured == {"entropy/correct": 1.0, "entropy/incorrect": 1.5}


def test_entropy_of_an_outcome_that_no_rollout_has_is_left_out():
    measured = d.entropy_by_outcome(ENTROPY, MASK, LENGTH, torch.ones(4, dtype=torch.bool))
    assert set(measured) == {"entropy/correct"}


def test_token_mean():
    assert d.token_mean(ENTROPY, MASK).item() == 8 / 6
    assert d.token_mean(ENTROPY.view(2, 4), MASK.view(2, 4)).item() == 8 / 6
    assert d.token_mean(ENTROPY, torch.zeros(8, dtype=torch.bool)).isnan()


def test_sums_and_tokens_of_rows():
    length = torch.tensor([2, 0, 1, 2, 3, 0])
    assert d.row_sums(ENTROPY, MASK, length).tolist() == [2.0, 0.0, 3.0, 3.0, 0.0, 0.0]
    assert d.row_tokens(MASK, length).tolist() == [2, 0, 1, 2, 1, 0]


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
    measured = d.group_outcomes(CORRECT, GROUP)
    assert measured == {"groups/all_correct": 0.0, "groups/all_incorrect": 0.5}
    measured = d.group_outcomes(torch.tensor([True, True, False, True]), GROUP)
    assert measured == {"groups/all_correct": 0.5, "groups/all_incorrect": 0.0}


def test_covariance_by_accuracy_of_the_one_mixed_group():
    measured = d.covariance_by_accuracy(LOG_PROB, ADVANTAGE, MASK, LENGTH, CORRECT, GROUP)
    # group 0: lbar = -2, -4 (mean -3); A = 2, -1 (mean 0.5); Cov = (1*1.5 + -1*-1.5) / 2 = 1.5
    assert measured == {"covariance/all": 1.5, "covariance/p_0.500": 1.5}


def test_covariance_agrees_with_a_loop_over_groups():
    generator = torch.Generator().manual_seed(0)
    G, P = 8, 40
    length = torch.randint(1, 6, (G * P,), generator=generator)
    n = int(length.sum())
    log_prob = -torch.rand(n, generator=generator)
    advantage = torch.randn(n, generator=generator)
    p = torch.rand(P, generator=generator).repeat_interleave(G)
    correct = torch.rand(G * P, generator=generator) < p
    group = torch.arange(P).repeat_interleave(G)
    lbar, a = (
        torch.stack([row.mean() for row in x.split(length.tolist())]) for x in (log_prob, advantage)
    )
    expected: dict[str, list[float]] = {}
    for g in range(P):
        rows = group == g
        k = int(correct[rows].sum())
        if 0 < k < G:
            cov = ((lbar[rows] - lbar[rows].mean()) * (a[rows] - a[rows].mean())).mean().item()
            expected.setdefault(f"covariance/p_{k / G:.3f}", []).append(cov)
    mask = torch.ones(n, dtype=torch.bool)
    measured = d.covariance_by_accuracy(log_prob, advantage, mask, length, correct, group)
    all_values = [x for values in expected.values() for x in values]
    assert measured.pop("covariance/all") == pytest.approx(
        sum(all_values) / len(all_values), abs=1e-6
    )
    assert measured == pytest.approx({k: sum(v) / len(v) for k, v in expected.items()}, abs=1e-6)


@pytest.mark.parametrize("G", [3, 5, 8, 16, 24])
def test_a_bin_ends_at_its_upper_edge(G):
    """At the paper's group size, 8, a bin is one accuracy."""
    for k in range(1, G):
        correct = torch.arange(G) < k
        ones = torch.ones(G)
        measured = d.covariance_by_accuracy(
            -ones, ones, ones.bool(), ones.long(), correct, torch.zeros(G, dtype=torch.long)
        )
        upper = -(-8 * k // G) / 8
        assert set(measured) == {"covariance/all", f"covariance/p_{upper:.3f}"}


def test_log_prob_gain_is_a_sum_over_tokens_and_a_mean_over_correct_rollouts():
    new = LOG_PROB + torch.tensor([0.25, 0.5, 1.0, 1.0, 1.0, 7.0, 1.0, 7.0])
    measured = d.log_prob_gain(new, LOG_PROB, MASK, LENGTH, CORRECT)
    assert measured == {"log_prob_gain/correct": 0.75}
    measured = d.log_prob_gain(new, LOG_PROB, MASK, LENGTH, torch.zeros(4, dtype=torch.bool))
    assert measured == {}


def test_the_gain_of_correct_rollouts_leaves_out_padding_rows():
    new = torch.tensor([-0.5, -0.5, -1.0, 0.0, 0.0])
    old = torch.tensor([-1.0, -1.0, -1.0, 0.0, 0.0])
    mask = torch.tensor([1, 1, 1, 0, 0]).bool()  # the last row is verl's padding
    length, correct = torch.tensor([2, 1, 2]), torch.tensor([True, False, True])
    measured = d.log_prob_gain(new, old, mask, length, correct)
    assert measured == {"log_prob_gain/correct": 1.0}


@pytest.mark.parametrize("tokens", [0, 1, 4])
@pytest.mark.parametrize("correct", [False, True])
@pytest.mark.parametrize("group", [GROUP, 1 - GROUP])
def test_padding_rows_change_nothing(tokens, correct, group):
    """Rows without a response token, in a group of their own as verl gives them one, first or last
    in the batch; group numbers need not begin at 0."""
    empty = torch.full((tokens,), 5.0)
    padding = {
        "entropy_N": empty,
        "log_prob_N": empty,
        "advantages_N": empty,
        "mask_N": torch.zeros(tokens, dtype=torch.bool),
        "length_B": torch.tensor([tokens]),
        "correct_B": torch.tensor([correct]),
        "group_B": torch.tensor([7]),
    }
    batch = BATCH | {"group_B": group}
    expected = d.rollout_diagnostics(**batch)
    assert len(expected) == 12
    last = {name: torch.cat([x, padding[name]]) for name, x in batch.items()}
    first = {name: torch.cat([padding[name], x]) for name, x in batch.items()}
    first["group_B"][1:] += 8
    assert d.rollout_diagnostics(**last) == expected
    assert d.rollout_diagnostics(**first) == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e30])
def test_tokens_outside_the_response_change_nothing(value):
    batch = random_batch(2)
    n = len(batch["mask_N"])
    new_N = batch["log_prob_N"] + torch.rand(n, generator=torch.Generator().manual_seed(3))
    gain = [batch[name] for name in ("mask_N", "length_B", "correct_B")]
    expected = d.rollout_diagnostics(**batch), d.log_prob_gain(new_N, batch["log_prob_N"], *gain)
    for name in ("entropy_N", "log_prob_N", "advantages_N"):
        batch[name] = torch.where(batch["mask_N"], batch[name], value)
    new_N = torch.where(batch["mask_N"], new_N, value)
    measured = d.rollout_diagnostics(**batch), d.log_prob_gain(new_N, batch["log_prob_N"], *gain)
    assert measured == expected
    assert all(math.isfinite(x) for metrics in measured for x in metrics.values())


def test_the_order_of_the_rows_changes_nothing():
    batch = random_batch(4)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(5))
    lengths = batch["length_B"].tolist()
    moved = {
        name: x[order]
        if name.endswith("_B")
        else torch.cat([x.split(lengths)[row] for row in order.tolist()])
        for name, x in batch.items()
    }
    assert d.rollout_diagnostics(**moved) == pytest.approx(d.rollout_diagnostics(**batch), rel=1e-9)


def test_every_diagnostic_is_finite_on_a_random_batch_and_inputs_are_not_changed():
    arguments = random_batch(1)
    before = {name: x.clone() for name, x in arguments.items()}
    assert all(math.isfinite(x) for x in d.rollout_diagnostics(**arguments).values())
    assert all(torch.equal(before[name], arguments[name]) for name in arguments)


def test_sums_are_taken_in_float64():
    values = torch.rand(100_000, generator=torch.Generator().manual_seed(6))
    mask, length = torch.ones(100_000, dtype=torch.bool), torch.tensor([40_000, 60_000])
    exact = math.fsum(values.tolist())
    assert d.token_mean(values, mask).item() == pytest.approx(exact / 100_000, rel=1e-12)
    assert d.row_sums(values, mask, length).sum().item() == pytest.approx(exact, rel=1e-12)
    positive_mass = d.advantage_mass(values, mask)["advantage/positive_mass"]
    assert positive_mass == pytest.approx(exact / 100_000, rel=1e-12)


def test_without_correctness_the_advantages_are_still_described():
    measured = d.rollout_diagnostics(**BATCH | {"correct_B": None})
    mean = d.token_mean(BATCH["entropy_N"], MASK).item()
    assert measured == {"entropy/all": mean} | d.advantage_mass(ADVANTAGE, MASK)


def test_a_rollout_that_verl_has_rejected_counts_for_its_group_and_has_no_log_prob():
    """p = 3/4 as for the estimator, by verl's tags; without them p would be 1."""
    length = torch.tensor([1, 1, 1, 1])
    mask = torch.tensor([True, True, False, True])
    log_prob, advantage = torch.tensor([-1.0, -2.0, -9.0, -3.0]), torch.tensor([1.0, 2.0, 9.0, 3.0])
    measured = d.rollout_diagnostics(
        entropy_N=torch.ones(4),
        log_prob_N=log_prob,
        advantages_N=advantage,
        mask_N=mask,
        length_B=length,
        correct_B=torch.tensor([True, True, False, True]),
        group_B=torch.zeros(4, dtype=torch.long),
        real_B=torch.ones(4, dtype=torch.bool),
    )
    assert measured["groups/all_correct"] == 0
    # of the three with tokens: lbar -1, -2, -3 and A 1, 2, 3: -(1 + 0 + 1)/3
    assert measured["covariance/p_0.750"] == pytest.approx(-2 / 3)


def test_pass_at_k_of_groups_is_the_share_of_draws_with_a_correct_rollout():
    from itertools import combinations

    generator = torch.Generator().manual_seed(0)
    group = torch.arange(10).repeat_interleave(8)
    correct = torch.rand(80, generator=generator) < 0.3
    measured = d.group_pass_at_k(correct, group)
    assert list(measured) == ["groups/pass@2", "groups/pass@4", "groups/pass@8"]
    for k in (2, 4, 8):
        draws = [
            any(rows[i] for i in drawn)
            for rows in correct.view(10, 8).tolist()
            for drawn in combinations(range(8), k)
        ]
        assert measured[f"groups/pass@{k}"] == pytest.approx(sum(draws) / len(draws), abs=1e-12)
    # at k = n: the groups that are not all incorrect
    incorrect = d.group_outcomes(correct, group)["groups/all_incorrect"]
    assert measured["groups/pass@8"] == pytest.approx(1 - incorrect)


def test_pass_at_k_of_groups_with_failed_rollouts_is_over_those_that_have_k():
    # c of n: 1 of 3, 0 of 2, 1 of 1. pass@2: 1 - C(2,2)/C(3,2) = 2/3, and 0; no group has 4
    correct = torch.tensor([True, False, False, False, False, True])
    group = torch.tensor([0, 0, 0, 1, 1, 2])
    assert d.group_pass_at_k(correct, group) == {"groups/pass@2": pytest.approx(1 / 3)}
    assert d.group_pass_at_k(torch.tensor([True]), torch.tensor([0])) == {}


def test_lengths_and_the_share_that_the_limit_cut_off():
    length = torch.tensor([2, 5, 3, 5])
    measured = d.response_lengths(length, torch.tensor([True, True, False, False]), 5)
    assert measured == {"length/truncated": 0.5, "length/correct": 3.5, "length/incorrect": 4.0}
    # the longest of a batch is not a truncated one
    assert d.response_lengths(length, None, 6) == {"length/truncated": 0.0}
    assert "length/correct" not in d.response_lengths(length, torch.zeros(4).bool(), 5)
