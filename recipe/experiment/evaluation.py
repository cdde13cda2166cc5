"""Evaluated responses on disk: the tables that `recipe.evaluate` writes, and their figures.

Axes: P problems, N samples per problem.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from recipe.experiment.run import Run
from recipe.experiment.statistics import Estimate, interval, pass_at_k

# of OUT/<benchmark>.parquet, which has one row per response
COLUMNS = {
    "index": "row of the problem in the benchmark",
    "prompt_id": "hash of the prompt's messages",
    "sample": "0 .. n - 1",
    "response": "text",
    "answer": "as the judge read it; empty if there is none",
    "correct": "bool",
    "cluster": "number of the answer's cluster: answers of the same problem that mean the same",
    "majority_correct": "bool, whether the problem's largest cluster is correct",
    "tokens": "length of the response",
    "truncated": "bool, whether the token limit cut it off",
}
KEYS = ["index", "prompt_id", "sample"]
# settings of an evaluation in which those of a comparison may differ
UNCOMPARED = ("model", "seed", "max_prompts")  # the last by the problems themselves

Problems = tuple[tuple[int, str], ...]  # (index, prompt_id), in the benchmark's order


def values(table: pd.DataFrame, column: str = "correct") -> np.ndarray:
    """Returns a column of a table of evaluated responses as (P, N), in the benchmark's order.

    Raises:
        ValueError: the table is empty, or its problems have differing numbers of samples.
    """
    ordered = table.sort_values(KEYS)
    counts = ordered.groupby(KEYS[:2], sort=False).size()
    if counts.empty or counts.nunique() > 1:
        raise ValueError("its problems have differing numbers of samples")
    return ordered[column].to_numpy().reshape(len(counts), -1)


def has_all_columns(file: Path) -> bool:
    """Says whether a table of evaluated responses exists and has all of COLUMNS, which those of
    older versions have not."""
    return file.is_file() and set(COLUMNS) <= set(pq.read_schema(file).names)


def read_evaluation(file: Path, column: str = "correct") -> tuple[Problems, np.ndarray]:
    """Reads one column of a table of evaluated responses; the texts stay on the disk.

    Returns:
        The problems, and (P, N) values: bool for `correct`, `majority_correct`, `truncated`.

    Raises:
        OSError, ValueError: it is no such table; the sentence does not name the file.
    """
    for name in (*KEYS, column):
        if name not in pq.read_schema(file).names:
            raise ValueError(f"it has no column {name!r}, evaluate the run again")
    table = pd.read_parquet(file, columns=list(dict.fromkeys([*KEYS, column])))
    values_PN = values(table, column)
    problems = table[KEYS[:2]].drop_duplicates().sort_values(KEYS[:2])
    return tuple(problems.itertuples(index=False, name=None)), values_PN


def read_values(out: Path, benchmark: str, column: str = "correct") -> np.ndarray:
    """Reads a column of one benchmark's evaluation as (P, N).

    Args:
        out: folder of the evaluation, such as RUN/evaluation.
        benchmark: the name of the benchmark's file, without its ending.
    """
    return read_evaluation(Path(out) / f"{benchmark}.parquet", column)[1]


def figures(table: pd.DataFrame, ks: Sequence[int] | None = None) -> dict[str, Estimate]:
    """Returns the figures of an evaluation, each with its interval over the problems.

    Args:
        table: columns of COLUMNS, except the texts.
        ks: of pass@k, each at most N; default: powers of 2 below N.

    Returns:
        avg@N, pass@k for each k, majority@N, tokens (mean length) and truncated (share).
    """
    correct_PN = values(table, "correct")
    samples = correct_PN.shape[1]
    ks = ks or [2**i for i in range(1, 11) if 2**i < samples]
    correct_P = correct_PN.sum(1)
    return {
        f"avg@{samples}": interval(correct_PN.mean(1)),
        **{f"pass@{k}": interval(pass_at_k(correct_P, samples, k)) for k in ks},
        f"majority@{samples}": interval(values(table, "majority_correct")[:, 0]),
        "tokens": interval(values(table, "tokens").mean(1)),
        "truncated": interval(values(table, "truncated").mean(1)),
    }


class Record(NamedTuple):
    """What is read of the record beside a table of evaluated responses."""

    settings: dict[str, Any]  # without UNCOMPARED; {} where no record can be read
    step: int | None  # of the checkpoint; None where it names none


def read_record(file: Path) -> Record:
    """Reads the record beside a table of evaluated responses."""
    try:
        record = json.loads(file.with_suffix(".json").read_text())
        settings = {k: value for k, value in record["settings"].items() if k not in UNCOMPARED}
        steps = re.findall(r"global_step_(\d+)", str(record.get("model")))
        return Record(settings, int(steps[-1]) if steps else None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Record({}, None)


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Returns the settings that both of two evaluations name and in which they differ."""
    return [key for key in first if key in second and first[key] != second[key]]


