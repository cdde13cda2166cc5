"""Build the small model of the CPU runs and warm-start it: `python -m recipe.cpu.warm_start`.

The model (`recipe.cpu.model`) is trained on solutions of a task (`recipe.cpu.tasks`) of the train
split, just until it solves about a third of the problems when it samples at temperature 1. What is
left to learn, and the entropy that is left, are for reinforcement learning. The folder is an
ordinary Hugging Face checkpoint, which is reused as long as data, settings and files are the same.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

# threads that wait by sleeping: on busy cores spinning ones are many times slower (before torch)
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import GenerationConfig, Qwen2ForCausalLM, Qwen2Tokenizer

from recipe.core import cli
from recipe.core.settings import check_choice
from recipe.cpu import build_cache
from recipe.cpu.model import END, ModelShape, make_model, make_tokenizer, prompt_ids
from recipe.cpu.solving import measure, read_problems
from recipe.cpu.tasks import DEFAULT, TASKS, Problem, Task, by_task

SAMPLES = 8  # per test prompt, in the report
GOOD_PASS_RATE = (0.2, 0.5)  # where a warm start is a good start for reinforcement learning


@dataclass(frozen=True)
class Settings(ModelShape):
    """How the model is warm-started; every value is ours, found by trial."""

    seed: int = 0
    steps: int = 1500  # at most; the target is reached before
    target: float = 0.35  # pass rate on held-out train problems at which training stops
    batch_size: int = 32
    learning_rate: float = 2e-3
    learning_rate_warmup: int = 50  # steps
    level_weights: tuple[float, ...] = (2, 2, 1, 1.5, 0.7, 0.8)  # easy levels are seen more often
    check_from: int = 400  # steps before the first look at the pass rate
    check_every: int = 50
    check_problems: int = 20  # per level, taken out of the train split
    check_samples: int = 2  # per problem

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "check_from", "check_every", "check_problems"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1.")
        if not 0 < self.target < 1:
            raise ValueError(f"target={self.target} must lie between 0 and 1: it is a pass rate.")


# by task
SETTINGS = {
    "signed_sums": Settings(),
    # more slowly and in larger batches: at 2e-3 the pass rate goes up and down by 0.05; many
    # problems and samples: stopping at the first check above the target must not be luck
    "target_sums": Settings(
        target=0.28,
        batch_size=64,
        learning_rate=1e-3,
        level_weights=(1, 1, 1),
        check_from=600,
        check_problems=100,
        check_samples=8,
    ),
}


def hold_out(problems: Iterable[Problem], per_level: int) -> tuple[list[Problem], list[Problem]]:
    """Returns (the other problems, the first `per_level` problems of each level)."""
    rest: list[Problem] = []
    held_out: list[Problem] = []
    count: Counter[int] = Counter()
    for problem in problems:
        count[problem.level] += 1
        (held_out if count[problem.level] <= per_level else rest).append(problem)
    return rest, held_out


def batches(
    problems: list[Problem], tokenizer: Qwen2Tokenizer, settings: Settings
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields (B, T) input ids and labels without end; labels are -100 outside the solution and its
    end token.

    Levels are drawn with `level_weights`, problems evenly within a level, and each time with a new
    solution.
    """
    rng = random.Random(f"{settings.seed}/batches")
    by_level: dict[int, list[Problem]] = {}
    for problem in problems:
        by_level.setdefault(problem.level, []).append(problem)
    levels = sorted(by_level)
    weights = [settings.level_weights[level - 1] for level in levels]
    while True:
        ids, labels = [], []
        for level in rng.choices(levels, weights, k=settings.batch_size):
            problem = rng.choice(by_level[level])
            prompt = prompt_ids(tokenizer, problem)
            answer = tokenizer.encode(problem.solution(rng) + END)
            ids.append(torch.tensor(prompt + answer))
            labels.append(torch.tensor([-100] * len(prompt) + answer))
        pad = torch.nn.utils.rnn.pad_sequence
        yield (
            pad(ids, batch_first=True, padding_value=tokenizer.pad_token_id),
            pad(labels, batch_first=True, padding_value=-100),
        )


