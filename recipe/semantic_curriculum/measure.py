"""Measure the semantic entropy of a dataset: python -m recipe.semantic_curriculum.measure

Samples G responses to each prompt from a model with vLLM, clusters them by the equivalence of their
final answers, and writes one row per prompt: G, semantic entropy, pass rate, number of clusters,
majority answer and whether it is correct. Or it takes the responses of --rollouts, a folder of
verl's rollout dumps, of each prompt those of the first step that has it. They are of as many
policies as there are steps, so that a run takes such scores with scores_from=any_model only.

--model is a model, or a run or checkpoint, whose trained policy is taken. The chat template's
kwargs, the lengths, the dtype, --boxed-only and the reward function are by default those of that
run's training. With another reward function than recipe.judge (--reward), answers that it returns
as the same `pred` are a cluster; without pred, equal responses.

The responses are cached in <out>.responses, chunk by chunk: the same command resumes where it was
stopped, and clusters again by other rules without sampling.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from recipe.core import cli
from recipe.judge.equivalence import Equivalence
from recipe.judge.responses import Grading, Judged, judge_prompts
from recipe.judge.reward_function import JUDGE
from recipe.sampling import flags
from recipe.sampling.checkpoints import model_of
from recipe.sampling.dumps import read_dumps
from recipe.sampling.engine import Hardware, Sampling
from recipe.sampling.prompts import read_prompts
from recipe.sampling.responses import (
    ResponseCache,
    SamplingJob,
    cache_settings,
    sample_cached,
    write_table,
)
from recipe.semantic_curriculum.scores import COLUMNS
from recipe.semantic_curriculum.semantic_entropy import WEIGHTS, log_weights, semantic_entropy


@dataclasses.dataclass(frozen=True)
class Weighting:
    """What semantic entropy is made of, beside the clusters.

    Args:
        weights: of the responses, one of `semantic_entropy.WEIGHTS`.
        base: of the logarithm.
    """

    weights: str = "counts"
    base: float = np.e


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What a command line asks for."""

    data: tuple[Path, ...]
    out: Path
    sampling: Sampling
    hardware: Hardware
    grading: Grading
    weighting: Weighting
    rollouts: Path | None = None  # folder of verl's dumps, in place of sampling
    max_prompts: int = 0  # 0: all
    chunk: int = 256  # prompts
    again: bool = False
    sources: str = ""  # a line: where the settings come from


def scores_of(
    judged: Judged,
    weighting: Weighting,
    log_likelihoods: Sequence[float] | None = None,
    tokens: Sequence[int] | None = None,
) -> dict:
    """Returns the columns of one prompt that come from its responses.

    Args:
        judged: its G responses.
        weighting: what p_k and the unit are.
        log_likelihoods, tokens: (G,) of each response, in nats and its number of tokens; weights
            "counts" need none.
    """
    weights = log_weights(weighting.weights, log_likelihoods, tokens)
    return {
        "responses": len(judged.answers),
        "semantic_entropy": semantic_entropy(judged.clusters, weights, weighting.base),
        "pass_rate": float(np.mean(judged.correct)),
        "clusters": len(set(judged.clusters)),
        "majority_answer": judged.majority[:200].encode("utf-8", "replace").decode(),
        "majority_correct": judged.majority_correct,
        "without_answer": sum(not answer.strip() for answer in judged.answers),
        "timed_out": judged.timed_out,
    }


def score_chunk(
    chunk: pd.DataFrame,
    prompts: pd.DataFrame,
    grading: Grading,
    equivalence: Equivalence,
    weighting: Weighting,
) -> pd.DataFrame:
    """Returns the rows of COLUMNS of a chunk of responses (prompt_id, responses, and for weights
    other than counts log_likelihoods and tokens) to some of `prompts`."""
    rows = prompts.set_index("prompt_id").loc[chunk["prompt_id"]]
    texts = [list(responses) for responses in chunk["responses"]]
    of_data = rows.to_dict("records")
    judged = judge_prompts(texts, rows["ground_truth"], grading, equivalence, of_data)
    of_responses = (chunk.get(name, [None] * len(chunk)) for name in ("log_likelihoods", "tokens"))
    scores = [
        scores_of(verdict, weighting, *more)
        for verdict, *more in zip(judged, *of_responses, strict=True)
    ]
    table = pd.DataFrame(scores)
    table["prompt_id"], table["index"] = chunk["prompt_id"].to_numpy(), rows["index"].to_numpy()
    return table[list(COLUMNS)]


def score_all(
    prompts: pd.DataFrame, chunks: Iterable[pd.DataFrame], grading: Grading, weighting: Weighting
) -> pd.DataFrame:
    """Returns the table of COLUMNS of all chunks, in the order of the prompts."""
    equivalence = grading.equivalence()
    tables = []
    with tqdm(total=len(prompts), unit="prompt") as bar:
        for chunk in chunks:
            tables.append(score_chunk(chunk, prompts, grading, equivalence, weighting))
            bar.update(len(chunk))
    if not tables:
        raise ValueError("no prompt of --data is short enough: raise --max-prompt-length.")
    return pd.concat(tables).sort_values("index", ignore_index=True)


