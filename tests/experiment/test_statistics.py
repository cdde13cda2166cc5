from itertools import combinations, product
from math import comb

import numpy as np
import pytest
from scipy.special import stdtrit
from scipy.stats import binom

from recipe.experiment.statistics import (
    bootstrapped_mean,
    interval,
    pass_at_k,
    pooled_sd,
    t_test,
)


@pytest.mark.parametrize("samples", [1, 2, 5, 8])
def test_pass_at_k_is_the_share_of_draws_with_a_correct_one(samples):
    for correct in range(samples + 1):
        row = [1] * correct + [0] * (samples - correct)
        for k in range(1, samples + 1):
            brute = np.mean([any(draw) for draw in combinations(row, k)])
            assert pass_at_k([correct], samples, k) == pytest.approx(brute, abs=1e-12)


def test_pass_at_k_is_the_closed_form_where_floats_would_overflow():
    correct = np.array([0, 1, 7, 500, 1000])
    exact = [1 - comb(1024 - c, 256) / comb(1024, 256) for c in correct.tolist()]
    np.testing.assert_allclose(pass_at_k(correct, 1024, 256), exact, rtol=1e-9)
    np.testing.assert_allclose(pass_at_k(correct, 1024, 1), correct / 1024, rtol=1e-9)


@pytest.mark.parametrize(("correct", "samples", "k"), [([1], 4, 5), ([1], 4, 0), ([5], 4, 2)])
def test_pass_at_k_refuses_what_it_cannot_estimate(correct, samples, k):
    with pytest.raises(ValueError):
        pass_at_k(correct, samples, k)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("seed_sd", [0.0, 0.02, 0.1])
def test_intervals_cover(seeds, seed_sd):
    """Runs of true accuracies around 0.5, on problems of a population: 95 % of the intervals hold
    the population's mean. More is allowed: with no spread between seeds the t is generous."""
    rng = np.random.default_rng(1)
    trials, problems, samples = 200, 120, 8
    held = 0
    for _ in range(trials):
        difficulty_P = rng.beta(1, 1, size=problems)
        true_SP = np.clip(difficulty_P + seed_sd * rng.standard_normal((seeds, 1)), 0, 1)
        seen_SP = rng.binomial(samples, true_SP) / samples
        _, low, high = interval(seen_SP)
        held += low <= 0.5 <= high
    assert held / trials >= 0.95 - 2.5 * np.sqrt(0.05 * 0.95 / trials)


def test_an_interval_is_not_wider_than_it_must_be():
    rng = np.random.default_rng(2)
    widths = []
    for _ in range(50):
        _, low, high = interval(rng.standard_normal((5, 200)) + rng.standard_normal((5, 1)))
        widths.append(high - low)
    student = 2 * 2.776 / np.sqrt(5) * 0.94  # of a mean of five, 0.94 = E[sd]
    assert np.mean(widths) == pytest.approx(student, rel=0.15)


@pytest.mark.parametrize(
    ("runs", "t"), [(2, 12.7062), (3, 4.3027), (4, 3.1824), (5, 2.7764), (11, 2.2281)]
)
def test_one_number_per_run_is_the_t_interval_of_the_textbooks(runs, t):
    values = np.random.default_rng(3).standard_normal(runs)
    half = t * values.std(ddof=1) / np.sqrt(runs)
    mean, low, high = interval(values[:, None])
    assert mean == pytest.approx(values.mean(), rel=1e-12)
    assert (low, high) == pytest.approx((mean - half, mean + half), rel=1e-4)


@pytest.mark.parametrize(("problems", "correct"), [(30, 3), (240, 131), (500, 499), (2, 1)])
def test_one_seed_is_the_exact_bootstrap(problems, correct):
    """Of answers that are correct or not: the sum of a resample is binomial."""
    limits = binom.ppf([0.025, 0.975], problems, correct / problems) / problems
    assert interval(np.arange(problems) < correct)[1:] == pytest.approx(limits, abs=1e-12)


def skewed(rng, seeds, problems):
    return rng.exponential(size=problems) ** 2 + 0.2 * rng.standard_normal((seeds, 1))


def one_outlier(rng, seeds, problems):
    return (np.arange(problems) == 0) + 0.01 * rng.standard_normal((seeds, 1))


def accuracies(rng, seeds, problems):
    return rng.binomial(8, rng.beta(1, 1, size=problems), size=(seeds, problems)) / 8


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("kind", [skewed, one_outlier, accuracies])
def test_the_limits_are_those_of_drawing_without_end(kind, seeds):
    """Against 40 intervals of 25,000 draws each, whose spread gives the error of their mean."""
    rng = np.random.default_rng(seeds)
    values_SP = kind(rng, seeds, 12)
    _, low, high = interval(values_SP)
    error = values_SP.mean(1).std(ddof=1) / np.sqrt(seeds)
    repeated = []
    for _ in range(40):
        times_DP = rng.multinomial(12, np.full(12, 1 / 12), size=25_000)
        drawn = times_DP @ values_SP.mean(0) / 12 + error * rng.standard_t(seeds - 1, 25_000)
        repeated.append(np.quantile(drawn, [0.025, 0.975]))
    limits, sd = np.mean(repeated, axis=0), np.std(repeated, axis=0, ddof=1)
    half = (high - low) / 2
    assert (sd / np.sqrt(40) < 0.01 * half).all()  # so that the next line says something
    assert np.abs([low, high] - limits).max() < 0.01 * half + 2 * (sd / np.sqrt(40)).max()


