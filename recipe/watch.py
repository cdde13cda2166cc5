"""Look at runs, running or ended: `python -m recipe.watch RUN [RUN ...] [--once]`.

RUN is the folder of a run, or of a comparison (`recipe.compare`), whose runs are all shown. Only
its files are read, so it may be on a cluster's shared file system, and the run anywhere. Of one run
the last steps and its curves are shown, of several a line each. Each is said to be

    running, starting   it has written something lately
    stalled             it has not, for far longer than its steps take: it hangs, or its node is
                        gone
    finished, failed, stopped, killed, waiting   it has reached its last step, or the end of its
                        curriculum; ended with an error; was ended by Ctrl-C or a signal; by kill -9
                        or a memory limit; has not been started
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from recipe.console.progress import Progress, columns_of, duration
from recipe.console.table import CURVES, curve, run_table, step_table
from recipe.core import cli
from recipe.core.settings import check_number
from recipe.experiment.matrix import FILE, read_matrix
from recipe.experiment.run import RunFolder, run_folder, run_labels

ENDED = ("failed", "killed", "stopped", "finished")
ORDER = ("running", "starting", "stalled", *ENDED, "waiting")
MARGIN = 4  # lines of a terminal that are left free
DAY = 86_400  # seconds
CURVE_HEIGHT = 5  # lines of a curve, without its title and axis


def runs_of(folders: Sequence[Path]) -> list[Progress]:
    """Returns the runs in these folders, each read once.

    Args:
        folders: Of runs and of comparisons.

    Raises:
        ValueError: A folder holds neither.
    """
    runs: list[Progress] = []
    depth = 1  # names of a path that label a run
    for folder in folders:
        if (folder / FILE).is_file():
            matrix = read_matrix(folder)
            depth = 2
            runs += [
                Progress("", run_folder(folder, arm.name, seed))
                for arm in matrix.arms
                for seed in matrix.seeds
            ]
            continue
        run = Progress("", RunFolder(folder))
        run.refresh()
        if not run.written or not (run.steps or run.folder.last_record_file()):
            raise ValueError(
                f"{folder} holds no run: give the folder that has metrics/ in it (it is printed "
                f"when a run starts), or that of a comparison, with {FILE}."
            )
        runs.append(run)
    labels = run_labels([run.folder.path for run in runs], depth)
    for run, label in zip(runs, labels, strict=True):
        run.name = label
        run.refresh()
    return runs


def summary(runs: Sequence[Progress]) -> str:
    """Returns how many runs are in which state."""
    states = [run.state()[0] for run in runs]
    return ", ".join(f"{states.count(state)} {state}" for state in ORDER if state in states)


def picture(runs: Sequence[Progress], width: int, height: int | None) -> RenderableType:
    """Returns what is shown of the runs.

    Args:
        runs: At least one.
        width: Of the screen, in characters.
        height: Of the screen, in lines; None: as many as it takes.
    """
    if len(runs) == 1:
        return picture_of_one(runs[0], width, height)
    states = [(run, *run.state()) for run in runs]
    notes = [f"{run.name} {state}: {detail}" for run, state, detail in states if detail]
    room = len(runs)
    if height is not None and len(runs) + len(notes) > height - MARGIN:
        notes = notes[: height // 4]
        room = max(height - MARGIN - len(notes), 1)
        states.sort(key=lambda row: ORDER.index(row[1]))  # those that change first
    hidden = len(runs) - room
    rest = f"; {hidden} more do not fit the screen, --once prints all" if hidden > 0 else ""
    end = Text(f"{summary(runs)}{rest}", style="bold")
    details = [Text(note, style="red", overflow="ellipsis", no_wrap=True) for note in notes]
    return Group(run_table([run for run, *_ in states], width, room), end, *details)


def picture_of_one(run: Progress, width: int, height: int | None) -> RenderableType:
    """Returns a run's state, last steps and curves."""
    state, detail = run.state()
    left = run.seconds_left() if state == "running" else None
    parts = [f"{run.name}: {state}", detail, f"about {duration(left)} left" if left else ""]
    columns = max(min(width // 38, 2), 1)
    curves = Table.grid(padding=(1, 3, 0, 0))
    drawn = []
    for column in columns_of([run])[:CURVES]:
        steps, values = run.column(column)
        if values:
            size = (width // columns - 16, CURVE_HEIGHT)
            drawn.append(curve(column.head, steps, values, column.spec, size))
    for first in range(0, len(drawn), columns):
        curves.add_row(*drawn[first : first + columns])
    of_curves = -(-len(drawn) // columns) * (CURVE_HEIGHT + 3)
    rows = 12 if height is None else max(height - MARGIN - of_curves - 2, 3)
    title = Text(", ".join(filter(None, parts)), style="bold", overflow="ellipsis", no_wrap=True)
    return Group(title, Text(f"log: {run.folder.log}"), step_table(run, rows), curves)


def watch(arguments: list[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m recipe.watch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder, see above")
    parser.add_argument("--once", action="store_true", help="print it once and end")
    parser.add_argument(
        "--every", type=float, default=2.0, metavar="SECONDS", help="between two looks, default 2"
    )
    args = parser.parse_args(arguments)
    check_number("--every", args.every, f"seconds, above 0 and up to {DAY}", lambda x: 0 < x <= DAY)
    runs = runs_of([folder.expanduser().absolute() for folder in args.runs])
    console = Console()
    if args.once or not console.is_terminal or console.is_dumb_terminal:
        console.print(picture(runs, console.width, None))
        return 0
    with (
        contextlib.suppress(KeyboardInterrupt),
        Live(console=console, auto_refresh=False, screen=False, vertical_overflow="crop") as live,
    ):
        while True:
            live.update(picture(runs, console.width, console.height), refresh=True)
            if all(run.state()[0] in ENDED for run in runs):
                break
            time.sleep(args.every)
            for run in runs:
                run.refresh()
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return cli.run(watch, arguments)


if __name__ == "__main__":
    sys.exit(main())
