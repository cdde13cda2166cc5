"""Rows in verl's schema: building, checking and writing them, with a record of their origin.

Every data script makes rows with `make_row`, checks each with `check_row` and writes its files
with `write`. The same input gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.sources import sha256
from recipe.core.files import atomic_write

BEYOND = "beyond --max_samples"  # a reason to drop a record


class Dropped(Exception):
    """A record that makes no row; the text is the reason, under which it is counted."""


class Split(NamedTuple):
    """The rows of one parquet file, and what became of the records that they were made from."""

    rows: list[dict[str, Any]]  # in verl's schema, never empty
    read: int  # records in the source
    dropped: dict[str, int]  # reason -> number of records
    notes: tuple[str, ...] = ()  # printed, and kept in the record


def schema(*texts: str) -> pa.Schema:
    """Returns verl's columns; `extra_info` has split, index and the named text fields."""
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


def make_row(
    data_source: str, question: str, instruction: str, ground_truth: str, /, **extra_info: Any
) -> dict[str, Any]:
    """Builds one maths problem as a row of verl's schema.

    Args:
        data_source: The dataset's name; the judge gets it too.
        question: The problem, which becomes the user's message.
        instruction: Put after the question on a line of its own; "" for none.
        ground_truth: The correct answer (`recipe.judge` says in which forms).
        extra_info: split, index and the schema's other fields.
    """
    return {
        "data_source": data_source,
        "prompt": [{"role": "user", "content": f"{question}\n{instruction}".strip()}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": ground_truth},
        "extra_info": extra_info,
    }


def check_row(where: str, row: dict[str, Any], columns: pa.Schema) -> None:
    """Raises ValueError unless verl can train on the row: all columns, no blanks, one rule-based
    answer, texts that UTF-8 can hold. `where` names the record in the message."""

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
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where} makes a row with {error.object[error.start]!r} in a text, one half of a "
            "surrogate pair, which UTF-8 cannot hold: fix it."
        ) from error


@contextmanager
def write_errors(option: str, path: Path, kind: str = "file") -> Iterator[None]:
    """Turns an OSError of the body into one sentence that names the option and its value.

    Args:
        option: The flag that chose where to write.
        path: Its value.
        kind: What the user is to choose another of: "file" or "folder".
    """
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{option} {path} cannot be written ({error.strerror or error}): "
            f"choose another {kind}, or make room."
        ) from error


def write(
    folder: Path,
    splits: Mapping[str, Split],
    columns: pa.Schema,
    facts: Mapping[str, Any],
    origins: Mapping[str, Any] | None = None,
) -> None:
    """Writes NAME.parquet and its record NAME.json for each split.

    All files are complete under temporary names before the first replaces one of an earlier run.
    A record has the dataset and split of the rows, the source, `facts`, notes, counts and the
    parquet file's sha256; nothing in it depends on time or place.

    Args:
        folder: Made if it does not exist.
        splits: The file names, without suffix, and their rows.
        columns: The schema of all files.
        facts: What holds for all splits, such as {"options": …}.
        origins: By split, where its records come from; None for generated data.

    Raises:
        ValueError: A file cannot be written; those of an earlier run are then left as they were.
    """
    with write_errors("--local_save_dir", folder, "folder"), ExitStack() as files:
        for name, split in splits.items():
            parquet = files.enter_context(atomic_write(folder / f"{name}.parquet"))
            pq.write_table(pa.Table.from_pylist(split.rows, columns), parquet)
            first = split.rows[0]
            record = {
                "dataset": first["data_source"],
                "split": first["extra_info"]["split"],
                **({"source": origins[name]} if origins else {}),
                **facts,
                **({"notes": split.notes} if split.notes else {}),
                "rows": {"read": split.read, "taken": len(split.rows), "dropped": split.dropped},
                "parquet": {"file": f"{name}.parquet", "sha256": sha256(parquet)},
                "versions": {"pyarrow": pa.__version__},
            }
            text = json.dumps(record, indent=2, ensure_ascii=False)
            path = files.enter_context(atomic_write(folder / f"{name}.json"))
            path.write_text(text + "\n", encoding="utf-8")
