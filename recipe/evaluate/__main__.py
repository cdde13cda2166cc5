"""Evaluate a checkpoint on benchmarks: python -m recipe.evaluate CHECKPOINT BENCHMARK.parquet ...

Samples n responses a problem with vLLM, judges them with the checker of training, and reports, each
with a bootstrap interval over the problems: avg@n, unbiased pass@k, majority@n (answers grouped by
meaning), response length, and the share of responses that the limit cut off.

CHECKPOINT is a Hugging Face folder or name, or a run's folder (its last checkpoint), a
global_step_N of it, or that one's actor/; FSDP shards are merged by verl's own model merger.
BENCHMARKs are files of data_prep/, such as those of data_prep/benchmarks.py.

OUT (default: evaluation/ in the checkpoint's folder) gets <benchmark>.parquet with one row a
response, and <benchmark>.json with settings, versions and figures. Responses are kept chunk by
chunk beside them: the same command goes on where it was stopped, and with --judge-only it judges
again without sampling.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from recipe.core.files import whole
from recipe.experiment import provenance
from recipe.experiment.statistics import Estimate, interval, pass_at_k
from recipe.judge.equivalence import Equivalence
from recipe.sampling.engine import ENGINES, Hardware, Sampling, default_replicas
from recipe.sampling.responses import Kept, Wanted, read_prompts, sampled, settings_of, write
from recipe.semantic_curriculum.measure import judge_prompt

# Sampling of the papers' evaluations
PRESETS = {
    # arXiv 2604.04894, sec. 4; 5 samples on MATH-500 and OlympiadBench, 10 on AIME and AMC
    "asymgrpo": {"temperature": 0.4, "top_p": 1.0, "samples": 10},
    # arXiv 2602.09782, its evaluation framework; the number of samples is ours
    "clip_entropy": {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "samples": 8},
    # arXiv 2512.04359, configs of the released evaluation; the number of samples is ours
    "sent": {
        **{"temperature": 1.0, "top_p": 0.9, "top_k": 50, "samples": 8},
        "max_response_length": 8000,
    },
}
COLUMNS = {
    "index": "row of the problem in the benchmark",
    "prompt_id": "hash of its messages",
    "sample": "0 .. n - 1",
    "response": "text",
    "answer": "as the judge found it; blank if it found none",
    "right": "bool",
    "group": "of answers of equal meaning, within the problem",
    "majority_right": "bool, whether the problem's largest group is right",
    "tokens": "length of the response",
    "truncated": "bool, whether the limit cut it off",
}


# ---- checkpoints ---------------------------------------------------------------------------------


def model_of(checkpoint: str) -> tuple[str, Path | None]:
    """(folder or name of a Hugging Face model, the checkpoint's folder if it is a local one).

    Merges FSDP shards into actor/huggingface where no weights are there yet.
    """
    folder = Path(checkpoint).expanduser()
    if not folder.is_dir():
        if folder.is_absolute() or checkpoint.startswith((".", "~")):
            raise FileNotFoundError(
                f"{checkpoint} does not exist: give a checkpoint's folder, or a model's name."
            )
        return checkpoint, None
    if (folder / "config.json").is_file():
        return str(folder), folder
    latest = folder / "latest_checkpointed_iteration.txt"
    if latest.is_file():
        folder = folder / f"global_step_{latest.read_text().strip()}"
    actor = folder if folder.name == "actor" else folder / "actor"
    model = actor / "huggingface"
    if any(model.glob("*.safetensors")):
        return str(model), actor.parent
    if not any(actor.glob("model_world_size_*_rank_*.pt")):
        raise ValueError(
            f"{checkpoint} is no checkpoint: it has neither a config.json nor actor/ with FSDP "
            "shards or huggingface/."
        )
    merge(actor, model)
    return str(model), actor.parent


def merge(actor: Path, model: Path) -> None:
    """By verl's model merger, whole or not at all."""
    target = model.with_name(f".huggingface.{os.getpid()}")
    command = ["merge", "--backend", "fsdp", "--local_dir", actor, "--target_dir", target]
    done = subprocess.run(
        [sys.executable, "-m", "verl.model_merger", *map(str, command)],
        capture_output=True,
        text=True,
    )
    if done.returncode or not any(target.glob("*.safetensors")):
        raise RuntimeError(
            f"verl's model merger failed on {actor}: {' '.join(done.stderr.split())[-300:]}"
        )
    for file in target.iterdir():
        file.replace(model / file.name)
    target.rmdir()


# ---- judging -------------------------------------------------------------------------------------


def judge_chunk(
    chunk: pd.DataFrame, prompts: pd.DataFrame, equivalence: Equivalence, boxed_only: bool
) -> pd.DataFrame:
    """The rows of COLUMNS of a chunk of kept responses."""
    known = prompts.set_index("prompt_id").loc[chunk["prompt_id"]]
    judge = partial(judge_prompt, equivalence=equivalence, boxed_only=boxed_only)
    texts = [list(group) for group in chunk["responses"]]
    with ThreadPoolExecutor(equivalence.children) as pool:
        judged = list(pool.map(judge, texts, known["ground_truth"]))
    n = len(texts[0])
    return pd.DataFrame(
        {
            "index": np.repeat(known["index"].to_numpy(), n),
            "prompt_id": np.repeat(chunk["prompt_id"].to_numpy(), n),
            "sample": np.tile(np.arange(n), len(texts)),
            "response": [text for group in texts for text in group],
            "answer": [a.encode("utf-8", "replace").decode() for j in judged for a in j.answers],
            "right": [right for one in judged for right in one.right],
            "group": [group for one in judged for group in one.groups],
            "majority_right": np.repeat([one.majority_right for one in judged], n),
            "tokens": np.concatenate([np.asarray(group) for group in chunk["tokens"]]),
            "truncated": np.concatenate([np.asarray(group) for group in chunk["truncated"]]),
        }
    )


def matrix(table: pd.DataFrame, column: str) -> np.ndarray:
    """(problems, samples) of a column of OUT/<benchmark>.parquet, in the benchmark's order."""
    ordered = table.sort_values(["index", "sample"])
    return ordered[column].to_numpy().reshape(ordered["index"].nunique(), -1)


def read(out: Path, benchmark: str, column: str = "right") -> np.ndarray:
    """(problems, samples) of an evaluation: `right` as bool, `tokens`, or another of COLUMNS."""
    return matrix(pd.read_parquet(Path(out) / f"{benchmark}.parquet"), column)


def figures(table: pd.DataFrame, ks: list[int] | None = None) -> dict[str, Estimate]:
    """Each with its interval over the problems; pass@k at ks (default: powers of 2 below n)."""
    right_PN = matrix(table, "right")
    n = right_PN.shape[1]
    ks = ks or [2**i for i in range(1, 11) if 2**i < n]
    found = {f"avg@{n}": interval(right_PN.mean(1))}
    for k in ks:
        found[f"pass@{k}"] = interval(pass_at_k(right_PN.sum(1), n, k))
    found[f"majority@{n}"] = interval(matrix(table, "majority_right")[:, 0])
    found["tokens"] = interval(matrix(table, "tokens").mean(1))
    found["truncated"] = interval(matrix(table, "truncated").mean(1))
    return found


def summary(all_figures: dict[str, dict[str, Estimate]]) -> str:
    """A table: a line a benchmark."""
    columns = list(dict.fromkeys(name for found in all_figures.values() for name in found))
    rows = [["", *columns]]
    for benchmark, found in all_figures.items():
        rows.append([benchmark])
        for name in columns:
            spec = ".1f" if name == "tokens" else ".3f"
            rows[-1].append(f"{found[name]:{spec}}" if name in found else "")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


# ---- command -------------------------------------------------------------------------------------


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m recipe.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = partial(parser.add_argument, metavar="X")
    parser.add_argument("checkpoint")
    parser.add_argument("benchmarks", nargs="+", type=Path, metavar="BENCHMARK.parquet")
    add("--out", type=Path, help="folder; default: evaluation/ in the checkpoint's")
    parser.add_argument("--preset", choices=PRESETS, help="a paper's sampling; flags override it")
    for field in dataclasses.fields(Sampling)[1:]:
        name = "--" + field.name.replace("_", "-")
        add(name, type=type(field.default), help=f"default: {field.default}, or the preset's")
    add("--k", type=int, nargs="+", help="of pass@k, below n; default: powers of 2")
    add("--max-prompts", type=int, default=0, help="the first so many problems of each only")
    add("--replicas", type=int, help="engines; default: as many as fit on the GPUs, on a CPU 1")
    add("--tensor-parallel", type=int, default=1, help="GPUs an engine; default: %(default)s")
    add("--gpu-memory-utilization", type=float, default=0.9, help="default: %(default)s")
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="vllm",
        help="transformers starts at once, for tiny models; default: %(default)s",
    )
    add("--dtype", default="auto", help="default: %(default)s")
    add("--chunk", type=int, default=64, help="problems between two savings; default: %(default)s")
    add("--time-limit", type=float, default=5.0, help="seconds of CPU a verdict")
    add("--workers", type=int, default=os.cpu_count(), help="cores; default: %(default)s")
    parser.add_argument("--boxed-only", action="store_true", help="only \\boxed{} answers count")
    parser.add_argument("--judge-only", action="store_true", help="judge the kept responses again")
    parser.add_argument("--again", action="store_true", help="forget the responses that are kept")
    known = parser.parse_args(arguments)
    for field in dataclasses.fields(Sampling)[1:]:
        if getattr(known, field.name) is None:
            preset = PRESETS.get(known.preset, {})
            setattr(known, field.name, preset.get(field.name, field.default))
    for name in ("samples", "chunk", "workers", "tensor_parallel", "replicas"):
        value = getattr(known, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} {value} is not allowed: use 1 or more")
    for k in known.k or []:
        if not 1 <= k < known.samples:
            parser.error(f"--k {k} is not allowed: pass@k wants 1 <= k < n = {known.samples}")
    if known.temperature == 0 and known.samples > 1:
        parser.error("--temperature 0 gives the same response each time: use --samples 1")
    if known.judge_only and known.again:
        parser.error("--judge-only needs the responses that --again would forget: give one of them")
    stems = [file.stem for file in known.benchmarks]
    if len(set(stems)) < len(stems):
        parser.error("two benchmarks have the same file name: rename one")
    return known


