"""Thresholds of SENT's token rule for a model: python -m recipe.semantic_curriculum.calibrate

tau_H and tau_cov of the preset `paper` are not printed in the paper, and are a model's own. This
command reads responses of the model, computes each token's entropy and log-prob in a forward pass
and its covariance with GRPO's advantage, and prints their quantiles. tau_H is the entropy that
--low-fraction of the tokens are below; tau_cov the covariance that --high-cov-fraction of those
tokens are above.

--responses: those that `recipe.semantic_curriculum.measure` has cached (its --out, with .responses
at the end), or verl's rollout dumps (trainer.rollout_data_dir), of which those before any update
are the model's. Their text is tokenized again, as neither holds tokens, entropies or all log-probs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from recipe import machine
from recipe.core import cli
from recipe.core.files import atomic_write
from recipe.judge.responses import Grading, judge_prompts
from recipe.machine.cpus import usable_cpus
from recipe.sampling import flags
from recipe.sampling.checkpoints import model_of
from recipe.sampling.dumps import read_dumps
from recipe.sampling.engine import Sampling
from recipe.sampling.model_content import fingerprint
from recipe.sampling.prompts import read_prompts, tokenized
from recipe.sampling.responses import SETTINGS_FILE, cached_responses
from recipe.semantic_curriculum import token_rule
from recipe.semantic_curriculum.config import NODE

if TYPE_CHECKING:
    from transformers import PreTrainedModel

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.8, 0.9, 0.99)
TAIL = (0.5, 0.9, 0.99, 0.999, 0.9998)


class Thresholds(NamedTuple):
    """By the names of the token rule's settings."""

    low_threshold: float
    high_cov_threshold: float


def value_above(values_N: Tensor, fraction: float) -> float:
    """Returns the smallest value that floor(fraction N) others are below, where no two are equal:
    of sorted values the one with that index."""
    count = int(len(values_N) * fraction)
    return values_N.kthvalue(count + 1).values.item()


def thresholds_of(
    entropy_N: Tensor,
    log_prob_N: Tensor,
    advantages_N: Tensor,
    *,
    low: float,
    high_cov: float,
    cov_mean_over: str = "all",
) -> Thresholds:
    """Returns the thresholds by which as many tokens are chosen as by fractions.

    Args:
        entropy_N, log_prob_N: (N,), nats.
        advantages_N: (N,).
        low: Share of the tokens that L shall have, above 0, below 1.
        high_cov: Share of L that C shall have, above 0, below 1.
        cov_mean_over: As in `token_rule.classify`.

    Raises:
        ValueError: If a share is of less than one token.

    Source: *ours*; the paper's thresholds are not printed. With the released code's 0.8 and 2e-4
        the rule begins with the shares that the released code keeps.
    """
    tau_H = value_above(entropy_N, low)
    everywhere_N = torch.ones_like(entropy_N, dtype=torch.bool)
    class_N, cov_N = token_rule.classify(
        entropy_N=entropy_N,
        log_prob_N=log_prob_N,
        advantages_N=advantages_N,
        mask_N=everywhere_N,
        low_threshold=tau_H,
        cov_mean_over=cov_mean_over,
    )
    cov_L = cov_N[class_N != token_rule.UNSELECTED]
    if len(cov_L) * high_cov < 1:
        raise ValueError(
            f"--high-cov-fraction {high_cov} of the {len(cov_L)} tokens of lowest entropy is less "
            "than one: raise it, or read more responses (--max-prompts)."
        )
    return Thresholds(tau_H, -value_above(-cov_L, high_cov))


def group_advantages(correct: Sequence[bool], lengths: Sequence[int]) -> Tensor:
    """Returns GRPO's advantage for each token of a prompt's responses, one after another:
    (r - mean r) / (std r + 1e-6), as verl has it; 0 for a single response."""
    reward_G = torch.tensor(correct, dtype=torch.float32)
    std = reward_G.std() if len(reward_G) > 1 else 1.0
    advantage_G = (reward_G - reward_G.mean()) / (std + 1e-6)
    return advantage_G.repeat_interleave(torch.tensor(lengths))


