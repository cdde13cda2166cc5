"""The charts of a comparison as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recipe.report.charts import COLOURS, DASHES


def shown(label: str) -> str:
    """Returns a label as matplotlib is to show it: on one line, not as maths ($), and not hidden
    (a first _)."""
    return " " + " ".join(label.split()).replace("$", r"\$")


def draw(
    charts: Sequence[Mapping[str, Any]], styles: Sequence[Mapping[str, Any]], file: Path
) -> None:
    """Writes the page's charts as one picture.

    Args:
        charts: of `recipe.report.charts`.
        styles: of the arms, in their order.
        file: the picture.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    colours = ["#202124", *COLOURS]
    dashes = {dash: (0, tuple(map(int, dash.split()))) if dash else "-" for dash in DASHES}
    labels = [shown(style["label"]) for style in styles]
    looks = [
        {"color": colours[style["colour"]], "linestyle": dashes[style["dash"]]} for style in styles
    ]
    columns = min(3, len(charts))
    rows = -(-len(charts) // columns)
    size = (5 * columns, 3.3 * rows + 0.8)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axis, chart in zip(axes.flat, charts, strict=False):
        axis.set_title(chart["title"].replace("$", r"\$"), fontsize="medium")
        axis.set_ylabel(chart["unit"] if chart["kind"] == "line" else "")
        axis.grid(alpha=0.25)
        for line in chart.get("lines", ()):
            look, low, high = looks[line["arm"]], line["low"], line["high"]
            points = [
                (x, *row)
                for x, *row in zip(chart["x"], line["mean"], low, high, strict=True)
                if row[0] is not None
            ]
            x, mean, low, high = zip(*points, strict=True)
            axis.plot(x, mean, **look, linewidth=1.4)
            axis.fill_between(x, low, high, color=look["color"], alpha=0.1, linewidth=0)
        if chart.get("zero"):
            axis.axhline(0, color=colours[0], linewidth=0.8)
        if chart.get("log"):
            axis.set_xscale("log", base=2)
            axis.set_xticks(chart["x"], [str(k) for k in chart["x"]])
        for i, row in enumerate(chart.get("rows", ())):
            look = looks[row["arm"]]
            axis.plot([row["low"], row["high"]], [-i, -i], **look)
            axis.plot(row["mean"], -i, "o", color=look["color"])
        if chart["kind"] == "interval":
            axis.axvline(0, color=colours[0], linewidth=0.8)
            axis.locator_params(axis="x", nbins=6)
            axis.set_yticks([-i for i in range(len(chart["rows"]))])
            short = [styles[row["arm"]]["label"] for row in chart["rows"]]
            short = [shown(s if len(s) <= 18 else s[:17] + "…") for s in short]
            axis.set_yticklabels(short, fontsize="small")
        for point in chart.get("points", ()):
            colour = looks[point["arm"]]["color"]
            hollow = "none" if looks[point["arm"]]["linestyle"] != "-" else colour
            axis.plot(point["x"], point["y"], "o", color=colour, markerfacecolor=hollow)
    for axis in axes.flat[len(charts) :]:
        axis.remove()
    parts = ("lines", "rows", "points")
    drawn = {mark["arm"] for chart in charts for part in parts for mark in chart.get(part, ())}
    handles = [plt.Line2D([], [], **looks[i]) for i in sorted(drawn)]
    names = [labels[i] for i in sorted(drawn)]
    figure.legend(handles, names, loc="outside upper center", ncols=max(1, min(6, len(names))))
    figure.savefig(file, dpi=100, metadata={"Software": None})
    plt.close(figure)
