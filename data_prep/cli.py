"""The command line that the data scripts share: flags, the summary of a split, errors."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from data_prep.rows import Split
from recipe.core import cli


def make_parser(
    description: str, *, source: str, folder: str, samples: str, instruction: str
) -> argparse.ArgumentParser:
    """Makes a parser with the flags that every script with a published source has.

    Args:
        description: The script's docstring, of which the first line is shown.
        source: Help of --source.
        folder: Default of --local_save_dir.
        samples: Help of --max_samples.
        instruction: Default of --instruction.
    """
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--source", "--local_dataset_path", help=source)
    parser.add_argument("--local_save_dir", default=folder, help="default: %(default)s")
    parser.add_argument("--max_samples", type=int, help=samples)
    parser.add_argument(
        "--instruction",
        default=instruction,
        help='after the question, on a line of its own; "" for none; default (ours): %(default)s',
    )
    return parser


def parse(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None
) -> argparse.Namespace:
    """Parses and checks the flags; `arguments` None means those of this process."""
    args = parser.parse_args(arguments)
    for name in ("max_samples", "test_size"):
        if (number := getattr(args, name, None)) is not None and number < 1:
            raise ValueError(f"--{name} {number} is not allowed: use 1 or more.")
    try:
        args.instruction.encode()
    except UnicodeEncodeError as error:  # bytes of the command line that are not UTF-8
        raise ValueError(
            f"--instruction {args.instruction!a} is not allowed: give a text in UTF-8."
        ) from error
    return args


def report(name: str, split: Split, path: Path) -> None:
    """Prints how many records of a split were read, taken and dropped, and its notes."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in split.dropped.items() if count)
    print(
        f"{name}: {split.read} rows read, {len(split.rows)} taken, "
        f"{sum(split.dropped.values())} dropped{f' ({reasons})' if reasons else ''} -> {path}"
    )
    for note in split.notes:
        print(f"    {note}")


run = partial(cli.run, errors=(ValueError, OSError))  # the others are faults of the scripts
