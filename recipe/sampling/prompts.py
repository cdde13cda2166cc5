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

from recipe.sampling import rows

if TYPE_CHECKING:
    from recipe.sampling.engine import Sampling

ROW = ("data_source", "extra_info")  # what a reward function gets of a row beside the truth
# how a chat template is rendered to a model's prompt; no setting of a run's
RENDER = {"tokenize": True, "add_generation_prompt": True, "return_dict": False}


def prompt_id(messages: Iterable[Mapping[str, Any]]) -> str:
    """Returns a hash of a prompt's messages, which names it wherever its row moves to.

    Args:
        messages: as the data file has them; verl's dataset puts images into their text.

    Raises:
        ValueError: for messages with what is neither text nor bytes, such as an open image.
    """
    plain = [{"role": m["role"], "content": m["content"]} for m in messages]
    text = json.dumps(plain, ensure_ascii=True, default=hash_of_bytes)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def hash_of_bytes(value: Any) -> str:
    """Returns what stands for bytes (an image in a message) in the hash of a prompt."""
    if not isinstance(value, bytes):
        raise ValueError(
            f"a prompt with a {type(value).__name__} in its messages has no name: give the "
            "messages of the data file, before a dataset rewrites them."
        )
    return hashlib.sha256(value).hexdigest()


def read_prompts(
    files: Sequence[Path], limit: int = 0, option: str = "--data ", judged: bool = True
) -> pd.DataFrame:
    """Reads the distinct prompts of data files of verl's schema, as data_prep/ writes them.

    Args:
        files: read one after another.
        limit: the first so many rows only; 0: all.
        option: names the files in an error.
        judged: whether `recipe.judge` gets the truths, which are answers, as texts; any other
            reward function gets them as the files have them, as in training.

    Returns:
        a row per distinct prompt with index (its first row in the files), prompt_id, prompt (its
        messages) and ground_truth, and ROW where the files have it.

    Raises:
        FileNotFoundError: for a file that does not exist.
        ValueError: for a file that is no such table, for a row whose prompt or truth is missing or
            blank, or whose prompt has images (a model is given the text alone), and for two rows of
            one prompt with different truths.
    """
    tables: list[pd.DataFrame] = []
    places: list[str] = []  # of each row
    truth_fault = partial(rows.truth_fault, judged=judged)
    for file in files:
        what, path = f"{option}{file}", file.expanduser()
        left = limit - len(places) if limit else None
        if left == 0:
            rows.check_file(path, what)
            continue
        wanted = ["prompt", "reward_model", *ROW]
        if path.suffix in rows.JSON:  # reading it again would take as long
            columns = rows.read_columns(path, what, [*wanted, *rows.MEDIA], left)
            media = [name for name in rows.MEDIA if any(columns.pop(name, ()))]
        else:
            columns = rows.read_columns(path, what, wanted, left)
            media = rows.media_in(path, what)
        for name, fault_of, cure in (
            ("prompt", rows.prompt_fault, rows.PROMPT_CURE),
            ("reward_model", truth_fault, rows.TRUTH_CURE),
        ):
            if name not in columns:
                raise ValueError(f"{what} lacks the column {name}: {rows.WRITE}.")
            rows.check_rows(what, columns[name], fault_of, cure)
        if media:
            raise ValueError(
                f"{what} has {media[0]}, and a model is given the text of a prompt alone here: "
                "leave those rows out."
            )
        tables.append(pd.DataFrame(columns))
        places += [f"{what} row {row}" for row in range(1, len(columns["prompt"]) + 1)]
    table = pd.concat(tables, ignore_index=True)
    table["index"] = np.arange(len(table))
    table["prompt_id"] = [prompt_id(prompt) for prompt in table["prompt"]]
    truths = [truth["ground_truth"] for truth in table["reward_model"]]
    # as objects: pandas would make numbers of a column one type
    table["ground_truth"] = pd.Series(list(map(str, truths)) if judged else truths, dtype=object)
    return without_copies(table, places)


def without_copies(table: pd.DataFrame, places: Sequence[str]) -> pd.DataFrame:
    """Returns the rows of a table without those whose prompt and truth an earlier row has, and says
    how many those are.

    Args:
        table: with prompt_id and ground_truth.
        places: names each row in an error.

    Raises:
        ValueError: for two rows of one prompt with different truths.
    """
    first: dict[str, int] = {}
    truths = list(map(repr, table["ground_truth"]))
    for row, name in enumerate(table["prompt_id"]):
        other = first.setdefault(name, row)
        if truths[row] != truths[other]:
            raise ValueError(
                f"{places[row]}: its prompt is the one of {places[other]}, but its truth is "
                f"{truths[row]:.40}, not {truths[other]:.40}: correct one, or leave one out."
            )
    if copies := len(table) - len(first):
        print(f"{copies} of {len(table)} rows are copies of an earlier one and left out")
    return table.iloc[list(first.values())].reset_index(drop=True)


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
