"""Time of the policy losses of the recipes and of verl's, forward and backward, on a CPU.

    OMP_NUM_THREADS=2 python perf/policy_loss.py

Each loss is called as in training, by `actor_loss` on one micro-batch; the repeats are interleaved,
so that a busy machine slows all alike. There is no bar: what counts is the time of a whole training
step (perf/step.py), which is seconds at the first size and tens of seconds at the second.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import verl.trainer.ppo.core_algos  # noqa: F401  registers the losses of the recipes
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.workers.config import FSDPActorConfig

from recipe.clip_entropy.regions import observe_regions
from recipe.clip_entropy.schedules import ClipLines
from recipe.core import actor_loss
from recipe.core.clip import Bounds
from recipe.core.clipped_term import CLIP_BOUNDS, pack_bounds
from recipe.policy_loss import RecipePolicyLoss
from recipe.semantic_curriculum.config import TokenRule
from recipe.semantic_curriculum.register import CLASS_FIELD

SIZES = ("256x24", "64x8192")  # rollouts x tokens: the CPU task's step, and a long micro-batch
LINES = ClipLines()
FLAT = LINES.bounds(LINES.base_upper, LINES.base_lower)
BOTH = LINES.bounds(LINES.wide_upper, LINES.wide_lower)
# name -> loss_mode, bounds, region diagnostics, SENT's preset and scope
LOSSES: dict[str, tuple[str, Bounds, bool, dict[str, str]]] = {
    "vanilla (verl)": ("vanilla", FLAT, False, {}),
    "dynamic_clip, constant": ("dynamic_clip", FLAT, False, {}),
    "dynamic_clip, lines": ("dynamic_clip", BOTH, False, {}),
    "dynamic_clip, lines and regions": ("dynamic_clip", BOTH, True, {}),
    "kl_cov (verl)": ("kl_cov", FLAT, False, {}),
    "sent, kl_cov": ("sent", FLAT, False, {"preset": "kl_cov"}),
    "sent, as_released": ("sent", FLAT, False, {"preset": "as_released"}),
    "sent, as_described": ("sent", FLAT, False, {"preset": "as_described"}),
}


def nested(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def make_micro_batch(rows: int, tokens: int) -> tuple[list[torch.Tensor], TensorDict]:
    """The model's log-probs (leaves, a row each, with a prompt of one token as verl's output has)
    and the micro-batch that they belong to."""
    generator = torch.Generator().manual_seed(0)
    length_B = torch.randint(1, tokens + 1, (rows,), generator=generator)
    length_B[0] = tokens

    def jagged(make) -> list[torch.Tensor]:
        return [make(n) for n in length_B.tolist()]

    old = jagged(lambda n: -3 * torch.rand(n, generator=generator))
    leaves = [
        torch.cat([row + 0.2 * torch.randn(len(row), generator=generator), torch.zeros(1)])
        .clamp(max=0)
        .requires_grad_()
        for row in old
    ]
    classes = jagged(lambda n: torch.randint(0, 3, (n,), generator=generator, dtype=torch.int8))
    fields = {
        "old_log_probs": old,
        "ref_log_prob": [row - 0.1 for row in old],
        "advantages": jagged(lambda n: torch.randn(1, generator=generator).repeat(n)),
        "response_mask": jagged(lambda n: torch.ones(n, dtype=torch.long)),
        "entropy": jagged(lambda n: torch.rand(n, generator=generator)),
        CLASS_FIELD: classes,
        "prompts": [torch.zeros(1, dtype=torch.long)] * rows,
        "responses": jagged(lambda n: torch.zeros(n, dtype=torch.long)),
    }
    micro = TensorDict({name: nested(rows) for name, rows in fields.items()}, batch_size=rows)
    tu.assign_non_tensor(micro, dp_size=1, batch_num_tokens=length_B.sum(), global_batch_size=rows)
    return leaves, micro


def config(loss_mode: str, regions: bool, rule: dict[str, str]) -> FSDPActorConfig:
    settings = RecipePolicyLoss(
        loss_mode=loss_mode, region_diagnostics=regions, token_rule=TokenRule(**rule)
    )
    return FSDPActorConfig(
        strategy="fsdp2", rollout_n=8, use_dynamic_bsz=True, policy_loss=settings
    )


def seconds_of(name: str, leaves: list[torch.Tensor], micro: TensorDict) -> float:
    loss_mode, bounds, regions, rule = LOSSES[name]
    actor = config(loss_mode, regions, rule)
    tu.assign_non_tensor(micro, **{actor_loss.EXTRA_INFO: {CLIP_BOUNDS: pack_bounds(bounds)}})
    output = {"log_probs": nested(leaves)}
    output["entropy"] = output["log_probs"].detach().neg()
    start = time.perf_counter()
    observers = [observe_regions] if regions else []
    loss, _ = actor_loss.actor_loss(actor, output, micro, observers=observers)
    torch.autograd.grad(loss, output["log_probs"])
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="ROLLOUTSxTOKENS")
    parser.add_argument("--repeats", type=int, default=21)
    args = parser.parse_args()
    for size in args.sizes:
        rows, tokens = map(int, size.split("x"))
        leaves, micro = make_micro_batch(rows, tokens)
        seconds: dict[str, list[float]] = {name: [] for name in LOSSES}
        for _ in range(args.repeats + 1):
            for name in LOSSES:
                seconds[name].append(seconds_of(name, leaves, micro))
        print(f"{size} tokens, {torch.get_num_threads()} threads, {args.repeats} repeats")
        print(f"  {'':<34}{'median':>12}{'fastest':>12}")
        for name, values in seconds.items():
            middle, fastest = statistics.median(values[1:]), min(values[1:])
            print(f"  {name:<34}{middle * 1e3:9.1f} ms{fastest * 1e3:9.1f} ms")


if __name__ == "__main__":
    main()
