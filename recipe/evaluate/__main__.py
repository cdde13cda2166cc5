"""Evaluate a checkpoint on benchmarks: python -m recipe.evaluate CHECKPOINT BENCHMARK.parquet ...

Samples n responses per problem with vLLM, judges them with the reward function of training, and
reports, each with a bootstrap interval over the problems: avg@n, unbiased pass@k, majority@n (over
clusters of equivalent answers; with another reward function than recipe.judge, of equal `pred`, or
of equal responses where it has none), response length, and the share that the limit cut off.

CHECKPOINT is a Hugging Face folder or name, or a run's folder (its last checkpoint), a
global_step_N of it, or that one's actor/; FSDP shards are merged into a model beside them
(actor/merged/), a LoRA adapter into its base by peft. BENCHMARKs are files of data_prep/, such as
those of data_prep/benchmarks.py.

The chat template's kwargs, the lengths, the dtype and --boxed-only are by default those of the
run's training, as its record says; a preset overrides them, and flags override both.

OUT (default: evaluation/ in the checkpoint's folder) gets <benchmark>.parquet with one row per
response, and <benchmark>.json with settings, versions and figures. Responses are cached chunk by
chunk beside them: the same command resumes where it was stopped, and with --judge-only it judges
again without sampling.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from recipe.core import cli
from recipe.core.files import atomic_write
from recipe.core.recipe import recipes
from recipe.core.settings import check_choice
from recipe.experiment import provenance
from recipe.experiment.evaluation import figures
from recipe.experiment.statistics import Estimate
from recipe.judge.equivalence import Equivalence
from recipe.judge.responses import Grading, judge_prompts
from recipe.judge.reward_function import RewardFunction
from recipe.sampling import flags
from recipe.sampling.checkpoints import model_of
from recipe.sampling.engine import ENGINES, Hardware, Sampling
from recipe.sampling.prompts import read_prompts
from recipe.sampling.responses import (
    ResponseCache,
    SamplingJob,
    cache_settings,
    sample_cached,
)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a command line asks for."""

    checkpoint: str
    benchmarks: tuple[Path, ...]
    sampling: Sampling  # its model is the checkpoint until `evaluate` resolves that
    hardware: Hardware
    grading: Grading
    out: Path | None = None  # None: evaluation/ in the checkpoint's folder
    ks: tuple[int, ...] = ()  # of pass@k; none: powers of 2 below n
    max_prompts: int = 0  # of each benchmark; 0: all
    chunk: int = 64  # problems
    judge_only: bool = False
    again: bool = False
    again_if_changed: bool = False
    sources: str = ""  # a line: where the settings come from


# ---- judging -------------------------------------------------------------------------------------


def judge_chunk(
    chunk: pd.DataFrame, prompts: pd.DataFrame, grading: Grading, equivalence: Equivalence
) -> pd.DataFrame:
    """Returns the columns of `experiment.evaluation.COLUMNS` for a chunk of cached responses: a row
    per problem and sample."""
    problems = prompts.set_index("prompt_id").loc[chunk["prompt_id"]]
    texts = [list(responses) for responses in chunk["responses"]]
    rows = problems.to_dict("records")
    judged = judge_prompts(texts, problems["ground_truth"], grading, equivalence, rows)
    n = len(texts[0])
    answers = [answer for problem in judged for answer in problem.answers]
    return pd.DataFrame(
        {
            "index": np.repeat(problems["index"].to_numpy(), n),
            "prompt_id": np.repeat(chunk["prompt_id"].to_numpy(), n),
            "sample": np.tile(np.arange(n), len(texts)),
            "response": [text for responses in texts for text in responses],
            "answer": [answer.encode("utf-8", "replace").decode() for answer in answers],
            "correct": [correct for problem in judged for correct in problem.correct],
            "cluster": [cluster for problem in judged for cluster in problem.clusters],
            "majority_correct": np.repeat([problem.majority_correct for problem in judged], n),
            "tokens": np.concatenate([np.asarray(tokens) for tokens in chunk["tokens"]]),
            "truncated": np.concatenate([np.asarray(cut) for cut in chunk["truncated"]]),
        }
    )


