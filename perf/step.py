"""Time of a whole CPU training step, and what a recipe adds to it: `python perf/step.py`.

One real run per method, of 32 prompts x 4 responses x 16 tokens and 2 updates. Odd steps are the
method's with its diagnostics, even steps plain verl with `grpo` (perf/interleaved_trainer.py); each
odd step is compared with the even step after it. Exits with 1 if a method's step takes more than
5 s, or more than 3 % longer than a plain one, by the median of the pairs.

Both kinds of step compute what verl computes for the run as a whole. For SENT that includes the
log-probs of the reference, to which its KL holds the policy; they are a phase of their own, `ref`.
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
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PHASES = ("step", "gen", "old_log_prob", "ref", "adv", "update_actor", "update_weights")
SECONDS_BAR, RATIO_BAR = 5.0, 1.03
WARM_UP = 4  # steps
PROMPTS = 32


class Method(NamedTuple):
    script: str
    preset: str
    overrides: tuple[str, ...] = ()


METHODS = {
    "asymgrpo": Method("recipe/asymgrpo/run_cpu.sh", "asymgrpo"),
    "id": Method("recipe/clip_entropy/run_cpu.sh", "id"),
    # a run ends with its curriculum: 2 stages x 5 epochs x 320 prompts are 100 steps
    "sent": Method(
        "recipe/semantic_curriculum/run_cpu.sh", "sent", ("data.curriculum.epochs_per_stage=5",)
    ),
}


def run(method: Method, args: argparse.Namespace, folder: Path) -> list[dict[str, float]]:
    """Returns the metrics of each step of one run; `args` are those of the command."""
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "CKPTS_DIR": str(folder / "run"),
        "PRESET": method.preset,
        "ROLLOUT_N": str(args.rollouts),
        "TRAIN_BATCH_SIZE": str(PROMPTS),
        "STEPS": str(args.steps),
        "SAVE_FREQ": "-1",
        "TEST_FREQ": "-1",
        "PYTHONPATH": str(ROOT / "perf"),
        "VERL_USE_EXTERNAL_MODULES": "interleaved_trainer",
    }
    command = [
        "bash",
        str(ROOT / method.script),
        "data.max_response_length=16",
        "trainer.val_before_train=false",
        "actor_rollout_ref.rollout.ignore_eos=true",  # every response has its 16 tokens
        f"actor_rollout_ref.actor.ppo_mini_batch_size={PROMPTS // args.updates}",
        # every 20th of the method's steps, as every other step is plain
        "trainer.v1.recipe_sync.log_prob_gain_freq=40",
        *method.overrides,
        *args.overrides,
    ]
    with (folder / "log.txt").open("w") as log:
        code = subprocess.run(command, env=environment, stdout=log, stderr=log).returncode
    if code:
        sys.exit(f"the run failed:\n{(folder / 'log.txt').read_text()[-3000:]}")
    lines = (folder / "run/metrics/000.jsonl").read_text().splitlines()
    return [json.loads(line)["data"] for line in lines]


def report(name: str, steps: list[dict[str, float]]) -> bool:
    """Prints the medians of a run's steps; returns whether they meet the bars."""
    recipe, plain = steps[0::2], steps[1::2]
    print(f"\n{name}: {len(plain)} pairs of steps; median seconds of each phase")
    medians = {}
    for phase in PHASES:
        key = f"timing_s/{phase}"
        if key not in plain[0]:
            continue
        medians[phase] = [statistics.median(row[key] for row in kind) for kind in (recipe, plain)]
        print(f"  {phase:<15} recipe {medians[phase][0]:6.3f}   plain {medians[phase][1]:6.3f}")
    a, b = ([row["timing_s/step"] for row in kind] for kind in (recipe, plain))
    ratio = statistics.median(x / y for x, y in zip(a, b, strict=False))
    # the two kinds differ in this time, in the estimators' and in the losses' own
    added = statistics.mean(row["timing_s/recipe"] for row in recipe)
    print(f"  recipe / plain, median of the pairs    {ratio:.3f}  (bar: {RATIO_BAR:g})")
    print(f"  recipe / plain, medians                {medians['step'][0] / medians['step'][1]:.3f}")
    print(f"  recipe / plain, total time             {sum(a) / sum(b):.3f}")
    print(f"  driver time in the recipe, of a step   {added / statistics.mean(b):+.1%}")
    return ratio <= RATIO_BAR and medians["step"][0] <= SECONDS_BAR


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--method", choices=METHODS, action="append", help="may be repeated; default: all"
    )
    parser.add_argument(
        "--steps", type=int, default=84, help=f"per run, of which the first {WARM_UP} are dropped"
    )
    parser.add_argument("--rollouts", type=int, default=4, help="of a prompt, default 4")
    parser.add_argument("--updates", type=int, default=2, choices=(1, 2, 4, 8, 16, 32))
    parser.add_argument("overrides", nargs="*", help="Hydra overrides for each run")
    args = parser.parse_intermixed_args()
    met = True
    for name in args.method or METHODS:
        with tempfile.TemporaryDirectory() as folder:
            steps = run(METHODS[name], args, Path(folder))
        met &= report(name, steps[WARM_UP:])
    print("\nall bars met" if met else "\na bar is missed")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
