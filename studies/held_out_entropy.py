"""Entropy of the last policies of a comparison on the held-out problems of the CPU task.

    python studies/held_out_entropy.py outputs/study_cpu

A curriculum's last batches are its hard prompts, so the entropy that training logs is of other
prompts than another method's; here all methods answer the same ones. Mean over the tokens of 8
responses to each held-out problem, nats, temperature 1; Student's t over the seeds, differences to
the baseline paired by seed. Unfinished runs are left out. Each run's value goes to
OUT/held_out_entropy.csv, which keeps the values of runs that are not measured this time.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from recipe.core import cli
from recipe.core.files import atomic_write
from recipe.core.settings import check_choice
from recipe.cpu.solving import read_problems, solve
from recipe.cpu.tasks import DEFAULT, TASKS
from recipe.experiment.matrix import read_matrix
from recipe.experiment.run import finished_runs
from recipe.report.results import Metric, results
from recipe.report.tables import cell, read_csv, write_csv
from recipe.sampling.checkpoints import model_of

SAMPLES = 8
COLUMNS = {"arm": str, "seed": int, "value": float}


def keep(file: Path, values: dict[tuple[str, int], float]) -> None:
    """Writes the value of each arm and seed to a CSV file, in the place of what it has of the same
    run; its other values stay."""
    kept: dict[tuple[str, int], float] = {}
    if file.is_file():
        rows = read_csv(file, COLUMNS)
        kept = {(arm, seed): x for arm, seed, x in rows[[*COLUMNS]].itertuples(index=False)}
    with atomic_write(file) as temporary:
        write_csv(temporary, COLUMNS, ([*run, x] for run, x in (kept | values).items()))


def command(arguments: list[str] | None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder of a comparison")
    parser.add_argument("--task", choices=TASKS, default=DEFAULT, help="default: %(default)s")
    parser.add_argument("--test-file", type=Path, help="default: the task's, in ~/data")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="these and the baseline only")
    parser.add_argument("--baseline", metavar="ARM", help="default: the matrix's")
    args = parser.parse_args(arguments)
    task = TASKS[args.task]
    test_file = args.test_file or Path(f"~/data/{task.folder}/test.parquet")
    problems = read_problems(test_file.expanduser(), task)
    matrix = read_matrix(args.out).with_baseline(args.baseline)
    arms = matrix.baseline_first()
    for name in args.arms or []:
        check_choice(f"--arms {name}", name, [arm.name for arm in arms])
    if args.arms:
        arms = [arms[0], *(arm for arm in arms[1:] if arm.name in args.arms)]
    entropy: dict[str, dict[int, np.ndarray]] = {}  # one number per run
    names = [arm.name for arm in arms]
    for run in tqdm([run for run in finished_runs(matrix) if run.arm in names], unit="run"):
        checkpoint = run.folder.checkpoint()
        if checkpoint is None:
            continue
        model, _ = model_of(str(checkpoint))
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        tokenizer, limit = AutoTokenizer.from_pretrained(model), task.response_tokens()
        _, total, tokens = solve(loaded, tokenizer, problems, SAMPLES, 0, limit)
        entropy.setdefault(run.arm, {})[run.seed] = np.array([total / tokens])
    if not entropy:
        raise ValueError(
            f"{matrix.out} has no finished run of {', '.join(names)} whose checkpoint is there, so "
            "that held_out_entropy.csv stays as it is: run the comparison first."
        )
    keep(
        matrix.out / "held_out_entropy.csv",
        {(arm, seed): float(x[0]) for arm, runs in entropy.items() for seed, x in runs.items()},
    )
    print(f"| method | entropy | to {cell(arms[0].label)} |\n| --- | --- | --- |")
    metric = Metric("held-out", "entropy", entropy)
    for arm, row in zip(arms, results([metric], arms, matrix.baseline), strict=True):
        if row.estimate:
            difference = f" {row.difference:+.3f}" if row.difference else ""
            print(f"| {cell(arm.label)} | {row.estimate} |{difference} |")


if __name__ == "__main__":
    sys.exit(cli.run(command))
