"""The charts of a comparison as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from recipe.report.charts import COLOURS
from recipe.report.panels import HEIGHT, INK, ONE_PANEL, Line, draw_panels, rows_of


def shown(label: str) -> str:
    """Returns a label as matplotlib is to show it: on one line, not as maths ($), and not hidden
    (a first _)."""
    return " " + " ".join(label.split()).replace("$", r"\$")


def draw(
    charts: Sequence[Mapping[str, Any]], styles: Sequence[Mapping[str, Any]], file: Path
) -> None:
    """Writes the page's charts as one picture: those of few lines beside one another, then each of
    many lines as a block of small panels, one line each with the baseline in it.

    Args:
        charts: of `recipe.report.charts`.
        styles: of the arms, in their order.
        file: the picture.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    looks = [look(style) for style in styles]
    wide = [chart for chart in charts if len(chart.get("lines", ())) > ONE_PANEL]
    small = [chart for chart in charts if chart not in wide]
    columns = min(3, len(small)) or 1
    heights = [HEIGHT * rows_of(len(chart["lines"]) - 1) + 0.5 for chart in wide]
    tallest = max((len(chart.get("rows", ())) for chart in small), default=0)
    row_height = max(3.3, 0.19 * tallest + 0.8)
    if small:
        heights.insert(0, row_height * -(-len(small) // columns) + 0.8)
    figure = plt.figure(figsize=(15 if wide else 5 * columns, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    scatters = draw_small(parts[0], small, looks, columns, bool(wide)) if small else []
    for part, chart in zip(parts[-len(wide) :] if wide else (), wide, strict=True):
        lines = [line_of(chart, line, looks) for line in chart["lines"]]
        of_baseline = [looks[line["arm"]].is_baseline for line in chart["lines"]]
        baseline = next((x for x, is_it in zip(lines, of_baseline, strict=True) if is_it), None)
        title = "; ".join(filter(None, [chart["title"], chart["unit"], chart["note"]]))
        others = [line for line in lines if line is not baseline]
        title += f"; dark: {baseline.label.strip()}" if baseline else ""
        draw_panels(
            part,
            title.replace("$", r"\$"),
            others,
            baseline,
            bool(chart.get("log")),
            bool(chart.get("zero")),
        )
    figure.draw_without_rendering()  # the layout, in which the labels find their places
    figure.set_layout_engine("none")
    for axis, means in scatters:
        place_labels(axis, means)
    figure.savefig(file, dpi=100, metadata={"Software": None})
    plt.close(figure)


class Look(NamedTuple):
    """How an arm is drawn."""

    label: str
    colour: str
    dashes: Any  # matplotlib's line style
    is_baseline: bool

    @property
    def line(self) -> dict[str, Any]:
        return {"color": self.colour, "linestyle": self.dashes}

    @property
    def mark(self) -> dict[str, Any]:
        hollow = "none" if self.dashes != "-" else self.colour
        return {"color": self.colour, "markerfacecolor": hollow}


def look(style: Mapping[str, Any]) -> Look:
    """Returns how an arm of this style is drawn."""
    dash = style["dash"]
    dashes = (0, tuple(map(int, dash.split()))) if dash else "-"
    colour = [INK, *COLOURS][style["colour"]]
    return Look(shown(style["label"]), colour, dashes, style["colour"] == 0)


def line_of(chart: Mapping[str, Any], line: Mapping[str, Any], looks: Sequence[Look]) -> Line:
    """Returns an arm's line of a chart, without the points that it lacks."""
    points = [
        (x, *row)
        for x, *row in zip(chart["x"], line["mean"], line["low"], line["high"], strict=True)
        if row[0] is not None
    ]
    return Line(looks[line["arm"]].label, looks[line["arm"]].colour, *zip(*points, strict=True))


def draw_small(
    figure: Any,
    charts: Sequence[Mapping[str, Any]],
    looks: Sequence[Look],
    columns: int,
    lines_only: bool,
) -> list[tuple[Any, dict[str, tuple[float, float]]]]:
    """Draws charts beside one another, each in one panel, below a legend of all arms, or of those
    with lines; returns the axes whose points are to be labelled, with those."""
    scatters = []
    rows = -(-len(charts) // columns)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, chart in zip(axes.flat, charts, strict=False):
        axis.set_title(chart["title"].replace("$", r"\$"), fontsize="medium")
        axis.set_ylabel(chart["unit"] if chart["kind"] == "line" else "")
        axis.grid(alpha=0.25)
        for line in chart.get("lines", ()):
            drawn = line_of(chart, line, looks)
            axis.plot(drawn.x, drawn.y, **looks[line["arm"]].line, linewidth=1.4)
            axis.fill_between(
                drawn.x, drawn.low, drawn.high, color=drawn.colour, alpha=0.1, linewidth=0
            )
        if chart.get("zero"):
            axis.axhline(0, color=INK, linewidth=0.8)
        if chart.get("log"):
            axis.set_xscale("log", base=2)
            axis.set_xticks(chart["x"], [str(k) for k in chart["x"]])
        if chart["kind"] == "interval":
            draw_intervals(axis, chart["rows"], looks)
        if chart["kind"] == "scatter":
            scatters.append((axis, draw_scatter(axis, chart, looks)))
    for axis in axes.flat[len(charts) :]:
        axis.remove()
    parts = ("lines",) if lines_only else ("lines", "rows", "points")
    arms = {mark["arm"] for chart in charts for part in parts for mark in chart.get(part, ())}
    if arms:
        handles = [Line2D([], [], **looks[i].line) for i in sorted(arms)]
        names = [looks[i].label for i in sorted(arms)]
        figure.legend(handles, names, loc="outside upper center", ncols=min(6, len(names)))
    return scatters


def draw_intervals(axis: Any, rows: Sequence[Mapping[str, Any]], looks: Sequence[Look]) -> None:
    """Draws an interval per arm, its label at the axis."""
    for i, row in enumerate(rows):
        axis.plot([row["low"], row["high"]], [-i, -i], **looks[row["arm"]].line)
        axis.plot(row["mean"], -i, "o", color=looks[row["arm"]].colour)
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.locator_params(axis="x", nbins=6)
    axis.set_yticks([-i for i in range(len(rows))])
    labels = [looks[row["arm"]].label for row in rows]
    room = 18 if len(rows) < ONE_PANEL else 30  # characters
    short = [label if len(label) <= room else f"{label[: room - 1]}…" for label in labels]
    axis.set_yticklabels(short, fontsize="small")


def draw_scatter(
    axis: Any, chart: Mapping[str, Any], looks: Sequence[Look]
) -> dict[str, tuple[float, float]]:
    """Draws a small mark per run and a large one per arm; returns {label: place of the large},
    the baseline's first."""
    means = {}
    for arm in dict.fromkeys(point["arm"] for point in chart["points"]):
        runs = [(point["x"], point["y"]) for point in chart["points"] if point["arm"] == arm]
        for x, y in runs:
            axis.plot(x, y, "o", **looks[arm].mark, markersize=2.5, alpha=0.5)
        means[arm] = tuple(sum(values) / len(values) for values in zip(*runs, strict=True))
        axis.plot(*means[arm], "o", **looks[arm].mark, markersize=6)
    axis.margins(0.12)
    first = sorted(means, key=lambda arm: not looks[arm].is_baseline)
    return {looks[arm].label.strip(): means[arm] for arm in first}


# places of a label around its point: across and along
SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (0.7, 0.7), (-0.7, 0.7), (0.7, -0.7), (-0.7, -0.7))
DISTANCES = (6, 18, 30, 45, 60)  # of a label from its point, in points of the font's measure


def place_labels(axis: Any, points: Mapping[str, tuple[float, float]]) -> None:
    """Writes each label where it covers no mark and no other label, as near to its point as it can,
    with a thin line to a point that is not beside it; one that has no such place is left out."""
    frame = axis.get_window_extent()
    marks = axis.transData.transform([*points.values()])
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in marks]
    for label, point in points.items():
        places = [(distance, *side) for distance in DISTANCES for side in SIDES]
        for distance, x, y in places:
            place = {"xytext": (distance * x, distance * y), "textcoords": "offset points"}
            text = axis.annotate(
                label,
                point,
                **place,
                fontsize="x-small",
                ha="left" if x > 0 else "right" if x < 0 else "center",
                va="bottom" if y > 0 else "top" if y < 0 else "center",
            )
            text.set_in_layout(False)
            box = text.get_window_extent()
            inside = frame.contains(*box.min) and frame.contains(*box.max)
            if inside and not box.count_overlaps(taken):
                taken.append(box)
                if distance > DISTANCES[0]:
                    line = {"arrowstyle": "-", "linewidth": 0.5, "color": "#5a5f66"}
                    axis.annotate("", point, **place, arrowprops=line).set_in_layout(False)
                break
            text.remove()
