"""The rows of a data file of verl's schema: reading them, and what is wrong with one.

Training (`recipe.launch`), `recipe.evaluate` and `measure` read their files here, so a row that one
of them refuses is refused by all, in one sentence that names file and row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recipe.core.files import is_lfs_pointer
from recipe.judge import accepted_answers, normalise

JSON = (".json", ".jsonl")  # what verl reads as JSON; all else here is parquet
MEDIA = ("images", "videos", "audios")  # verl's columns of what a message's text refers to
WRITE = "write it with a script of data_prep/"


def schema_of(file: Path, what: str) -> pa.Schema:
    """Returns the columns of a parquet file; raises as `read_columns` does."""
    check_file(file, what)
    try:
        return pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise not_readable(what, "parquet", error) from None


def read_columns(
    file: Path, what: str, columns: Iterable[str], limit: int | None = None
) -> dict[str, list[Any]]:
    """Reads columns of a data file as plain values, as verl's dataset reads them.

    Args:
        file: JSON or JSON lines where its name ends so, else parquet.
        what: names the file in an error, with its setting.
        columns: their names; one that the file lacks is left out of the result.
        limit: the first so many rows only, at least 1; None: all.

    Raises:
        FileNotFoundError: for a file that does not exist.
        ValueError: for a folder, an empty file, a pointer of Git LFS, one that is no table, and one
            without rows.
    """
    if file.suffix in JSON:
        check_file(file, what)
        rows = read_json(file, what, limit)
        table = {
            name: [row.get(name) for row in rows] for name in columns if rows and name in rows[0]
        }
        count = len(rows)
    else:
        names = [name for name in columns if name in schema_of(file, what).names]
        try:
            count = pq.read_metadata(file).num_rows
            table = pq.read_table(file, columns=names).slice(0, limit).to_pydict()
        except (pa.ArrowException, OSError) as error:
            raise not_readable(what, "parquet", error) from None
    if not count:
        raise ValueError(f"{what} has no rows: {WRITE}.")
    return table


def read_json(file: Path, what: str, limit: int | None = None) -> list[dict[str, Any]]:
    """Reads the rows of a JSON file, or the first so many, with the library that verl reads it
    with, which makes the types of a column agree; nothing is left in its cache."""
    import datasets

    try:
        rows = datasets.load_dataset("json", data_files=str(file), split="train", streaming=True)
        return list(islice(rows, limit))
    except Exception as error:  # whatever a reader of foreign text raises
        raise not_readable(what, "JSON", error) from None


def media_in(file: Path, what: str) -> list[str]:
    """Returns those of MEDIA that some row of a data file has."""
    if file.suffix in JSON:
        return [name for name, values in read_columns(file, what, MEDIA).items() if any(values)]
    names = [name for name in MEDIA if name in schema_of(file, what).names]
    table = pq.read_table(file, columns=names)  # not as Python values: images are large
    return [name for name in names if has_values(table[name])]


def has_values(column: pa.ChunkedArray) -> bool:
    """Returns whether a value of a column is neither null nor an empty list."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return bool(pc.any(pc.greater(pc.list_value_length(column), 0)).as_py())
    return column.null_count < len(column)


def check_file(file: Path, what: str) -> None:
    """Raises FileNotFoundError or ValueError for what cannot be a data file."""
    if file.is_dir():
        raise ValueError(f"{what} is a folder: name its files, as a list.")
    if not file.is_file():
        raise FileNotFoundError(f"{what} does not exist: {WRITE}.")
    if not file.stat().st_size:
        raise ValueError(f"{what} is empty: {WRITE}.")
    if is_lfs_pointer(file):
        raise ValueError(
            f"{what} is a pointer of Git LFS, not the data: run `git lfs pull` in its repository."
        )


def not_readable(what: str, kind: str, error: Exception) -> ValueError:
    """Returns the error for a file that a library cannot read."""
    why = (str(error) or type(error).__name__).splitlines()[0]
    return ValueError(f"{what} is not {kind} ({why:.160}), or only a part of it: {WRITE}.")


def check_rows(
    what: str, values: Sequence[Any], fault_of: Callable[[Any], str | None], cure: str
) -> None:
    """Raises ValueError for the first row with a fault.

    Args:
        what: names the file, with its setting.
        values: a column.
        fault_of: says what is wrong with a value, or None.
        cure: what to do.
    """
    faults = {row: fault for row, value in enumerate(values, 1) if (fault := fault_of(value))}
    if faults:
        row, fault = next(iter(faults.items()))
        others = f", and {len(faults) - 1} more rows are like it" if len(faults) > 1 else ""
        raise ValueError(f"{what} row {row} of {len(values)}: {fault}{others}: {cure}.")


def prompt_fault(prompt: Any) -> str | None:
    """Returns what is wrong with a row's prompt, which is a list of chat messages, or None."""
    if prompt is None:
        return "its prompt is null"
    if not isinstance(prompt, list):
        return f"its prompt is {kind_of(prompt)}, not chat messages"
    if not prompt:
        return "its prompt is empty"
    for number, message in enumerate(prompt, 1):
        if not isinstance(message, Mapping):
            return f"message {number} of its prompt is {kind_of(message)}, not a chat message"
        for key, kinds in (("role", str), ("content", str | list)):
            if not isinstance(message.get(key), kinds):
                return f"message {number} of its prompt has no {key}"
    if not any(m["content"].strip() if isinstance(m["content"], str) else m["content"]
               for m in prompt):  # fmt: skip
        return "its prompt is blank"
    return None


def truth_fault(reward_model: Any, judged: bool = True) -> str | None:
    """Returns what is wrong with a row's reward_model, or None.

    Args:
        reward_model: the row's value; verl's reward managers read its ground_truth.
        judged: whether `recipe.judge` reads the truth, which wants an answer; any other reward
            function may take what it likes.
    """
    if not isinstance(reward_model, Mapping):
        return f"its reward_model is {kind_of(reward_model)}, not a mapping with ground_truth"
    if "ground_truth" not in reward_model:
        return "its reward_model has no ground_truth"
    truth = reward_model["ground_truth"]
    if not judged:
        return None
    if truth is None or (isinstance(truth, float) and math.isnan(truth)):
        return "its reward_model.ground_truth is null"
    if isinstance(truth, bool) or not isinstance(truth, str | int | float):
        return f"its reward_model.ground_truth is {kind_of(truth)}, not a text"
    try:
        answers = accepted_answers(str(truth))
    except ValueError:
        return f"its reward_model.ground_truth={truth!r:.40} is no list of texts in JSON"
    if not answers or not all(normalise(answer) for answer in answers):
        return "its reward_model.ground_truth is blank"
    return None


def kind_of(value: Any) -> str:
    """Returns in a word what a value is, for an error."""
    if value is None:
        return "null"
    kinds: dict[type, str] = {str: "text", bool: "true or false", list: "a list", dict: "a mapping"}
    return kinds.get(type(value), f"a {type(value).__name__}")


PROMPT_CURE = "give chat messages, [{role: user, content: ...}], or leave the row out"
TRUTH_CURE = "give the final answer, {ground_truth: ...}, or leave the row out"
