"""Responses of a model to the prompts of parquet files, cached chunk by chunk.

Sampling that was stopped is resumed, and cached responses are never taken for another model's or
another sampling's.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from recipe import machine
from recipe.core.files import atomic_write
from recipe.sampling.engine import Chunk, Hardware, Responses, Sampling, sample_all
from recipe.sampling.model_content import fingerprint
from recipe.sampling.prompts import prompt_id, tokenized

CHUNKS = 1 << 32  # more than any set of prompts has
SETTINGS_FILE = "settings.json"  # of a cache
CHUNK_FILES = "[0-9]*.parquet"


def write_table(table: pd.DataFrame, file: Path) -> None:
    """Writes a parquet file atomically."""
    with atomic_write(file) as temporary:
        table.to_parquet(temporary, index=False)


def cache_settings(
    prompts: pd.DataFrame, sampling: Sampling, hardware: Hardware, chunk_size: int
) -> dict[str, Any]:
    """Returns what must be equal for cached responses to be taken for this sampling; the model by
    its content, since another one may be put into its place."""
    names = "".join(prompts["prompt_id"])
    return dataclasses.asdict(sampling) | {
        "model": fingerprint(sampling.model),
        "engine": hardware.engine,
        "dtype": hardware.dtype,
        "chunk": chunk_size,
        "prompts": prompt_id([{"role": "data", "content": names}]),
    }


def unwritten_settings() -> dict[str, Any]:
    """Returns what decided the responses of versions that did not write it down."""
    return {
        "chat_template_kwargs": {},
        "dtype": machine.engine_defaults().dtype,
        "engine": "vllm",
    }


class ResponseCache:
    """Responses in a folder, chunk by chunk, with the settings that they were sampled with.

    Args:
        folder: made if it does not exist.
        settings: JSON values; those of `cache_settings`, and more if more decides the responses.
        again: removes what the folder holds.
        again_if_changed: removes responses of other settings.

    Raises ValueError if the folder holds responses of other settings; settings that no response
    was sampled with yet are replaced.
    """

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any],
        again: bool = False,
        again_if_changed: bool = False,
    ):
        self.folder = folder
        if again:
            self._remove()
        file = self.folder / SETTINGS_FILE
        sampled = any(self.folder.glob(CHUNK_FILES))
        if sampled and file.is_file():
            self.written = file.read_text()
            before = unwritten_settings() | json.loads(self.written)
            changed = [key for key in settings if before.get(key) != settings[key]]
            if not changed:
                return
            problem = (
                f"holds responses for another {changed[0]} "
                f"({before.get(changed[0])!r}, now {settings[changed[0]]!r})"
            )
        elif sampled:
            problem = f"holds responses without the {SETTINGS_FILE} that says whose they are"
        else:
            problem = ""
        if problem and not again_if_changed:
            raise ValueError(
                f"{self.folder} {problem}: use another --out, or --again to sample anew."
            )
        if problem:
            self._remove()
        self.written = json.dumps(settings, indent=1)
        with atomic_write(file) as temporary:
            temporary.write_text(self.written)

    def _remove(self) -> None:
        """Removes the folder; under another name, so that a removal that is interrupted, or fails,
        leaves no response where the next sampling would find it."""
        aside = self.folder.with_name(f".{self.folder.name}.removed")
        if aside.exists():
            shutil.rmtree(aside)
        if self.folder.exists():
            self.folder.rename(aside)
            shutil.rmtree(aside)

    def file(self, chunk: int) -> Path:
        """Returns the file of a chunk, which exists once the chunk has been written."""
        return self.folder / f"{chunk:06d}.parquet"

    def write(self, chunk: int, prompt_ids: list[str], responses: Responses) -> None:
        """Writes a chunk atomically: prompt_id and the fields of `Responses`, a row per prompt.

        Raises ValueError where the folder has been taken by a sampling of other settings since.
        """
        file = self.folder / SETTINGS_FILE
        if not file.is_file() or file.read_text() != self.written:
            raise ValueError(
                f"{self.folder} was taken by another sampling after this one had begun: let it "
                "end, and use another --out for this one."
            )
        texts = [
            [text.encode("utf-8", "replace").decode() for text in group]
            for group in responses.texts
        ]
        columns: dict[str, Any] = {"prompt_id": prompt_ids, "responses": texts}
        for name in Responses._fields[1:]:
            if (values := getattr(responses, name)) is not None:
                columns[name] = values
        write_table(pd.DataFrame(columns), self.file(chunk))

    def read(self, chunk: int) -> pd.DataFrame:
        """Reads a chunk that has been written."""
        return pd.read_parquet(self.file(chunk))


def cached_responses(folder: Path, prompts: int = 0) -> pd.DataFrame:
    """Reads the chunks of a cache that have been written, until `prompts` are there (0: all).

    Raises ValueError if there is none.
    """
    tables: list[pd.DataFrame] = []
    for file in sorted(folder.glob(CHUNK_FILES)):
        tables.append(pd.read_parquet(file))
        if 0 < prompts <= sum(map(len, tables)):
            break
    if not tables:
        raise ValueError(f"{folder} holds no chunk of responses yet: sample them first.")
    return pd.concat(tables, ignore_index=True)


class SamplingJob(NamedTuple):
    """Prompts (of `read_prompts`) to sample responses to, and where those are cached."""

    prompts: pd.DataFrame
    cache: ResponseCache


class _Missing(NamedTuple):
    """A chunk that is not cached: its job, its number in the cache, and its rows of the prompts."""

    job: int
    chunk: int
    rows: list[int]


def sample_cached(
    jobs: Sequence[SamplingJob], sampling: Sampling, hardware: Hardware | None, chunk_size: int
) -> Iterator[tuple[int, pd.DataFrame]]:
    """Yields (number of the job, table of a chunk of responses): first the chunks that are cached,
    then the others as they are sampled, all by the same engines.

    Args:
        jobs: one for each set of prompts.
        sampling: what decides the responses.
        hardware: where they are sampled; None: every response must be cached.
        chunk_size: prompts.

    Raises:
        ValueError: if there is no hardware and a chunk is not cached; before the first is yielded.
    """
    cached: list[tuple[int, int]] = []  # (job, chunk)
    missing: dict[int, _Missing] = {}
    token_ids = []
    for number, (prompts, cache) in enumerate(jobs):
        token_ids.append(tokenized(prompts, sampling))
        fits = [len(tokens) <= sampling.max_prompt_length for tokens in token_ids[-1]]
        if not all(fits):
            print(
                f"{len(fits) - sum(fits)} of {len(fits)} prompts are longer than "
                f"--max-prompt-length {sampling.max_prompt_length} and left out"
            )
        rows = [row for row, fit in enumerate(fits) if fit]
        for chunk, start in enumerate(range(0, len(rows), chunk_size)):
            if cache.file(chunk).is_file():
                cached.append((number, chunk))
            else:
                part = _Missing(number, chunk, rows[start : start + chunk_size])
                missing[number * CHUNKS + chunk] = part
    if missing and hardware is None:
        folders = dict.fromkeys(str(jobs[part.job].cache.folder) for part in missing.values())
        raise ValueError(
            f"{' and '.join(folders)} {'do' if len(folders) > 1 else 'does'} not hold all "
            "responses: sample them first."
        )
    for number, chunk in cached:
        yield number, jobs[number].cache.read(chunk)
    if not missing:
        return
    chunks = (
        Chunk(
            name,
            [token_ids[part.job][row] for row in part.rows],
            [sampling.seed * 1_000_003 + 1009 * row for row in part.rows],
        )
        for name, part in missing.items()
    )
    longest = max(len(token_ids[part.job][row]) for part in missing.values() for row in part.rows)
    for name, responses in sample_all(chunks, sampling, hardware, longest):
        number, chunk, rows = missing[name]
        prompts, cache = jobs[number]
        cache.write(chunk, prompts["prompt_id"].iloc[rows].tolist(), responses)
        yield number, cache.read(chunk)