def summary(results: Mapping[str, Mapping[str, Estimate]]) -> str:
    """Returns a table of {benchmark: {figure: estimate}}, one line per benchmark."""
    columns = list(dict.fromkeys(name for estimates in results.values() for name in estimates))
    rows = [["", *columns]]
    for benchmark, estimates in results.items():
        rows.append([benchmark])
        for name in columns:
            spec = ".1f" if name == "tokens" else ".3f"
            rows[-1].append(f"{estimates[name]:{spec}}" if name in estimates else "")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


# ---- command -------------------------------------------------------------------------------------


def presets() -> dict[str, Mapping[str, Any]]:
    """Returns the sampling of the papers' own evaluations, from the recipes' records.

    Raises ValueError if a record names what is no field of Sampling.
    """
    samplings = {}
    for record in recipes():
        for name, sampling in record.evaluation.items():
            for key in sampling:
                what = f"recipe {record.name}: evaluation.{name}.{key}"
                check_choice(what, key, flags.SAMPLING)
            samplings[name] = sampling
    return samplings


def parse(arguments: Sequence[str] | None) -> Evaluation:
    """Reads the command line; ends the process with a sentence on a flag that is not allowed."""
    parser = argparse.ArgumentParser(
        prog="python -m recipe.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = partial(parser.add_argument, metavar="X")
    parser.add_argument("checkpoint")
    parser.add_argument("benchmarks", nargs="+", type=Path, metavar="BENCHMARK.parquet")
    add("--out", type=Path, help="folder; default: evaluation/ in the checkpoint's")
    samplings = presets()
    parser.add_argument("--preset", choices=samplings, help="a paper's sampling; flags override it")
    flags.add_sampling(parser, ", or the preset's or the run's")
    add("--k", type=int, nargs="+", default=[], help="of pass@k, below n; default: powers of 2")
    add("--max-prompts", type=int, default=0, help="the first so many problems of each only")
    flags.add_hardware(parser, chunk=64, what="problems")
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="vllm",
        help="transformers starts at once, for tiny models; default: %(default)s",
    )
    add("--time-limit", type=float, default=5.0, help="seconds of CPU per verdict")
    parser.add_argument("--judge-only", action="store_true", help="judge cached responses again")
    parser.add_argument(
        "--again-if-changed",
        action="store_true",
        help="sample anew where the cached responses are of other settings",
    )
    args = parser.parse_args(arguments)
    flags.check(parser, args)
    resolved = flags.resolve(args, args.checkpoint, args.preset, samplings.get(args.preset))
    sampling = resolved.sampling
    for k in args.k:
        if not 1 <= k < sampling.samples:
            parser.error(f"--k {k} is not allowed: pass@k wants 1 <= k < n = {sampling.samples}")
    flags.check_sampling(parser, sampling)
    for flag in ("again", "again_if_changed"):
        if args.judge_only and getattr(args, flag):
            parser.error(
                f"--judge-only needs the responses that --{flag.replace('_', '-')} would remove: "
                "give one of them"
            )
    stems = [file.stem for file in args.benchmarks]
    if len(set(stems)) < len(stems):
        parser.error("two benchmarks have the same file name: rename one")
    return Evaluation(
        checkpoint=args.checkpoint,
        benchmarks=tuple(args.benchmarks),
        sampling=sampling,
        hardware=flags.hardware_of(args, resolved.dtype, engine=args.engine, likelihoods=False),
        grading=Grading(
            boxed_only=resolved.boxed_only,
            time_limit=args.time_limit,
            workers=args.workers,
            reward=resolved.reward,
        ),
        out=args.out,
        ks=tuple(args.k),
        max_prompts=args.max_prompts,
        chunk=args.chunk,
        judge_only=args.judge_only,
        again=args.again,
        again_if_changed=args.again_if_changed,
        sources=resolved.sources,
    )


def settings(evaluation: Evaluation) -> dict[str, Any]:
    """Returns what decides the figures, besides the model and the benchmark, as JSON values."""
    sampling = dataclasses.asdict(evaluation.sampling)
    del sampling["model"]
    reward = evaluation.grading.reward
    return sampling | {
        "reward": str(reward) if reward else None,
        "reward_content": content_of(reward) if reward else None,
        "engine": evaluation.hardware.engine,
        "dtype": evaluation.hardware.dtype,
        "boxed_only": evaluation.grading.boxed_only,
        "max_prompts": evaluation.max_prompts,
    }


