"""Time of SENT's token selection where it is part of the loss: `python perf/token_rule.py`.

64 rows x 8,192 tokens of one micro-batch (scope=micro_batch, the released code's), on one core, as
CPU time: the plain form, which the loss uses, and beside it the driver's. Forward and backward of a
model over so many tokens take tens of seconds on such a core.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import torch

from recipe.semantic_curriculum import _driver, token_rule
from recipe.semantic_curriculum.config import TokenRule

FORMS = {"plain": token_rule.k_smallest_mask, "driver's": _driver.k_smallest_mask}
PRESETS = ("as_released", "kl_cov", "as_described", "high_entropy_mask")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    length_B = torch.randint(1, args.tokens + 1, (args.rows, 1), generator=generator)
    shape = args.rows, args.tokens
    data = {
        "entropy_N": torch.rand(shape, generator=generator).flatten(),
        "log_prob_N": -torch.rand(shape, generator=generator).flatten(),
        "advantages_N": torch.randn(args.rows, 1, generator=generator).expand(shape).flatten(),
        "mask_N": (torch.arange(args.tokens) < length_B).flatten(),
    }
    seconds: dict[tuple[str, str], list[float]] = {}
    for _ in range(args.repeats + 1):  # the first repeat is a warm-up
        for preset in PRESETS:
            rule = TokenRule(preset)
            for form, k_smallest in FORMS.items():
                start = time.thread_time()
                token_rule.classify(
                    **data,
                    **rule.selection,
                    k_smallest=k_smallest,
                )
                seconds.setdefault((preset, form), []).append(time.thread_time() - start)
    print(f"{args.rows} x {args.tokens} tokens, one core; median of {args.repeats}, ms")
    for preset in PRESETS:
        times = (
            f"{form} {statistics.median(seconds[preset, form][1:]) * 1e3:6.1f}" for form in FORMS
        )
        print(f"  {preset:<20}{'   '.join(times)}")


if __name__ == "__main__":
    main()
