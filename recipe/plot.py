"""The curve of a run as a picture: `python -m recipe.plot RUN_DIR [RUN_DIR ...] [--out FILE]`.

Reads the metrics files that `recipe.launch` has verl's file logger write (one a start; after a
resume the later file's steps win).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from recipe.core import cli
from recipe.core.files import atomic_write
from recipe.core.recipe import recipes
from recipe.experiment.run import RunFolder
from recipe.experiment.series import series

PANELS = (  # of every run; a recipe adds its own. (title, metric or prefix of several, y label)
    ("reward of training rollouts", "critic/rewards/mean", "mean reward"),
    ("held-out accuracy", "val-core/", "accuracy"),
    ("policy entropy", "actor/entropy", "nats per token"),
    ("tokens clipped", "actor/pg_clipfrac", "share"),
)


def run_labels(run_dirs: Sequence[Path]) -> list[str]:
    """Returns the folders' names, with as many of their parents' as it takes to tell them apart."""
    parts = [Path(os.path.abspath(folder)).parts for folder in run_dirs]
    depth = 1
    while len({names[-depth:] for names in parts}) < len(set(parts)):
        depth += 1
    return ["/".join(names[-depth:]) for names in parts]


def draw(run_dirs: Path | Sequence[Path], out: Path | None = None) -> Path:
    """Draws the curves of one or several runs over one another.

    Args:
        run_dirs: folders of runs.
        out: the picture; default: curve.png in the first folder.

    Returns:
        The picture's path.

    Raises:
        FileNotFoundError: a folder has no metrics.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    run_dirs = [run_dirs] if isinstance(run_dirs, str | Path) else list(run_dirs)
    runs = {}
    for label, folder in zip(run_labels(run_dirs), map(Path, run_dirs), strict=True):
        run = RunFolder(folder)
        if not run.metrics_files():
            raise FileNotFoundError(f"{folder} has no metrics/*.jsonl: is it the folder of a run?")
        runs[label] = run.metrics()
    logged = {name for steps in runs.values() for row in steps.values() for name in row}
    of_recipes = [panel for recipe in recipes() for panel in recipe.panels]
    panels = [*PANELS, *(panel for panel in of_recipes if panel[1] in logged)]
    rows = -(-len(panels) // 2)
    figure, axes = plt.subplots(rows, 2, figsize=(10, 3 * rows), constrained_layout=True)
    for axis, (title, metric, label) in zip(axes.flat, panels, strict=False):
        for name, steps in runs.items():
            x, y = series(steps, metric)
            label_text = " " + name.replace("$", r"\$")  # no maths, and not hidden for a first _
            axis.plot(x, y, label=label_text, linewidth=1.5, marker="." if len(x) < 40 else None)
        axis.set(title=title, xlabel="step", ylabel=label)
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    axes.flat[0].legend(fontsize="small")
    out = Path(out) if out else Path(run_dirs[0]) / "curve.png"
    with atomic_write(out) as file:
        figure.savefig(file, dpi=110)
    plt.close(figure)
    return out


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
