"""Target sums: a task with many correct responses to each prompt, and its exact reward function.

A prompt gives four to six digits and a target, for example `3729:3`. A response is a signed sum
that uses each digit of the prompt exactly once, in any order, and whose value is the target, such
as `9-7+3-2` or `7+3+2-9`: a digit, then a sign and a digit per further digit, and nothing else. Ten
to some thousand responses are correct, so a policy has many ways to be correct and real entropy to
lose, and it must choose signs that reach the target without writing intermediate results.

`compute_score` is verl's reward function of it:
`reward.custom_reward_function.path=pkg://recipe.cpu.tasks.target_sums`.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections import Counter
from typing import Any, NamedTuple

from recipe.cpu.tasks.task import Task

LEVELS = {1: 4, 2: 5, 3: 6}  # digits
_PROMPT = re.compile(r"([1-9]{2,9}):(0|[1-9][0-9]?)")
_RESPONSE = re.compile(r"[1-9](?:[+-][1-9])*")  # ASCII digits alone
_TERM = re.compile(r"[+-]?[1-9]")


class Problem(NamedTuple):
    """Digits from 1 to 9, of which some may be alike, and a target from 0 up."""

    level: int
    digits: tuple[int, ...]
    target: int

    @property
    def prompt(self) -> str:
        """The text, such as `3729:3`."""
        return f"{''.join(map(str, self.digits))}:{self.target}"

    @property
    def ground_truth(self) -> str:
        """The prompt: it says all that a response is checked against."""
        return self.prompt

    @property
    def essence(self) -> tuple[tuple[int, ...], int]:
        """The digits without their order, and the target."""
        return tuple(sorted(self.digits)), self.target

    def solution(self, rng: random.Random) -> str:
        """Draws one of the correct responses, all equally likely."""
        # n - 1 digits follow a positive first one in any order: p (n - 1)! texts per choice of
        # signs with p positive ones. Digits that are alike multiply all texts of a prompt equally.
        choices = list(signs_to(self.digits, self.target))
        signs = rng.choices(choices, [signs.count(1) for signs in choices])[0]
        terms = [sign * digit for sign, digit in zip(signs, self.digits, strict=True)]
        first = terms.pop(rng.choice([i for i, term in enumerate(terms) if term > 0]))
        rng.shuffle(terms)
        return f"{first}{''.join(f'{term:+d}' for term in terms)}"

    def value_of(self, response: str) -> int | None:
        """Returns the value of a response that is a signed sum of just these digits, else None:
        linear in the length of the prompt, however long the response is."""
        if len(response) != 2 * len(self.digits) - 1 or not _RESPONSE.fullmatch(response):
            return None
        terms = [int(term) for term in _TERM.findall(response)]
        return sum(terms) if sorted(map(abs, terms)) == sorted(self.digits) else None

    def is_solved_by(self, response: str) -> bool:
        """Says whether a response is correct."""
        return self.value_of(response) == self.target

    def solutions(self) -> int:
        """Returns the number of different correct responses."""
        positives = sum(signs.count(1) for signs in signs_to(self.digits, self.target))
        alike = math.prod(math.factorial(count) for count in Counter(self.digits).values())
        return positives * math.factorial(len(self.digits) - 1) // alike


def signs_to(digits: tuple[int, ...], target: int) -> list[tuple[int, ...]]:
    """Returns each choice of signs, 1 or -1 per digit and at least one of them 1, with which the
    digits add up to the target."""
    return [
        signs
        for signs in itertools.product((1, -1), repeat=len(digits))
        if 1 in signs and sum(map(int.__mul__, signs, digits)) == target
    ]


def read(level: int, prompt: str) -> Problem:
    """Returns the problem of a prompt, the inverse of `Problem.prompt`.

    Raises:
        ValueError: for another text.
    """
    match = _PROMPT.fullmatch(prompt)
    if not match:
        raise ValueError(
            f"{prompt!r} is not digits and a target such as 3729:3: write the data with "
            "data_prep/arithmetic.py --task target_sums."
        )
    return Problem(level, tuple(map(int, match[1])), int(match[2]))


def draw(level: int, rng: random.Random) -> Problem:
    """Draws a problem of this level that has a solution: digits and signs evenly, until their sum
    is not negative."""
    while True:
        digits = tuple(rng.randint(1, 9) for _ in range(LEVELS[level]))
        target = sum(rng.choice((1, -1)) * digit for digit in digits)
        if target >= 0:
            return Problem(level, digits, target)


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Judges one response: verl's reward function of this task.

    Args:
        data_source, extra_info: ignored.
        solution_str: the response, all of it.
        ground_truth: the prompt.

    Returns:
        score, 1.0 or 0.0; acc, the same as a bool; pred, the value of a response that is a signed
        sum of just the prompt's digits, else "". So pred is the target just where acc holds: it is
        what verl votes over in maj@N, and by which responses mean the same (SENT's clusters).

    Raises:
        ValueError: the ground truth is no prompt of this task.
    """
    problem = read(0, ground_truth)
    value = problem.value_of(solution_str)
    correct = value == problem.target
    return {
        "score": float(correct),
        "acc": correct,
        "pred": "" if value is None else str(value),
    }


TARGET_SUMS = Task(
    name="target_sums",
    source="synthetic/target_sums",
    folder="target_sums",
    alphabet="0123456789+-:\n",
    longest_solution=2 * max(LEVELS.values()) - 1,
    levels={number: {"digits": digits} for number, digits in LEVELS.items()},
    test_size=960,  # one response to each in a validation: verl's bootstrap over several is slow
    draw=draw,
    read=read,
)
