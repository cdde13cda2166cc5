"""A dataset with the splits train and test: the rows of each, and the command that writes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from data_prep import cli, rows, sources

DUPLICATE, IN_TEST = "duplicate", "also in the test split"  # reasons to drop a record
SPLITS = ("test", "train")  # in this order: what is in test may not be in train


class Dataset(NamedTuple):
    """A dataset of which every record makes one row."""

    hub: str  # its name on the Hugging Face hub
    config: str | None
    folder: str  # default of --local_save_dir
    instruction: str  # default of --instruction
    columns: pa.Schema
    question: str  # the field that tells records apart
    to_row: Callable[[sources.Record, str, int, str], dict[str, Any]]  # split, index, instruction

    def build(
        self,
        records: Iterable[sources.Record],
        split: str,
        instruction: str | None = None,
        max_samples: int | None = None,
        held_out: frozenset[str] = frozenset(),
    ) -> rows.Split:
        """Builds the rows of a split; their `index` counts the source's records from 0.

        Args:
            records: The split's records in order.
            split: "train" or "test".
            instruction: None for the dataset's own.
            max_samples: At most so many rows; None for all.
            held_out: Questions that must not be in this split.

        Raises:
            ValueError: A record is unusable, or no row is left.
        """
        instruction = self.instruction if instruction is None else instruction
        taken, seen, read = [], set(), 0
        dropped = {DUPLICATE: 0, IN_TEST: 0, rows.BEYOND: 0}
        for index, record in enumerate(records):
            read = index + 1
            question = sources.text_field(record, self.question).strip()
            try:
                row = self.to_row(record, split, index, instruction)
            except rows.Dropped as reason:
                dropped[str(reason)] = dropped.get(str(reason), 0) + 1
                continue
            rows.check_row(record[0], row, self.columns)
            if question in seen:
                dropped[DUPLICATE] += 1
            elif question in held_out:
                dropped[IN_TEST] += 1
            elif max_samples is not None and len(taken) == max_samples:
                dropped[rows.BEYOND] += 1
            else:
                taken.append(row)
            seen.add(question)
        if not taken:
            raise ValueError(
                f"The split `{split}` has no row that can be taken of {read} read: give a source "
                "with its rows."
            )
        return rows.Split(taken, read, dropped)

    def prepare(self, description: str, arguments: Sequence[str] | None = None) -> None:
        """Runs the dataset's command: reads it, checks every row, writes both splits.

        Args:
            description: The script's docstring.
            arguments: The words of the command line; None for those of this process.
        """
        parser = cli.make_parser(
            description,
            source="folder with train and test as .jsonl or .parquet, or one such file (only its "
            f"split is written); without it {self.hub} is loaded from the Hugging Face hub",
            folder=self.folder,
            samples="the first N rows of each split",
            instruction=self.instruction,
        )
        args = cli.parse(parser, arguments)
        folder = Path(args.local_save_dir).expanduser()
        if args.source is None:
            records = {name: sources.read_hub(self.hub, self.config, name) for name in SPLITS}
            origins = {name: {"hub": self.hub, "config": self.config} for name in SPLITS}
        else:
            files = find_splits(args.source, folder)
            records = {name: list(sources.read_records(paths)) for name, paths in files.items()}
            origins = {name: sources.origin(paths) for name, paths in files.items()}

        splits: dict[str, rows.Split] = {}
        held_out: frozenset[str] = frozenset()
        for name in records:
            splits[name] = self.build(
                records[name], name, args.instruction, args.max_samples, held_out
            )
            held_out = frozenset(fields[self.question].strip() for _, fields in records[name])
        options = {"instruction": args.instruction, "max_samples": args.max_samples}
        rows.write(folder, splits, self.columns, {"options": options}, origins)
        for name in sorted(splits, reverse=True):
            cli.report(name, splits[name], folder / f"{name}.parquet")


def find_splits(source: str, folder: Path) -> dict[str, list[Path]]:
    """Finds the files of both splits in a folder, or of the one split that a file is of.

    Raises:
        ValueError: A file's name says no split, a split has no file or two kinds of files, or the
            output would replace a source (`folder` is where the output goes).
    """
    names = list(SPLITS)
    if (file := Path(source).expanduser()).is_file():
        names = [name for name in SPLITS if re.match(rf"{name}\b", file.name)]
        if not names:
            raise ValueError(
                f"--source {source} is a file of neither split: name it train.jsonl or "
                "test.jsonl, or give its folder."
            )
    files = {name: sources.find_files(source, name) for name in names}
    for path in (path for paths in files.values() for path in paths):
        if path.resolve().parent == folder.resolve() and path.suffix == ".parquet":
            raise ValueError(
                f"--local_save_dir {folder} is where --source has {path.name}: "
                "choose another folder."
            )
    return files
