"""Estimates and intervals of comparisons, on plain arrays.

Axes: S seeds (runs of one method), P problems, D points of a distribution.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, comb, isfinite
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import stdtr, stdtrit

LEAST = 16  # grid points per standard deviation of the values
REACH = 12  # standard deviations of the bootstrapped sum on either side of its mean
ROUNDING = 1e-12  # of the largest value: values that differ by no more differ by their rounding


class Estimate(NamedTuple):
    mean: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        spec = spec or ".3f"
        return f"{self.mean:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def finite(value: Any) -> float | None:
    """Returns a logged value as a finite float, else None: verl's logger writes NaN as null, and a
    line may hold anything."""
    try:
        return float(value) if isinstance(value, int | float) and isfinite(value) else None
    except OverflowError:  # a whole number beyond a float's range
        return None


def pass_at_k(correct_P: ArrayLike, samples: int, k: int) -> np.ndarray:
    """pass@k of each problem, unbiased: 1 - C(n - c, k) / C(n, k).

    Args:
        correct_P: c, the number of correct samples of each problem, 0 .. n.
        samples: n, at least k. At n = k pass@k is 0 or 1: whether any sample is correct.
        k: number of samples drawn without replacement.

    Returns:
        (P,) float64.

    Raises:
        ValueError: k is not within 1 .. n, or a count not within 0 .. n.

    Source: arXiv 2107.03374, eq 1.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} needs at least {k} samples per problem, there are {samples}.")
    correct_P = np.asarray(correct_P, dtype=np.int64)
    if correct_P.size and not 0 <= correct_P.min() <= correct_P.max() <= samples:
        raise ValueError(f"A count of correct samples is not within 0 to {samples}.")
    # Python integers: nothing overflows, nothing is rounded before the division
    all_draws = comb(samples, k)
    table = [1 - comb(samples - correct, k) / all_draws for correct in range(samples + 1)]
    return np.array(table)[correct_P]


def same(values: np.ndarray, inputs: np.ndarray) -> bool:
    """Says whether values, such as means over seeds, are all the same but for the rounding of the
    inputs that they were computed from: these may cancel, and the values be rounding alone."""
    return bool(np.ptp(values) <= ROUNDING * np.abs(inputs).max())


def standard_error(values_S: np.ndarray) -> float:
    """Returns the standard error of the mean of two or more values."""
    return float(values_S.std(ddof=1) / np.sqrt(len(values_S)))


def interval(values_SP: ArrayLike, level: float = 0.95) -> Estimate:
    """The mean over seeds and problems with an interval of it.

    Model: the mean is m = X + e T. X is the mean over P problems drawn with replacement from the
    P measured ones (each the mean over its seeds): the bootstrap over problems. T is Student's t
    with S - 1 degrees of freedom and e the standard error of the S runs' means, sd / sqrt(S), for
    three or five seeds are too few for a bootstrap: its intervals would hold the truth far less
    often than they claim. The limits are the quantiles (1 - level) / 2 and (1 + level) / 2 of m.
    e also holds the noise that the runs' own sampling of responses adds, and X holds it again in
    part, so with no spread between seeds the interval is wider than it must be.

    Nothing is drawn, so there is no Monte-Carlo error: T has a closed form, the distribution of X
    is computed (`bootstrapped_mean`), and m's distribution function is the mean of T's over X. What
    is left is the rounding of X to a grid: less than 0.5 % of the half width (measured by refining
    the grid, 3 to 240 problems).

    Degenerate cases: P = 1 (one number per run) is the exact Student's t interval over the seeds;
    S = 1 is the bootstrap interval, which speaks of the problems alone; S = P = 1 has no width, nor
    have values that are all the same: an interval without width says nothing of chance.

    Args:
        values_SP: (S, P), or (P,) for one seed. For a paired difference of two methods, the
            differences of their values (same seeds, same problems).
        level: the share of intervals that are to hold the true mean.

    Raises:
        ValueError: there is no value, or one that is not finite.
    """
    values_SP = np.atleast_2d(np.asarray(values_SP, dtype=np.float64))
    if not values_SP.size or not np.isfinite(values_SP).all():
        raise ValueError("An interval needs at least one value, and finite ones only.")
    seeds, mean_P = len(values_SP), values_SP.mean(0)
    mean = float(values_SP.mean())
    error = 0.0 if same(values_SP.mean(1), values_SP) else standard_error(values_SP.mean(1))
    if same(mean_P, values_SP):
        mean_D, mass_D = np.array([mean]), np.ones(1)
    else:  # with one seed the limits are points of the grid, so it is finer
        mean_D, mass_D = bootstrapped_mean(mean_P, 1024 if seeds == 1 else 256)

    def quantile(p: float) -> float:
        if not error:
            index = int(np.searchsorted(np.cumsum(mass_D), p * (1 - 1e-12)))
            return float(mean_D[min(index, len(mean_D) - 1)])
        student = error * stdtrit(seeds - 1, p)
        if len(mean_D) == 1:
            return float(mean_D[0] + student)
        tolerance = 1e-6 * error  # without it, rounding hides the signs at the ends of a narrow X
        return brentq(
            lambda limit: mass_D @ stdtr(seeds - 1, (limit - mean_D) / error) - p,
            mean_D[0] + student - tolerance,
            mean_D[-1] + student + tolerance,
            xtol=tolerance,
        )

    return Estimate(mean, quantile((1 - level) / 2), quantile((1 + level) / 2))


