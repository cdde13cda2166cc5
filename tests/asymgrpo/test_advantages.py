"""Advantages: closed forms, reductions, invariants, edges. No verl needed."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.asymgrpo import advantages as adv

# Eq 10 worked out by hand at G = 8, three decimals: correct of 8, A+ at .5 .7 .9,
# A- at .5 .4 .3 .7, group mean at (.9, .4)
TABLE_G8 = [
    (1, 2.646, 3.905, 5.762, -0.378, -0.459, -0.558, -0.256, 0.319),
    (2, 1.732, 2.158, 2.688, -0.577, -0.644, -0.719, -0.463, 0.189),
    (3, 1.291, 1.430, 1.584, -0.775, -0.815, -0.858, -0.699, 0.084),
    (4, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0, 0.0),
    (5, 0.775, 0.699, 0.631, -1.291, -1.227, -1.166, -1.430, -0.065),
    (6, 0.577, 0.463, 0.372, -1.732, -1.552, -1.390, -2.158, -0.109),
    (7, 0.378, 0.256, 0.174, -2.646, -2.178, -1.793, -3.905, -0.120),
]

ESTIMATORS = {
    "asymgrpo": lambda c, g, v=None: adv.odds_advantage(c, g, 0.9, 0.4, v),
    "reinforce": lambda c, g, v=None: adv.odds_advantage(c, g, 0.0, 0.0, v),
    "pos_only": lambda c, g, v=None: adv.odds_advantage(c, g, 0.5, 0.0, v),
    "ent_increase": adv.ent_increase_advantage,
    "ent_decrease": adv.ent_decrease_advantage,
    "grpo": lambda c, g, v=None: adv.grpo_advantage(c, g, valid_B=v),
    "grpo_sample": lambda c, g, v=None: adv.grpo_advantage(c, g, "sample", 1e-6, v),
    "pass_at_k": lambda c, g, v=None: adv.pass_at_k_advantage(c, g, 3, v),
    "psr": lambda c, g, v=None: adv.weighted_sign_advantage(c, g, 1.0, 0.0, v),
    "nsr": lambda c, g, v=None: adv.weighted_sign_advantage(c, g, 0.0, 1.0, v),
    "w_reinforce": lambda c, g, v=None: adv.weighted_sign_advantage(c, g, 0.1, 1.0, v),
    "qae": lambda c, g, v=None: adv.quantile_advantage(c, g, valid_B=v),
    "max_rl": adv.max_likelihood_advantage,
}
every_estimator = pytest.mark.parametrize("name", ESTIMATORS)


def group(correct: int, size: int):
    """One group: `correct` correct rows first, then the incorrect ones."""
    return torch.arange(size) < correct, torch.zeros(size, dtype=torch.long)


def values(estimator, correct: int, size: int, *args):
    """(advantage of a correct, of an incorrect row) in one group; None where there is none."""
    adv_B = estimator(*group(correct, size), *args)
    assert adv_B.dtype == torch.float32
    positive, negative = adv_B[:correct].unique().tolist(), adv_B[correct:].unique().tolist()
    assert len(positive) <= 1 and len(negative) <= 1
    return (positive or [None])[0], (negative or [None])[0]


def batch(outcomes: list[list[bool]]):
    correct_B = torch.tensor([c for rows in outcomes for c in rows])
    group_B = torch.tensor([p for p, rows in enumerate(outcomes) for _ in rows])
    return correct_B, group_B


batches = st.lists(st.lists(st.booleans(), min_size=1, max_size=12), min_size=1, max_size=8)
betas = st.floats(0, 2, allow_nan=False)
many = settings(max_examples=100, deadline=None)


# --- eq 10: closed forms ---


@pytest.mark.parametrize("row", TABLE_G8, ids=lambda row: f"{row[0]}_of_8")
def test_odds_advantage_gives_every_cell_of_the_papers_g8_table(row):
    correct, p5, p7, p9, n5, n4, n3, n7, mean = row
    for (beta_pos, beta_neg), expected in {
        (0.5, 0.5): (p5, n5),
        (0.7, 0.7): (p7, n7),
        (0.9, 0.4): (p9, n4),
        (0.9, 0.3): (p9, n3),
    }.items():
        got = values(adv.odds_advantage, correct, 8, beta_pos, beta_neg)
        assert got == pytest.approx(expected, abs=5.01e-4)  # the table has three decimals
    group_mean = adv.odds_advantage(*group(correct, 8), 0.9, 0.4).mean()
    assert group_mean.item() == pytest.approx(mean, abs=5.01e-4)


def test_odds_advantage_is_accurate_to_1e6_against_exact_odds():
    # p = 3/7: (4/3)^0.9 and (3/4)^0.4
    got = values(adv.odds_advantage, 3, 7, 0.9, 0.4)
    assert got == pytest.approx(((4 / 3) ** 0.9, -((3 / 4) ** 0.4)), abs=1e-6)


@pytest.mark.parametrize(
    ("beta_pos", "beta_neg", "all_correct", "all_incorrect"),
    [
        (0.9, 0.4, 0.0, 0.0),
        (0.5, 0.5, 0.0, 0.0),
        (0.5, 0.0, 0.0, -1.0),  # Pos-Only trains on all-incorrect groups
        (0.0, 0.5, 1.0, 0.0),  # Neg-Only trains on all-correct groups
        (0.0, 0.0, 1.0, -1.0),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 8])
def test_one_sided_groups_follow_zero_to_the_zero_is_one(
    size, beta_pos, beta_neg, all_correct, all_incorrect
):
    assert values(adv.odds_advantage, size, size, beta_pos, beta_neg) == (all_correct, None)
    assert values(adv.odds_advantage, 0, size, beta_pos, beta_neg) == (None, all_incorrect)


def test_beta_zero_is_plus_one_and_minus_one_whatever_the_group():
    correct_B, group_B = batch([[True, False, False], [True] * 4, [False] * 2, [True]])
    expected = torch.where(correct_B, 1.0, -1.0)
    assert torch.equal(adv.odds_advantage(correct_B, group_B, 0.0, 0.0), expected)


# --- baselines: closed forms and reductions ---


@pytest.mark.parametrize("size", [2, 3, 8, 16])
def test_grpo_with_population_std_and_no_epsilon_is_beta_one_half(size):
    for correct in range(size + 1):
        correct_B, group_B = group(correct, size)
        torch.testing.assert_close(
            adv.grpo_advantage(correct_B, group_B),
            adv.odds_advantage(correct_B, group_B, 0.5, 0.5),
            atol=1e-6,
            rtol=0,
        )


def test_grpo_sample_std_and_epsilon_follow_their_formula():
    # rewards 1 0 0 0: mean 1/4, sample variance (9/16 + 3/16)/3 = 1/4, std 1/2, eps 1/4
    assert values(adv.grpo_advantage, 1, 4, "sample", 0.25) == pytest.approx((1.0, -1 / 3))
    # population variance 3/16
    std = math.sqrt(3 / 16)
    expected = (0.75 / (std + 0.25), -0.25 / (std + 0.25))
    assert values(adv.grpo_advantage, 1, 4, "population", 0.25) == pytest.approx(expected)


@pytest.mark.parametrize("std", ["population", "sample"])
@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_grpo_gives_zero_to_one_sided_groups_and_groups_of_one(std, eps):
    for size in (1, 2, 8):
        assert values(adv.grpo_advantage, size, size, std, eps) == (0.0, None)
        assert values(adv.grpo_advantage, 0, size, std, eps) == (None, 0.0)


def test_flips_have_the_papers_boundary_values_at_g8():
    # V = 2 sqrt(7) - sqrt(3) = 3.559
    assert values(adv.ent_decrease_advantage, 8, 8)[0] == pytest.approx(3.559, abs=5e-4)
    assert values(adv.ent_increase_advantage, 0, 8)[1] == pytest.approx(-3.559, abs=5e-4)
    assert values(adv.ent_decrease_advantage, 0, 8)[1] == 0.0
    assert values(adv.ent_increase_advantage, 8, 8)[0] == 0.0


@pytest.mark.parametrize("size", [2, 3, 5, 8])
def test_flips_mirror_one_grpo_curve_and_leave_the_other(size):
    for correct in range(1, size):
        grpo_pos, grpo_neg = values(adv.grpo_advantage, correct, size)
        mirror_pos, mirror_neg = values(adv.grpo_advantage, size - correct, size)
        assert values(adv.ent_decrease_advantage, correct, size) == pytest.approx(
            (mirror_pos, grpo_neg), abs=1e-6
        )
        assert values(adv.ent_increase_advantage, correct, size) == pytest.approx(
            (grpo_pos, mirror_neg), abs=1e-6
        )


@pytest.mark.parametrize("size", [2, 3, 4, 8, 16])
def test_flips_end_on_the_line_through_their_last_two_points(size):
    def curve(j):  # Atilde(j/n)
        return math.sqrt(j / (size - j))

    end = 2 * curve(size - 1) - curve(size - 2)
    assert values(adv.ent_decrease_advantage, size, size)[0] == pytest.approx(end, abs=1e-6)
    assert values(adv.ent_increase_advantage, 0, size)[1] == pytest.approx(-end, abs=1e-6)


def test_flips_of_a_group_of_one_are_zero():
    for estimator in (adv.ent_decrease_advantage, adv.ent_increase_advantage):
        assert values(estimator, 1, 1) == (0.0, None)
        assert values(estimator, 0, 1) == (None, 0.0)


@pytest.mark.parametrize(("size", "k"), [(8, 5), (16, 5), (5, 5), (64, 16), (8, 2)])
def test_pass_at_k_matches_the_authors_formula_with_exact_binomials(size, k):
    for correct in range(size + 1):
        incorrect = size - correct
        reward = 1 - math.comb(incorrect, k) / math.comb(size, k)
        sigma = math.sqrt(reward * (1 - reward))
        if sigma == 0:
            expected_pos = expected_neg = 0.0
        else:
            expected_pos = (1 - reward) / sigma
            shared = math.comb(incorrect - 1, k - 1) / math.comb(size - 1, k - 1)
            expected_neg = (1 - reward - shared) / sigma
        got_pos, got_neg = values(adv.pass_at_k_advantage, correct, size, k)
        assert got_pos is None or got_pos == pytest.approx(expected_pos, abs=1e-6, rel=1e-6)
        assert got_neg is None or got_neg == pytest.approx(expected_neg, abs=1e-6, rel=1e-6)


def test_pass_at_one_is_grpo():
    for correct in range(9):
        correct_B, group_B = group(correct, 8)
        torch.testing.assert_close(
            adv.pass_at_k_advantage(correct_B, group_B, 1),
            adv.grpo_advantage(correct_B, group_B),
            atol=1e-6,
            rtol=0,
        )


def test_pass_at_k_is_zero_in_groups_smaller_than_k():
    assert values(adv.pass_at_k_advantage, 1, 4, 5) == (0.0, 0.0)


def test_entropy_shaping_adds_alpha_entropy_up_to_a_share_of_the_advantage():
    # min(.4 H, |A|/2): .4 of H = 1; capped at |A|/2 for H = 10; nothing where A = 0
    shaped = adv.entropy_shaped_advantage(
        torch.tensor([[2.0, 2.0, -2.0, -2.0, 0.0]]),
        torch.tensor([[1.0, 10.0, 1.0, 10.0, 5.0]]),
        kappa=2.0,
        alpha=0.4,
    )
    expected = torch.tensor([[2.4, 3.0, -1.6, -1.0, 0.0]])
    torch.testing.assert_close(shaped, expected, atol=1e-6, rtol=0)


def test_entropy_shaping_lets_no_gradient_into_the_entropy():
    entropy = torch.ones(3, requires_grad=True)
    assert not adv.entropy_shaped_advantage(torch.ones(3), entropy, 2.0, 0.4).requires_grad


# --- invariants of every estimator ---


def loop_reference(name, outcomes):
    """Group by group and row by row, on Python floats."""
    out = []
    for rows in outcomes:
        n, k = len(rows), sum(rows)
        p = k / n
        for correct in rows:
            if name == "asymgrpo":
                a = ((1 - p) / p) ** 0.9 if correct else -((p / (1 - p)) ** 0.4)
            elif name == "reinforce":
                a = 1.0 if correct else -1.0
            elif name == "pos_only":
                a = ((1 - p) / p) ** 0.5 if correct else -1.0
            elif name.startswith("grpo"):
                sample = name == "grpo_sample"
                spread = sum((r - p) ** 2 for r in rows)
                std = math.sqrt(spread / max(n - 1 if sample else n, 1))
                a = (correct - p) / (std + (1e-6 if sample else 0.0)) if std else 0.0
            elif name in ("ent_increase", "ent_decrease"):
                same = k if correct else n - k
                flipped = correct == (name == "ent_decrease")
                if not flipped:
                    a = math.sqrt((n - same) / same)
                elif same < n:
                    a = math.sqrt(same / (n - same))
                elif n == 1:
                    a = 0.0
                else:
                    a = 2 * math.sqrt(n - 1) - math.sqrt((n - 2) / 2)
                a = a if correct else -a
            elif name in ("psr", "nsr", "w_reinforce"):
                a = {"psr": (1, 0), "nsr": (0, -1), "w_reinforce": (0.1, -1)}[name][not correct]
            elif name == "qae":  # the ceil(K n)-th smallest reward, of GRPO's std
                b = sorted(rows)[math.ceil(0.4 * n - 1e-9) - 1]
                a = (correct - b) / math.sqrt(p * (1 - p)) if correct != b else 0.0
            elif name == "max_rl":
                a = (correct - p) / p if p else 0.0
            else:
                fail = math.comb(n - k, 3) / max(math.comb(n, 3), 1)
                sigma = math.sqrt(fail * (1 - fail))
                shared = 0 if correct else math.comb(n - k - 1, 2) / max(math.comb(n - 1, 2), 1)
                a = (fail - shared) / sigma if sigma else 0.0
            out.append(a)
    return torch.tensor(out, dtype=torch.float32)


@every_estimator
@many
@given(outcomes=batches)
def test_vectorised_equals_loop(name, outcomes):
    got = ESTIMATORS[name](*batch(outcomes))
    torch.testing.assert_close(got, loop_reference(name, outcomes), atol=1e-6, rtol=1e-6)


@every_estimator
@many
@given(outcomes=batches)
def test_correct_is_never_negative_and_incorrect_never_positive(name, outcomes):
    correct_B, group_B = batch(outcomes)
    adv_B = ESTIMATORS[name](correct_B, group_B)
    assert adv_B.isfinite().all()
    assert (adv_B[correct_B] >= 0).all() and (adv_B[~correct_B] <= 0).all()


@every_estimator
@many
@given(outcomes=batches, data=st.data())
def test_neither_row_order_nor_group_numbers_matter(name, outcomes, data):
    correct_B, group_B = batch(outcomes)
    rows = torch.tensor(data.draw(st.permutations(range(len(correct_B)))))
    numbers = torch.tensor(data.draw(st.permutations(range(len(outcomes)))))
    adv_B = ESTIMATORS[name](correct_B, group_B)
    moved = ESTIMATORS[name](correct_B[rows], numbers[group_B][rows])
    assert torch.equal(moved, adv_B[rows])


@every_estimator
@many
@given(outcomes=batches, data=st.data())
def test_splitting_a_batch_by_whole_groups_over_ranks_changes_nothing(name, outcomes, data):
    cut = data.draw(st.integers(0, len(outcomes)))
    parts = [part for part in (outcomes[:cut], outcomes[cut:]) if part]
    split = torch.cat([ESTIMATORS[name](*batch(part)) for part in parts])
    assert torch.equal(split, ESTIMATORS[name](*batch(outcomes)))


@every_estimator
@many
@given(outcomes=batches, data=st.data())
def test_rows_that_are_not_counted_get_zero_and_touch_no_group(name, outcomes, data):
    correct_B, group_B = batch(outcomes)
    keep = st.lists(st.booleans(), min_size=len(correct_B), max_size=len(correct_B))
    valid_B = torch.tensor(data.draw(keep))
    adv_B = ESTIMATORS[name](correct_B, group_B, valid_B)
    assert (adv_B[~valid_B] == 0).all()
    alone = ESTIMATORS[name](correct_B[valid_B], group_B[valid_B])
    assert torch.equal(adv_B[valid_B], alone)


@every_estimator
def test_inputs_are_not_modified(name):
    inputs = [*batch([[True, False, False], [True, True], [False]]), torch.arange(6) != 2]
    before = [x.clone() for x in inputs]
    ESTIMATORS[name](*inputs)
    assert all(torch.equal(x, y) for x, y in zip(inputs, before, strict=True))


@many
@given(size=st.integers(2, 16), data=st.data(), beta_pos=betas, beta_neg=betas)
def test_group_mean_is_zero_if_and_only_if_the_betas_sum_to_one(size, data, beta_pos, beta_neg):
    correct = data.draw(st.integers(1, size - 1))
    rows = group(correct, size)
    if beta_pos <= 1:
        assert adv.odds_advantage(*rows, beta_pos, 1 - beta_pos).double().mean().abs() < 1e-6
    if abs(beta_pos + beta_neg - 1) > 1e-2 and 2 * correct != size:
        mean = adv.odds_advantage(*rows, beta_pos, beta_neg).double().mean()
        # p A+ / ((1-p) |A-|) = (p/(1-p))^(1 - beta_pos - beta_neg)
        assert mean.abs() > 1e-6
        assert (mean > 0) == ((beta_pos + beta_neg < 1) == (2 * correct > size))


# --- rows to tokens, and reading a batch ---


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool, torch.float32])
def test_token_advantages_repeats_the_row_on_its_mask_and_is_zero_elsewhere(dtype):
    mask_BT = torch.tensor([[1, 1, 0], [1, 0, 1], [0, 0, 0]]).to(dtype)
    got = adv.token_advantages(torch.tensor([2.5, -1.5, 3.0]), mask_BT)
    expected = torch.tensor([[2.5, 2.5, 0.0], [-1.5, 0.0, -1.5], [0.0, 0.0, 0.0]])
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)
