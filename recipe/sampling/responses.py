"""Responses of a model to the prompts of parquet files, kept chunk by chunk.

What is stopped goes on where it was, and what is kept is never taken for another model's or
another sampling's.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from recipe.core.files import whole
from recipe.sampling.engine import Hardware, Job, Responses, Sampling, sample_all
from recipe.semantic_curriculum.scores import prompt_id

CHUNKS = 1 << 32  # more than any set of prompts has


def read_prompts(files: list[Path], limit: int, option: str = "--data ") -> pd.DataFrame:
    """index, prompt_id, prompt, ground_truth of each distinct prompt; `option` names the files."""
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


def write(table: pd.DataFrame, file: Path) -> None:
    """Whole or not at all."""
    with whole(file) as temporary:
        table.to_parquet(temporary, index=False)


class Kept:
    """Responses in a folder, chunk by chunk, and what they were sampled with."""

    def __init__(self, folder: Path, settings: dict, again: bool):
        self.folder = folder
        if again:
            shutil.rmtree(self.folder, ignore_errors=True)
        file = self.folder / "settings.json"
        if file.is_file():
            before = json.loads(file.read_text())
            changed = [key for key in settings if before.get(key) != settings[key]]
            if changed:
                raise ValueError(
                    f"{self.folder} holds responses for another {changed[0]} "
                    f"({before.get(changed[0])!r}, now {settings[changed[0]]!r}): use another "
                    "--out, or --again to sample anew."
                )
            return
        with whole(file) as temporary:
            temporary.write_text(json.dumps(settings, indent=1))

    def file(self, chunk: int) -> Path:
        return self.folder / f"{chunk:06d}.parquet"

    def write(self, chunk: int, ids: list[str], responses: Responses) -> None:
        texts = [
            [t.encode("utf-8", "replace").decode() for t in group] for group in responses.texts
        ]
        columns = {"prompt_id": ids, "responses": texts}
        for name in Responses._fields[1:]:
            if (values := getattr(responses, name)) is not None:
                columns[name] = values
        write(pd.DataFrame(columns), self.file(chunk))

    def read(self, chunk: int) -> pd.DataFrame:
        return pd.read_parquet(self.file(chunk))


def tokenized(prompts: pd.DataFrame, sampling: Sampling) -> list[list[int]]:
    """Each prompt as verl hands it to the model: its chat template and nothing else."""
    from transformers import AutoTokenizer

    folder = Path(os.path.expanduser(sampling.model))
    if not folder.is_dir() and (folder.is_absolute() or sampling.model.startswith((".", "~"))):
        raise FileNotFoundError(
            f"--model {sampling.model} does not exist: use a checkpoint folder or a model's name "
            "on the hub."
        )
    tokenizer = AutoTokenizer.from_pretrained(folder if folder.is_dir() else sampling.model)
    return [
        tokenizer.apply_chat_template(list(p), add_generation_prompt=True, return_dict=False)
        for p in tqdm(prompts["prompt"], desc="tokenize", unit="prompt", leave=False)
    ]


def settings_of(prompts: pd.DataFrame, sampling: Sampling, chunk: int) -> dict:
    """What must be equal for kept responses to be taken for this sampling."""
    names = "".join(prompts["prompt_id"])
    return dataclasses.asdict(sampling) | {
        "chunk": chunk,
        "prompts": prompt_id([{"role": "data", "content": names}]),
    }


class Wanted(NamedTuple):
    """Prompts of which responses are wanted, and where those are kept."""

    prompts: pd.DataFrame
    kept: Kept


def sampled(
    wanted: Sequence[Wanted], sampling: Sampling, hardware: Hardware | None, chunk_size: int
) -> Iterator[tuple[int, pd.DataFrame]]:
    """(number in `wanted`, chunk of responses): first all that are kept, then the others as they
    are sampled, by one engine. Without `hardware` none may be missing."""
    todo: dict[int, tuple[int, int, list[int]]] = {}  # job: which, chunk, rows
    ids = []
    for which, (prompts, kept) in enumerate(wanted):
        ids.append(tokenized(prompts, sampling))
        fits = [len(tokens) <= sampling.max_prompt_length for tokens in ids[-1]]
        if not all(fits):
            print(
                f"{len(fits) - sum(fits)} of {len(fits)} prompts are longer than "
                f"--max-prompt-length {sampling.max_prompt_length} and left out"
            )
        rows = [row for row, fit in enumerate(fits) if fit]
        for number, start in enumerate(range(0, len(rows), chunk_size)):
            if kept.file(number).is_file():
                yield which, kept.read(number)
            else:
                todo[which * CHUNKS + number] = which, number, rows[start : start + chunk_size]
    if not todo:
        return
    if hardware is None:
        raise ValueError(
            f"{wanted[next(iter(todo.values()))[0]].kept.folder} does not hold all responses: "
            "sample them first."
        )
    jobs = (
        Job(
            job,
            [ids[which][row] for row in rows],
            [sampling.seed * 1_000_003 + 1009 * row for row in rows],
        )
        for job, (which, _, rows) in todo.items()
    )
    longest = max(len(ids[which][row]) for which, _, rows in todo.values() for row in rows)
    for job, responses in sample_all(jobs, sampling, hardware, longest):
        which, number, rows = todo[job]
        prompts, kept = wanted[which]
        kept.write(number, prompts["prompt_id"].iloc[rows].tolist(), responses)
        yield which, kept.read(number)
