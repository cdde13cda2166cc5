"""The reasoning tasks of the CPU runs: `TASKS`, by the name that `TASK=` and `--task` take.

Pure: no files, no torch. `data_prep/arithmetic.py` writes their problems as verl parquet and
`recipe.cpu.warm_start` teaches a small model their solutions. Each has a module.
"""

from __future__ import annotations

from collections.abc import Callable

from recipe.cpu.tasks.signed_sums import SIGNED_SUMS
from recipe.cpu.tasks.target_sums import TARGET_SUMS
from recipe.cpu.tasks.task import Problem, Task

TASKS: dict[str, Task] = {task.name: task for task in (SIGNED_SUMS, TARGET_SUMS)}
DEFAULT = SIGNED_SUMS.name

__all__ = ["DEFAULT", "TASKS", "Problem", "Task", "by_task"]


def by_task(value: Callable[[Task], object]) -> str:
    """Returns an option's default as the text of a `--help`: its value for each task."""
    return "default: " + ", ".join(f"{value(task)} ({name})" for name, task in TASKS.items())
