"""Say what a comparison's runs make of hypotheses that were written down before them.

    python studies/windows.py outputs/study_acts_cpu studies/hypotheses/study_acts_cpu.yaml
    python studies/windows.py studies/study_acts_cpu.yaml studies/hypotheses/study_acts_cpu.yaml \
      --values docs/study_acts_cpu.csv --into docs/study_acts_cpu_results.md --seeds rerun=2

A hypothesis is about a logged metric in a window of steps (the format is in the head of
studies/hypotheses/study_acts_cpu.yaml). Printed are, as a Markdown table, the mean over the seeds
with Student's 95 % interval, the p value of the t test against `than` (0 unless the hypothesis
says another), the same corrected by Holm's method over the hypotheses of its family that have all
seeds of the matrix, and a verdict; one that lacks a seed is not tested (`--seeds FAMILY=N` tests a
family with N seeds), and values that are all equal have no p value; and of each arm's own values
the standard deviation between seeds and the number of seeds that shows a paired difference of 0.03;
and what else a hypothesis wants to know of its window (`beside`).
Unfinished runs are left out, and a finished one that ends before a window is refused. Each run's
values go to OUT/windows.csv, which --values reads in their place.

`--into PAGE` writes them into a Markdown page, in place of what is between its lines
`<!-- hypotheses: FAMILY … -->`, or `spread` for the standard deviations, or `mechanism` for the
metrics beside, and `<!-- end of hypotheses -->`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from recipe.core import cli
from recipe.core.files import atomic_write
from recipe.core.settings import check_choice
from recipe.experiment.matrix import Matrix, read_matrix
from recipe.experiment.metrics import Metrics, changes, window_mean
from recipe.experiment.run import Run, finished_runs
from recipe.experiment.statistics import Estimate, holm, interval, seeds_needed, t_test
from recipe.report.tables import fill, read_csv

SEEN = 0.03  # the difference that must be seen
SPREAD, MECHANISM = "spread", "mechanism"  # tables of a page, beside those of the families
Window = Annotated[tuple[int, int], Field(description="a first and a last step")]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Hypothesis:
    """A claim about a metric in a window of steps."""

    name: str
    family: str
    arm: str
    metric: str
    steps: Window | None = None  # the mean over these steps
    changes: Window | None = None  # or how often it changes in them
    less: Window | None = None  # minus the mean over these
    minus: str | None = None  # minus the same of this arm, paired by seed
    claim: Literal["", "above", "below", "at_most", "at_least"] = ""
    than: float = 0.0
    half_width: Annotated[float, Field(gt=0)] | None = None  # the interval's largest
    beside: tuple[str, ...] = ()  # metrics that say why: each arm's means over `window`

    @property
    def window(self) -> Window:
        """The steps that it is about."""
        window = self.steps or self.changes
        assert window
        return window

    def values(self, steps: Metrics) -> dict[str, float | None]:
        """Returns the statistic of one run and its means of the metrics beside, by the metric."""
        beside = {metric: window_mean(steps, metric, *self.window) for metric in self.beside}
        return {self.metric: self.value(steps)} | beside

    def value(self, steps: Metrics) -> float | None:
        """Returns the statistic of one run, None where it has not logged the metric."""
        if self.changes:
            return changes(steps, self.metric, *self.changes)
        assert self.steps
        windows = [self.steps, *([self.less] if self.less else [])]
        means = [window_mean(steps, self.metric, *window) for window in windows]
        if None in means:
            return None
        return means[0] - means[1] if self.less else means[0]


def read_hypotheses(file: Path) -> list[Hypothesis]:
    """Reads them; raises ValueError in one sentence for a file that has others."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: give the yaml of the hypotheses.")
    try:
        specs = OmegaConf.to_container(OmegaConf.load(file))
    except (yaml.YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} cannot be read as yaml ({reason}): correct it.") from None
    if not isinstance(specs, dict) or not specs:
        raise ValueError(f"{file} has no hypotheses: give a mapping from a name to each of them.")
    hypotheses = []
    for name, spec in specs.items():
        if not isinstance(spec, dict):
            raise ValueError(
                f"{file}: {name}={'null' if spec is None else spec} is not allowed: give a mapping "
                "of family, arm, metric, and steps or changes."
            )
        try:
            hypotheses.append(TypeAdapter(Hypothesis).validate_python({"name": str(name), **spec}))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, (name, *first["loc"])))
            raise ValueError(f"{file}: {where} is not allowed: {first['msg']}.") from None
        if (hypotheses[-1].steps is None) == (hypotheses[-1].changes is None):
            raise ValueError(f"{file}: {name} needs either steps or changes, and not both.")
    return hypotheses