def content_of(reward: RewardFunction) -> str:
    """Names a reward function by the content of its file, not of what that imports; by its path
    where no file is known."""
    path = reward.path.removeprefix("file://")
    if path.startswith("pkg://"):
        module = path.removeprefix("pkg://").replace("/", ".")
        with suppress(ImportError, ValueError):  # what cannot be imported cannot judge either
            spec = importlib.util.find_spec(module)
            path = spec.origin or path if spec else path
    return provenance.fingerprint(path)


def evaluate(evaluation: Evaluation) -> dict[str, dict[str, Estimate]]:
    """Samples, judges, writes and prints; returns {benchmark: {figure: estimate}}."""
    files, judged = evaluation.benchmarks, evaluation.grading.reward is None
    contents = [provenance.fingerprint(file) for file in files]  # as they are read now
    prompts = [read_prompts([file], evaluation.max_prompts, "", judged) for file in files]
    print(evaluation.sources)
    model, folder = model_of(evaluation.checkpoint)
    out = evaluation.out or (folder / "evaluation" if folder else None)
    if out is None:
        raise ValueError(f"{evaluation.checkpoint} is no folder of this machine: set --out.")
    out = out.expanduser().absolute()
    record = settings(evaluation) | {"model": provenance.fingerprint(model)}
    sampling = dataclasses.replace(evaluation.sampling, model=model)
    jobs = []
    for file, table in zip(files, prompts, strict=True):
        same = cache_settings(table, sampling, evaluation.hardware, evaluation.chunk)
        place = out / f"{file.stem}.responses"
        cache = ResponseCache(place, same, evaluation.again, evaluation.again_if_changed)
        jobs.append(SamplingJob(table, cache))
    chunks = sample_cached(
        jobs,
        sampling,
        None if evaluation.judge_only else evaluation.hardware,
        evaluation.chunk,
    )
    grading, equivalence = evaluation.grading, evaluation.grading.equivalence()
    tables: list[list[pd.DataFrame]] = [[] for _ in jobs]
    with tqdm(total=sum(map(len, prompts)), unit="problem") as bar:
        for number, chunk in chunks:
            tables[number].append(judge_chunk(chunk, prompts[number], grading, equivalence))
            bar.update(len(chunk))
    results = {}
    for file, content, parts in zip(files, contents, tables, strict=True):
        if not parts:
            raise ValueError(f"{file}: no problem is short enough: raise --max-prompt-length.")
        table = pd.concat(parts).sort_values(["index", "sample"], ignore_index=True)
        results[file.stem] = figures(table, list(evaluation.ks))
        write_results(out, file, content, table, results[file.stem], record, model)
    print(summary(results))
    print(f"[mean and 95 % interval over problems] -> {out}")
    return results


def write_results(
    out: Path,
    file: Path,
    content: str,
    table: pd.DataFrame,
    estimates: dict[str, Estimate],
    record: dict[str, Any],
    model: str,
) -> None:
    """Writes OUT/<benchmark>.parquet, then .json with what the figures depend on. An earlier one is
    removed when the new table is there: it would stand beside it if this were interrupted.

    Args:
        out: the folder.
        file: the benchmark's.
        content: the benchmark's fingerprint, when it was read.
        table: of `judge_chunk`, all problems.
        estimates: the figures.
        record: `settings` and the model's fingerprint.
        model: folder or name.
    """
    record_file = out / f"{file.stem}.json"
    values = {
        "benchmark": str(file),
        "content": content,
        "problems": int(table["index"].nunique()),
        "settings": record,
        "model": model,
        "packages": provenance.packages(),
        "commit": provenance.commit(),
        "figures": {name: estimate._asdict() for name, estimate in estimates.items()},
    }
    with atomic_write(record_file) as new_record:
        new_record.write_text(json.dumps(values, indent=1))
        with atomic_write(out / f"{file.stem}.parquet") as new_table:
            table.to_parquet(new_table, index=False)
            record_file.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""

    def command(words: list[str] | None) -> None:
        evaluate(parse(words))

    return cli.run(command, arguments)


if __name__ == "__main__":
    flags.leave(main())
