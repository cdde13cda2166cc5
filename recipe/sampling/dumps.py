"""Responses that verl wrote in a run (`trainer.rollout_data_dir`), in place of sampling."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path

import pandas as pd

from recipe.sampling.engine import Sampling
from recipe.sampling.prompts import resolve_model, tokenized


def step_of(file: Path) -> tuple[float, str]:
    """Returns what sorts verl's dumps, `<step>.jsonl`, in the order of their steps."""
    return (int(file.stem) if file.stem.isdecimal() else math.inf), file.name


def read_dumps(
    prompts: pd.DataFrame, folder: Path, sampling: Sampling, option: str = "--rollouts"
) -> pd.DataFrame:
    """Reads responses from verl's rollout dumps (trainer.rollout_data_dir), of each prompt those of
    the first step that has it: later ones are of another policy.

    Args:
        prompts: of `read_prompts`.
        folder: of the dumps.
        sampling: its model's tokenizer and chat template turn the prompts into the texts by which
            the dumps name them.
        option: names the folder in an error.

    Returns:
        a row per prompt that has responses: prompt_id, responses.

    Raises:
        FileNotFoundError, ValueError: for a folder without dumps, with a broken one, or with none
            of these prompts.
    """
    from transformers import AutoTokenizer

    files = sorted(folder.expanduser().glob("*.jsonl"), key=step_of)
    if not files:
        raise FileNotFoundError(
            f"{option} {folder} holds no jsonl file: set trainer.rollout_data_dir in a run."
        )
    tokenizer = AutoTokenizer.from_pretrained(resolve_model(sampling.model) or sampling.model)
    decode = partial(tokenizer.decode, skip_special_tokens=True)
    id_of_text = {
        decode(tokens): name
        for tokens, name in zip(tokenized(prompts, sampling), prompts["prompt_id"], strict=True)
    }
    texts: dict[str, list[str]] = {}
    first: dict[str, Path] = {}
    later = others = 0
    for file in files:
        with file.open() as lines:
            for number, line in enumerate(lines, 1):
                try:
                    row = json.loads(line)
                    name = id_of_text.get(row["input"])
                    output = row["output"]
                except (ValueError, KeyError, TypeError):
                    raise ValueError(
                        f"{file}, line {number}, is not a rollout of verl (input, output): "
                        "remove it."
                    ) from None
                if name is None:
                    others += 1
                elif first.setdefault(name, file) == file:
                    texts.setdefault(name, []).append(output)
                else:
                    later += 1
    if not texts:
        raise ValueError(
            f"{option} {folder} holds no response to a prompt of --data ({others} to others): "
            "give the data and the tokenizer (--model) of that run."
        )
    print(
        f"{sum(map(len, texts.values()))} responses to {len(texts)} of {len(prompts)} prompts; "
        f"left out are {later} of later steps and {others} to other prompts"
    )
    return pd.DataFrame({"prompt_id": list(texts), "responses": list(texts.values())})
