"""Per-token clip bounds that are lines in the token's probability (arXiv 2602.09782 v1, sec. 4.1).

A schedule only ever mixes such lines with one another and with constants, which are lines too. So
four numbers say where the bounds are at a step, however many tokens there are.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Line(NamedTuple):
    """eps(p) = slope p + intercept (eq 7), for p in [0, 1]."""

    slope: float
    intercept: float

    def mixed(self, other: Line, weight: float) -> Line:
        """(1 - weight) self + weight other; exact at both ends."""
        return Line(
            *((1 - weight) * a + weight * b for a, b in zip(self, other, strict=True)),
        )

    def within(self, low: float, high: float) -> bool:
        """True if low <= eps(p) <= high for every p in [0, 1]."""
        ends = (self.intercept, self.slope + self.intercept)
        return low <= min(ends) and max(ends) <= high


# sec. 4.1 and C.2: the paper's two lines and its constant
H = Line(-0.25, 0.5)  # upper: 0.5 at p = 0, 0.25 at p = 1; raises the entropy
M = Line(-0.13, 0.3)  # lower: 0.3 at p = 0, 0.17 at p = 1; lowers it
STANDARD = Line(0.0, 0.2)


class Bounds(NamedTuple):
    """A token keeps its gradient while ratio <= 1 + upper(p) if A > 0, >= 1 - lower(p) if A < 0.

    floor and ceiling cut both lines off; the paper's lines never reach them.
    """

    upper: Line
    lower: Line
    floor: float = 0.0
    ceiling: float = 1.0

    @property
    def flat(self) -> bool:
        """True if neither bound depends on p."""
        return self.upper.slope == self.lower.slope == 0

    def epsilons(self, p: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """(upper, lower) at probabilities p of any shape; a plain number where the line is flat."""
        return self._epsilon(self.upper, p), self._epsilon(self.lower, p)

    def _epsilon(self, line: Line, p: Tensor) -> Tensor | float:
        if line.slope == 0:
            return min(max(line.intercept, self.floor), self.ceiling)
        eps = line.intercept + line.slope * p
        if line.within(self.floor, self.ceiling):
            return eps
        return eps.clamp(self.floor, self.ceiling)
