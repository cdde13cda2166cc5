"""Time of SENT's token rule against verl's `kl_cov`: one run on the CPU.

    python perf/token_rule.py

Forward plus backward at 64 rows x 8,192 tokens, as verl calls a policy loss; repeats are
interleaved and medians compared. Where the trainer chooses the tokens before the update, that is
part of the time. Exits with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import torch
from recipe.semantic_curriculum.trainer import classify_batch
from verl.trainer.ppo.core_algos import get_policy_loss_fn
from verl.workers.config import FSDPActorConfig

from recipe.core import actor_loss
from recipe.semantic_curriculum.config import SentConfig, TokenRule
from recipe.semantic_curriculum.register import CLASS_FIELD

BAR = 1.5  # times the time of verl's kl_cov
ARMS = {
    "kl_cov preset": {"preset": "kl_cov"},
    "as_released": {"preset": "as_released"},
    "as_described": {"preset": "as_described"},
    "as_described, by response": {"preset": "as_described", "scope": "response"},
    "high_entropy_mask": {"preset": "high_entropy_mask"},
}


def make(rows: int, tokens: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    old = -torch.rand(rows, tokens, generator=generator) * 3
    noise = 0.2 * torch.randn(rows, tokens, generator=generator)
    length_B = torch.randint(1, tokens + 1, (rows, 1), generator=generator)
    advantages = torch.randn(rows, 1, generator=generator).expand(rows, tokens).contiguous()
    return dict(
        old_log_prob=old,
        log_prob=(old + noise).clamp(max=0).requires_grad_(),
        advantages=advantages,
        response_mask=torch.arange(tokens) < length_B,
    )


def nested(padded: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    rows = [row[:n] for row, n in zip(padded, lengths.tolist(), strict=True)]
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


class Measured(actor_loss.Step):
    """A Step whose model output has been padded before the time counts."""

    def entropy(self):
        return self.output["entropy"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=21)
    known = parser.parse_args()
    batch = make(known.rows, known.tokens)
    mask = batch["response_mask"]
    lengths = mask.sum(1)
    width = int(lengths.max())
    batch = {name: x.detach()[:, :width].contiguous() for name, x in batch.items()}
    batch["log_prob"].requires_grad_()
    mask = batch["response_mask"]
    entropy = torch.rand(known.rows, width, generator=torch.Generator().manual_seed(1))
    flat = dict(
        entropy_N=entropy[mask],
        log_prob_N=batch["old_log_prob"][mask],
        advantages_N=batch["advantages"][mask],
        mask_N=torch.ones(int(mask.sum()), dtype=torch.bool),
        length_B=lengths,
        mini_batch_B=torch.zeros(known.rows, dtype=torch.long),
        order_B=torch.arange(known.rows),
    )
    micro = {
        "ref_log_prob": nested(batch["old_log_prob"] - 0.1, lengths),
        "entropy": nested(entropy, lengths),
    }

    def config(loss_mode: str, rule: TokenRule) -> FSDPActorConfig:
        settings = SentConfig(
            loss_mode=loss_mode,
            preset="grpo",
            schedule="static",
            region_diagnostics=False,
            kl_cov_ratio=2e-3,
            ppo_kl_coef=1.0,
            token_rule=rule,
        )
        return FSDPActorConfig(
            strategy="fsdp2", rollout_n=8, use_dynamic_bsz=True, policy_loss=settings
        )

    def arm(name: str):
        rule = TokenRule(**ARMS.get(name, {}))
        loss_mode = "sent" if name in ARMS else "kl_cov"
        actor, function = config(loss_mode, rule), get_policy_loss_fn(loss_mode)

        def once() -> tuple[float, float]:
            """Seconds of the choice before the update, and of the loss."""
            batch["log_prob"].grad = None
            start = time.perf_counter()
            if name in ARMS and rule.scope != "micro_batch":
                classes, _ = classify_batch(rule, **flat)
            chosen = time.perf_counter()
            if name in ARMS and rule.scope != "micro_batch":  # the queue hands it over, not we
                parts = list(classes.split(lengths.tolist()))
                micro[CLASS_FIELD] = torch.nested.as_nested_tensor(parts, layout=torch.jagged)
            ready = time.perf_counter()
            token = actor_loss._current.set(Measured({}, micro, {"entropy": entropy}))
            loss, _ = function(**batch, loss_agg_mode="token-mean", config=actor)
            actor_loss._current.reset(token)
            loss.backward()
            return chosen - start, time.perf_counter() - ready

        return once

    arms = {name: arm(name) for name in ("verl's kl_cov", *ARMS)}
    seconds = {name: [] for name in arms}
    for _ in range(known.repeats):
        for name, once in arms.items():
            seconds[name].append(once())
    choice = {name: statistics.median(c for c, _ in s[1:]) for name, s in seconds.items()}
    total = {name: statistics.median(c + x for c, x in s[1:]) for name, s in seconds.items()}
    print(f"{known.rows} x {known.tokens} tokens, {torch.get_num_threads()} threads, forward and")
    print(f"backward, median of {known.repeats - 1}")
    reference = total["verl's kl_cov"]
    for name in arms:
        print(
            f"  {name:<28}{total[name] * 1e3:7.1f} ms (choice before the update "
            f"{choice[name] * 1e3:6.1f})  {total[name] / reference:5.2f} of verl's kl_cov"
        )
    met = all(value <= BAR * reference for value in total.values())
    print("all bars met" if met else "a bar is missed")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