def summary(table: pd.DataFrame) -> str:
    """Returns a histogram of the semantic entropies and the main figures, for the terminal."""
    entropy = table["semantic_entropy"]
    counts, edges = np.histogram(entropy, bins=8)
    bars = "\n".join(
        f"  {low:5.2f} to {high:5.2f} {'#' * int(40 * n / max(counts.max(), 1)):<40} {n}"
        for n, low, high in zip(counts, edges[:-1], edges[1:], strict=True)
    )
    return (
        f"semantic entropy of {len(table)} prompts, mean {entropy.mean():.3f}:\n{bars}\n"
        f"SE = 0: {np.mean(entropy == 0):.1%}, below 0.01: {np.mean(entropy < 0.01):.1%}; pass "
        f"rate {table['pass_rate'].mean():.3f}; majority correct "
        f"{table['majority_correct'].mean():.3f}; correlation of SE and pass rate "
        f"{entropy.corr(table['pass_rate']):.2f}; comparisons timed out {table['timed_out'].sum()}"
    )


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command's flags."""
    parser = argparse.ArgumentParser(
        prog="python -m recipe.semantic_curriculum.measure",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = partial(parser.add_argument, metavar="X")
    add("--model", required=True, help="checkpoint or run folder, or a name on the hub")
    add("--data", required=True, nargs="+", type=Path, help="parquet files of data_prep/")
    add("--out", required=True, type=Path, help="parquet file to write")
    add("--max-prompts", type=int, default=0, help="the first so many rows only")
    add("--rollouts", type=Path, help="folder of verl's rollout dumps, in place of sampling")
    flags.add_sampling(parser, ", or the run's")
    flags.add_hardware(parser, chunk=256, what="prompts")
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
        help="responses without an answer are one cluster, or one each; default: %(default)s",
    )
    parser.add_argument(
        "--weights",
        choices=WEIGHTS,
        default="counts",
        help="p_k: share of the responses, of their likelihood (the paper's), or of the likelihood "
        "per token; default: %(default)s, which alone orders long responses",
    )
    add("--base", type=float, default=np.e, help="of the logarithm; default: e, so nats")
    add("--time-limit", type=float, default=5.0, help="seconds of CPU per comparison")
    return parser


def parse(arguments: Sequence[str] | None) -> Measurement:
    """Reads the command line; ends the process with a sentence on a flag that is not allowed."""
    parser = make_parser()
    args = parser.parse_args(arguments)
    flags.check(parser, args, base=(lambda x: 1 < x < np.inf, "a number above 1"))
    if args.rollouts and args.weights != "counts":
        parser.error(
            f"--weights {args.weights} is not possible with --rollouts, which have no likelihoods"
        )
    resolved = flags.resolve(args, args.model)
    if not args.rollouts:
        flags.check_sampling(parser, resolved.sampling)
    return Measurement(
        data=tuple(args.data),
        out=args.out.expanduser(),
        sampling=resolved.sampling,
        hardware=flags.hardware_of(args, resolved.dtype),
        grading=Grading(
            boxed_only=resolved.boxed_only,
            units=args.units,
            thousands=not args.no_thousands,
            unparsable=args.unparsable,
            time_limit=args.time_limit,
            workers=args.workers,
            reward=resolved.reward,
        ),
        weighting=Weighting(weights=args.weights, base=args.base),
        rollouts=args.rollouts,
        max_prompts=args.max_prompts,
        chunk=args.chunk,
        again=args.again,
        sources=resolved.sources,
    )


def measure(measurement: Measurement) -> pd.DataFrame:
    """Samples or reads responses, scores them, writes the table and prints its summary."""
    judged = measurement.grading.reward is None
    prompts = read_prompts(measurement.data, measurement.max_prompts, judged=judged)
    print(measurement.sources)
    model, _ = model_of(measurement.sampling.model)
    sampling, out = dataclasses.replace(measurement.sampling, model=model), measurement.out
    settings = cache_settings(prompts, sampling, measurement.hardware, measurement.chunk)
    content = settings["model"]
    if measurement.rollouts:
        content = f"the policies of {measurement.rollouts}"
        read, size = read_dumps(prompts, measurement.rollouts, sampling), measurement.chunk
        chunks = (read[start : start + size] for start in range(0, len(read), size))
    else:
        cache = ResponseCache(out.with_name(f"{out.name}.responses"), settings, measurement.again)
        jobs = [SamplingJob(prompts, cache)]
        sampled = sample_cached(jobs, sampling, measurement.hardware, measurement.chunk)
        chunks = (chunk for _, chunk in sampled)
    table = score_all(prompts, chunks, measurement.grading, measurement.weighting)
    # for the run that trains on these scores, which are of one format of the prompts and one model
    table.attrs["chat_template_kwargs"] = dict(sampling.chat_template_kwargs)
    table.attrs["model"], table.attrs["model_path"] = content, measurement.sampling.model
    table.attrs["weights"] = measurement.weighting.weights
    table.attrs["reward"] = str(measurement.grading.reward or JUDGE)
    if not measurement.rollouts:
        table.attrs["max_prompt_length"] = sampling.max_prompt_length
        table.attrs["left_out"] = sorted({*prompts["prompt_id"]} - {*table["prompt_id"]})
    write_table(table, out)
    print(summary(table))
    print(f"{len(table)} prompts -> {out}")
    return table


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""

    def command(words: list[str] | None) -> None:
        measure(parse(words))

    return cli.run(command, arguments)


if __name__ == "__main__":
    flags.leave(main())