Values = dict[tuple[str, str, str], dict[int, float]]  # {(hypothesis, arm, metric): {seed: value}}


def check_windows(hypothesis: Hypothesis, run: Run) -> None:
    """Raises ValueError for a window that reaches beyond a run's last step: its mean would be over
    the steps that happen to be there."""
    for name in ("steps", "changes", "less"):
        window = getattr(hypothesis, name)
        if window and window[1] > run.last_step:
            raise ValueError(
                f"hypothesis {hypothesis.name}: {name}={list(window)} is not allowed, as "
                f"{run.name} has ended at step {run.last_step}: end the window there, or leave out "
                "the run or the hypothesis."
            )


def run_values(matrix: Matrix, hypotheses: list[Hypothesis]) -> Values:
    """Returns the statistics of all finished runs; raises ValueError where one of them ends before
    a window, and where there are none."""
    values: Values = {}
    for run in finished_runs(matrix):
        for hypothesis in hypotheses:
            if run.arm in (hypothesis.arm, hypothesis.minus):
                check_windows(hypothesis, run)
                for metric, value in hypothesis.values(run.steps).items():
                    if value is not None:
                        key = (hypothesis.name, run.arm, metric)
                        values.setdefault(key, {})[run.seed] = value
    if not values:
        raise ValueError(
            f"{matrix.out} has no finished run with a metric of the hypotheses: run the comparison "
            "first, or give the values that were kept by --values."
        )
    return values


def read_values(file: Path) -> Values:
    """Reads OUT/windows.csv; raises ValueError for a file of another kind."""
    values: Values = {}
    columns = {"hypothesis": str, "arm": str, "metric": str, "seed": int, "value": float}
    rows = read_csv(file, columns)
    for *key, seed, value in rows[[*columns]].itertuples(index=False):
        values.setdefault(tuple(key), {})[int(seed)] = value
    return values


def statistic(hypothesis: Hypothesis, values: Values) -> np.ndarray:
    """Returns (S,): the statistic, or its paired difference, at each seed that has it."""
    by_seed = values.get((hypothesis.name, hypothesis.arm, hypothesis.metric), {})
    if hypothesis.minus is None:
        return np.array([by_seed[seed] for seed in sorted(by_seed)])
    other = values.get((hypothesis.name, hypothesis.minus, hypothesis.metric), {})
    return np.array([by_seed[seed] - other[seed] for seed in sorted(by_seed.keys() & other.keys())])


def verdict(hypothesis: Hypothesis, values_S: np.ndarray, estimate: Estimate) -> str:
    """Returns what the values make of the claim."""
    claim, than = hypothesis.claim, hypothesis.than
    if hypothesis.half_width and (estimate.high - estimate.low) / 2 > hypothesis.half_width:
        return "too wide"
    if claim == "at_least":
        return "shows" if values_S.min() >= than else "does not show"
    if claim == "at_most":
        if estimate.low > than:
            return "shows the opposite"
        return "shows" if estimate.high <= than else "not seen"
    above, below = estimate.low > than, estimate.high < than
    if not claim:
        return "above" if above else "below" if below else "not seen"
    if (above and claim == "above") or (below and claim == "below"):
        return "shows"
    return "shows the opposite" if above or below else "not seen"


