"""Time of the driver's work in a training step: `python perf/driver.py`.

4,096 rollouts of up to 4,096 response tokens, 9 million tokens in all, on one core: the script
binds itself to one core and one thread. Times are CPU times of that thread, which on an idle
machine are what passes on the clock, so that other processes count as little as possible. The data
are what the trainer reads from the queue (values of all rows, one after another) and, for the
estimator, the padded tensors that verl hands it. Reading, writing and padding are verl's and not
counted.

Prints the median of each piece, the sum of those that a step with every method switched on runs,
and the sum with those that run only where a setting asks for them. Exits with 1 if the first sum is
above 2 s.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from omegaconf import OmegaConf
from verl.trainer.ppo.core_algos import get_adv_estimator_fn

import recipe.asymgrpo.register  # noqa: F401  registers the estimator
from recipe.asymgrpo.advantages import entropy_shaped_advantage
from recipe.clip_entropy.regions import exact_contributions
from recipe.core import diagnostics
from recipe.semantic_curriculum.config import TokenRule
from recipe.semantic_curriculum.selection import class_means, classify_batch, mini_batch_of_rows
from recipe.semantic_curriculum.token_rule import means_over

BAR = 2.0  # seconds, what a normal step does


class Piece(NamedTuple):
    name: str
    when: str  # "every step", or the setting that asks for it
    run: Callable[[], object]


def pieces(prompts: int, rollouts: int, tokens: int, mini_batches: int) -> tuple[list[Piece], int]:
    """Returns what the driver computes in a step, on random data, and the number of tokens."""
    generator = torch.Generator().manual_seed(0)
    rows = prompts * rollouts
    # uniform; with the defaults the mean is 2,198, which makes 9 million tokens
    length_B = torch.randint(tokens * 3 // 40, tokens + 1, (rows,), generator=generator)
    total = int(length_B.sum())
    group_B = torch.arange(prompts).repeat_interleave(rollouts)
    correct_B = torch.rand(rows, generator=generator) < 0.4
    entropy_N = torch.rand(total, generator=generator)
    log_prob_N = -torch.rand(total, generator=generator)
    new_log_prob_N = log_prob_N + 0.01
    advantages_N = torch.randn(rows, generator=generator).repeat_interleave(length_B)
    mask_N = torch.ones(total, dtype=torch.bool)
    baseline_N = torch.rand(total, generator=generator)

    # as verl calls an estimator
    rewards_BT = torch.zeros(rows, tokens)
    rewards_BT[torch.arange(rows), length_B - 1] = correct_B.float()
    mask_BT = (torch.arange(tokens) < length_B[:, None]).long()
    uid_B = np.array([f"prompt-{group}" for group in group_B.tolist()], dtype=object)
    algorithm = OmegaConf.create({"asymgrpo": {"preset": "asymgrpo"}})
    estimator = get_adv_estimator_fn("asymgrpo")

    order_B = torch.randperm(rows, generator=generator)
    mini_batch_B = mini_batch_of_rows(rows, 1, rows // mini_batches, False, 0)
    described, by_response = TokenRule("as_described"), TokenRule("as_described", scope="response")

    def select(rule: TokenRule):
        return classify_batch(
            rule,
            entropy_N=entropy_N,
            log_prob_N=log_prob_N,
            advantages_N=advantages_N,
            mask_N=mask_N,
            length_B=length_B,
            mini_batch_B=mini_batch_B,
            order_B=order_B,
        )

    class_N, cov_N = select(described)
    return [
        Piece(
            "advantages (asymgrpo, padded as verl hands them over)",
            "every step",
            lambda: estimator(
                token_level_rewards=rewards_BT,
                response_mask=mask_BT,
                index=uid_B,
                config=algorithm,
            ),
        ),
        Piece(
            "diagnostics",
            "every step",
            lambda: diagnostics.rollout_diagnostics(
                entropy_N=entropy_N,
                log_prob_N=log_prob_N,
                advantages_N=advantages_N,
                mask_N=mask_N,
                length_B=length_B,
                correct_B=correct_B,
                group_B=group_B,
            ),
        ),
        Piece(
            f"token selection (as_described, {mini_batches} mini-batches)",
            "every step",
            lambda: select(described),
        ),
        Piece(
            "mean entropy and covariance of each class",
            "every step",
            lambda: class_means(
                class_N, mask_N, {"entropy": entropy_N, "covariance": cov_N}, described.classes
            ),
        ),
        Piece(
            "token selection within each response, in its place",
            "scope=response",
            lambda: select(by_response),
        ),
        Piece(
            "two means, by thresholds, in its place",
            "preset=paper",
            lambda: means_over(log_prob_N, advantages_N, mask_N),
        ),
        Piece(
            "entropy-shaped advantage",
            "asymgrpo.preset=grpo_entropy_adv",
            lambda: entropy_shaped_advantage(advantages_N, entropy_N, kappa=2.0, alpha=0.4),
        ),
        Piece(
            "exact contributions of the regions",
            "exact_contribution_freq",
            lambda: exact_contributions(
                log_prob_N=log_prob_N,
                entropy_N=entropy_N,
                advantages_N=advantages_N,
                baseline_N=baseline_N,
                mask_N=mask_N,
            ),
        ),
        Piece(
            "log-prob gain",
            "log_prob_gain_freq",
            lambda: diagnostics.log_prob_gain(
                new_log_prob_N, log_prob_N, mask_N, length_B, correct_B
            ),
        ),
    ], total


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=512)
    parser.add_argument("--rollouts", type=int, default=8, help="per prompt")
    parser.add_argument("--tokens", type=int, default=4096, help="longest response")
    parser.add_argument("--mini-batches", type=int, default=4, help="updates per step")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)

    work, total = pieces(args.prompts, args.rollouts, args.tokens, args.mini_batches)
    seconds: dict[str, list[float]] = {piece.name: [] for piece in work}
    for _ in range(args.repeats + 1):  # the first repeat is a warm-up
        for piece in work:
            start = time.thread_time()
            piece.run()
            seconds[piece.name].append(time.thread_time() - start)
    median = {name: statistics.median(values[1:]) for name, values in seconds.items()}

    rows = args.prompts * args.rollouts
    print(f"{rows:,} rollouts of up to {args.tokens:,} tokens, {total:,} tokens; one core;")
    print(f"median (and lowest) of {args.repeats} interleaved repeats, ms of CPU time\n")
    for piece in work:
        lowest = min(seconds[piece.name][1:])
        print(
            f"  {piece.name:<55}{median[piece.name] * 1e3:7.0f} ({lowest * 1e3:5.0f})  {piece.when}"
        )
    normal = sum(median[piece.name] for piece in work if piece.when == "every step")
    print(f"\n  {'a step with every method switched on':<55}{normal * 1e3:7.0f}  (bar: {BAR:g} s)")
    print(f"  {'all of the above':<55}{sum(median.values()) * 1e3:7.0f}")
    return 0 if normal <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