@torch.inference_mode()
def token_values(
    model: PreTrainedModel, prompt: list[int], responses: list[list[int]], temperature: float
) -> tuple[Tensor, Tensor]:
    """Computes entropy and log-prob of each token of a prompt's responses, one after another.

    Args:
        model: Of transformers.
        prompt: Its token ids.
        responses: G lists of token ids, none of them empty.
        temperature: Of the sampling; the logits are divided by it, as verl divides them.

    Returns:
        entropy_N and log_prob_N, (N,) float32 on the CPU, in nats.
    """
    from torch.nn.utils.rnn import pad_sequence

    rows = [torch.tensor(prompt + response) for response in responses]
    ids = pad_sequence(rows, batch_first=True)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits
    entropies, log_probs = [], []
    for response, logits_TV in zip(responses, logits, strict=True):
        start = len(prompt) - 1  # the logits of a token are those of the position before it
        logits_TV = logits_TV[start : start + len(response)].float() / temperature
        log_prob_TV = logits_TV.log_softmax(-1)
        # H_t = - sum_j p_tj log p_tj
        entropies.append(-(log_prob_TV.exp() * log_prob_TV).sum(-1).cpu())
        chosen_T = torch.tensor(response, device=log_prob_TV.device)
        log_probs.append(log_prob_TV.gather(-1, chosen_T[:, None]).squeeze(-1).cpu())
    return torch.cat(entropies), torch.cat(log_probs)


class Values(NamedTuple):
    """(N,) of all response tokens, in nats, and the number of responses and prompts."""

    entropy_N: Tensor
    log_prob_N: Tensor
    advantages_N: Tensor
    responses: int
    prompts: int


