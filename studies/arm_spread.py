"""Do the arms of a comparison differ at all? Their means over the seeds against chance.

    python studies/arm_spread.py docs/study_cpu.csv --without reversed high_entropy_mask

The file is data/results_by_run.csv of a report. For each metric: the standard deviation of the
arms' means, the one to be expected where all arms are alike (the runs of each seed dealt out to
the arms at random), and the share of such deals in which it is at least as large.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from recipe.core.settings import check_choice

DEALS = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--without", nargs="+", default=[], metavar="ARM", help="leave these out")
    known = parser.parse_args()
    runs = pd.read_csv(known.file)
    for arm in known.without:
        check_choice(f"--without {arm}", arm, runs["arm"].unique())
    runs = runs[~runs["arm"].isin(known.without)]
    rng = np.random.default_rng(0)
    for metric, rows in runs.groupby("metric", sort=False):
        values_AS = rows.pivot(index="arm", columns="seed", values="value").dropna().to_numpy()
        spread = values_AS.mean(1).std(ddof=1)
        dealt_DAS = rng.permuted(np.broadcast_to(values_AS, (DEALS, *values_AS.shape)), axis=1)
        chance_D = dealt_DAS.mean(2).std(1, ddof=1)
        print(
            f"{metric}: {len(values_AS)} arms, sd of their means {spread:.4f}, by chance "
            f"{chance_D.mean():.4f}; as large by chance in {(chance_D >= spread).mean():.4f}"
        )


if __name__ == "__main__":
    main()
