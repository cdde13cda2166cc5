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
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from recipe.judge import compute_score, extract_answer
from recipe.semantic_curriculum.engine import (
    Hardware,
    Job,
    Responses,
    Sampling,
    default_replicas,
    sample_all,
)
from recipe.semantic_curriculum.meaning import Equivalence, group
from recipe.semantic_curriculum.scores import COLUMNS, prompt_id
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


def score_prompt(
    texts: list[str],
    log_likelihoods: list[float],
    ground_truth: str,
    how: Grouping,
    equivalence: Equivalence,
) -> dict:
    """The columns of one prompt that come from its responses."""
    answers = [extract_answer(text) for text in texts]
    first = {}
    for answer, text in zip(answers, texts, strict=True):
        first.setdefault(answer, text)
    limits = {"time_limit": equivalence.time_limit, "children": equivalence.children}
    verdicts = {a: compute_score("", t, ground_truth, **limits) for a, t in first.items()}
    hopeless = [equivalence.read(a).text for a, v in verdicts.items() if v["judge_gave_up"]]
    equivalence.hopeless.update(hopeless)
    grouped = group(answers, equivalence.read, equivalence.same, how.unparsable)
    # of equally large groups the one that came first; a group of blank answers is no majority
    sizes = Counter(g for g, a in zip(grouped.index, answers, strict=True) if a.strip())
    majority, right = "", False
    if sizes:
        largest = sizes.most_common(1)[0][0]
        members = [a for g, a in zip(grouped.index, answers, strict=True) if g == largest]
        majority = Counter(members).most_common(1)[0][0]
        right = any(verdicts[a]["acc"] for a in members)
    return {
        "responses": len(texts),
        "semantic_entropy": semantic_entropy(
            grouped.index, log_likelihoods if how.weights == "likelihood" else None, how.base
        ),
        "pass_rate": float(np.mean([verdicts[a]["acc"] for a in answers])),
        "groups": len(set(grouped.index)),
        "majority_answer": majority[:200].encode("utf-8", "replace").decode(),
        "majority_right": right,
        "without_answer": sum(not a.strip() for a in answers),
        "gave_up": grouped.gave_up + sum(v["judge_gave_up"] for v in verdicts.values()),
    }


def score_prompts(
    responses: Responses, ground_truths: list[str], how: Grouping, workers: int
) -> list[dict]:
    """`score_prompt` of many, on `workers` cores."""
    equivalence = Equivalence(how.units, how.thousands, how.time_limit, children=workers)
    one = partial(score_prompt, how=how, equivalence=equivalence)
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, *responses, ground_truths))


def read_prompts(files: list[Path], limit: int) -> pd.DataFrame:
    """index, prompt_id, prompt, ground_truth of each distinct prompt."""
    tables = []
    for file in files:
        if not file.expanduser().is_file():
            raise FileNotFoundError(f"--data {file} does not exist: write it with data_prep/.")
        try:
            tables.append(pd.read_parquet(file.expanduser(), columns=["prompt", "reward_model"]))
        except Exception as error:
            why = str(error).splitlines()[0]
            raise ValueError(
                f"--data {file} is not parquet with columns prompt and reward_model ({why}): write "
                "it with data_prep/."
            ) from None
    table = pd.concat(tables, ignore_index=True)
    if limit:
        table = table.head(limit)
    if not len(table):
        raise ValueError(f"--data {' '.join(map(str, files))} has no rows.")
    table["index"] = np.arange(len(table))
    table["prompt_id"] = [prompt_id(prompt) for prompt in table["prompt"]]
    table["ground_truth"] = [str(truth["ground_truth"]) for truth in table["reward_model"]]
    return table.drop_duplicates("prompt_id").reset_index(drop=True)


def write(table: pd.DataFrame, file: Path) -> None:
    """Whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    table.to_parquet(temporary, index=False)
    temporary.replace(file)


class Kept:
    """The responses beside --out, chunk by chunk, and what they were sampled with."""

    def __init__(self, out: Path, settings: dict, again: bool):
        self.folder = out.with_name(f"{out.name}.responses")
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
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(".tmp")
        temporary.write_text(json.dumps(settings, indent=1))
        temporary.replace(file)

    def file(self, chunk: int) -> Path:
        return self.folder / f"{chunk:06d}.parquet"

    def write(self, chunk: int, ids: list[str], responses: Responses) -> None:
        texts = [
            [t.encode("utf-8", "replace").decode() for t in group] for group in responses.texts
        ]
        columns = {"responses": texts, "log_likelihoods": responses.log_likelihoods}
        write(pd.DataFrame({"prompt_id": ids, **columns}), self.file(chunk))

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


def sampled(
    prompts: pd.DataFrame, sampling: Sampling, hardware: Hardware, kept: Kept, chunk_size: int
) -> Iterator[pd.DataFrame]:
    """Chunks of responses: those that are kept, then the others as they are sampled."""
    ids = tokenized(prompts, sampling)
    fits = [len(tokens) <= sampling.max_prompt_length for tokens in ids]
    if not all(fits):
        print(
            f"{len(fits) - sum(fits)} of {len(fits)} prompts are longer than "
            f"--max-prompt-length {sampling.max_prompt_length} and left out"
        )
    rows = [row for row, fit in enumerate(fits) if fit]
    chunks = [rows[i : i + chunk_size] for i in range(0, len(rows), chunk_size)]
    todo = [number for number in range(len(chunks)) if not kept.file(number).is_file()]
    for number in sorted(set(range(len(chunks))) - set(todo)):
        yield kept.read(number)
    if not todo:
        return
    jobs = (
        Job(
            number,
            [ids[row] for row in chunks[number]],
            [sampling.seed * 1_000_003 + 1009 * row for row in chunks[number]],
        )
        for number in todo
    )
    longest = max(len(ids[row]) for row in rows)
    for number, responses in sample_all(jobs, sampling, hardware, longest):
        kept.write(number, prompts["prompt_id"].iloc[chunks[number]].tolist(), responses)
        yield kept.read(number)


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
            names = "".join(prompts["prompt_id"])
            settings = dataclasses.asdict(sampling) | {
                "chunk": known.chunk,
                "prompts": prompt_id([{"role": "data", "content": names}]),
            }
            kept = Kept(out, settings, known.again)
            chunks = sampled(prompts, sampling, hardware, kept, known.chunk)
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
