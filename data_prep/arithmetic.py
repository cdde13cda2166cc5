"""The CPU runs' tasks as verl's parquet files: `python data_prep/arithmetic.py [--task NAME]`.

Synthetic reasoning tasks with checkable answers and levels of difficulty (`recipe.cpu.tasks`):
signed_sums, such as `7-12+9`, and target_sums, such as `3729:3`, where the response is a sum of
these digits with signs that is 3. Writes train.parquet and test.parquet, and beside each a .json
with options, counts and hash. No test problem occurs in the train split, in whatever order of its
terms or digits. The test split does not depend on --train_size.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa

from data_prep import cli, rows
from recipe.core.settings import check_choice
from recipe.cpu.tasks import DEFAULT, TASKS, Problem, Task, by_task


def schema() -> pa.Schema:
    """Returns the common columns; `extra_info` also has the level."""
    columns = rows.schema("question")
    extra = pa.struct([*columns.field("extra_info").type, pa.field("level", pa.int64())])
    return columns.set(columns.get_field_index("extra_info"), pa.field("extra_info", extra))


COLUMNS = schema()


def build(task: Task, problems: Iterable[Problem], split: str) -> rows.Split:
    """Builds the rows of a task's split in verl's schema; `index` counts from 0."""
    taken = []
    for index, problem in enumerate(problems):
        question = problem.prompt
        extra = {"split": split, "index": index, "question": question, "level": problem.level}
        row = rows.make_row(task.source, question, "", problem.ground_truth, **extra)
        rows.check_row(f"{split} problem {index}", row, COLUMNS)
        taken.append(row)
    return rows.Split(taken, len(taken), {})


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command; `arguments` None means those of this process."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--task", metavar="TASK", default=DEFAULT, help=f"{', '.join(TASKS)}; default: %(default)s"
    )
    parser.add_argument("--local_save_dir", help=by_task(lambda task: task.data_folder))
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--train_size", type=int, default=6144, help="default: %(default)s")
    parser.add_argument("--test_size", type=int, help=by_task(lambda task: task.test_size))
    args = parser.parse_args(arguments)
    check_choice(f"--task {args.task}", args.task, TASKS)
    task = TASKS[args.task]
    if args.test_size is None:
        args.test_size = task.test_size
    folder = Path(args.local_save_dir or task.data_folder).expanduser()

    train, test = task.splits(args.seed, args.train_size, args.test_size)
    splits = {"train": build(task, train, "train"), "test": build(task, test, "test")}
    facts = {
        "options": {
            name: getattr(args, name) for name in ("task", "seed", "train_size", "test_size")
        },
        "levels": {str(level): shape for level, shape in task.levels.items()},
    }
    rows.write(folder, splits, COLUMNS, facts)
    for name, split in splits.items():
        cli.report(name, split, folder / f"{name}.parquet")


if __name__ == "__main__":
    sys.exit(cli.run(main))
