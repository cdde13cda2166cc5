"""Draws of training prompts that follow each prompt's latest pass rate.

Axes: N prompts of the training data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

ORDERS = ("none", "failure", "variance")


def chance(order: str, pass_rate_N: np.ndarray, floor: float) -> np.ndarray:
    """Returns (N,): the chance with which a prompt is drawn when its turn comes.

        failure:  w = 1 - s                variance:  w = 4 s (1 - s)
        chance = floor + (1 - floor) w     of a prompt without a pass rate yet: 1

    s is the prompt's pass rate among the rollouts of the last update that had any of it. Of two
    prompts the one is drawn chance_1 / chance_2 times as often as the other.

    Args:
        order: failure or variance.
        pass_rate_N: s in [0, 1]; nan: none yet.
        floor: In (0, 1]; at 1 every chance is 1, a plain shuffle.

    Source: failure: Kimi k1.5, arXiv 2501.12599, prioritized sampling in proportion to 1 - s (the
        report's text on it was not at hand). variance: arXiv 2601.02648, priority s (1 - s) (read
        in part, the formula in a review), which is VCRL's score (arXiv 2509.19803) for an even
        number of rollouts; scaled to at most 1. The floor is *ours*: the former's weight of solved
        prompts is 0, so that they would never be seen again; the latter tests them now and then.
    """
    weight_N = 1 - pass_rate_N if order == "failure" else 4 * pass_rate_N * (1 - pass_rate_N)
    return np.where(np.isnan(pass_rate_N), 1.0, floor + (1 - floor) * weight_N)


class PassRateSampler:
    """A shuffle of all prompts, epoch after epoch, from which each is taken with its chance.

    A prompt comes at most once per epoch. Whether it does is decided when its turn comes, by a
    uniform number of its own that only the seed and the epoch decide: position, epoch and pass
    rates are the whole state.
    """

    def __init__(self, prompts: int, order: str, floor: float, seed: int):
        self.order, self.floor, self.seed = order, floor, seed
        self.pass_rate_N = np.full(prompts, np.nan)
        self.epoch = self.position = 0
        self._shuffle()

    def _shuffle(self) -> None:
        rng = np.random.default_rng([self.seed, self.epoch])
        self._turn_N = rng.permutation(len(self.pass_rate_N))
        self._uniform_N = rng.random(len(self.pass_rate_N))

    def draw(self) -> int:
        """Returns the next prompt."""
        while True:
            if self.position == len(self._turn_N):
                self.epoch, self.position = self.epoch + 1, 0
                self._shuffle()
            row = int(self._turn_N[self.position])
            self.position += 1
            if self._uniform_N[row] < chance(self.order, self.pass_rate_N[row], self.floor):
                return row

    def observe(self, row_B: np.ndarray, correct_B: np.ndarray) -> None:
        """Takes an update's rollouts: the row of each one's prompt, and whether it is correct."""
        rows, group_B = np.unique(row_B, return_inverse=True)
        self.pass_rate_N[rows] = np.bincount(group_B, correct_B) / np.bincount(group_B)

    def state_dict(self) -> dict[str, Any]:
        pass_rates = [None if np.isnan(rate) else float(rate) for rate in self.pass_rate_N]
        return {"epoch": self.epoch, "position": self.position, "pass_rates": pass_rates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]
        self.pass_rate_N = np.array(state["pass_rates"], dtype=np.float64)  # None: nan
        self._shuffle()


class Draws:
    """A sampler as the dataloader takes one. Its state is the trainer part's: what the dataloader
    keeps of a sampler without one, how many were drawn, would draw them again."""

    def __init__(self, sampler: PassRateSampler):
        self.sampler = sampler

    def __iter__(self) -> Iterator[int]:
        while True:
            yield self.sampler.draw()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass
