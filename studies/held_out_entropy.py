"""Entropy of the last policies of a comparison on the held-out problems of the CPU task.

    python studies/held_out_entropy.py outputs/study_cpu

A curriculum's last batches are its hard prompts, so the entropy that training logs is of other
prompts than another arm's; here all arms answer the same ones. Mean over the tokens of 8 responses
to each of 240 problems, nats, temperature 1; differences to the baseline paired by seed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM

from recipe.core.settings import check_choice
from recipe.cpu.model import make_tokenizer
from recipe.cpu.solving import read_problems, solve
from recipe.evaluate.checkpoints import model_of
from recipe.experiment.matrix import read_matrix
from recipe.experiment.run import run_folder
from recipe.experiment.statistics import interval

SAMPLES = 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder of a comparison")
    parser.add_argument("--test-file", type=Path, default=Path("~/data/arithmetic/test.parquet"))
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="these only")
    parser.add_argument("--baseline", metavar="ARM", help="default: the matrix's")
    args = parser.parse_args()
    problems = read_problems(args.test_file.expanduser())
    matrix = read_matrix(args.out).with_baseline(args.baseline)
    arms = matrix.baseline_first()
    for name in args.arms or []:
        check_choice(f"--arms {name}", name, [arm.name for arm in arms])
    if args.arms:
        arms = [arms[0], *(arm for arm in arms[1:] if arm.name in args.arms)]
    entropies: dict[str, dict[int, float]] = {}
    for arm in tqdm(arms, unit="arm"):
        for seed in matrix.seeds:
            checkpoint = run_folder(matrix.out, arm.name, seed).checkpoint()
            if checkpoint is None:
                continue
            model, _ = model_of(str(checkpoint))
            loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
            _, entropy, tokens = solve(loaded, make_tokenizer(), problems, SAMPLES, seed=0)
            entropies.setdefault(arm.name, {})[seed] = entropy / tokens
    base = entropies.get(arms[0].name, {})
    print(f"| arm | entropy | to {arms[0].label} |\n| --- | --- | --- |")
    for arm in arms:
        if by_seed := entropies.get(arm.name):
            paired = [[by_seed[seed] - base[seed]] for seed in by_seed if seed in base]
            difference = f" {interval(paired):+.3f}" if paired and arm is not arms[0] else ""
            print(f"| {arm.label} | {interval([[x] for x in by_seed.values()])} |{difference} |")


if __name__ == "__main__":
    main()
