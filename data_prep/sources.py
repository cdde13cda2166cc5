"""Reading a dataset's records, from files or the Hugging Face hub. Errors name the bad record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from recipe.core.files import is_lfs_pointer

if TYPE_CHECKING:
    from datasets import Dataset

Record = tuple[str, dict[str, Any]]  # its place in the source ("train.jsonl:7"), its fields
NESTED = "nested too deeply: give the original files."  # end of an error


def sha256(path: Path) -> str:
    """Returns the hash of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def origin(files: Iterable[Path]) -> dict[str, Any]:
    """Returns the source of a split read from files, by name and hash, for its record."""
    return {"files": {path.name: sha256(path) for path in files}}


def text_field(record: Record, name: str) -> str:
    """Returns a field that must exist and hold a text.

    Raises:
        ValueError: The field is missing, blank or no text.
    """
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


def find_files(source: str, split: str) -> list[Path]:
    """Finds the files of a split: `source` itself if a file, else by their names in that folder."""
    path = Path(source).expanduser()
    patterns = (f"{split}.jsonl", f"{split}.parquet", f"{split}-*-of-*.parquet")
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"--source {source} does not exist: give a folder with the dataset.")
    by_pattern = [sorted(file for file in path.glob(name) if file.is_file()) for name in patterns]
    matches = [files for files in by_pattern if files]
    if not matches:
        raise ValueError(
            f"--source {source} has no file of the split `{split}`: give a folder that has one of "
            f"{', '.join(patterns)}."
        )
    if len(matches) > 1:
        raise ValueError(
            f"--source {source} has {matches[0][0].name} and {matches[1][0].name}: keep only one."
        )
    return matches[0]


def check_is_content(path: Path) -> None:
    """Raises ValueError for a Git LFS pointer, which stands for a file that was not fetched."""
    if is_lfs_pointer(path):
        raise ValueError(
            f"{path} is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`."
        )


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Reads a parquet file: all its columns, or those of `columns` that it has."""
    check_is_content(path)
    try:
        if columns is not None:
            names = pq.read_schema(path).names
            columns = [name for name in columns if name in names]
        return pq.read_table(path, columns=columns)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a parquet file: give a complete one.") from error


def read_json_list(path: Path) -> list[dict[str, Any]] | None:
    """Reads the objects of a file that is one JSON list; None if it has one object per line."""
    check_is_content(path)
    text = path.read_bytes()
    if not text.lstrip().startswith(b"["):
        return None
    try:
        items = json.loads(text)
    except ValueError as error:  # also bytes that are not UTF-8
        raise ValueError(f"{path} is not JSON: give a whole file.") from error
    except RecursionError as error:
        raise ValueError(f"{path} has an item {NESTED}") from error
    bad = [number for number, item in enumerate(items, start=1) if not isinstance(item, dict)]
    if bad:
        raise ValueError(f"{path} item {bad[0]} is not a JSON object: give a list of objects.")
    return items


def read_json_lines(path: Path) -> Iterator[Record]:
    """Yields the records of a file with one JSON object per line; blank lines are skipped."""
    check_is_content(path)
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                fields = json.loads(line)
            except ValueError as error:  # also bytes that are not UTF-8
                raise ValueError(f"{path}:{number} is not JSON: give a .jsonl file.") from error
            except RecursionError as error:
                raise ValueError(f"{path}:{number} is JSON {NESTED}") from error
            if not isinstance(fields, dict):
                raise ValueError(f"{path}:{number} is not a JSON object: give one object per line.")
            yield f"{path}:{number}", fields


def read_records(files: Iterable[Path]) -> Iterator[Record]:
    """Yields the records of .jsonl, .json or .parquet files in order.

    A .json file is one list of objects, or lines as in .jsonl (which `datasets` calls .json too).
    """
    for path in files:
        if path.suffix == ".parquet":
            for number, fields in enumerate(read_parquet(path).to_pylist(), start=1):
                yield f"{path} row {number}", fields
        elif path.suffix == ".json" and (items := read_json_list(path)) is not None:
            yield from ((f"{path} item {number}", row) for number, row in enumerate(items, start=1))
        else:
            yield from read_json_lines(path)


def load_hub(name: str, config: str | None, split: str) -> Dataset:
    """Loads a split of a dataset from the Hugging Face hub, as `datasets` represents it."""
    try:
        from datasets import load_dataset

        return load_dataset(name, config)[split]
    except Exception as error:  # whatever network, cache or library raise: the cure is the same
        why = str(error).strip().partition("\n")[0].rstrip(".")
        raise ValueError(
            f"{name} could not be loaded from the Hugging Face hub ({type(error).__name__}: "
            f"{why:.200}): check the network, or pass --source with a folder that holds its files."
        ) from error


def read_hub(name: str, config: str | None, split: str) -> list[Record]:
    """Reads the records of a split of a dataset on the Hugging Face hub."""
    table = load_hub(name, config, split)
    return [(f"{name} {split} row {number}", dict(row)) for number, row in enumerate(table, 1)]
