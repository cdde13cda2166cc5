"""What the data preparation scripts share: reading, the check of every row, writing, errors.

A script is a pure function from records to rows around which these stand. Its promises: every
row is checked; bad input ends in one sentence and exit code 2; files appear whole or not at all;
the same input gives the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

DUPLICATE, IN_TEST, BEYOND = "duplicate", "also in the test split", "beyond --max_samples"

Record = tuple[str, dict[str, Any]]  # where it stands ("train.jsonl:7"), its fields


class Split(NamedTuple):
    rows: list[dict[str, Any]]  # in verl's schema
    read: int  # records in the source
    dropped: dict[str, int]  # reason -> how many


def schema(*texts: str) -> pa.Schema:
    """verl's columns; `extra_info` has split, index and the named text fields."""
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    extra = [("split", pa.string()), ("index", pa.int64())]
    extra += [(name, pa.string()) for name in texts]
    return pa.schema(
        [
            ("data_source", pa.string()),
            ("prompt", pa.list_(message)),
            ("ability", pa.string()),
            ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
            ("extra_info", pa.struct(extra)),
        ]
    )


def text_field(record: Record, name: str) -> str:
    """A field that must be there and hold text."""
    where, fields = record
    if name not in fields:
        raise ValueError(
            f"{where} has no field `{name}` but {', '.join(map(repr, fields)) or 'none'}: "
            "give files with the original fields."
        )
    if not isinstance(fields[name], str) or not fields[name].strip():
        raise ValueError(
            f"{where} has `{name}`={fields[name]!r:.80}: it must be a text that is not blank."
        )
    return fields[name]


def check_row(where: str, row: dict[str, Any], columns: pa.Schema) -> None:
    """Raises unless verl can train on the row: all columns, no blanks, one rule-based answer."""

    def need(holds: bool, name: str) -> None:
        if not holds:
            raise ValueError(f"{where} makes a row of which {name} is missing or blank: fix it.")

    need(set(row) == set(columns.names), "a column")
    need(bool(row["data_source"]) and bool(row["ability"]), "data_source or ability")
    need(
        bool(row["prompt"]) and row["prompt"][-1]["role"] == "user",
        "the last prompt message of the user",
    )
    need(all(message["content"].strip() for message in row["prompt"]), "prompt")
    need(row["reward_model"]["style"] == "rule", "reward_model.style")
    need(bool(row["reward_model"]["ground_truth"].strip()), "reward_model.ground_truth")
    fields = {field.name for field in columns.field("extra_info").type}
    need(set(row["extra_info"]) == fields, "extra_info")


def find_files(source: str, split: str) -> list[Path]:
    """The files of a split: `source` itself if a file, else by their names in that folder."""
    path = Path(source).expanduser()
    names = (f"{split}.jsonl", f"{split}.parquet", f"{split}-*-of-*.parquet")
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"--source {source} does not exist: give a folder with the dataset.")
    kinds = [found for name in names if (found := sorted(path.glob(name)))]
    if not kinds:
        raise ValueError(
            f"--source {source} has no file of the split `{split}`: give a folder that has one of "
            f"{', '.join(names)}."
        )
    if len(kinds) > 1:
        raise ValueError(
            f"--source {source} has {kinds[0][0].name} and {kinds[1][0].name}: keep only one."
        )
    return kinds[0]


def json_list(path: Path) -> list[dict[str, Any]] | None:
    """The objects of a file that is one JSON list; None if it is not a list but lines."""
    text = path.read_bytes()
    if not text.lstrip().startswith(b"["):
        return None
    try:
        rows = json.loads(text)
    except ValueError as error:  # also bytes that are not UTF-8
        raise ValueError(f"{path} is not JSON: give a whole file.") from error
    bad = [number for number, row in enumerate(rows, start=1) if not isinstance(row, dict)]
    if bad:
        raise ValueError(f"{path} item {bad[0]} is not a JSON object: give a list of objects.")
    return rows