def values_of(
    prompts: pd.DataFrame, table: pd.DataFrame, sampling: Sampling, dtype: str, grading: Grading
) -> Values:
    """Computes the values of all tokens of responses.

    Args:
        prompts: Of `read_prompts`; those of the responses.
        table: A row per prompt: prompt_id, responses, and truncated: those that the limit cut off
            have no end token. Rollout dumps do not say so; there, those that are as long as it.
        sampling: Model, temperature, chat template and length limit.
        dtype: Of the forward pass.
        grading: How the responses are judged.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(sampling.model)
    model = AutoModelForCausalLM.from_pretrained(sampling.model, dtype=dtype).eval()
    model.to(machine.torch_device())
    texts = [list(group) for group in table["responses"]]
    of_data = prompts.to_dict("records")
    judged = judge_prompts(texts, prompts["ground_truth"], grading, grading.equivalence(), of_data)
    parts = []
    cuts = table.get("truncated", [None] * len(texts))
    rows = zip(tokenized(prompts, sampling), texts, cuts, judged, strict=True)
    for prompt, group, cut_G, verdict in tqdm(rows, total=len(texts), unit="prompt"):
        if not np.iterable(cut_G):  # dumps, and chunks of an older version, do not say
            cut_G = [False] * len(group)
        responses = []
        for text, cut in zip(group, cut_G, strict=True):
            ids = tokenizer.encode(text, add_special_tokens=False)
            if not cut or not ids:
                ids.append(tokenizer.eos_token_id)  # the end token counts
            responses.append(ids[: sampling.max_response_length])
        entropy_N, log_prob_N = token_values(model, prompt, responses, sampling.temperature)
        advantages_N = group_advantages(verdict.correct, [len(ids) for ids in responses])
        parts.append((entropy_N, log_prob_N, advantages_N))
    entropy_N, log_prob_N, advantages_N = map(torch.cat, zip(*parts, strict=True))
    return Values(entropy_N, log_prob_N, advantages_N, sum(map(len, texts)), len(texts))


def report(values: Values, thresholds: Thresholds, low: float, high_cov: float) -> str:
    """Returns the quantiles and the thresholds, for the terminal."""
    below_N = values.entropy_N < thresholds.low_threshold
    means = token_rule.means_over(
        values.log_prob_N, values.advantages_N, torch.ones_like(below_N, dtype=torch.bool)
    )
    cov_L = token_rule.covariance(values.log_prob_N, values.advantages_N, means)[below_N]

    def line(name: str, values_N: Tensor, at: Sequence[float]) -> str:
        cells = (f"{q:.4g}: {value_above(values_N, q):.4g}" for q in at)
        return f"{name}: {', '.join(cells)}"

    return "\n".join(
        [
            f"{len(below_N)} tokens of {values.responses} responses to {values.prompts} prompts",
            line("entropy in nats, quantiles", values.entropy_N, QUANTILES),
            line("covariance of the tokens below tau_H, quantiles", cov_L, TAIL),
            f"tau_H for {low:.4g} of the tokens and tau_cov for {high_cov:.4g} of those:",
            *overrides(thresholds),
        ]
    )


def overrides(thresholds: Thresholds) -> list[str]:
    """Returns the thresholds as overrides of a run, exact in float32."""
    return [f"{NODE}.{name}={value:.9g}" for name, value in thresholds._asdict().items()]


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command's flags."""
    parser = argparse.ArgumentParser(
        prog="python -m recipe.semantic_curriculum.calibrate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = partial(parser.add_argument, metavar="X")
    add("--model", required=True, help="checkpoint or run folder, or a name on the hub")
    add("--data", required=True, nargs="+", type=Path, help="parquet files of data_prep/")
    add("--responses", required=True, type=Path, help="folder of responses of that model")
    add("--out", type=Path, help="text file to write: the thresholds as overrides, one a line")
    add("--max-prompts", type=int, default=256, help="0: all; default: %(default)s")
    add("--low-fraction", type=float, default=0.8, help="default: %(default)s, released code's")
    add(
        "--high-cov-fraction",
        type=float,
        default=2e-4,
        help="of those; default: %(default)s, released code's",
    )
    add("--temperature", type=float, help="default: of the responses, or 1")
    add(
        "--chat-template-kwargs",
        type=flags.template_kwargs,
        help="default: of the responses, or the run's, or {}",
    )
    add("--max-response-length", type=int, help="default: of the responses, or the run's, or 2048")
    add("--dtype", help="of the forward pass; default: of the responses, or the run's rollouts")
    flags.add_judging(parser)
    add("--workers", type=int, default=usable_cpus(), help="cores; default: %(default)s")
    return parser


def settings_of(args: argparse.Namespace) -> flags.Resolved:
    """Returns each setting as the flags say it; where they do not, as it is written beside the
    responses, else as in the run that the model is of, else by default.

    Raises:
        ValueError: If the responses are of another model.
    """
    written: Mapping[str, Any] = {}
    file = args.responses.expanduser() / SETTINGS_FILE
    if file.is_file():
        written = json.loads(file.read_text())
        model = fingerprint(model_of(args.model)[0])
        if written.get("model") != model:
            raise ValueError(
                f"--responses {args.responses} are of another model ({written.get('model')}) than "
                f"--model {args.model} ({model}): give the one that they were sampled from."
            )
    return flags.resolve(args, args.model, values=written)


def calibrate(args: argparse.Namespace) -> Thresholds:
    """Reads responses, prints the quantiles of their tokens, and writes the thresholds."""
    chosen = settings_of(args)
    sampling = dataclasses.replace(chosen.sampling, model=model_of(args.model)[0])
    prompts = read_prompts(args.data, judged=chosen.reward is None)
    folder = args.responses.expanduser()
    if (folder / SETTINGS_FILE).is_file():
        table = cached_responses(folder, args.max_prompts)
    else:
        table = read_dumps(prompts, args.responses, sampling, option="--responses")
    table = table[table["prompt_id"].isin(prompts["prompt_id"])]
    if args.max_prompts:
        table = table.head(args.max_prompts)
    if table.empty:
        raise ValueError(
            f"--responses {args.responses} holds no response to a prompt of --data: give the data "
            "that they were sampled for."
        )
    rows = prompts.set_index("prompt_id").loc[table["prompt_id"]].reset_index()
    grading = Grading(boxed_only=chosen.boxed_only, workers=args.workers, reward=chosen.reward)
    values = values_of(rows, table, sampling, chosen.dtype, grading)
    if not values.advantages_N.any():
        raise ValueError(
            f"--responses {args.responses}: every prompt's responses are all correct or all "
            "incorrect, so that no token has a covariance: read more of them (--max-prompts)."
        )
    low, high_cov = args.low_fraction, args.high_cov_fraction
    thresholds = thresholds_of(*values[:3], low=low, high_cov=high_cov)
    print(report(values, thresholds, low, high_cov))
    if args.out:
        with atomic_write(args.out.expanduser()) as file:
            file.write_text("\n".join(overrides(thresholds)) + "\n")
        print(f"-> {args.out}")
    return thresholds


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line; ends the process with a sentence on a flag that is not allowed."""
    parser = make_parser()
    args = parser.parse_args(arguments)
    share: flags.Range = (lambda x: 0 < x < 1, "a number above 0, below 1")
    flags.check(
        parser,
        args,
        low_fraction=share,
        high_cov_fraction=share,
        temperature=(lambda x: 0 < x < math.inf, "a number above 0"),
    )
    return args


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""

    def command(words: list[str] | None) -> None:
        calibrate(parse(words))

    return cli.run(command, arguments)


if __name__ == "__main__":
    sys.exit(main())
