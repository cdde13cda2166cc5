"""Measure the semantic entropy of a dataset: python -m recipe.semantic_curriculum.measure

Samples G responses to each prompt from a model with vLLM (or takes those of --rollouts, a folder of
verl's rollout dumps), groups them by the meaning of their final answers, and writes one row a
prompt: G, semantic entropy, pass rate, number of groups, majority answer and whether it is right.

The responses are kept in <out>.responses, chunk by chunk: the same command goes on where it was
stopped, and groups again by other rules without sampling.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from recipe.judge.equivalence import Equivalence, group
from recipe.judge.reward import compute_score, extract_answer
from recipe.sampling.engine import Hardware, Responses, Sampling, default_replicas
from recipe.sampling.responses import (
    Kept,
    Wanted,
    read_prompts,
    sampled,
    settings_of,
    tokenized,
    write,
)
from recipe.semantic_curriculum.scores import COLUMNS
from recipe.semantic_curriculum.semantic_entropy import semantic_entropy


@dataclasses.dataclass(frozen=True)
class Grouping:
    """What decides the groups and their weights."""

    units: str = "ignore"
    thousands: bool = True
    unparsable: str = "one"
    weights: str = "counts"
    base: float = np.e
    time_limit: float = 5.0


class Judged(NamedTuple):
    """The responses of one prompt."""

    answers: list[str]  # of each response; "" where it has none
    right: list[bool]  # of each response
    groups: list[int]  # of meaning, of each response
    majority: str  # answer of the largest group, in its most frequent spelling
    majority_right: bool
    gave_up: int  # comparisons and verdicts that a limit ended


def judge_prompt(
    texts: Sequence[str],
    ground_truth: str,
    equivalence: Equivalence,
    unparsable: str = "one",
    boxed_only: bool = False,
) -> Judged:
    """Each answer is judged once, however often it was given."""
    answers = [extract_answer(text, boxed_only) for text in texts]
    first = {}
    for answer, text in zip(answers, texts, strict=True):
        first.setdefault(answer, text)
    options = {
        "time_limit": equivalence.time_limit,
        "children": equivalence.children,
        "boxed_only": boxed_only,
    }
    verdicts = {a: compute_score("", t, ground_truth, **options) for a, t in first.items()}
    hopeless = [equivalence.read(a).text for a, v in verdicts.items() if v["judge_gave_up"]]
    equivalence.hopeless.update(hopeless)
    grouped = group(answers, equivalence.read, equivalence.same, unparsable)
    # of equally large groups the one that came first; a group of blank answers is no majority
    sizes = Counter(g for g, a in zip(grouped.index, answers, strict=True) if a.strip())
    majority, majority_right = "", False
    if sizes:
        largest = sizes.most_common(1)[0][0]
        members = [a for g, a in zip(grouped.index, answers, strict=True) if g == largest]
        majority = Counter(members).most_common(1)[0][0]
        majority_right = any(verdicts[a]["acc"] for a in members)
    return Judged(
        answers,
        [verdicts[answer]["acc"] for answer in answers],
        list(grouped.index),
        majority,
        majority_right,
        grouped.gave_up + sum(v["judge_gave_up"] for v in verdicts.values()),
    )


def score_prompt(
    texts: list[str],
    log_likelihoods: list[float],
    ground_truth: str,
    how: Grouping,
    equivalence: Equivalence,
) -> dict:
    """The columns of one prompt that come from its responses."""
    judged = judge_prompt(texts, ground_truth, equivalence, how.unparsable)
    return {
        "responses": len(texts),
        "semantic_entropy": semantic_entropy(
            judged.groups, log_likelihoods if how.weights == "likelihood" else None, how.base
        ),
        "pass_rate": float(np.mean(judged.right)),
        "groups": len(set(judged.groups)),
        "majority_answer": judged.majority[:200].encode("utf-8", "replace").decode(),
        "majority_right": judged.majority_right,
        "without_answer": sum(not a.strip() for a in judged.answers),
        "gave_up": judged.gave_up,
    }


def score_prompts(
    responses: Responses, ground_truths: list[str], how: Grouping, workers: int
) -> list[dict]:
    """`score_prompt` of many, on `workers` cores."""
    equivalence = Equivalence(how.units, how.thousands, how.time_limit, children=workers)
    one = partial(score_prompt, how=how, equivalence=equivalence)
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, *responses[:2], ground_truths))


def dumped(prompts: pd.DataFrame, folder: Path, sampling: Sampling) -> pd.DataFrame:
    """Responses out of verl's rollout dumps (trainer.rollout_data_dir), all steps together."""
    from transformers import AutoTokenizer

    files = sorted(folder.expanduser().glob("*.jsonl"))
    if not files:
        raise FileNotFoundError(
            f"--rollouts {folder} holds no jsonl file: set trainer.rollout_data_dir in a run."
        )
    model = os.path.expanduser(sampling.model)
    decode = partial(AutoTokenizer.from_pretrained(model).decode, skip_special_tokens=True)
    of_text = {
        decode(tokens): name
        for tokens, name in zip(tokenized(prompts, sampling), prompts["prompt_id"], strict=True)
    }
    texts: dict[str, list[str]] = {}
    strangers = 0
    for file in files:
        with file.open() as lines:
            for number, line in enumerate(lines, 1):
                try:
                    row = json.loads(line)
                    name = of_text.get(row["input"])
                    output = row["output"]
                except (ValueError, KeyError, TypeError):
                    raise ValueError(
                        f"{file}, line {number}, is not a rollout of verl (input, output): "
                        "remove it."
                    ) from None
                if name is None:
                    strangers += 1
                else:
                    texts.setdefault(name, []).append(output)
    if not texts:
        raise ValueError(
            f"--rollouts {folder} holds no response to a prompt of --data ({strangers} to others): "
            "give the data and the tokenizer (--model) of that run."
        )
    print(f"{sum(map(len, texts.values()))} responses to {len(texts)} of {len(prompts)} prompts; "
          f"{strangers} to others")  # fmt: skip
    likelihoods = [[0.0] * len(group) for group in texts.values()]
    table = {"prompt_id": list(texts), "responses": list(texts.values())}
    return pd.DataFrame({**table, "log_likelihoods": likelihoods})