def table(hypotheses: list[Hypothesis], values: Values, needed: Mapping[str, int]) -> str:
    """Returns the results as a Markdown table, one row per hypothesis that has values.

    Args:
        hypotheses: Their families' corrections are over those of them that are tested.
        values: Of `run_values`.
        needed: {family: seeds that a hypothesis must have to be tested}.
    """
    with_values = [(h, x) for h in hypotheses if len(x := statistic(h, values))]
    tested = [(h, x) for h, x in with_values if len(x) >= max(needed[h.family], 2)]
    p = {h.name: t_test(x - h.than) for h, x in tested}
    corrected: dict[str, float] = {}
    for family in dict.fromkeys(h.family for h, _ in tested):
        names = [h.name for h, _ in tested if h.family == family]
        # one without a p value counts all the same
        counted = holm([1.0 if p[name] is None else p[name] for name in names])
        corrected |= zip(names, counted, strict=True)
    lines = [
        "| hypothesis | of | seeds | mean and 95 % interval | p | Holm | verdict |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for h, x in with_values:
        estimate = interval(x[:, None])
        methods = h.arm + (f" minus {h.minus}" if h.minus else "")
        tests = ["", ""] if p.get(h.name) is None else [f"{q[h.name]:.4f}" for q in (p, corrected)]
        if len(x) < needed[h.family]:
            outcome = f"{len(x)} of {needed[h.family]} seeds, not tested"
        elif len(x) < 2:
            outcome = "one seed"
        elif p[h.name] is None and h.claim != "at_least":
            outcome = "all seeds equal"
        else:
            outcome = verdict(h, x, estimate)
        seen = outcome in ("shows", "shows the opposite", "above", "below")
        if seen and h.claim not in ("at_least", "at_most") and corrected[h.name] > 0.05:
            outcome += ", not after correction"
        shown = f"{estimate:+.4f}" if len(x) > 1 else f"{estimate.mean:+.4f}"
        cells = [h.name, methods, str(len(x)), shown, *tests, outcome]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def seeds_of_families(
    matrix: Matrix, hypotheses: Sequence[Hypothesis], given: Sequence[str] = ()
) -> dict[str, int]:
    """Returns {family: seeds that a hypothesis must have to be tested}: the matrix's.

    Args:
        matrix: Of the comparison.
        hypotheses: All of them.
        given: Other numbers, `FAMILY=N` each: of a family whose runs were planned for fewer seeds.

    Raises:
        ValueError: One names no family, or a number that is not from 2 to the matrix's.
    """
    needed = dict.fromkeys((h.family for h in hypotheses), len(matrix.seeds))
    for text in given:
        family, _, number = text.partition("=")
        check_choice(f"--seeds {text}: {family}", family, needed)
        if not number.isdecimal() or not 2 <= int(number) <= len(matrix.seeds):
            raise ValueError(
                f"--seeds {text} is not allowed: give FAMILY=N, with N from 2 to the "
                f"{len(matrix.seeds)} seeds of the matrix."
            )
        needed[family] = int(number)
    return needed


def spreads(hypotheses: list[Hypothesis], values: Values) -> str:
    """Returns, for each arm's own accuracy, the standard deviation between seeds, and the seeds
    that show a paired difference of SEEN; what is the same for several hypotheses once."""
    lines = ["| hypothesis | arm | seeds | mean | sd between seeds | seeds needed |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    shown = set()
    for h in hypotheses:
        for arm in dict.fromkeys(filter(None, (h.arm, h.minus))):
            x = [value for _, value in sorted(values.get((h.name, arm, h.metric), {}).items())]
            same = (arm, h.metric, h.steps, h.less)
            if h.family == "accuracy" and len(x) > 1 and same not in shown:
                shown.add(same)
                sd = float(np.std(x, ddof=1))
                needed = seeds_needed(sd, SEEN, least=4)
                lines.append(
                    f"| {h.name} | {arm} | {len(x)} | {np.mean(x):.4f} | {sd:.4f} | {needed} |"
                )
    return "\n".join(lines)


def mechanism(hypotheses: Sequence[Hypothesis], values: Values) -> str:
    """Returns the metrics beside the hypotheses, of each arm the mean over the window and over the
    seeds that both arms have: a table for each list of metrics."""
    tables = []
    for metrics in dict.fromkeys(h.beside for h in hypotheses if h.beside):
        names = [name.removeprefix("clip_entropy/").replace("_", " ") for name in metrics]
        lines = [f"| {' | '.join(['hypothesis', 'steps', 'arm', 'seeds', *names])} |"]
        lines.append("| --- " * (len(names) + 4) + "|")
        for h in (h for h in hypotheses if h.beside == metrics):
            arms = list(filter(None, (h.minus, h.arm)))
            by_arm = [values.get((h.name, arm, h.metric), {}).keys() for arm in arms]
            seeds = set(by_arm[0]).intersection(*by_arm)
            for arm in arms if seeds else ():
                by_metric = [values.get((h.name, arm, metric), {}) for metric in metrics]
                paired = [[x[seed] for seed in seeds & x.keys()] for x in by_metric]
                means = [f"{np.mean(x):.3g}" if x else "" for x in paired]
                first, last = h.window
                cells = [h.name, f"{first} to {last}", arm, str(len(seeds)), *means]
                lines.append(f"| {' | '.join(cells)} |")
        if len(lines) > 2:
            tables.append("\n".join(lines))
    return "\n\n".join(tables)


def page(
    file: Path, hypotheses: Sequence[Hypothesis], values: Values, needed: Mapping[str, int]
) -> str:
    """Returns the text of a Markdown page with its tables made anew."""

    def results(names: Sequence[str]) -> str:
        chosen = [h for h in hypotheses if not names or h.family in names]
        tables = [table(chosen, values, needed)] if chosen else []
        if SPREAD in names:
            tables.append(spreads(hypotheses, values))
        if MECHANISM in names:
            tables.append(mechanism(hypotheses, values))
        return "\n\n".join(tables) + "\n"

    names = [*dict.fromkeys(h.family for h in hypotheses), SPREAD, MECHANISM]
    return fill(file.read_text(), str(file), names, results, "hypotheses")


def value_rows(values: Values) -> pd.DataFrame:
    """Returns each run's statistics, the rows of OUT/windows.csv."""
    rows: list[dict[str, Any]] = [
        {"hypothesis": name, "metric": metric, "arm": arm, "seed": seed, "value": x}
        for (name, arm, metric), by_seed in values.items()
        for seed, x in sorted(by_seed.items())
    ]
    return pd.DataFrame(rows)


def command(arguments: list[str] | None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder of a comparison, or its yaml with --values")
    parser.add_argument("hypotheses", type=Path, help="their yaml")
    parser.add_argument("--values", type=Path, metavar="CSV", help="in place of the runs")
    parser.add_argument("--into", type=Path, metavar="PAGE", help="a Markdown page: see above")
    parser.add_argument(
        "--seeds",
        nargs="+",
        default=[],
        metavar="FAMILY=N",
        help="seeds that a family's hypotheses must have to be tested; default: all of the matrix",
    )
    args = parser.parse_args(arguments)
    matrix, hypotheses = read_matrix(args.out), read_hypotheses(args.hypotheses)
    for h in hypotheses:
        for arm in filter(None, (h.arm, h.minus)):
            check_choice(f"{args.hypotheses}: {h.name}: {arm}", arm, [a.name for a in matrix.arms])
    needed = seeds_of_families(matrix, hypotheses, args.seeds)
    if args.values:
        values = read_values(args.values)
    else:
        values = run_values(matrix, hypotheses)
        with atomic_write(matrix.out / "windows.csv") as temporary:
            value_rows(values).to_csv(temporary, index=False, float_format="%.7g")
    if args.into:
        text = page(args.into, hypotheses, values, needed)
        with atomic_write(args.into) as temporary:
            temporary.write_text(text)
        print(args.into)
        return
    tables = [table(hypotheses, values, needed)]
    tables += [make(hypotheses, values) for make in (spreads, mechanism)]
    print("\n\n".join(filter(None, tables)))


if __name__ == "__main__":
    sys.exit(cli.run(command))