def train(
    model: Qwen2ForCausalLM,
    tokenizer: Qwen2Tokenizer,
    task: Task,
    problems: list[Problem],
    settings: Settings,
) -> int:
    """Trains in place until the pass rate on held-out problems reaches the target.

    Returns:
        the number of steps, `settings.steps` if the target was not reached.

    Raises:
        ValueError: if there are too few problems to hold out `settings.check_problems` per level.
    """
    trained, held_out = hold_out(problems, settings.check_problems)
    if {problem.level for problem in trained} != set(task.levels):
        raise ValueError(
            f"the train split has {len(problems)} problems, too few to keep "
            f"{settings.check_problems} of each level back: write it with a larger --train_size."
        )
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=0.01
    )
    warmup = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / settings.learning_rate_warmup)
    )
    data = batches(trained, tokenizer, settings)
    samples, limit = settings.check_samples, task.response_tokens()
    bar = tqdm(
        range(1, settings.steps + 1),
        desc=f"warm start, to pass rate {settings.target}",
        unit="step",
        mininterval=1.0,
    )
    shown: dict[str, str] = {}
    for step in bar:
        ids, labels = next(data)
        logits = model(input_ids=ids).logits[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        warmup.step()
        if step % 10 == 0:
            shown["loss"] = f"{loss.item():.2f}"
        if step >= settings.check_from and step % settings.check_every == 0:
            seed = settings.seed + step
            checked = measure(model, tokenizer, held_out, samples, seed, limit)
            shown["pass_rate"] = f"{checked['pass_rate']:.2f}"
            if checked["pass_rate"] >= settings.target:
                bar.set_postfix(shown)
                break
        bar.set_postfix(shown, refresh=False)
    bar.close()
    return step


def make(folder: Path, task: Task, data: Path, settings: Settings) -> dict:
    """Trains, saves the checkpoint into `folder`, and measures the model on the test split; returns
    the report."""
    test, trained = (read_problems(data / f"{name}.parquet", task) for name in ("test", "train"))
    tokenizer = make_tokenizer(task)
    model = make_model(settings, tokenizer, settings.seed)
    steps = train(model, tokenizer, task, trained, settings)
    model.generation_config = GenerationConfig(
        do_sample=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    report = {"parameters": model.num_parameters(), "steps": steps}
    limit = task.response_tokens()
    return report | measure(model, tokenizer, test, SAMPLES, settings.seed, limit)


def summary(report: dict, task: Task) -> str:
    """Returns the report in a few lines for the terminal."""
    lines = [
        f"{report['parameters']:,} parameters, {report['steps']} supervised steps",
        f"pass rate {report['pass_rate']:.3f} over {report['problems']} test problems x "
        f"{report['samples']} samples at temperature 1",
        *(
            f"  level {level} "
            f"({', '.join(f'{name} {value}' for name, value in task.levels[int(level)].items())}): "
            f"{rate:.3f}"
            for level, rate in report["pass_rate_by_level"].items()
        ),
        f"never solved {report['never_solved']:.3f}, always solved {report['always_solved']:.3f}",
        f"entropy {report['entropy']:.3f} nats per token, "
        f"response length {report['response_length']:.1f} tokens",
    ]
    low, high = GOOD_PASS_RATE
    if not low <= report["pass_rate"] <= high:
        lines.append(
            f"warning: the pass rate is not between {low} and {high}, so reinforcement learning "
            "has little to work with: leave --steps at its default, or set another --target."
        )
    return "\n".join(lines)


def warm_start(
    out: Path, task: Task, data: Path, settings: Settings, force: bool = False
) -> tuple[dict, bool]:
    """Builds the checkpoint of these data, which are of this task, and settings in `out`, or reuses
    it; returns (report, whether it was built now)."""
    data = Path(data).expanduser()
    files = [data / "train.parquet", data / "test.parquet"]
    for file in files:
        read_problems(file, task)  # names what is missing before anything is built
    key = {
        "made_by": "recipe.cpu.warm_start 1",  # count up when the same settings give other weights
        "settings": asdict(settings),
        "data": {file.name: build_cache.sha256(file) for file in files},
    }
    return build_cache.build(out, key, lambda folder: make(folder, task, data, settings), force)


def start(arguments: list[str] | None) -> None:
    """Parses the command line, builds or reuses the checkpoint, and prints its report."""
    parser = argparse.ArgumentParser(
        prog="python -m recipe.cpu.warm_start",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--task", metavar="TASK", default=DEFAULT, help=f"{', '.join(TASKS)}; default: %(default)s"
    )
    parser.add_argument("--out", type=Path, help=by_task(lambda task: task.model_folder))
    parser.add_argument("--data", type=Path, help=by_task(lambda task: task.data_folder))
    parser.add_argument("--seed", type=int, default=Settings.seed, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=Settings.steps, help="at most")
    parser.add_argument("--target", type=float, help="pass rate to stop at; default: the task's")
    parser.add_argument("--force", action="store_true", help="build again")
    args = parser.parse_args(arguments)
    check_choice(f"--task {args.task}", args.task, TASKS)
    task, settings = TASKS[args.task], SETTINGS[args.task]
    out = args.out or Path(task.model_folder)
    data = args.data or Path(task.data_folder)
    target = settings.target if args.target is None else args.target
    settings = replace(settings, seed=args.seed, steps=args.steps, target=target)
    report, built = warm_start(out, task, data, settings, args.force)
    print(f"{'built' if built else 'reused'} {out.expanduser()}")
    print(summary(report, task))


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return cli.run(start, arguments)


if __name__ == "__main__":
    sys.exit(main())
