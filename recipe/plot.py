"""The curve of a run as a picture: `python -m recipe.plot RUN_DIR [RUN_DIR ...] [--out FILE]`.

A few runs are drawn over one another; of more than six each has small panels of its own, with the
first one in each. Reads the metrics files that `recipe.launch` has verl's file logger write (one a
start; after a resume the later file's steps win).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recipe.core import cli
from recipe.core.files import atomic_write
from recipe.core.recipe import recipes
from recipe.experiment.metrics import ENTROPY, Logged, Metrics, Shared, series, shared_metric
from recipe.experiment.run import RunFolder, run_labels
from recipe.report.charts import COLOURS
from recipe.report.panels import HEIGHT, ONE_PANEL, Line, check_ending, draw_panels, rows_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = (  # of every run; a recipe adds its own. (title, metric or prefix of several, y label)
    ("reward of training rollouts", "critic/rewards/mean", "mean reward"),
    ("held-out accuracy", "val-core/", "accuracy"),
    ("policy entropy", ENTROPY, "nats per token"),
    ("tokens clipped", "actor/pg_clipfrac", "share"),
)


def draw(run_dirs: Path | Sequence[Path], out: Path | None = None) -> Path:
    """Draws the curves of one or several runs: over one another, or of many in small panels.

    Args:
        run_dirs: folders of runs.
        out: the picture; default: curve.png in the first folder.

    Returns:
        The picture's path.

    Raises:
        FileNotFoundError: a folder has no metrics.
        ValueError: no run has trained a step, or the picture has not the ending of a format.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    run_dirs = [run_dirs] if isinstance(run_dirs, str | Path) else list(run_dirs)
    out = Path(out) if out else Path(run_dirs[0]) / "curve.png"
    check_ending(out)
    runs, logged = {}, {}
    for label, folder in zip(run_labels(run_dirs), map(Path, run_dirs), strict=True):
        run = RunFolder(folder)
        runs[label] = run.logged_metrics()
        logged[label] = Logged.from_run(runs[label], run.last_record() or {})
    if not any(step > 0 for steps in runs.values() for step in steps):
        raise ValueError(
            f"{', '.join(map(str, run_dirs))} has no trained step to draw: give a run that has "
            "logged one."
        )
    names = set().union(*(run.names for run in logged.values()))
    of_recipes = [panel for recipe in recipes() for panel in recipe.panels]
    curves = {}
    for title, name, label in [*PANELS, *(panel for panel in of_recipes if panel[1] in names)]:
        shared = shared_metric(logged, name)
        if warning := shared.warning(title):
            print(warning, file=sys.stderr)
        note = f": {shared.note}".replace("$", r"\$") if shared.note else ""
        curves[title + note, label] = lines_of(runs, shared)
    figure = many_runs(curves) if len(runs) > ONE_PANEL else few_runs(curves)
    with atomic_write(out) as file:
        figure.savefig(file, dpi=110)
    plt.close(figure)
    return out


def lines_of(runs: Mapping[str, Metrics], shared: Shared) -> list[Line]:
    """Returns a metric of each run; the label is neither maths nor hidden for a first _."""
    return [
        Line(
            " " + name.replace("$", r"\$"),
            "",
            *series({} if name in shared.left_out else steps, shared.metric),
        )
        for name, steps in runs.items()
    ]


def few_runs(curves: Mapping[tuple[str, str], Sequence[Line]]) -> Figure:
    """Returns a figure with all runs over one another, a panel per metric."""
    import matplotlib.pyplot as plt

    rows = -(-len(curves) // 2)
    figure, axes = plt.subplots(rows, 2, figsize=(10, 3 * rows), constrained_layout=True)
    for axis, ((title, label), lines) in zip(axes.flat, curves.items(), strict=False):
        for line in lines:
            marker = "." if len(line.x) < 40 else None
            axis.plot(line.x, line.y, label=line.label, linewidth=1.5, marker=marker)
        axis.set(title=title, xlabel="step", ylabel=label)
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(curves) :]:
        axis.remove()
    axes.flat[0].legend(fontsize="small")
    return figure


def many_runs(curves: Mapping[tuple[str, str], Sequence[Line]]) -> Figure:
    """Returns a figure with a block per metric: a small panel per run, the first run in each."""
    import matplotlib.pyplot as plt

    rows = rows_of(max(map(len, curves.values())) - 1)
    size = (15, (HEIGHT * rows + 0.5) * len(curves))
    figure = plt.figure(figsize=size, constrained_layout=True)
    blocks = figure.subfigures(len(curves), 1, squeeze=False)[:, 0]
    for block, ((title, unit), lines) in zip(blocks, curves.items(), strict=True):
        first, *others = (line._replace(colour=COLOURS[0]) for line in lines)
        draw_panels(block, f"{title}; {unit}; dark: {first.label.strip()}", others, first)
    return figure


def command(arguments: list[str] | None) -> None:
    """Parses the command line, draws, and prints the picture's path."""
    parser = argparse.ArgumentParser(
        prog="python -m recipe.plot", description=__doc__.splitlines()[0]
    )
    parser.add_argument("run_dirs", nargs="+", type=Path, metavar="RUN_DIR")
    parser.add_argument("--out", type=Path, help="picture to write; default RUN_DIR/curve.png")
    args = parser.parse_args(arguments)
    print(draw(args.run_dirs, args.out))


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return cli.run(command, arguments)


if __name__ == "__main__":
    sys.exit(main())
