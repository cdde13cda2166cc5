"""Run a comparison, arms x seeds, from a small yaml: `python -m recipe.compare MATRIX.yaml`.

    extends: other.yaml                        # optional: a matrix beside this one, whose keys it
                                               # has too, but for `out` and each one that it gives
                                               # itself, as a whole; not of a chain
    title: what the report is called           # optional
    seeds: [0, 1, 2]
    baseline: grpo                             # the arm that the others are compared with
    script: run_cpu.sh                         # of each arm's recipe; an arm may name another
    environment: {STEPS: 30}                   # of the scripts: STEPS, MODEL_PATH, TRAIN_FILE …
    overrides: [trainer.test_freq=10]          # Hydra overrides of every arm
    evaluate: {benchmarks: [...], samples: 32} # optional: recipe.evaluate of each last checkpoint,
                                               # on as many devices as its training had, again
                                               # where checkpoint, settings, benchmark or reward
                                               # function have changed; no checkpoint, no out;
                                               # presets: [...] evaluates with each paper's sampling
    arms:                                      # the methods that are compared
      grpo: {recipe: semantic_curriculum, preset: grpo}
      asymgrpo: {recipe: asymgrpo, preset: asymgrpo, label: AsymGRPO, overrides: [...]}
      curriculum: {recipe: semantic_curriculum, preset: curriculum, may_differ: [data.curriculum]}

Each run goes to OUT/<arm>/seed<k> and is the recipe's run script with SEED, PRESET and CKPTS_DIR
set, so it can be repeated by hand; SAVE_FREQ is 10 unless the matrix or your environment sets it. A
finished run is not repeated, one that was stopped is resumed from its checkpoint, one that crashes
is resumed once. With --jobs N so many runs are side by side, in a Ray cluster of their own on this
machine; in that of RAY_ADDRESS as many as its nodes hold, and one whose devices other jobs use
waits for them.

Before anything runs all configs are checked. Those of one seed must agree, except for what makes a
method (its loss, estimator and their settings, and what a preset sets) and for the config keys that
an arm lists in `may_differ`; those of two seeds must differ in the order of the prompts. A folder
that holds a run of another config is refused.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from recipe.compare.checks import check_plan, differing_prompts, equal_arms
from recipe.compare.plan import Plan, make_plan
from recipe.compare.slots import Slot, TooFewDevices, cluster, run_slots
from recipe.compare.supervise import check_locking, interrupted_by_signals, run_all
from recipe.core import cli
from recipe.core.settings import check_number
from recipe.experiment.matrix import read_matrix, write_matrix


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m recipe.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("matrix", type=Path)
    parser.add_argument("--out", type=Path, help="default: the matrix's out, or outputs/<its name>")
    parser.add_argument("--arms", nargs="+", default=[], metavar="ARM", help="these only")
    parser.add_argument("--seeds", nargs="+", default=[], type=int, metavar="K", help="these only")
    parser.add_argument(
        "--jobs", type=int, help="runs at once; default: 1, with RAY_ADDRESS as many as fit"
    )
    parser.add_argument("--gpus", help="ids of the GPUs to use, 0,1,…; default: all that are seen")
    parser.add_argument("--dry-run", action="store_true", help="check all configs and stop")
    return parser.parse_args(arguments)


def execute(plan: Plan, slots: list[Slot]) -> int:
    """Runs the plan and prints a summary; returns the exit code."""
    check_locking(plan.matrix.out)
    write_matrix(plan.matrix)
    print(f"[compare] python -m recipe.watch {shlex.quote(str(plan.matrix.out))} shows the runs")
    start = time.monotonic()
    try:
        # Ray sets a handler of its own when it is joined
        with cluster(plan.runs, slots), interrupted_by_signals():
            results = run_all(plan.matrix, plan.runs, slots)
    except KeyboardInterrupt:
        print("stopped, with its runs: the same command resumes them", file=sys.stderr)
        return 130
    for sentence in differing_prompts(run for run in plan.runs if run not in results["failed"]):
        print(f"warning: {sentence}", file=sys.stderr)
    minutes = (time.monotonic() - start) / 60
    print(
        f"[compare] {len(results['finished'])} runs finished in {minutes:.0f} minutes, "
        f"{len(results['skipped'])} had been before, {len(results['failed'])} failed: "
        f"{plan.matrix.out}"
    )
    return 1 if results["failed"] else 0


def compare(arguments: list[str] | None) -> int:
    """Plans, checks and executes a comparison; returns the exit code."""
    args = parse(arguments)
    if args.jobs is not None:
        check_number("--jobs", args.jobs, "a whole number above 0", lambda x: x > 0, int)
    matrix = read_matrix(args.matrix, args.out)
    plan = make_plan(matrix, args.arms, args.seeds, prepares=not args.dry_run)
    check_plan(plan)
    slots, shortage = [], None
    try:
        slots = run_slots(plan.runs, args.jobs, args.gpus)
    except TooFewDevices as error:
        if not args.dry_run:
            raise
        shortage = error  # a login node may check what another machine will run
    for run in plan.runs:
        state = "finished" if run.finished else f"{run.folder.steps_done()} of {run.steps} steps"
        print(f"[compare] {run.name:<30} {state}")
    for names in equal_arms(plan.runs):
        print(f"[compare] note: {' = '.join(names)}: one config, reruns of one method")
    if shortage is not None:
        print(f"[compare] dry run: the comparison is valid, but it cannot run here: {shortage}")
    return 0 if args.dry_run else execute(plan, slots)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return cli.run(compare, arguments, (*cli.ERRORS, HydraException, OmegaConfBaseException))


if __name__ == "__main__":
    sys.exit(main())