def sampling_of(known: argparse.Namespace, model: str) -> Sampling:
    of = {field.name: getattr(known, field.name) for field in dataclasses.fields(Sampling)[1:]}
    return Sampling(model=model, **of)


def settings(known: argparse.Namespace) -> dict[str, Any]:
    """What decides the figures, besides the model and the benchmark."""
    return dataclasses.asdict(sampling_of(known, "")) | {
        "engine": known.engine,
        "boxed_only": known.boxed_only,
        "max_prompts": known.max_prompts,
    }


def evaluate(known: argparse.Namespace) -> dict[str, dict[str, Estimate]]:
    prompts = [read_prompts([file], known.max_prompts, "") for file in known.benchmarks]
    model, folder = model_of(known.checkpoint)
    out = known.out or (folder / "evaluation" if folder else None)
    if out is None:
        raise ValueError(f"{known.checkpoint} is no folder of this machine: set --out.")
    out = out.expanduser().absolute()
    sampling = sampling_of(known, model)
    # the model by its content: a checkpoint may be moved, and another one put into its place
    identity = dataclasses.replace(sampling, model=provenance.fingerprint(model))
    wanted = []
    for file, table in zip(known.benchmarks, prompts, strict=True):
        same = settings_of(table, identity, known.chunk) | {"engine": known.engine}
        kept = Kept(out / f"{file.stem}.responses", same, known.again)
        wanted.append(Wanted(table, kept))
    hardware = (
        None
        if known.judge_only
        else Hardware(
            replicas=known.replicas or default_replicas(known.tensor_parallel),
            tensor_parallel=known.tensor_parallel,
            gpu_memory_utilization=known.gpu_memory_utilization,
            dtype=known.dtype,
            engine=known.engine,
            likelihoods=False,
        )
    )
    equivalence = Equivalence(time_limit=known.time_limit, children=known.workers)
    tables: list[list[pd.DataFrame]] = [[] for _ in wanted]
    with tqdm(total=sum(map(len, prompts)), unit="problem") as bar:
        for which, chunk in sampled(wanted, sampling, hardware, known.chunk):
            tables[which].append(judge_chunk(chunk, prompts[which], equivalence, known.boxed_only))
            bar.update(len(chunk))
    found = {}
    for file, parts in zip(known.benchmarks, tables, strict=True):
        if not parts:
            raise ValueError(f"{file}: no problem is short enough: raise --max-prompt-length.")
        table = pd.concat(parts).sort_values(["index", "sample"], ignore_index=True)
        write(table, out / f"{file.stem}.parquet")
        found[file.stem] = figures(table, known.k)
        record: dict[str, Any] = {
            "benchmark": str(file),
            "content": provenance.fingerprint(file),
            "problems": int(table["index"].nunique()),
            "settings": settings(known) | {"model": identity.model},
            "model": model,
            "packages": provenance.packages(),
            "commit": provenance.commit(),
            "figures": {name: estimate._asdict() for name, estimate in found[file.stem].items()},
        }
        with whole(out / f"{file.stem}.json") as temporary:
            temporary.write_text(json.dumps(record, indent=1))
    print(summary(found))
    print(f"[mean and 95 % interval over problems] -> {out}")
    return found


def main(arguments: list[str] | None = None) -> int:
    known = parse(arguments)
    try:
        evaluate(known)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # vLLM's libraries would print a page about leaks of their own
