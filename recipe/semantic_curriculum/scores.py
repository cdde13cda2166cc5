"""The table of a dataset's semantic entropies: one row per prompt, as `measure` writes it and the
curriculum reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

COLUMNS = {
    "prompt_id": "hash of the prompt's messages",
    "index": "row of the prompt in the data",
    "responses": "G",
    "semantic_entropy": "-sum p_k log p_k over the clusters of equivalent answers",
    "pass_rate": "share of correct responses",
    "clusters": "K",
    "majority_answer": "of the largest cluster, in its most frequent spelling",
    "majority_correct": "whether that answer is correct",
    "without_answer": "responses without an answer",
    "timed_out": "comparisons and verdicts that a limit ended",
}
NEEDED = ("prompt_id", "semantic_entropy", "pass_rate")  # by the curriculum


def read_scores(path: str | Path) -> pd.DataFrame:
    """Reads the table.

    Args:
        path: a parquet file with at least the columns NEEDED.

    Returns:
        the table with prompt_id as its index, each prompt once.

    Raises:
        FileNotFoundError, ValueError: in one sentence, for another file.
    """
    file = Path(path).expanduser()
    command = "`python -m recipe.semantic_curriculum.measure`"
    if not file.is_file():
        raise FileNotFoundError(
            f"data.curriculum.scores={path} is no file: write it with {command}."
        )
    try:
        table = pd.read_parquet(file)
    except Exception as error:
        raise ValueError(
            f"data.curriculum.scores={path} is not a parquet file ({error}): write it with "
            f"{command}."
        ) from None
    missing = [name for name in NEEDED if name not in table]
    if missing:
        raise ValueError(
            f"data.curriculum.scores={path} lacks the column {missing[0]}: write it with {command}."
        )
    return table.drop_duplicates("prompt_id").set_index("prompt_id")


def rows_of(table: pd.DataFrame, ids: Sequence[str], path: str | Path) -> pd.DataFrame:
    """Selects the rows of prompts.

    Args:
        table: of `read_scores`.
        ids: (N,) prompt_id of each prompt.
        path: of the table, for the error.

    Returns:
        N rows in the order of `ids`.

    Raises:
        ValueError: if a prompt has no row.
    """
    rows = table.reindex(ids)
    missing = int(rows[["semantic_entropy", "pass_rate"]].isna().any(axis=1).sum())
    if missing:
        raise ValueError(
            f"data.curriculum.scores={path} has no score for {missing} of the {len(ids)} training "
            "prompts: measure it on the same data.train_files, with --max-prompt-length as "
            "data.max_prompt_length."
        )
    return rows


def score_of(rows: pd.DataFrame, order: str) -> np.ndarray:
    """Returns (N,) what `data.curriculum.order` sorts by; low comes first.

    semantic_entropy and shuffled: SE. reversed: -SE. pass_rate: its negative, so that easy prompts
    come first as with SE.
    """
    column = rows["pass_rate" if order == "pass_rate" else "semantic_entropy"].to_numpy(np.float64)
    return -column if order in ("pass_rate", "reversed") else column
