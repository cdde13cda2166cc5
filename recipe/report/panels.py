"""Many curves as small pictures side by side, one curve each: lines and bands over one another
cannot be told apart beyond a few."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

ONE_PANEL = 6  # lines that one panel holds at most
COLUMNS = 6
HEIGHT = 1.35  # of a row, in inches
INK = "#202124"


class Line(NamedTuple):
    """A curve with its band, all of one length; without values a band is left out."""

    label: str
    colour: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


def check_ending(picture: Path) -> None:
    """Raises ValueError where a picture's name does not end with a format that can be drawn."""
    from matplotlib.backend_bases import FigureCanvasBase

    endings = FigureCanvasBase.get_supported_filetypes()
    if picture.suffix.lower().removeprefix(".") not in endings:
        raise ValueError(
            f"the picture {picture} must end with its format, .png or another of "
            f"{', '.join(sorted(endings))}."
        )


def rows_of(lines: int) -> int:
    """Returns how many rows of panels so many lines take."""
    return -(-lines // COLUMNS)


def draw_panels(
    figure: Figure | SubFigure,
    title: str,
    lines: Sequence[Line],
    baseline: Line | None = None,
    log: bool = False,
    zero: bool = False,
) -> None:
    """Draws a panel per line with the baseline in each; all have the same axes.

    Args:
        figure: An empty one.
        title: Above the panels.
        lines: At least one, the baseline not among them. Each one's label is its panel's title.
        baseline: Drawn in every panel, in the text's colour; None: nothing is.
        log: The x axis is logarithmic, to base 2.
        zero: A line at 0.
    """
    columns, rows = min(COLUMNS, len(lines)), rows_of(len(lines))
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    figure.suptitle(title, fontsize="medium", fontweight="bold", x=0.01, ha="left")
    for place, axis in enumerate(axes.flat):
        if place >= len(lines):
            axis.remove()
            continue
        line = lines[place]
        for drawn, colour in ((baseline, INK), (line, line.colour)):
            if drawn is None:
                continue
            marker = "." if len(drawn.x) == 1 else None
            axis.plot(drawn.x, drawn.y, color=colour, linewidth=1.3, marker=marker)
            if drawn.low:
                axis.fill_between(
                    drawn.x, drawn.low, drawn.high, color=colour, alpha=0.16, linewidth=0
                )
        if zero:
            axis.axhline(0, color=INK, linewidth=0.8)
        if log:
            axis.set_xscale("log", base=2)
            axis.set_xticks(line.x, [str(x) for x in line.x])
        axis.set_title(line.label, fontsize="small", color=line.colour, loc="left", pad=2)
        axis.grid(alpha=0.25)
        axis.tick_params(labelsize="x-small", labelbottom=place + columns >= len(lines))
        axis.locator_params(axis="y", nbins=4)
