"""Signed sums as verl's parquet files: `python data_prep/arithmetic.py [--seed 0]`.

A synthetic reasoning task with checkable answers and six levels of difficulty, such as `7-12+9`
(`recipe.cpu.task` defines it). Writes train.parquet and test.parquet, and beside each a .json
with options, counts and hash. No test problem occurs in the train split, in whatever order of its
terms. The test split does not depend on --train_size.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa

from data_prep import cli, rows
from recipe.cpu import task

SOURCE = "synthetic/arithmetic"


def schema() -> pa.Schema:
    """Returns the common columns; `extra_info` also has the level."""
    columns = rows.schema()
    extra = pa.struct([*columns.field("extra_info").type, pa.field("level", pa.int64())])
    return columns.set(columns.get_field_index("extra_info"), pa.field("extra_info", extra))


COLUMNS = schema()


def build(problems: Iterable[task.Problem], split: str) -> rows.Split:
    """Builds the rows of a split in verl's schema; `index` counts from 0."""
    taken = []
    for index, problem in enumerate(problems):
        extra = {"split": split, "index": index, "level": problem.level}
        row = rows.make_row(SOURCE, problem.prompt, "", problem.answer, **extra)
        rows.check_row(f"{split} problem {index}", row, COLUMNS)
        taken.append(row)
    return rows.Split(taken, len(taken), {})


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command; `arguments` None means those of this process."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--local_save_dir", default="~/data/arithmetic", help="default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--train_size", type=int, default=6144, help="default: %(default)s")
    parser.add_argument("--test_size", type=int, default=240, help="default: %(default)s")
    args = parser.parse_args(arguments)
    folder = Path(args.local_save_dir).expanduser()

    train, test = task.problems(args.seed, args.train_size, args.test_size)
    splits = {"train": build(train, "train"), "test": build(test, "test")}
    facts = {
        "options": {name: getattr(args, name) for name in ("seed", "train_size", "test_size")},
        "levels": {str(level): shape._asdict() for level, shape in task.LEVELS.items()},
    }
    rows.write(folder, splits, COLUMNS, facts)
    for name, split in splits.items():
        cli.report(name, split, folder / f"{name}.parquet")


if __name__ == "__main__":
    sys.exit(cli.run(main))
