"""The paper's lines of the clip bounds (arXiv 2602.09782 v1, sec. 4.1 and C.2)."""

from __future__ import annotations

from recipe.core.clip import Line

H = Line(-0.25, 0.5)  # upper bound: 0.5 at p = 0, 0.25 at p = 1; raises the entropy
M = Line(-0.13, 0.3)  # lower bound: 0.3 at p = 0, 0.17 at p = 1; lowers it
STANDARD = Line(0.0, 0.2)  # eps_std, either bound
