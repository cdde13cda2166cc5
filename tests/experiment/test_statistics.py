from itertools import combinations
from math import comb

import numpy as np
import pytest

from recipe.experiment.statistics import interval, pass_at_k


@pytest.mark.parametrize("samples", [1, 2, 5, 8])
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(samples):
    for right in range(samples + 1):
        row = [1] * right + [0] * (samples - right)
        for k in range(1, samples + 1):
            brute = np.mean([any(draw) for draw in combinations(row, k)])
            assert pass_at_k([right], samples, k) == pytest.approx(brute, abs=1e-12)


def test_pass_at_k_is_the_closed_form_where_floats_would_overflow():
    right = np.array([0, 1, 7, 500, 1000])
    exact = [1 - comb(1024 - c, 256) / comb(1024, 256) for c in right.tolist()]
    np.testing.assert_allclose(pass_at_k(right, 1024, 256), exact, rtol=1e-9)
    np.testing.assert_allclose(pass_at_k(right, 1024, 1), right / 1024, rtol=1e-9)


@pytest.mark.parametrize(("right", "samples", "k"), [([1], 4, 5), ([1], 4, 0), ([5], 4, 2)])
def test_pass_at_k_refuses_what_it_cannot_estimate(right, samples, k):
    with pytest.raises(ValueError):
        pass_at_k(right, samples, k)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("seed_sd", [0.0, 0.02, 0.1])
def test_intervals_cover(seeds, seed_sd):
    """Runs of true accuracies around 0.5, on problems of a population: 95 % of the intervals hold
    the population's mean. More is allowed: with no spread between seeds the t is generous."""
    rng = np.random.default_rng(1)
    trials, problems, samples = 200, 120, 8
    held = 0
    for trial in range(trials):
        difficulty_P = rng.beta(1, 1, size=problems)
        true_SP = np.clip(difficulty_P + seed_sd * rng.standard_normal((seeds, 1)), 0, 1)
        seen_SP = rng.binomial(samples, true_SP) / samples
        _, low, high = interval(seen_SP, draws=500, seed=trial)
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


def test_one_seed_or_one_number_a_run():
    problems = np.arange(100) % 2
    one = interval(problems)
    assert one.mean == 0.5 and 0.39 < one.low < 0.42 and 0.58 < one.high < 0.61
    runs = interval([[1.0], [2.0], [3.0]])
    assert runs.mean == 2.0 and runs.low == pytest.approx(2 - 4.303 / np.sqrt(3), abs=0.5)
    assert interval([[3.0]]) == (3.0, 3.0, 3.0)
