"""Do the methods of a comparison differ at all? Their means over the seeds against chance.

    python studies/arm_spread.py docs/study_cpu.csv --without reversed high_entropy_mask

The file is data/results_by_run.csv of a report. For each metric of each benchmark: the standard
deviation of the methods' means, the one to be expected where all methods are alike, and the share
of permutations in which it is at least as large (a permutation test: the runs of each seed are
dealt out to the methods at random).

Axes: A methods (arms), S seeds, D permutations.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from recipe.core import cli
from recipe.core.settings import check_choice
from recipe.report.tables import read_csv

COLUMNS = {"arm": str, "seed": int, "group": str, "metric": str, "value": float}
PERMUTATIONS = 20_000
EQUAL = 1e-9  # relative: of sums of the same values in another order


def command(arguments: list[str] | None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--without", nargs="+", default=[], metavar="ARM", help="leave these out")
    args = parser.parse_args(arguments)
    runs = read_csv(args.file, COLUMNS)
    for arm in args.without:
        check_choice(f"--without {arm}", arm, runs["arm"].unique())
    runs = runs[~runs["arm"].isin(args.without)]
    rng = np.random.default_rng(0)
    for (group, metric), rows in runs.groupby(["group", "metric"], sort=False):
        by_seed = rows.pivot(index="arm", columns="seed", values="value")
        with_all_seeds = by_seed.dropna()
        if left_out := by_seed.index.difference(with_all_seeds.index).tolist():
            print(
                f"{group}, {metric}: left out for a missing seed: {', '.join(left_out)}",
                file=sys.stderr,
            )
        if len(with_all_seeds) < 2:
            print(
                f"{group}, {metric}: not tested, as it takes two methods with all seeds",
                file=sys.stderr,
            )
            continue
        values_AS = with_all_seeds.to_numpy()
        spread = values_AS.mean(1).std(ddof=1)
        permuted_DAS = rng.permuted(
            np.broadcast_to(values_AS, (PERMUTATIONS, *values_AS.shape)), axis=1
        )
        chance_D = permuted_DAS.mean(2).std(1, ddof=1)
        share = (chance_D >= spread * (1 - EQUAL)).mean()
        print(
            f"{group}, {metric}: {len(values_AS)} methods, sd of their means {spread:.4f}, by "
            f"chance {chance_D.mean():.4f}; as large by chance in {share:.4f}"
        )


if __name__ == "__main__":
    sys.exit(cli.run(command))
