"""Shows a run, in a process beside it that `recipe.console.screen` starts.

On a terminal it is a table that is refreshed; in a pipe, or a batch system's file, a line a step;
with --verbose what the run writes to its log. It ends when the run has ended, however that was, and
then says how. It only reads the run's folder, so that whatever happens to it the run continues.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from recipe.console import log
from recipe.console.progress import Progress, columns_of, duration, note_of
from recipe.console.table import head, line, step_table
from recipe.experiment.provenance import flatten
from recipe.experiment.run import RunFolder

POLL = 0.5  # seconds
LINES = 12  # of a failed run's log
MARGIN = 16  # lines of a terminal that the table leaves to the header and the rest


@dataclass
class Follower:
    """A start of a run, followed to its end.

    Attributes:
        run: The run.
        end_file: Where the start writes how it ended.
        begin: Where its part of the log begins, in bytes.
        process: The id of its process, the parent of this one.
        started: When it was started, by `time.monotonic`.
    """

    run: Progress
    end_file: Path
    begin: int
    process: int
    started: float

    def polls(self) -> Iterator[None]:
        """Yields whenever the run was read again, for the last time when it has ended."""
        going = True
        while going:
            going = os.getppid() == self.process and not self.end_file.is_file()
            self.run.refresh()
            yield
            if going:
                time.sleep(POLL)

    def logged(self) -> list[int]:
        """Returns the steps that this start has logged."""
        return self.run.steps_of(self.end_file.with_suffix(".jsonl"))

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def log_text(self) -> str:
        return log.end_of(self.run.folder.log, self.begin)


# ---- three ways to show it -----------------------------------------------------------------------


def mirror(follower: Follower) -> None:
    """Copies what the start writes to its log."""
    with follower.run.folder.log.open("rb") as file:
        file.seek(follower.begin)
        for _ in follower.polls():
            while block := file.read(1 << 16):
                sys.stdout.buffer.write(block)
            sys.stdout.flush()


def print_lines(follower: Follower) -> None:
    """Prints a line a step, and before the first what the start is doing."""
    shown: set[int] = set()
    doing, note, steps = "", "", follower.run.steps
    for _ in follower.polls():
        if not shown and (now := log.phase(follower.log_text())) != doing:
            doing = now
            print(f"[recipe] {duration(follower.seconds()):>8}: {doing}", flush=True)
        if follower.run.steps is steps:
            continue
        steps = follower.run.steps
        for step in follower.logged():
            if step not in shown:
                print(*([] if shown else [head()]), line(follower.run, step), sep="\n", flush=True)
                shown.add(step)
        if (now := note_of(columns_of([follower.run]))) != note:
            note = now
            print(f"[recipe] {note}", flush=True)


def refresh_table(follower: Follower, console: Console) -> None:
    """Shows the last steps as a table, with a bar of all steps and the time that is left."""
    run, table, steps = follower.run, None, None
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for _ in follower.polls():
            if run.steps and run.steps is not steps:
                table, steps = step_table(run, max(console.height - MARGIN, 3)), run.steps
            below = status(follower) if follower.logged() else start(follower)
            live.update(Group(table, below) if table else below, refresh=True)


def start(follower: Follower) -> RenderableType:
    """Returns what a start without a step is doing."""
    doing = log.phase(follower.log_text())
    return Text(f"{duration(follower.seconds()):>8}: {doing}", style="cyan")


def status(follower: Follower) -> RenderableType:
    """Returns the line below the table."""
    run = follower.run
    left = run.seconds_left()
    cells = Table.grid(padding=(0, 2))
    cells.add_row(
        f"step {run.last_step}" + (f" of {run.planned}" if run.planned else ""),
        ProgressBar(run.planned or 1, run.last_step if run.planned else 0, width=30),
        f"{duration(follower.seconds())} so far",
        f"about {duration(left)} left" if left else "",
    )
    return cells


# ---- the end -------------------------------------------------------------------------------------


def note_death(follower: Follower) -> None:
    """Writes how the start ended where it could not do so itself: `kill -9`, a memory limit, a
    crash of a library. What watches the run then says so at once."""
    if follower.run.end:
        return
    cause = log.cause(follower.log_text()) or "the process is gone without a word"
    follower.run.end = f"killed: {cause}"
    with contextlib.suppress(OSError):  # a disk may be full
        follower.run.folder.note_killed(cause)


def say_end(follower: Follower) -> None:
    """Prints how the start has ended: of one that went well its results, of another the last lines
    of its log, where to read on, and the cause."""
    run, folder = follower.run, follower.run.folder
    state, _, detail = run.end.partition(": ")
    at = f"step {run.last_step}" + (f" of {run.planned}" if run.planned else "")
    if state == "finished":
        seconds = duration(follower.seconds())
        print(f"[recipe] finished: {at}, {seconds} in all; last checkpoint: {folder.checkpoint()}")
        if (folder.path / "curve.png").is_file():
            print(f"[recipe] curve     {folder.path / 'curve.png'}")
        return
    sys.stdout.flush()
    text = follower.log_text()
    error = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    if state != "stopped":
        longest = error.width - 4 if error.is_terminal else log.LONGEST
        for row in log.last_lines(text, LINES, longest):
            error.print(f"  | {row}", style="bright_black")
    error.print(f"[recipe] the whole log: {folder.log}")
    step = folder.checkpoint_step()
    again = f"resumes after step {step}" if step else "begins again: there is no checkpoint yet"
    record = folder.last_record() or {}
    mode = flatten(record.get("config") or {}).get("trainer.resume_mode", "auto")
    if mode == "auto":  # else the same command begins where it did
        error.print(f"[recipe] the same command {again}")
    error.print(f"error: {state} after {at}: {detail}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m recipe.console", description=__doc__)
    parser.add_argument("end_file", type=Path)
    parser.add_argument("--process", type=int, required=True)
    parser.add_argument("--begin", type=int, default=0)
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    folder = RunFolder(args.end_file.parent.parent)
    run = Progress(folder.path.name, folder)
    follower = Follower(run, args.end_file, args.begin, args.process, time.monotonic())
    console = Console()
    with contextlib.suppress(OSError):  # the terminal or the reader of the pipe is gone
        if args.verbose:
            mirror(follower)
        elif console.is_terminal and not console.is_dumb_terminal:
            refresh_table(follower, console)
        else:
            print_lines(follower)
        verbose_end = args.verbose and bool(run.end)  # the stream has said it
        note_death(follower)
        if not verbose_end:
            say_end(follower)
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    code = main()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(code)  # without a word about a pipe that is closed