def read_records(files: list[Path]) -> Iterator[Record]:
    """The records of .jsonl, .json or .parquet files in order, each with where it stands.

    A .json file is one list of objects, or lines as in .jsonl (which `datasets` calls .json too).
    """
    for path in files:
        if path.suffix == ".json" and (rows := json_list(path)) is not None:
            yield from ((f"{path} item {number}", row) for number, row in enumerate(rows, start=1))
            continue
        if path.suffix == ".parquet":
            try:
                table = pq.read_table(path)
            except pa.ArrowInvalid as error:
                raise ValueError(f"{path} is not a parquet file: give a whole one.") from error
            for number, fields in enumerate(table.to_pylist(), start=1):
                yield f"{path} row {number}", fields
            continue
        with open(path, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    fields = json.loads(line)
                except ValueError as error:  # also bytes that are not UTF-8
                    raise ValueError(f"{path}:{number} is not JSON: give a .jsonl file.") from error
                if not isinstance(fields, dict):
                    raise ValueError(f"{path}:{number} is not a JSON object: give one a line.")
                yield f"{path}:{number}", fields


def hub_split(name: str, config: str | None, split: str):
    """A split of a dataset on the Hugging Face hub, as `datasets` has it."""
    try:
        from datasets import load_dataset

        return load_dataset(name, config)[split]
    except Exception as error:  # whatever network, cache or library raise: the cure is the same
        why = str(error).strip().partition("\n")[0].rstrip(".")
        raise ValueError(
            f"{name} could not be loaded from the Hugging Face hub ({type(error).__name__}: "
            f"{why:.200}): check the network, or pass --source with a folder that holds its files."
        ) from error


def read_hub(name: str, config: str | None, splits: list[str]) -> dict[str, list[Record]]:
    """The records of these splits of a dataset on the Hugging Face hub."""
    tables = {split: hub_split(name, config, split) for split in splits}
    return {
        split: [(f"{name} {split} row {i}", dict(row)) for i, row in enumerate(rows, start=1)]
        for split, rows in tables.items()
    }


class Dataset(NamedTuple):
    """A dataset with the splits train and test, of which every record makes one row."""

    hub: str
    config: str | None
    folder: str  # where its files go by default
    instruction: str  # put behind each question by default
    columns: pa.Schema
    question: str  # the field that tells records apart
    to_row: Callable[[Record, str, int, str], dict[str, Any]]  # record, split, index, instruction

    def build(
        self,
        records: Iterable[Record],
        split: str,
        instruction: str | None = None,
        max_samples: int | None = None,
        held_out: frozenset[str] = frozenset(),
    ) -> Split:
        """The rows of a split in verl's schema; `index` counts the source's records from 0."""
        instruction = self.instruction if instruction is None else instruction
        rows, seen, read = [], set(), 0
        dropped = {DUPLICATE: 0, IN_TEST: 0, BEYOND: 0}
        for index, record in enumerate(records):
            read = index + 1
            question = text_field(record, self.question).strip()
            row = self.to_row(record, split, index, instruction)
            check_row(record[0], row, self.columns)
            if question in seen:
                dropped[DUPLICATE] += 1
            elif question in held_out:
                dropped[IN_TEST] += 1
            elif max_samples is not None and len(rows) == max_samples:
                dropped[BEYOND] += 1
            else:
                rows.append(row)
            seen.add(question)
        if not rows:
            raise ValueError(f"The split `{split}` has no row that can be taken of {read} read.")
        return Split(rows, read, dropped)


def parser_of(
    description: str, *, source: str, folder: str, samples: str, instruction: str
) -> argparse.ArgumentParser:
    """The options that every script has; `source` and `samples` are the help of theirs."""
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


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    args = parser.parse_args()
    for name in ("max_samples", "test_size"):
        if (number := getattr(args, name, None)) is not None and number < 1:
            raise ValueError(f"--{name} {number} is not allowed: use 1 or more.")
    return args


def prepare(dataset: Dataset, description: str) -> None:
    """The command line of a `Dataset`: reads it, checks every row, writes both splits."""
    parser = parser_of(
        description,
        source="folder with train and test as .jsonl or .parquet, or one such file (only its split "
        f"is written); without it {dataset.hub} is loaded from the Hugging Face hub",
        folder=dataset.folder,
        samples="the first N rows of each split",
        instruction=dataset.instruction,
    )
    args = parse(parser)
    folder = Path(args.local_save_dir).expanduser()

    names = ["test", "train"]
    if args.source is None:
        records = read_hub(dataset.hub, dataset.config, names)
        origin = {split: {"hub": dataset.hub, "config": dataset.config} for split in names}
    else:
        if (file := Path(args.source).expanduser()).is_file():
            names = [split for split in names if re.match(rf"{split}\b", file.name)]
            if not names:
                raise ValueError(
                    f"--source {args.source} is a file of neither split: name it train.jsonl or "
                    "test.jsonl, or give its folder."
                )
        files = {split: find_files(args.source, split) for split in names}
        for path in (path for paths in files.values() for path in paths):
            if path.resolve().parent == folder.resolve() and path.suffix == ".parquet":
                raise ValueError(
                    f"--local_save_dir {args.local_save_dir} is where --source has {path.name}: "
                    "choose another folder."
                )
        records = {split: list(read_records(paths)) for split, paths in files.items()}
        origin = {
            split: {"files": {path.name: sha256(path) for path in paths}}
            for split, paths in files.items()
        }

    splits: dict[str, Split] = {}
    held_out: frozenset[str] = frozenset()
    for split in names:
        options = (args.instruction, args.max_samples, held_out)
        splits[split] = dataset.build(records[split], split, *options)
        held_out = frozenset(fields[dataset.question].strip() for _, fields in records[split])
    options = {"instruction": args.instruction, "max_samples": args.max_samples}
    facts = {
        split: {"dataset": dataset.hub, "split": split, "source": origin[split], "options": options}
        for split in names
    }
    write_splits(folder, splits, dataset.columns, facts)
    for split in sorted(names, reverse=True):
        tell(split, splits[split], folder / f"{split}.parquet")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_splits(
    folder: Path, splits: dict[str, Split], columns: pa.Schema, facts: dict[str, dict[str, Any]]
) -> None:
    """Writes <split>.parquet and, with its hash, counts and `facts`, <split>.json for each split.

    All files are written under temporary names in the same folder before the first gets its own
    name, so an error leaves what was there. Nothing in them depends on time or place.
    """
    ready: list[tuple[Path, Path]] = []

    def temporary(name: str) -> Path:
        ready.append((folder / f".{name}.{os.getpid()}.tmp", folder / name))
        return ready[-1][0]

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for split, result in splits.items():
            parquet = temporary(f"{split}.parquet")
            pq.write_table(pa.Table.from_pylist(result.rows, columns), parquet)
            report = {
                "rows": {"read": result.read, "taken": len(result.rows), "dropped": result.dropped},
                "parquet": {"file": f"{split}.parquet", "sha256": sha256(parquet)},
                "versions": {"pyarrow": pa.__version__},
            }
            text = json.dumps(facts[split] | report, indent=2, ensure_ascii=False)
            temporary(f"{split}.json").write_text(text + "\n", encoding="utf-8")
        for source, target in ready:
            os.replace(source, target)
    except OSError as error:
        raise ValueError(
            f"--local_save_dir {folder} cannot be written ({error.strerror or error}): "
            "choose another folder, or make room."
        ) from error
    finally:
        for source, _ in ready:
            source.unlink(missing_ok=True)


def tell(split: str, result: Split, path: Path) -> None:
    reasons = ", ".join(f"{count} {reason}" for reason, count in result.dropped.items() if count)
    print(
        f"{split}: {result.read} rows read, {len(result.rows)} taken, "
        f"{sum(result.dropped.values())} dropped{f' ({reasons})' if reasons else ''} -> {path}"
    )


def run(main: Callable[[], None]) -> None:
    """Runs a script: what is wrong with its input is one sentence on stderr and exit code 2."""
    try:
        main()
    except (ValueError, OSError) as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
