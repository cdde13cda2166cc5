"""How well a model solves the problems of the CPU runs (`recipe.cpu.tasks`): pass rate, entropy."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from recipe.cpu.model import prompt_ids
from recipe.cpu.sampling import sample
from recipe.cpu.tasks import Problem, Task


def read_problems(file: Path, task: Task) -> list[Problem]:
    """Reads the problems of a parquet file that `data_prep/arithmetic.py` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is of another task.
    """
    command = f"`python data_prep/arithmetic.py --task {task.name} --local_save_dir {file.parent}`"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is no file: write it with {command}.")
    rows = pd.read_parquet(file)
    for source in set(rows["data_source"]) - {task.source}:
        raise ValueError(
            f"{file} has rows of {source}, not of --task {task.name}: name their task, or write "
            f"this task's data with {command}."
        )
    return [
        task.read(int(extra["level"]), prompt[0]["content"])
        for extra, prompt in zip(rows["extra_info"], rows["prompt"], strict=True)
    ]


def solve(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: list[Problem],
    samples: int,
    seed: int,
    max_tokens: int,
) -> tuple[torch.Tensor, float, int]:
    """Samples responses to each problem at temperature 1 and judges them.

    Args:
        model, tokenizer: of `recipe.cpu.model`, or alike.
        problems: P of them.
        samples: responses per problem.
        seed: of the draws.
        max_tokens: the limit of a response, such as `Task.response_tokens`.

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
        out = sample(model, prompts, max_tokens, tokenizer.eos_token_id, generator)
        texts = tokenizer.batch_decode(out.tokens_BT, skip_special_tokens=True)
        correct += [problem.is_solved_by(text) for text, problem in zip(texts, part, strict=True)]
        entropy += (out.entropies_BT * out.mask_BT).sum().item()
        tokens += int(out.mask_BT.sum())
    return torch.tensor(correct).view(-1, samples), entropy, tokens


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: list[Problem],
    samples: int,
    seed: int,
    max_tokens: int,
) -> dict:
    """Summarises `solve`.

    Returns:
        pass_rate; pass_rate_by_level; never_solved and always_solved, the shares of problems that
        none or all of the samples solve; entropy, the mean over tokens in nats; response_length,
        the mean in tokens.
    """
    correct, entropy, tokens = solve(model, tokenizer, problems, samples, seed, max_tokens)
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
