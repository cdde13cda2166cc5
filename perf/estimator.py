"""Time and memory of the `asymgrpo` estimator against verl's own, in one run on the CPU.

    python perf/estimator.py

Time: the registered estimators, called as verl's trainer calls them, on one batch; repeats are
interleaved, so that a busy machine slows all alike, and medians are compared. Memory: the peak of a
fresh process while it runs one estimator, above what it held before (getrusage).
Exits with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf
from verl.trainer.ppo.core_algos import get_adv_estimator_fn

LOOP_BAR = 12.0  # times faster than verl's grpo
VECTORIZED_BAR = 1.3  # times the time of verl's grpo_vectorized
SMALL_CHANGE_MB = 16.0  # over the one output tensor: masks of rows, group numbers, buffers
NAMES = ("grpo", "grpo_vectorized", "asymgrpo")


def make_batch(prompts: int, rollouts: int, tokens: int) -> dict:
    generator = torch.Generator().manual_seed(0)
    rows = prompts * rollouts
    length_B = torch.randint(1, tokens + 1, (rows, 1), generator=generator)
    rewards_BT = torch.zeros(rows, tokens)
    right_B = (torch.rand(rows, generator=generator) < 0.4).float()
    rewards_BT[torch.arange(rows), length_B[:, 0] - 1] = right_B
    uids = np.array([str(uuid.uuid4()) for _ in range(prompts)], dtype=object)
    order = torch.randperm(rows, generator=generator).numpy()  # verl balances rows over ranks
    return {
        "token_level_rewards": rewards_BT,
        "response_mask": (torch.arange(tokens) < length_B).to(torch.int64),
        "index": np.repeat(uids, rollouts)[order],
        "config": OmegaConf.create({"asymgrpo": {"preset": "asymgrpo"}}),
    }


def measure_times(batch: dict, repeats: int) -> dict[str, float]:
    """Median seconds of each estimator over interleaved repeats."""
    seconds: dict[str, list[float]] = {name: [] for name in NAMES}
    for _ in range(repeats):
        for name in NAMES:
            start = time.perf_counter()
            get_adv_estimator_fn(name)(**batch)
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_memory(name: str, batch: dict) -> float:
    """MB that one call adds to this process's peak; a first call on two rows loads the code."""
    first = {key: value[:2] for key, value in batch.items() if key != "config"}
    get_adv_estimator_fn(name)(**first, config=batch["config"])
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    resident = pages * resource.getpagesize() / 2**20
    ballast = np.ones(int(max(peak_mb() - resident, 0) * 2**17))  # now resident = peak
    before = peak_mb()
    get_adv_estimator_fn(name)(**batch)
    del ballast
    return peak_mb() - before


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=1024)
    parser.add_argument("--rollouts", type=int, default=16, help="rollouts a prompt")
    parser.add_argument("--tokens", type=int, default=512, help="response tokens, for time")
    parser.add_argument("--memory-tokens", type=int, default=2048, help="the same, for memory")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--measure-memory-of", choices=NAMES, help=argparse.SUPPRESS)
    known = parser.parse_args()
    if known.measure_memory_of:
        batch = make_batch(known.prompts, known.rollouts, known.memory_tokens)
        print(measure_memory(known.measure_memory_of, batch))
        return 0

    rows = known.prompts * known.rollouts
    print(f"{rows} rows ({known.prompts} x {known.rollouts}), {torch.get_num_threads()} threads")
    median = measure_times(make_batch(known.prompts, known.rollouts, known.tokens), known.repeats)
    ours = median["asymgrpo"]
    speedup, share = median["grpo"] / ours, ours / median["grpo_vectorized"]
    print(f"time at {known.tokens} tokens, median of {known.repeats}:")
    for name in NAMES:
        print(f"  {name:<16}{median[name] * 1e3:8.1f} ms")
    print(f"  {speedup:.1f} times faster than grpo (bar: at least {LOOP_BAR:g})")
    print(f"  {share:.2f} of grpo_vectorized's time (bar: at most {VECTORIZED_BAR:g})")

    output = rows * known.memory_tokens * 4 / 2**20
    print(f"peak extra memory at {known.memory_tokens} tokens, output tensor {output:.0f} MB:")
    extra = {}
    for name in NAMES:
        command = [sys.executable, __file__, *sys.argv[1:], "--measure-memory-of", name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        extra[name] = float(done.stdout.split()[-1])
        print(f"  {name:<16}{extra[name]:8.0f} MB, {extra[name] / output:.2f} output tensors")
    bar = output + SMALL_CHANGE_MB
    print(f"  (bar: at most {bar:.0f} MB)")
    met = speedup >= LOOP_BAR and share <= VECTORIZED_BAR and extra["asymgrpo"] <= bar
    print("all bars met" if met else "a bar is missed")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
