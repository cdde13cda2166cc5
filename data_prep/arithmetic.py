"""Signed sums as verl's parquet files: `python data_prep/arithmetic.py [--seed 0]`.

A synthetic reasoning task with checkable answers and six levels of difficulty, such as `7-12+9`
(`recipe.cpu.task` says what it is). Writes train.parquet and test.parquet, and beside each a .json
with options, counts and hash. No test problem occurs in the train split, in whatever order of its
terms. The test split does not depend on --train_size.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

if not __package__:  # run as a script: find the project, not this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import pyarrow as pa

from data_prep import common
from recipe.cpu import task

SOURCE = "synthetic/arithmetic"


def schema() -> pa.Schema:
    """The common columns; `extra_info` also has the level."""
    columns = common.schema()
    extra = pa.struct([*columns.field("extra_info").type, pa.field("level", pa.int64())])
    return columns.set(columns.get_field_index("extra_info"), pa.field("extra_info", extra))


COLUMNS = schema()


def build(problems: Iterable[task.Problem], split: str) -> common.Split:
    """The rows of a split in verl's schema; `index` counts from 0."""
    rows = []
    for index, problem in enumerate(problems):
        row = {
            "data_source": SOURCE,
            "prompt": [{"role": "user", "content": problem.prompt}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": problem.answer},
            "extra_info": {"split": split, "index": index, "level": problem.level},
        }
        common.check_row(f"{split} problem {index}", row, COLUMNS)
        rows.append(row)
    return common.Split(rows, len(rows), {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--local_save_dir", default="~/data/arithmetic", help="default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--train_size", type=int, default=6144, help="default: %(default)s")
    parser.add_argument("--test_size", type=int, default=240, help="default: %(default)s")
    args = parser.parse_args()
    folder = Path(args.local_save_dir).expanduser()

    train, test = task.problems(args.seed, args.train_size, args.test_size)
    splits = {"train": build(train, "train"), "test": build(test, "test")}
    options = {"seed": args.seed, "train_size": args.train_size, "test_size": args.test_size}
    levels = {str(level): shape._asdict() for level, shape in task.LEVELS.items()}
    facts = {
        split: {"dataset": SOURCE, "split": split, "options": options, "levels": levels}
        for split in splits
    }
    common.write_splits(folder, splits, COLUMNS, facts)
    for split, result in splits.items():
        common.tell(split, result, folder / f"{split}.parquet")


if __name__ == "__main__":
    common.run(main)
