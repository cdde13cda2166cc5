"""What a reasoning task of the CPU runs is: problems by level, the solutions that a warm start
learns, and an exact check. And its splits."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class Problem(Protocol):
    """A problem of a task."""

    @property
    def level(self) -> int:
        """Its difficulty, from 1 up."""
        ...

    @property
    def prompt(self) -> str:
        """The user's message."""
        ...

    @property
    def ground_truth(self) -> str:
        """What the task's reward function judges a response by."""
        ...

    @property
    def essence(self) -> Hashable:
        """What problems that are the same but for an order share: no two test problems have the
        same, nor have a test and a train problem."""
        ...

    def solution(self, rng: random.Random) -> str:
        """Draws a correct response."""
        ...

    def is_solved_by(self, response: str) -> bool:
        """Says whether a response is correct, as the task's reward function does."""
        ...


@dataclass(frozen=True)
class Task:
    """A task of the CPU runs.

    Args:
        name: of `TASK=` and `--task`.
        source: `data_source` of its rows.
        folder: default name of its data and of its model.
        alphabet: all characters of prompts and solutions; the newline is the chat template's.
        longest_solution: characters of the longest solution.
        levels: what each level's problems are, as JSON values by name.
        test_size: default number of held-out problems.
        draw: draws a problem of a level.
        read: the problem of a level and a prompt; ValueError for what is no prompt of the task.
    """

    name: str
    source: str
    folder: str
    alphabet: str
    longest_solution: int
    levels: Mapping[int, Mapping[str, Any]]
    test_size: int
    draw: Callable[[int, random.Random], Problem]
    read: Callable[[int, str], Problem]

    @property
    def data_folder(self) -> str:
        """Where its data are by default."""
        return f"~/data/{self.folder}"

    @property
    def model_folder(self) -> str:
        """Where its warm-started model is by default."""
        return f"~/models/{self.folder}-1m"

    def response_tokens(self) -> int:
        """Returns the limit of a response: the longest solution, the end token, two to spare."""
        return self.longest_solution + 3

    def splits(
        self, seed: int, train_size: int, test_size: int
    ) -> tuple[list[Problem], list[Problem]]:
        """Draws the two splits, level after level in turn (1, 2, …, 1, 2, …).

        No problem of the test split has the essence of another or of one of the train split;
        within a split no prompt occurs twice. The test split does not depend on `train_size`, and
        a longer train split begins with the shorter one.

        Args:
            seed: decides both splits.
            train_size, test_size: numbers of problems.

        Returns:
            (train, test)

        Raises:
            ValueError: a size is below 1, or above what a level has problems for.
        """
        for name, size in (("train_size", train_size), ("test_size", test_size)):
            if size < 1:
                raise ValueError(f"{name}={size} must be at least 1.")
        test = self._fill(f"{seed}/test", test_size, lambda problem: problem.essence, set())
        tested = {problem.essence for problem in test}
        train = self._fill(f"{seed}/train", train_size, lambda problem: problem.prompt, tested)
        return train, test

    def _fill(
        self,
        stream: str,
        size: int,
        key: Callable[[Problem], Hashable],
        excluded: set[Hashable],
    ) -> list[Problem]:
        """Draws `size` problems of different keys whose essence is not excluded."""
        rng = {level: random.Random(f"{stream}/{level}") for level in self.levels}
        taken: set[Hashable] = set()
        chosen: list[Problem] = []
        for i in range(size):
            level = 1 + i % len(self.levels)
            for _ in range(2000):
                problem = self.draw(level, rng[level])
                if key(problem) not in taken and problem.essence not in excluded:
                    break
            else:
                raise ValueError(
                    f"{stream.partition('/')[2]}_size={size} asks for more different problems than "
                    f"level {level} has: choose at most about {i}."
                )
            taken.add(key(problem))
            chosen.append(problem)
        return chosen