@pytest.mark.parametrize("kind", [skewed, one_outlier, accuracies])
@pytest.mark.parametrize("problems", [2, 3, 24, 1000])
def test_the_bootstrapped_mean_has_the_moments_of_the_bootstrap(kind, problems):
    values_P = kind(np.random.default_rng(5), 3, problems).mean(0)
    mean_D, mass_D = bootstrapped_mean(values_P)
    mean = mass_D @ mean_D
    assert mass_D.sum() == pytest.approx(1) and (np.diff(mean_D) > 0).all()
    assert mean == pytest.approx(values_P.mean(), rel=1e-7)
    variance = mass_D @ (mean_D - mean) ** 2
    assert variance == pytest.approx(values_P.var() / problems, rel=1e-3)
    third = mass_D @ (mean_D - mean) ** 3
    of_values = ((values_P - values_P.mean()) ** 3).mean() / problems**2
    assert third == pytest.approx(of_values, rel=5e-3, abs=1e-3 * variance**1.5)


def test_an_interval_repeats_and_moves_with_its_values():
    values_SP = skewed(np.random.default_rng(6), 3, 50)
    once = interval(values_SP)
    assert interval(values_SP) == once
    assert interval(values_SP[:, ::-1]) == pytest.approx(once)
    assert interval(2 * values_SP - 7) == pytest.approx([2 * x - 7 for x in once])


def test_values_without_spread_have_no_width():
    assert interval([[3.0]]) == (3.0, 3.0, 3.0)
    assert interval([[3.0], [3.0]]) == (3.0, 3.0, 3.0)
    assert interval([1.0, 1.0, 1.0]) == (1.0, 1.0, 1.0)
    # the same value at every problem: only the seeds spread
    t = stdtrit(1, 0.975)
    assert interval([[0.0] * 9, [1.0] * 9]) == pytest.approx((0.5, 0.5 - t / 2, 0.5 + t / 2))


def test_seeds_whose_differences_cancel_leave_the_t_interval_of_the_seeds():
    """Two seeds differ by d and by -d at one problem of 30, and their means by d / 15: each
    problem's mean is 0 but for the rounding of tenths, which a bootstrap must not resolve."""
    cancelling = [x for x in product(range(11), repeat=4) if x[0] - x[1] == x[3] - x[2] != 0]
    assert len(cancelling) == 770
    for a, b, c, d in cancelling:
        values_SP = np.zeros((2, 30))
        values_SP[:, 0] = a / 10 - b / 10, c / 10 - d / 10
        half = stdtrit(1, 0.975) * abs(a - b) / 10 / 30  # the sd of d, -d is sqrt(2) d
        assert interval(values_SP) == pytest.approx((0, -half, half), abs=1e-12)


@pytest.mark.parametrize("problems", [2, 1000])
@pytest.mark.parametrize("span", [1e-16, 1e-14, 2e-12, 3e-12, 1e-10])
def test_problems_that_hardly_differ_leave_the_t_interval_of_the_seeds(problems, span):
    seeds_S = np.array([-0.5, 0.0, 0.4, 0.9])
    half = stdtrit(3, 0.975) * seeds_S.std(ddof=1) / 2
    for sign in (1, -1):
        values_SP = np.repeat(seeds_S[:, None], problems, axis=1)
        values_SP[:, 0] += sign * span
        assert interval(values_SP) == pytest.approx((0.2, 0.2 - half, 0.2 + half), rel=1e-5)


def test_seeds_that_differ_by_rounding_alone_are_the_same():
    """Then the interval has no width, and there is nothing to test by."""
    differences_S = np.array([0.4 - 0.3, 0.9 - 0.8])
    assert differences_S[0] != differences_S[1]
    mean, low, high = interval(differences_S[:, None])
    assert low == high == mean == pytest.approx(0.1)
    a, b = differences_S  # they cancel over the seeds, and over the problems
    assert len(set(interval([[a, -b], [-b, b]])[1:])) == 1
    assert t_test(differences_S) is None and t_test([0.0, 0.0]) is None
    assert t_test([0.0625, 0.0626]) < 0.001


@pytest.mark.parametrize("values", [[], [[], []], [0.5, np.nan], [[1.0], [np.inf]]])
def test_an_interval_of_no_or_no_finite_values_is_refused(values):
    with pytest.raises(ValueError, match="at least one value, and finite"):
        interval(values)


def test_the_pooled_standard_deviation_is_within_samples():
    assert pooled_sd([[1.0, 3.0], [10.0, 12.0], [5.0]]) == (pytest.approx(np.sqrt(2)), 2)
    assert pooled_sd([[1.0], []]) == (None, 0)
