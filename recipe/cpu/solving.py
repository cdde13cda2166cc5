"""How well a model solves the problems of the CPU runs (`recipe.cpu.task`): pass rate, entropy."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from recipe.cpu import task
from recipe.cpu.model import prompt_ids
from recipe.cpu.sampling import sample

# a worked solution and its end token, and two characters to spare
RESPONSE_TOKENS = task.LONGEST_SOLUTION + 3


def read_problems(file: Path) -> list[task.Problem]:
    """Reads the problems of a parquet file that `data_prep/arithmetic.py` wrote.

    Raises FileNotFoundError if there is no such file.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} does not exist: write it with `python data_prep/arithmetic.py "
            f"--local_save_dir {file.parent}`."
        )
    rows = pd.read_parquet(file)
    return [
        task.Problem(int(extra["level"]), task.parse(prompt[0]["content"]))
        for extra, prompt in zip(rows["extra_info"], rows["prompt"], strict=True)
    ]


def solve(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: list[task.Problem],
    samples: int,
    seed: int,
) -> tuple[torch.Tensor, float, int]:
    """Samples responses to each problem at temperature 1 and judges their last number.

    Args:
        model, tokenizer: of `recipe.cpu.model`, or alike.
        problems: P of them.
        samples: responses per problem.
        seed: of the draws.

    Returns:
        (P, samples) bool, which are correct; the summed entropy of all response tokens in nats;
        their number.
    """
    generator = torch.Generator().manual_seed(seed)
    repeated = [problem for problem in problems for _ in range(samples)]
    correct, entropy, tokens = [], 0.0, 0
    for start in range(0, len(repeated), 512):
        part = repeated[start : start + 512]
        prompts = [prompt_ids(tokenizer, problem) for problem in part]
        out = sample(model, prompts, RESPONSE_TOKENS, tokenizer.eos_token_id, generator)
        texts = tokenizer.batch_decode(out.tokens_BT, skip_special_tokens=True)
        correct += [
            task.final_answer(text) == problem.answer
            for text, problem in zip(texts, part, strict=True)
        ]
        entropy += (out.entropies_BT * out.mask_BT).sum().item()
        tokens += int(out.mask_BT.sum())
    return torch.tensor(correct).view(-1, samples), entropy, tokens


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: list[task.Problem],
    samples: int,
    seed: int,
) -> dict:
    """Summarises `solve`.

    Returns:
        pass_rate; pass_rate_by_level; never_solved and always_solved, the shares of problems that
        none or all of the samples solve; entropy, the mean over tokens in nats; response_length,
        the mean in tokens.
    """
    correct, entropy, tokens = solve(model, tokenizer, problems, samples, seed)
    rates = correct.double().mean(1)
    levels = torch.tensor([problem.level for problem in problems])
    return {
        "pass_rate": rates.mean().item(),
        "pass_rate_by_level": {
            str(level): rates[levels == level].mean().item() for level in levels.unique().tolist()
        },
        "never_solved": (rates == 0).double().mean().item(),
        "always_solved": (rates == 1).double().mean().item(),
        "entropy": entropy / tokens,
        "response_length": tokens / correct.numel(),
        "samples": samples,
        "problems": len(problems),
    }
