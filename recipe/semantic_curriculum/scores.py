"""The table of a dataset's semantic entropies: one row a prompt, as `measure` writes and the
curriculum reads it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

COLUMNS = {
    "prompt_id": "hash of the prompt's messages",
    "index": "row of the prompt in the data",
    "responses": "G",
    "semantic_entropy": "-sum p_k log p_k over the groups of meaning",
    "pass_rate": "share of right responses",
    "groups": "K",
    "majority_answer": "of the largest group, in its most frequent spelling",
    "majority_right": "whether that answer is right",
    "without_answer": "responses in which no answer was found",
    "gave_up": "comparisons and verdicts that a limit ended",
}


def prompt_id(messages: Iterable[Mapping[str, Any]]) -> str:
    """Names a prompt by what it says, so that rows may be filtered or reordered."""
    plain = [{"role": m["role"], "content": m["content"]} for m in messages]
    return hashlib.sha256(json.dumps(plain, ensure_ascii=True).encode()).hexdigest()[:20]


def read_scores(path: str | Path) -> pd.DataFrame:
    """The table, by prompt_id. Raises ValueError or FileNotFoundError in one sentence."""
    file = Path(path).expanduser()
    command = "`python -m recipe.semantic_curriculum.measure`"
    if not file.is_file():
        raise FileNotFoundError(
            f"data.curriculum.scores={path} does not exist: write it with {command}."
        )
    try:
        table = pd.read_parquet(file)
    except Exception as error:
        raise ValueError(
            f"data.curriculum.scores={path} is not a parquet file ({error}): write it with "
            f"{command}."
        ) from None
    missing = [name for name in ("prompt_id", "semantic_entropy", "pass_rate") if name not in table]
    if missing:
        raise ValueError(
            f"data.curriculum.scores={path} lacks the column {missing[0]}: write it with {command}."
        )
    return table.drop_duplicates("prompt_id").set_index("prompt_id")


def rows_of(table: pd.DataFrame, ids: Sequence[str], path: str | Path) -> pd.DataFrame:
    """The table's rows of these prompts, in their order. Raises ValueError if one has none."""
    found = table.reindex(ids)
    missing = int(found["semantic_entropy"].isna().sum())
    if missing:
        raise ValueError(
            f"data.curriculum.scores={path} has no score for {missing} of the {len(ids)} training "
            "prompts: measure it on the same data.train_files."
        )
    return found


def score_of(rows: pd.DataFrame, order: str) -> np.ndarray:
    """(N,) what `data.curriculum.order` sorts by; low comes first.

    semantic_entropy and shuffled: SE. reversed: -SE. pass_rate: its negative, so that easy prompts
    come first as with SE.
    """
    column = rows["pass_rate" if order == "pass_rate" else "semantic_entropy"].to_numpy(np.float64)
    return -column if order in ("pass_rate", "reversed") else column
