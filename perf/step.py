"""Time of a whole CPU training step, and what the recipe adds to it: `python perf/step.py`.

One real run of 32 prompts x 4 responses x 16 tokens. Odd steps are AsymGRPO with its diagnostics,
even steps plain verl with `grpo` (perf/interleaved_trainer.py); each odd step is compared with the
even step after it. The bars: a step takes at most 5 s; the recipe adds at most 3 %.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PHASES = ("step", "gen", "old_log_prob", "adv", "update_actor", "update_weights")


def run(steps: int, folder: Path, overrides: list[str]) -> list[dict[str, float]]:
    """Metrics of each step of one run."""
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "CKPTS_DIR": str(folder / "run"),
        "ROLLOUT_N": "4",
        "TRAIN_BATCH_SIZE": "32",
        "STEPS": str(steps),
        "SAVE_FREQ": "-1",
        "TEST_FREQ": "-1",
        "PYTHONPATH": str(ROOT / "benchmarks"),
        "VERL_USE_EXTERNAL_MODULES": "alternate",
    }
    command = [
        "bash",
        str(ROOT / "recipe/asymgrpo/run_cpu.sh"),
        "data.max_response_length=16",
        "trainer.val_before_train=false",
        "actor_rollout_ref.rollout.ignore_eos=true",  # every response has its 16 tokens
        "actor_rollout_ref.actor.ppo_mini_batch_size=16",
        "trainer.v1.recipe_sync.log_prob_gain_freq=40",  # of our 20, as every other step is ours
        *overrides,
    ]
    with (folder / "log.txt").open("w") as log:
        code = subprocess.run(command, env=environment, stdout=log, stderr=log).returncode
    if code:
        sys.exit(f"the run failed:\n{(folder / 'log.txt').read_text()[-3000:]}")
    lines = (folder / "run/metrics/000.jsonl").read_text().splitlines()
    return [json.loads(line)["data"] for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=84, help="of which the first four are dropped")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides for the run")
    known = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = run(known.steps, Path(folder), known.overrides)
    rows = rows[4:]
    ours, plain = rows[0::2], rows[1::2]
    print(f"{len(ours)} pairs of steps; median seconds of each phase")
    for phase in PHASES:
        a, b = ([row[f"timing_s/{phase}"] for row in kind] for kind in (ours, plain))
        medians = f"recipe {statistics.median(a):6.3f}   plain {statistics.median(b):6.3f}"
        print(f"  {phase:<15} {medians}")
    a, b = ([row["timing_s/step"] for row in kind] for kind in (ours, plain))
    ratios = [x / y for x, y in zip(a, b, strict=False)]
    # the two kinds differ in this time and in the estimators' own
    added = statistics.mean(row["timing_s/recipe"] for row in ours)
    print(f"recipe / plain, median of the pairs    {statistics.median(ratios):.3f}")
    print(f"recipe / plain, total time             {sum(a) / sum(b):.3f}")
    print(f"time in the recipe's code, of a step   {added / statistics.mean(b):+.1%}")


if __name__ == "__main__":
    main()
