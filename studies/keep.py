"""Keep the values of a comparison's finished runs beside its page, before their folders are gone.

    python studies/keep.py outputs/study_acts_cpu studies/hypotheses/study_acts_cpu.yaml \\
      docs/study_acts_cpu

A long comparison runs in sittings, and not always on one machine. Each time this adds its new runs
to four files, and prints their names but none of their values:

    PREFIX_runs.csv     when each started, the commits of its starts, and the fingerprints of its
                        model and data
    PREFIX.csv          the statistics of the hypotheses, for `windows.py --values`
    PREFIX_curves.csv   the held-out curves, for `curves.py --values`
    PREFIX_results.csv  the last values and those of the evaluation, for `tables.py`

A run that is kept already stays as it is. Runs are paired by their seed, so a seed whose kept runs
are of another commit, or began from another model or other data, is refused. A run that has not
ended is left out; one that has ended without the matrix's evaluations, or that has no record of a
start, is too, and named.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Mapping
from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd
from curves import COLUMNS, run_curves
from windows import read_hypotheses, run_values, value_rows

from recipe.core import cli
from recipe.core.files import atomic_write
from recipe.experiment.matrix import read_matrix
from recipe.experiment.run import Run, finished_runs
from recipe.report.page import collect
from recipe.report.tables import BY_RUN, rows_by_run

KEY = ["arm", "seed"]
Key = tuple[str, int]


def run_rows(runs: Collection[Run]) -> pd.DataFrame:
    """Returns what each run began from, a row of texts per run."""
    return (
        pd.DataFrame(
            {"arm": run.arm, "seed": run.seed, "started": run.records[0]["started"]}
            | {"commit": " ".join(dict.fromkeys(record["commit"] for record in run.records))}
            | run.record["files"]
            for run in runs
        )
        .astype("string")
        .fillna("")
    )


def is_recorded(run: Run) -> bool:
    """Says whether each start of a run has left a record of what it began from."""
    needed = {"started", "commit", "files"}
    return bool(run.records) and all(needed <= record.keys() for record in run.records)


def groups_of(evaluation: Mapping[str, Any]) -> list[str]:
    """Returns the groups of results that a matrix's `evaluate` makes of each run, as the report
    names them: BENCHMARK, or PRESET/BENCHMARK where it has presets."""
    names = [Path(str(file)).stem for file in evaluation.get("benchmarks", [])]
    presets = evaluation.get("presets")
    return [f"{preset}/{name}" for preset in presets for name in names] if presets else names


def keys(rows: pd.DataFrame) -> set[Key]:
    """Returns the runs that have rows."""
    return set(rows[KEY].itertuples(index=False, name=None))


def read(file: Path) -> pd.DataFrame:
    """Returns the rows of a file, none where it is not there; names and numbers as they are."""
    if not file.exists():
        return pd.DataFrame(columns=KEY)
    return pd.read_csv(file, dtype=str, keep_default_na=False)


def check_pairs(file: Path, rows: pd.DataFrame) -> None:
    """Raises ValueError for a seed whose runs are of different commits or files."""
    for name in rows.columns.difference([*KEY, "started"]):
        for seed, values in rows.groupby("seed")[name]:
            if (different := values[values != ""].nunique()) > 1:
                raise ValueError(
                    f"{file}: the runs of seed {seed} would have {different} different {name}, and "
                    "they are compared in pairs: keep runs of one, or remove the rows of that seed "
                    "from the kept files first."
                )


def command(arguments: list[str] | None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder of a comparison")
    parser.add_argument("hypotheses", type=Path, help="their yaml")
    parser.add_argument("prefix", type=Path, help="of the files, such as docs/study_acts_cpu")
    args = parser.parse_args(arguments)
    matrix = read_matrix(args.out)
    runs = finished_runs(matrix)
    tables = {
        "": value_rows(run_values(matrix, read_hypotheses(args.hypotheses))),
        "_curves": run_curves(matrix)[[*COLUMNS]],
        "_results": pd.DataFrame(rows_by_run(collect(args.out).metrics), columns=BY_RUN),
    }
    results = tables["_results"]
    of_group = {group: keys(results[results["group"] == group]) for group in {*results["group"]}}
    wanted = groups_of(matrix.evaluate)
    files = {end: args.prefix.with_name(f"{args.prefix.name}{end}.csv") for end in tables}
    record = args.prefix.with_name(f"{args.prefix.name}_runs.csv")
    kept = read(record)
    already = {(arm, int(seed)) for arm, seed in keys(kept)}
    new = []
    for run in runs:
        key, name = (run.arm, run.seed), f"{run.arm}, seed {run.seed}"
        missing = [group for group in wanted if key not in of_group.get(group, ())]
        if key in already:
            continue
        if missing or not any(key in runs_of for runs_of in of_group.values()):
            what = f"its evaluation {', '.join(missing)}" if missing else "any value"
            print(f"{name}: has ended without {what}, and is left out")
        elif not is_recorded(run):
            print(f"{name}: has a start without a readable metrics/*.yaml, and is left out")
        else:
            new.append(run)
    if not new:
        print(f"{record}: {len(already)} runs, no new ones")
        return
    began = pd.concat([kept, run_rows(new)]).fillna("")
    check_pairs(record, began)
    chosen = pd.DataFrame([(run.arm, run.seed) for run in new], columns=KEY)
    for end, file in files.items():
        # those of a run without a record are of a command that was stopped here
        before = read(file).merge(kept[KEY], on=KEY)
        with atomic_write(file) as temporary:
            rows = pd.concat([before, tables[end].merge(chosen, on=KEY).map(text)])
            rows.to_csv(temporary, index=False)
    with atomic_write(record) as temporary:
        began.to_csv(temporary, index=False)
    for run in new:
        print(f"{run.arm}, seed {run.seed}")
    print(f"{record}: {len(began)} runs, {len(new)} of them new")


def text(value: object) -> str:
    """Returns a value as it is kept: numbers to seven digits, nothing for none."""
    if isinstance(value, float):
        return "" if isnan(value) else f"{value:.7g}"
    return str(value)


if __name__ == "__main__":
    sys.exit(cli.run(command))
