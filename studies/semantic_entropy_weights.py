"""How the three weights of semantic entropy rank the prompts of one model's responses.

    python -m recipe.semantic_curriculum.measure --model MODEL --data DATA --out SCORES.parquet
    python studies/semantic_entropy_weights.py --data DATA --scores SCORES.parquet

Reads the responses that `measure` has cached beside SCORES.parquet and judges them once. For each
weight it prints the mean semantic entropy, the share of prompts below 0.01 nats, the mean share of
the heaviest response of a prompt (1/G for counts), and Spearman's rank correlations with the other
weights and with the pass rate, each with a 95 % interval (percentile bootstrap over prompts).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import softmax
from scipy.stats import rankdata

from recipe.core import cli
from recipe.judge.responses import Grading, judge_prompts
from recipe.sampling.prompts import read_prompts
from recipe.sampling.responses import cached_responses
from recipe.semantic_curriculum.semantic_entropy import WEIGHTS, log_weights, semantic_entropy

NEAR_ZERO = 0.01  # nats
DRAWS = 2000


def measured(prompts: pd.DataFrame, responses: pd.DataFrame, grading: Grading) -> pd.DataFrame:
    """Returns a row per prompt: its pass rate, and by each weight its semantic entropy and the
    share of its heaviest response."""
    truths = prompts.set_index("prompt_id").loc[responses["prompt_id"], "ground_truth"]
    texts = [list(group) for group in responses["responses"]]
    rows = []
    for judged, (_, row) in zip(
        judge_prompts(texts, truths, grading, grading.equivalence()),
        responses.iterrows(),
        strict=True,
    ):
        values = {"pass_rate": float(np.mean(judged.correct))}
        values["without_answer"] = float(np.mean([not answer.strip() for answer in judged.answers]))
        for weights in WEIGHTS:
            logs = log_weights(weights, row["log_likelihoods"], row["tokens"])
            values[weights] = semantic_entropy(judged.clusters, logs)
            values[f"{weights} heaviest"] = (
                1 / len(judged.clusters) if logs is None else float(softmax(logs).max())
            )
        rows.append(values)
    return pd.DataFrame(rows)


def rank_correlation(x_N: np.ndarray, y_N: np.ndarray) -> str:
    """Returns Spearman's correlation, equal values at their mean rank, with its interval."""
    rng = np.random.default_rng(0)

    def spearman(index_N: np.ndarray) -> float:
        with np.errstate(invalid="ignore"):  # a draw of equal values has no correlation
            return float(np.corrcoef(rankdata(x_N[index_N]), rankdata(y_N[index_N]))[0, 1])

    everything = np.arange(len(x_N))
    draws = [spearman(rng.choice(everything, len(x_N))) for _ in range(DRAWS)]
    low, high = np.nanpercentile(draws, (2.5, 97.5))
    return f"{spearman(everything):+.2f} [{low:+.2f}, {high:+.2f}]"


def table_of(values: pd.DataFrame) -> str:
    """Returns the Markdown table."""
    others = (*WEIGHTS, "pass_rate")
    head = ["weights", "mean SE", f"SE < {NEAR_ZERO}", "heaviest response", *others]
    rows = [head, ["---"] * len(head)]
    for weights in WEIGHTS:
        entropy_P = values[weights].to_numpy()
        correlations = [
            "" if other == weights else rank_correlation(entropy_P, values[other].to_numpy())
            for other in others
        ]
        near_zero = f"{np.mean(entropy_P < NEAR_ZERO):.1%}"
        heaviest = f"{values[f'{weights} heaviest'].mean():.3f}"
        rows.append([weights, f"{entropy_P.mean():.3f}", near_zero, heaviest, *correlations])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def command(arguments: list[str] | None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, nargs="+", type=Path, help="that was measured")
    parser.add_argument("--scores", required=True, type=Path, help="what measure has written")
    parser.add_argument("--boxed-only", action="store_true", help="as in measure")
    args = parser.parse_args(arguments)
    scores = args.scores.expanduser()
    responses = cached_responses(scores.with_name(f"{scores.name}.responses"))
    values = measured(read_prompts(args.data), responses, Grading(boxed_only=args.boxed_only))
    tokens = np.concatenate(responses["tokens"].to_list())
    print(
        f"{len(values)} prompts x {len(responses['tokens'][0])} responses of {tokens.mean():.0f} "
        f"tokens on average; pass rate {values['pass_rate'].mean():.3f}; without an answer "
        f"{values['without_answer'].mean():.1%}\n"
    )
    print(table_of(values))


if __name__ == "__main__":
    sys.exit(cli.run(command))
