"""The table of a run's steps, and curves made of characters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from rich.table import Table
from rich.text import Text

from recipe.console.progress import COLUMNS, Column, Progress, columns_of, duration, note_of

CURVES = 4  # of the first columns
WIDTH = 9  # characters of a column
WIDE = 110  # characters of a screen that holds all columns beside a run's name and state
BLOCKS = " ▁▂▃▄▅▆▇█"
COLOURS = {"running": "green", "finished": "blue", "starting": "cyan", "waiting": "bright_black"}


def cells(run: Progress) -> dict[int, list[str]]:
    """Returns {step: its values as texts, one of each column}; "" where none was logged."""
    columns = columns_of([run])
    values = [dict(zip(*run.column(column), strict=True)) for column in columns]
    return {
        step: [
            format(points[step], column.spec) if step in points else ""
            for points, column in zip(values, columns, strict=True)
        ]
        for step in run.steps
    }


def step_of(run: Progress, step: int) -> str:
    """Returns `7/20`, or `7` where the run's steps are not known."""
    return f"{step}/{run.planned}" if run.planned else str(step)


# ---- a line a step -------------------------------------------------------------------------------


def head() -> str:
    """Returns the heads of the columns of `line`."""
    heads = [f"{column.head:>{WIDTH}}" for column in COLUMNS]
    return f"{'step':>{WIDTH}}{''.join(heads)}  time left"


def line(run: Progress, step: int) -> str:
    """Returns a step as one line of text, with the time that was left after the last step."""
    left = run.seconds_left()
    values = "".join(f"{text:>{WIDTH}}" for text in cells(run)[step])
    more = f"  {duration(left)}" if left is not None and step == run.last_step else ""
    return f"{step_of(run, step):>{WIDTH}}{values}{more}".rstrip()


# ---- tables --------------------------------------------------------------------------------------


def step_table(run: Progress, rows: int) -> Table:
    """Returns the last steps of a run as a table, whose last line has each column's curve over all
    steps."""
    columns = columns_of([run])
    table = Table(box=None, pad_edge=False, show_footer=bool(run.steps), header_style="bold")
    table.add_column("step", justify="right", footer=Text("all", style="bright_black"))
    for column in columns:
        values = run.column(column)[1]
        table.add_column(
            column.head, justify="right", footer=Text(sparkline(values, WIDTH), style="cyan")
        )
    for step, texts in list(cells(run).items())[-rows:]:
        table.add_row(step_of(run, step), *texts)
    add_note(table, columns)
    return table


def run_table(runs: Sequence[Progress], width: int, rows: int | None = None) -> Table:
    """Returns a table with a row a run: its state, the last value of each column, and the curve of
    its reward.

    Args:
        runs: In the order of the rows.
        width: Of the screen, in characters; on a narrow one there are fewer columns.
        rows: So many of the runs at most; None: all.
    """
    columns = columns_of(runs)[: None if width >= WIDE else 3]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("run", no_wrap=True, overflow="ellipsis", max_width=width // 4)
    for name in ("state", "step"):
        table.add_column(name, no_wrap=True)
    for column in columns:
        table.add_column(column.head, justify="right", no_wrap=True)
    table.add_column("curve", no_wrap=True, style="cyan")  # of the reward
    table.add_column("time left", no_wrap=True)
    for run in runs[:rows]:
        last = [run.column(column)[1][-1:] for column in columns]
        values = [
            format(value[0], column.spec) if value else ""
            for value, column in zip(last, columns, strict=True)
        ]
        state = run.state()[0]
        left = run.seconds_left() if state == "running" else None
        table.add_row(
            Text(run.name),
            Text(state, style=COLOURS.get(state, "red")),
            step_of(run, run.last_step),
            *values,
            sparkline(run.column(columns[0])[1], width // 10),
            "" if left is None else duration(left),
        )
    add_note(table, columns)
    return table


def add_note(table: Table, columns: Sequence[Column]) -> None:
    """Writes below a table which of several metrics its columns show."""
    if note := note_of(columns):
        table.caption = Text(note, no_wrap=True, overflow="ellipsis")
        table.caption_justify = "left"


# ---- curves --------------------------------------------------------------------------------------


def binned(values: Sequence[float], width: int) -> list[float]:
    """Returns at most `width` values: the means of so many equal parts."""
    if len(values) <= width:
        return list(values)
    edges = [i * len(values) // width for i in range(width + 1)]
    parts = [values[low:high] for low, high in pairwise(edges)]
    return [sum(part) / len(part) for part in parts]


def sparkline(values: Sequence[float], width: int) -> str:
    """Returns a curve in one line of characters, from its lowest to its highest value; one that is
    level is drawn at half the height."""
    bins = binned(values, width)
    if not bins:
        return ""
    low, high = min(bins), max(bins)
    scale = (len(BLOCKS) - 2) / (high - low) if high > low else 0.0
    level = 0 if scale else len(BLOCKS) // 2 - 1
    return "".join(BLOCKS[1 + level + round((value - low) * scale)] for value in bins)


def curve(
    title: str, steps: Sequence[int], values: Sequence[float], spec: str, size: tuple
) -> Text:
    """Returns a curve of several lines, with its title, and its lowest and highest value and its
    first and last step at the axes.

    Args:
        title: Of the curve.
        steps: The steps of its values.
        values: At least one.
        spec: How a value is written.
        size: Columns and rows of characters that the curve takes, axes and title not counted.
    """
    width, height = size
    bins = binned(values, width)
    bins = [value for value in bins for _ in range(min(width // len(bins), 8))]
    low, high = min(bins), max(bins)
    scale = (height * 8 - 1) / (high - low) if high > low else 0.0
    eighths = [1 + round((value - low) * scale) if scale else height * 4 for value in bins]
    labels = {height - 1: format(high, spec), 0: format(low, spec)}
    room = max(map(len, labels.values()))
    text = Text(f"{'':{room}}  {title}\n", style="bold")
    for row in reversed(range(height)):
        blocks = "".join(BLOCKS[min(max(eighth - 8 * row, 0), 8)] for eighth in eighths)
        text.append(f"{labels.get(row, ''):>{room}} ▕", style="not bold bright_black")
        text.append(f"{blocks:<{width}}\n", style="not bold cyan")
    axis = f"{steps[0]}{steps[-1]:>{max(len(bins) - len(str(steps[0])), 1)}}"
    text.append(f"{'':{room}}  {axis}", style="not bold bright_black")
    return text