def measure(
    prompts: pd.DataFrame, chunks: Iterator[pd.DataFrame], how: Grouping, workers: int
) -> pd.DataFrame:
    """The table of COLUMNS, in the order of the prompts."""
    truth = prompts.set_index("prompt_id")
    rows = []
    with tqdm(total=len(prompts), unit="prompt") as bar:
        for chunk in chunks:
            ids = chunk["prompt_id"].tolist()
            texts = [list(group) for group in chunk["responses"]]
            likelihoods = [list(group) for group in chunk["log_likelihoods"]]
            truths = truth.loc[ids, "ground_truth"].tolist()
            found = score_prompts(Responses(texts, likelihoods), truths, how, workers)
            index = truth.loc[ids, "index"].tolist()
            rows += [
                {"prompt_id": name, "index": i, **row}
                for name, i, row in zip(ids, index, found, strict=True)
            ]
            bar.update(len(ids))
    return pd.DataFrame(rows, columns=list(COLUMNS)).sort_values("index", ignore_index=True)


def summary(table: pd.DataFrame) -> str:
    entropy = table["semantic_entropy"]
    counts, edges = np.histogram(entropy, bins=8)
    bars = "\n".join(
        f"  {low:5.2f} to {high:5.2f} {'#' * int(40 * n / max(counts.max(), 1)):<40} {n}"
        for n, low, high in zip(counts, edges[:-1], edges[1:], strict=True)
    )
    return (
        f"semantic entropy of {len(table)} prompts, mean {entropy.mean():.3f}:\n{bars}\n"
        f"SE = 0: {np.mean(entropy == 0):.1%}; pass rate {table['pass_rate'].mean():.3f}; majority "
        f"right {table['majority_right'].mean():.3f}; correlation of SE and pass rate "
        f"{entropy.corr(table['pass_rate']):.2f}; comparisons given up {table['gave_up'].sum()}"
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = partial(parser.add_argument, metavar="X")
    add("--model", required=True, help="checkpoint folder, or a name on the hub")
    add("--data", required=True, nargs="+", type=Path, help="parquet files of data_prep/")
    add("--out", required=True, type=Path, help="parquet file to write")
    add("--max-prompts", type=int, default=0, help="the first so many rows only")
    add("--rollouts", type=Path, help="folder of verl's rollout dumps, in place of sampling")
    for field in dataclasses.fields(Sampling)[1:]:
        name = "--" + field.name.replace("_", "-")
        add(name, type=type(field.default), default=field.default, help="default: %(default)s")
    add("--replicas", type=int, help="engines; default: as many as fit on the GPUs, on a CPU 1")
    add("--tensor-parallel", type=int, default=1, help="GPUs an engine; default: %(default)s")
    add("--gpu-memory-utilization", type=float, default=0.9, help="default: %(default)s")
    add("--dtype", default="auto", help="default: %(default)s")
    add("--chunk", type=int, default=256, help="prompts between two savings; default: %(default)s")
    parser.add_argument(
        "--units", choices=["ignore", "compare"], default="ignore", help="is 5 cm 5, or not"
    )
    parser.add_argument(
        "--no-thousands", action="store_true", help="1,234 is a list of 1 and 234, not a number"
    )
    parser.add_argument(
        "--unparsable",
        choices=["one", "own"],
        default="one",
        help="responses without an answer are one group, or one each; default: %(default)s",
    )
    parser.add_argument(
        "--weights",
        choices=["counts", "likelihood"],
        default="counts",
        help="p_k: share of the responses, or of their likelihood; default: %(default)s",
    )
    add("--base", type=float, default=np.e, help="of the logarithm; default: e, so nats")
    add("--time-limit", type=float, default=5.0, help="seconds of CPU a comparison")
    add("--workers", type=int, default=os.cpu_count(), help="cores; default: %(default)s")
    parser.add_argument("--again", action="store_true", help="forget the responses that are kept")
    known = parser.parse_args(arguments)
    for name in ("samples", "chunk", "workers", "tensor_parallel", "replicas"):
        value = getattr(known, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} {value} is not allowed: use 1 or more")
    for name, low, high in (
        ("max_prompts", 0, np.inf),
        ("temperature", 0, 100),
        ("max_prompt_length", 1, np.inf),
        ("max_response_length", 1, np.inf),
        ("base", 1.000001, np.inf),
        ("time_limit", 0.1, 3600),
    ):
        if not low <= getattr(known, name) <= high:
            option = name.replace("_", "-")
            parser.error(f"--{option} {getattr(known, name)} is not between {low} and {high}")
    if known.rollouts and known.weights == "likelihood":
        parser.error("--weights likelihood is not possible with --rollouts, which hold none")
    return known


def main(arguments: list[str] | None = None) -> int:
    known = parse(arguments)
    of = vars(known)
    sampling = Sampling(**{f.name: of[f.name] for f in dataclasses.fields(Sampling)})
    how = Grouping(
        units=known.units,
        thousands=not known.no_thousands,
        unparsable=known.unparsable,
        weights=known.weights,
        base=known.base,
        time_limit=known.time_limit,
    )
    out = known.out.expanduser()
    try:
        prompts = read_prompts(known.data, known.max_prompts)
        if known.rollouts:
            chunks = iter([dumped(prompts, known.rollouts, sampling)])
        else:
            hardware = Hardware(
                replicas=known.replicas or default_replicas(known.tensor_parallel),
                tensor_parallel=known.tensor_parallel,
                gpu_memory_utilization=known.gpu_memory_utilization,
                dtype=known.dtype,
            )
            kept = Kept(
                out.with_name(f"{out.name}.responses"),
                settings_of(prompts, sampling, known.chunk),
                known.again,
            )
            wanted = [Wanted(prompts, kept)]
            chunks = (table for _, table in sampled(wanted, sampling, hardware, known.chunk))
        table = measure(prompts, chunks, how, known.workers)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    write(table, out)
    print(summary(table))
    print(f"{len(table)} prompts -> {out}")
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # vLLM's libraries would print a page about leaks of their own
