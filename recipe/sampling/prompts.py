"""Prompts: where they are read from, what names them, and as which tokens a model gets them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm import tqdm

if TYPE_CHECKING:
    from recipe.sampling.engine import Sampling

# how a chat template is rendered to a model's prompt; no setting of a run's
RENDER = {"tokenize": True, "add_generation_prompt": True, "return_dict": False}


def prompt_id(messages: Iterable[Mapping[str, Any]]) -> str:
    """Returns a hash of a prompt's messages, which names it wherever its row moves to."""
    plain = [{"role": m["role"], "content": m["content"]} for m in messages]
    return hashlib.sha256(json.dumps(plain, ensure_ascii=True).encode()).hexdigest()[:20]


def read_prompts(files: Sequence[Path], limit: int = 0, option: str = "--data ") -> pd.DataFrame:
    """Reads the distinct prompts of parquet files of data_prep/.

    Args:
        files: read one after another.
        limit: the first so many rows only; 0: all.
        option: names the files in an error.

    Returns:
        a row per distinct prompt with index (its first row in the files), prompt_id, prompt (its
        messages) and ground_truth (a text).

    Raises:
        FileNotFoundError: for a file that does not exist.
        ValueError: for one that is not such a parquet file, or for files without rows.
    """
    tables = []
    for file in files:
        if not file.expanduser().is_file():
            raise FileNotFoundError(f"{option}{file} does not exist: write it with data_prep/.")
        try:
            tables.append(pd.read_parquet(file.expanduser(), columns=["prompt", "reward_model"]))
        except Exception as error:
            why = str(error).splitlines()[0]
            raise ValueError(
                f"{option}{file} is not parquet with columns prompt and reward_model ({why}): "
                "write it with data_prep/."
            ) from None
    table = pd.concat(tables, ignore_index=True)
    if limit:
        table = table.head(limit)
    if not len(table):
        raise ValueError(f"{option}{' '.join(map(str, files))} has no rows.")
    table["index"] = np.arange(len(table))
    table["prompt_id"] = [prompt_id(prompt) for prompt in table["prompt"]]
    table["ground_truth"] = [str(truth["ground_truth"]) for truth in table["reward_model"]]
    return table.drop_duplicates("prompt_id").reset_index(drop=True)


def resolve_model(
    model: str,
    option: str = "--model ",
    cure: str = "use a checkpoint folder or a model's name on the hub",
) -> Path | None:
    """Tells whether `model` is a folder of this machine or a name on the hub.

    Args:
        model: a path or a name.
        option: names the setting in the error, with what separates it from its value.
        cure: what the error says to do.

    Returns:
        the folder, or None for a name on the hub.

    Raises:
        FileNotFoundError: for what can only be a path (it begins with /, . or ~) and is no folder.
    """
    folder = Path(os.path.expanduser(model))
    if folder.is_dir():
        return folder
    if folder.is_absolute() or model.startswith((".", "~")):
        raise FileNotFoundError(f"{option}{model} does not exist: {cure}.")
    return None


def tokenized(prompts: pd.DataFrame, sampling: Sampling) -> list[list[int]]:
    """Returns each prompt's tokens as verl gives them to the model: by its chat template with
    data.apply_chat_template_kwargs."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(resolve_model(sampling.model) or sampling.model)
    render = partial(
        tokenizer.apply_chat_template,
        **{**sampling.chat_template_kwargs, **RENDER},
    )
    return [
        render(list(messages))
        for messages in tqdm(prompts["prompt"], desc="tokenize", unit="prompt", leave=False)
    ]
