"""Estimates and intervals of the comparisons, on plain arrays.

Axes: S seeds (runs of one arm), P problems.
"""

from __future__ import annotations

from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Estimate(NamedTuple):
    mean: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        spec = spec or ".3f"
        return f"{self.mean:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def pass_at_k(right_P: ArrayLike, samples: int, k: int) -> np.ndarray:
    """pass@k of each problem, unbiased: 1 - C(n - c, k) / C(n, k) (arXiv 2107.03374, eq 1).

    Args:
        right_P: c, the number of right samples, 0 .. n.
        samples: n, at least k. At n = k it is 0 or 1, whether any sample is right.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} needs at least {k} samples a problem, there are {samples}.")
    right_P = np.asarray(right_P, dtype=np.int64)
    if right_P.size and not 0 <= right_P.min() <= right_P.max() <= samples:
        raise ValueError(f"A count of right samples is not within 0 to {samples}.")
    # whole numbers of any size: nothing overflows, nothing is rounded before the division
    all_draws = comb(samples, k)
    table = [1 - comb(samples - right, k) / all_draws for right in range(samples + 1)]
    return np.array(table)[right_P]


def interval(values_SP: ArrayLike, level: float = 0.95, draws: int = 4000, seed: int = 0):
    """The mean over seeds and problems, and a bootstrap interval of it (an Estimate).

    Problems are drawn with replacement. Three or five seeds are too few for that (an interval that
    claims 95 % would hold the truth far less often), so the mean over seeds is drawn from Student's
    t with S - 1 degrees of freedom around the measured one, with its standard error. One seed: the
    interval speaks of the problems alone. One problem (a number a run): of the seeds alone. A
    paired difference of two arms is the interval of their values' difference.
    """
    values_SP = np.atleast_2d(np.asarray(values_SP, dtype=np.float64))
    seeds, problems = values_SP.shape
    rng = np.random.default_rng(seed)
    mean_P = values_SP.mean(0)
    mean = mean_P.mean()
    drawn = np.full(draws, mean)
    if problems > 1:
        times_DP = rng.multinomial(problems, np.full(problems, 1 / problems), size=draws)
        drawn = times_DP @ mean_P / problems
    if seeds > 1:
        error = values_SP.mean(1).std(ddof=1) / np.sqrt(seeds)
        drawn = drawn + error * rng.standard_t(seeds - 1, size=draws)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(mean), float(low), float(high))