def usual_settings(recorded: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Returns those that most evaluations share, of equally many the ones with more samples; {}
    where nothing is recorded."""

    def rank(settings: Mapping[str, Any]) -> tuple[int, int]:
        agreeing = sum(bool(other) and not differing(settings, other) for other in recorded)
        return agreeing, settings.get("samples", 0)

    return max(filter(None, recorded), key=rank, default={})


def read_evaluations(
    runs: Iterable[Run], column: str = "correct"
) -> tuple[dict[str, dict[str, dict[int, np.ndarray]]], list[str]]:
    """Reads a column of all evaluations of a comparison's runs.

    All runs of a benchmark get the same problems, so that their differences are paired: those of
    most runs (of equally many, the larger set), and of those the ones with the settings of most
    (of equally many, with more samples); of an earlier checkpoint than the run's last, none. What
    no record says of a table, as where an older version wrote it, counts as equal.

    Returns:
        {benchmark, or preset/benchmark: {arm: {seed: (P, N)}}}, and a sentence on each table that
        was left out, or whose record is missing where others have one.
    """
    tables: dict[str, list[tuple[Run, dict[str, Any], Problems, np.ndarray]]] = {}
    left_out = []
    for run in runs:
        for file in run.folder.evaluations():
            benchmark = file.relative_to(run.folder.evaluation).with_suffix("").as_posix()
            record, step = read_record(file), run.folder.checkpoint_step()
            if record.step is not None and record.step < step:
                left_out.append(
                    f"{run.name}: {benchmark}.parquet is left out: it is of the checkpoint of step "
                    f"{record.step}, and the last is of step {step}."
                )
                continue
            try:
                read = (run, record.settings, *read_evaluation(file, column))
                tables.setdefault(benchmark, []).append(read)
            except (OSError, ValueError, KeyError) as error:
                left_out.append(f"{run.name}: {benchmark}.parquet is left out: {error}.")
    results: dict[str, dict[str, dict[int, np.ndarray]]] = {}
    for benchmark, evaluated in sorted(tables.items()):
        sets = [problems for _, _, problems, _ in evaluated]
        common = max(sets, key=lambda problems: (sets.count(problems), len(problems)), default=())
        recorded = [settings for _, settings, problems, _ in evaluated if problems == common]
        usual = usual_settings(recorded)
        for run, settings, problems, values_PN in evaluated:
            if problems != common:
                left_out.append(
                    f"{run.name}: {benchmark}.parquet is left out: its {len(problems)} problems "
                    f"are not the {len(common)} of most runs."
                )
            elif keys := differing(settings, usual):
                texts = [f"{key}={settings[key]} (most runs: {usual[key]})" for key in keys]
                left_out.append(
                    f"{run.name}: {benchmark}.parquet is left out: it was evaluated with "
                    f"{', '.join(texts)}."
                )
            else:
                if usual and not settings:
                    left_out.append(
                        f"{run.name}: {benchmark}.parquet has no record of its settings (.json), "
                        "and is taken to have those of most runs."
                    )
                results.setdefault(benchmark, {}).setdefault(run.arm, {})[run.seed] = values_PN
    return results, left_out