def bootstrapped_mean(values_P: np.ndarray, points: int = 1024) -> tuple[np.ndarray, np.ndarray]:
    """The distribution of the mean of P values drawn with replacement from the P given ones.

    The sum of P independent draws has the P-fold convolution of the values' distribution: on a
    grid, the P-th power of its Fourier transform.

    Args:
        values_P: (P,) finite values that are not all the same.
        points: of the grid, per standard deviation of the mean.

    Returns:
        mean_D, mass_D: (D,) each, possible means in ascending order and their probabilities.
    """
    problems, low = len(values_P), values_P.min()
    span, sd = np.ptp(values_P), values_P.std()
    steps = ceil(
        max(points / np.sqrt(problems), LEAST) * span / sd
    )  # of the grid between the lowest and the highest value
    # the sum ends at most this far from its mean; the transform is periodic, so twice that is kept
    reach = min(problems * steps, ceil(REACH * np.sqrt(problems) * sd / span * steps))
    size = 2 * reach + 1
    # a value between two grid points is divided between them such that its mean stays
    place_P = (values_P - low) / span * steps
    below_P = np.minimum(place_P.astype(np.int64), steps - 1)
    above_P = place_P - below_P
    mass: np.ndarray = np.bincount(below_P % size, 1 - above_P, size)
    mass += np.bincount((below_P + 1) % size, above_P, size)
    mass = np.fft.irfft(np.fft.rfft(mass / problems) ** problems, size)
    centre = round(place_P.sum())
    sum_D = np.arange(centre - reach, centre + reach + 1)
    mass_D = mass[sum_D % size]
    kept = mass_D > 1e-10  # the others hold next to nothing, or the transform's rounding
    mass_D = mass_D[kept]
    return low + sum_D[kept] * (span / steps / problems), mass_D / mass_D.sum()


def t_test(values_S: ArrayLike) -> float | None:
    """The two-sided p value of the t test that the mean of S values is 0, such as the paired
    differences of two methods, one per seed. `interval` of them holds 0 just where p > 0.05.

    Args:
        values_S: at least two.

    Returns:
        None for values that are all the same: without a spread there is nothing to test by.

    Raises:
        ValueError: there are fewer than two values, or one is not finite.
    """
    values_S = np.asarray(values_S, dtype=np.float64)
    if values_S.size < 2 or not np.isfinite(values_S).all():
        raise ValueError("A t test needs at least two values, and finite ones only.")
    if same(values_S, values_S):
        return None
    error = standard_error(values_S)
    return float(2 * stdtr(values_S.size - 1, -abs(values_S.mean()) / error))


def holm(p_H: ArrayLike) -> np.ndarray:
    """The p values of H hypotheses, corrected by Holm's method, in the given order.

    The i-th smallest (i from 0) is multiplied by H - i; no corrected value is below that of a
    smaller one, or above 1. Rejecting those up to 0.05 rejects any true hypothesis with
    probability at most 0.05, however the hypotheses depend on each other.

    Source: Holm (1979), A simple sequentially rejective multiple test procedure.
    """
    p_H = np.asarray(p_H, dtype=np.float64)
    order_H = np.argsort(p_H, kind="stable")
    corrected_H = np.empty_like(p_H)
    factors_H = np.arange(len(p_H), 0, -1)
    corrected_H[order_H] = np.minimum(np.maximum.accumulate(p_H[order_H] * factors_H), 1.0)
    return corrected_H


def seeds_needed(sd: float, half_width: float, least: int = 2) -> int:
    """The smallest number of seeds n whose 95 % interval of a paired difference has this half
    width: t(n-1, 0.975) sqrt(2) sd / sqrt(n).

    Args:
        sd: of one run's value between seeds; two runs of a seed are taken to share nothing.
        half_width: above 0.
        least: the smallest n that is returned, at least 2.
    """
    n = least
    while stdtrit(n - 1, 0.975) * np.sqrt(2 / n) * sd > half_width:
        n += 1
    return n


def pooled_sd(samples: Iterable[Sequence[float]]) -> tuple[float | None, int]:
    """The standard deviation within samples: sqrt(sum of squares / degrees of freedom).

    Returns:
        It, and its degrees of freedom; None where no sample has two values.
    """
    several = [np.asarray(sample) for sample in samples if len(sample) > 1]
    freedom = sum(len(sample) - 1 for sample in several)
    squares = sum(np.var(sample) * len(sample) for sample in several)
    return (float(np.sqrt(squares / freedom)) if freedom else None), freedom
