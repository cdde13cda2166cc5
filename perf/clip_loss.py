"""Time and memory of the dynamic_clip policy loss against verl's `vanilla`: one run on the CPU.

    python perf/clip_loss.py

Forward plus backward at 64 rows x 8,192 tokens, as verl calls a policy loss; repeats are
interleaved and medians compared. Memory: the most bytes of tensors alive at once (counted at every
torch operation), above the inputs. Exits with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from verl.trainer.ppo.core_algos import get_policy_loss_fn
from verl.workers.config import FSDPActorConfig

from recipe.clip_entropy.config import DynamicClipConfig
from recipe.clip_entropy.register import pack
from recipe.clip_entropy.schedules import Levels
from recipe.core import actor_loss

TIME_BAR = 1.0  # times vanilla's time
REGIONS_BAR = 1.5  # the same, with the region diagnostics
MEMORY_BAR = 1.0  # more tensors of rows x tokens than vanilla at the peak


class PeakBytes(TorchDispatchMode):
    """Bytes of the tensors that operations make, alive at once."""

    def __init__(self):
        super().__init__()
        self.known, self.alive, self.peak = set(), 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        before = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs or {}))
                  if isinstance(leaf, torch.Tensor)}  # fmt: skip
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if not isinstance(leaf, torch.Tensor):
                continue
            storage = leaf.untyped_storage()
            if storage._cdata in self.known or storage._cdata in before:
                continue
            self.known.add(storage._cdata)
            self.alive += storage.nbytes()
            weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.alive)
        return result

    def _freed(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.alive -= size


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


def arms(rows: int, tokens: int) -> dict:
    """name -> a function of the batch that computes the loss."""
    entropy = torch.rand(rows, tokens, generator=torch.Generator().manual_seed(1))
    levels = Levels()
    bounds = {
        "static": levels.bounds(levels.upper, levels.lower),
        "upper": levels.bounds(levels.high, levels.lower),
        "both": levels.bounds(levels.high, levels.low),
    }

    def config(loss_mode: str, regions: bool) -> FSDPActorConfig:
        settings = DynamicClipConfig(loss_mode=loss_mode, region_diagnostics=regions)
        return FSDPActorConfig(
            strategy="fsdp2", rollout_n=8, use_dynamic_bsz=True, policy_loss=settings
        )

    micro = {"entropy": torch.nested.as_nested_tensor(list(entropy), layout=torch.jagged)}
    functions = {"vanilla": (get_policy_loss_fn("vanilla"), config("vanilla", False), None)}
    ours = get_policy_loss_fn("dynamic_clip")
    for name, value in bounds.items():
        for regions in (False, True):
            step = actor_loss.Step({"clip_bounds": pack(value)}, micro)
            label = f"{name} + regions" if regions else name
            functions[label] = (ours, config("dynamic_clip", regions), step)
    return functions


def once(function, config, step, batch) -> None:
    batch["log_prob"].grad = None
    token = actor_loss._current.set(step)
    loss, _ = function(**batch, loss_agg_mode="token-mean", config=config)
    actor_loss._current.reset(token)
    loss.backward()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=41)
    known = parser.parse_args()
    batch, functions = make(known.rows, known.tokens), arms(known.rows, known.tokens)
    seconds = {name: [] for name in functions}
    for _ in range(known.repeats):
        for name, arm in functions.items():
            start = time.perf_counter()
            once(*arm, batch)
            seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    size = known.rows * known.tokens * 4
    peak = {}
    for name, arm in functions.items():
        with PeakBytes() as counted:
            once(*arm, batch)
        peak[name] = counted.peak / size
    print(f"{known.rows} x {known.tokens} tokens, {torch.get_num_threads()} threads, forward and")
    print(f"backward, median of {known.repeats - 1}; memory in tensors of that size")
    for name in functions:
        print(
            f"  {name:<18}{median[name] * 1e3:7.1f} ms  {median[name] / median['vanilla']:5.2f} of "
            f"vanilla   peak {peak[name]:5.1f} ({peak[name] - peak['vanilla']:+.1f})"
        )
    plain = [name for name in functions if name != "vanilla" and "regions" not in name]
    met = (
        all(median[name] <= TIME_BAR * median["vanilla"] for name in plain)
        and all(m <= REGIONS_BAR * median["vanilla"] for m in median.values())
        and all(peak[name] <= peak["vanilla"] + MEMORY_BAR for name in plain)
    )
    print("all bars met" if met else "a bar is missed")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
