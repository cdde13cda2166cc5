"""Where a CPU run's time goes: `python perf/phases.py`.

One real run of recipe/asymgrpo/run_cpu.sh, 32 prompts x 8 rollouts. Prints the seconds from the
command to the first step, the median seconds and the share of each phase of a step, and how often a
step asks TransferQueue and Ray's actors for something (requests, each with its round trip;
perf/count_calls.py). The counts need no quiet machine; the seconds do.

    python perf/phases.py --updates 16 --steps 12
    OMP_NUM_THREADS=1 python perf/phases.py        # the same with one thread
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PROMPTS, ROLLOUTS = 32, 8
# verl times these; what is left of a step is handing out prompts and keeping the books
PHASES = ("gen", "old_log_prob", "ref", "adv", "update_actor", "update_weights")
WARM_UP = 2  # steps


class Event(NamedTuple):
    """What a process of the run did."""

    time: float
    kind: str  # queue, ray, mark
    what: str


def run(updates: int, steps: int, folder: Path, overrides: list[str]) -> float:
    """Runs the training into a folder; returns when its command was given."""
    (folder / "calls").mkdir()
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "CKPTS_DIR": str(folder / "run"),
        "ROLLOUT_N": str(ROLLOUTS),
        "TRAIN_BATCH_SIZE": str(PROMPTS),
        "STEPS": str(steps),
        "SAVE_FREQ": "-1",
        "TEST_FREQ": "-1",
        "PYTHONPATH": str(ROOT / "perf"),
        "VERL_USE_EXTERNAL_MODULES": "count_calls",
        "RECIPE_CALLS": str(folder / "calls"),
    }
    command = ["bash", str(ROOT / "recipe/asymgrpo/run_cpu.sh"), "trainer.val_before_train=false"]
    command += [f"actor_rollout_ref.actor.ppo_mini_batch_size={PROMPTS // updates}", *overrides]
    start = time.time()
    with (folder / "log.txt").open("w") as log:
        code = subprocess.run(command, env=environment, stdout=log, stderr=log).returncode
    if code:
        sys.exit(f"the run failed:\n{(folder / 'log.txt').read_text()[-3000:]}")
    return start


def events(folder: Path) -> list[Event]:
    """Returns what all processes logged, in order."""
    lines = [line for file in folder.glob("calls/*.txt") for line in file.read_text().splitlines()]
    parts = [line.split(" ", 2) for line in lines]
    return sorted(Event(float(when), kind, what) for when, kind, what in parts)


def calls_of_a_step(log: list[Event]) -> dict[str, Counter]:
    """Returns {kind: how often a step asks for what}, of a step in the middle of the run."""
    ends = [event.time for event in log if (event.kind, event.what) == ("mark", "step")]
    middle = len(ends) // 2
    within = [event for event in log if ends[middle - 1] < event.time <= ends[middle]]
    return {
        kind: Counter(event.what for event in within if event.kind == kind)
        for kind in ("queue", "ray")
    }


def report(rows: list[dict[str, float]], log: list[Event], start: float) -> None:
    """Prints the table.

    Args:
        rows: The metrics of each step.
        log: What the run's processes logged.
        start: When its command was given, in seconds since the epoch.
    """
    to_first = next(event.time for event in log if event.what == "start") - start
    first = next(event.time for event in log if event.what == "step") - start
    print(f"from the command to the first step {to_first:.1f} s, to its end {first:.1f} s")
    rows = rows[WARM_UP:]
    tokens = statistics.mean(row["perf/total_num_tokens"] for row in rows)
    print(
        f"\nmedians of {len(rows)} steps of {PROMPTS} x {ROLLOUTS} rollouts, {tokens:,.0f} tokens"
    )
    step = statistics.median(row["timing_s/step"] for row in rows)
    rest = step
    for phase in PHASES:
        if f"timing_s/{phase}" in rows[0]:
            seconds = statistics.median(row[f"timing_s/{phase}"] for row in rows)
            rest -= seconds
            print(f"  {phase:<16}{seconds:7.2f} s {seconds / step:6.0%}")
    print(f"  {'the rest':<16}{rest:7.2f} s {rest / step:6.0%}")
    print(f"  {'step':<16}{step:7.2f} s")
    for kind, name in (("queue", "requests to TransferQueue"), ("ray", "calls of Ray actors")):
        count = calls_of_a_step(log)[kind]
        listed = ", ".join(f"{what} {times}" for what, times in count.most_common())
        print(f"\n{name} a step: {count.total()}\n  {listed}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--updates", type=int, default=4, choices=(1, 2, 4, 8, 16, 32))
    parser.add_argument(
        "--steps", type=int, default=12, help=f"of which the first {WARM_UP} are dropped"
    )
    parser.add_argument("overrides", nargs="*", help="Hydra overrides")
    args = parser.parse_intermixed_args()
    if args.steps < WARM_UP + 2:
        parser.error(f"--steps={args.steps} must be at least {WARM_UP + 2}.")
    with tempfile.TemporaryDirectory() as folder:
        start = run(args.updates, args.steps, Path(folder), args.overrides)
        file = Path(folder) / "run/metrics/000.jsonl"
        rows = [json.loads(line)["data"] for line in file.read_text().splitlines()]
        report(rows, events(Path(folder)), start)


if __name__ == "__main__":
    main()
