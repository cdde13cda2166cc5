"""Signed sums: a reasoning task with checkable answers and graded difficulty.

A problem is a sum of signed integers, for example `7-12+9`. A worked solution takes the terms in
any order that never goes below zero and writes the running total after each: `9+7=16-12=4`. The
answer is the last number. Every order is correct, so a policy has many ways to be correct and its
entropy has something to lose; and each further term is one more chance to slip or to forget a term,
so difficulty is graded.
"""

from __future__ import annotations

import random
import re
from collections import deque
from typing import NamedTuple

from recipe.cpu.tasks.task import Task


class Level(NamedTuple):
    """`terms` summands, each from 1 to `largest` in size."""

    terms: int
    largest: int


# numbered by length, then size; how hard each is for the warm start is in its report
LEVELS = {
    1: Level(2, 30),
    2: Level(3, 9),
    3: Level(3, 20),
    4: Level(4, 9),
    5: Level(4, 20),
    6: Level(5, 9),
}
_NUMBER = re.compile(r"[+-]?\d+")
_UNDONE = re.compile(r"\d[ \t]*[-+ \t][ \t]*$")  # before a number
_PROMPT = re.compile(r"\d+([+-]\d+)+")


class Problem(NamedTuple):
    """A signed sum of a level."""

    level: int
    terms: tuple[int, ...]

    @property
    def prompt(self) -> str:
        """The text, such as `7-12+9`: the first term is positive and has no sign."""
        return "".join(f"{term:+d}" for term in self.terms).removeprefix("+")

    @property
    def ground_truth(self) -> str:
        """The sum as digits, which `recipe.judge` compares the response's last number with."""
        return str(sum(self.terms))

    @property
    def essence(self) -> tuple[int, ...]:
        """The terms without their order."""
        return tuple(sorted(self.terms))

    def solution(self, rng: random.Random) -> str:
        """Writes a worked solution, see `solution`."""
        return solution(self.terms, rng)

    def is_solved_by(self, response: str) -> bool:
        """Says whether the last number of a response is the sum."""
        return final_answer(response) == self.ground_truth


def parse(prompt: str) -> tuple[int, ...]:
    """Returns the terms of a prompt: the inverse of `Problem.prompt`.

    Raises ValueError for another text.
    """
    if not _PROMPT.fullmatch(prompt):
        raise ValueError(
            f"prompt {prompt!r} is not a sum such as 7-12+9: write the data with "
            "data_prep/arithmetic.py."
        )
    return tuple(int(term) for term in _NUMBER.findall(prompt))


def draw(level: int, rng: random.Random) -> Problem:
    """Draws a problem of this level whose answer is not negative; a sign is plus with probability
    0.6."""
    terms, largest = LEVELS[level]
    while True:
        sizes = [rng.randint(1, largest) for _ in range(terms)]
        signed = [sizes[0]] + [size if rng.random() < 0.6 else -size for size in sizes[1:]]
        if sum(signed) >= 0:
            return Problem(level, tuple(signed))


def solution(terms: tuple[int, ...], rng: random.Random) -> str:
    """Writes a worked solution in a random order: `first`, then `±term=total` per further term.

    The next term is any one left that keeps the running total at zero or above. There always is
    one: a positive term, or, once only negative ones are left, each of them, since the answer is
    not negative.

    Args:
        terms: the signed summands, their sum not negative.
        rng: the source of the order.
    Returns:
        for example `9+7=16-12=4` for the terms (7, -12, 9).
    """
    if sum(terms) < 0:
        raise ValueError(f"terms {terms} have a negative sum: draw a problem with `draw`.")
    left, total, text = list(terms), 0, ""
    while left:
        allowed = [i for i, term in enumerate(left) if total + term >= 0]
        term = left.pop(rng.choice(allowed))
        total += term
        text += f"{term:+d}={total}" if text else str(term)
    return text


def final_answer(response: str) -> str | None:
    """Returns the last number of a response as the judge reads it, or None: a sign is part of the
    number only where no digit stands before it (`=-3` ends in -3), and the last number of a sum
    that is not done (`12-3`, `12++3`) is no answer."""
    last = next(iter(deque(re.finditer(r"(?<!\d)[-+]?\d+", response), maxlen=1)), None)
    if last is None or _UNDONE.search(response[: last.start()]):
        return None
    return str(int(last[0]))


SIGNED_SUMS = Task(
    name="signed_sums",
    source="synthetic/arithmetic",
    folder="arithmetic",
    alphabet="0123456789+-=\n",
    longest_solution=21,  # `20+20=40+20=60+20=80` or `9+9=18+9=27+9=36+9=45`
    levels={number: level._asdict() for number, level in LEVELS.items()},
    test_size=240,
    draw=draw,
    read=lambda level, prompt: Problem(level, parse(prompt)),
)
