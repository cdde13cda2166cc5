"""The pictures of many methods: a small panel each, the baseline in all of them."""

import matplotlib
import pytest
from comparisons import methods_of_the_study, write_comparison
from matplotlib.figure import Figure

from recipe import plot
from recipe.report import figures
from recipe.report.page import collect, render
from recipe.report.panels import COLUMNS, ONE_PANEL, Line, draw_panels

matplotlib.use("Agg")


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were written."""
    saved = []

    def savefig(figure, file, **settings):
        saved.append(figure)
        file.touch()

    monkeypatch.setattr(Figure, "savefig", savefig)
    return saved


def comparison(out, methods: int):
    arms = dict(list(methods_of_the_study().items())[:methods])
    write_comparison(out, arms, seeds=2, steps=6, problems=4)
    return [spec.get("label", name) for name, spec in arms.items()]


def test_each_panel_has_its_line_and_the_baseline_s_on_common_axes():
    lines = [Line(f"m{i}", "#1a5fd0", [1, 2], [i, i + 1], [i, i], [i + 2, i + 2]) for i in range(8)]
    baseline = Line("base", "#000000", [1, 2], [5, 6])
    figure = Figure()
    draw_panels(figure, "reward", lines, baseline)
    assert [axis.get_title(loc="left") for axis in figure.axes] == [f"m{i}" for i in range(8)]
    for i, axis in enumerate(figure.axes):
        assert [list(line.get_ydata()) for line in axis.lines] == [[5, 6], [i, i + 1]]
        assert len(axis.collections) == 1  # its own band and no other's
        assert axis.get_ylim() == figure.axes[0].get_ylim()
    named = [axis.xaxis.get_tick_params()["labelbottom"] for axis in figure.axes]
    assert named == [False] * (8 - COLUMNS) + [True] * COLUMNS  # below each column's last panel


@pytest.mark.parametrize("methods", [ONE_PANEL, ONE_PANEL + 1])
def test_few_methods_share_a_panel_and_many_have_one_each(tmp_path, drawn, methods):
    labels = comparison(tmp_path / "out", methods)
    page = collect(tmp_path / "out")
    charts = page.charts[:2]
    figures.draw(charts, [page.styles[arm.name] for arm in page.arms], tmp_path / "x.png")
    titles = [axis.get_title(loc="left").strip() for axis in drawn[0].axes]
    if methods <= ONE_PANEL:
        assert len(drawn[0].axes) == len(charts) and len(drawn[0].axes[0].lines) == methods
    else:
        assert titles == labels[1:] * len(charts)
        assert all(len(axis.lines) == 2 for axis in drawn[0].axes)


def test_every_method_of_24_is_named_in_the_picture_of_the_final_results(tmp_path, drawn):
    labels = comparison(tmp_path / "out", 24)
    page = collect(tmp_path / "out")
    styles = [page.styles[arm.name] for arm in page.arms]
    charts = [chart for chart in page.final_charts if chart["kind"] != "line"]
    figures.draw(charts, styles, tmp_path / "x.png")
    intervals = next(axis for axis in drawn[0].axes if len(axis.get_yticklabels()) == 23)
    assert [text.get_text().strip() for text in intervals.get_yticklabels()] == labels[1:]
    scatter = next(axis for axis in drawn[0].axes if axis.texts)
    named = [text for text in scatter.texts if text.get_text()]  # the others are lines to points
    assert {text.get_text() for text in named} == set(labels) and len(named) == 24
    boxes = [text.get_window_extent() for text in named]
    assert not any(box.count_overlaps(boxes[:i]) for i, box in enumerate(boxes))


def test_the_page_tells_its_charts_when_to_have_panels(tmp_path):
    comparison(tmp_path / "out", ONE_PANEL + 1)
    text = render(collect(tmp_path / "out"))
    assert f'"one_panel": {ONE_PANEL}' in text and "a panel of its own" in text
    comparison(tmp_path / "few", ONE_PANEL)
    assert "a panel of its own" not in render(collect(tmp_path / "few"))


def test_the_curves_of_many_runs_have_a_panel_each_with_the_first_run_in_it(tmp_path, drawn):
    comparison(tmp_path / "out", 4)
    folders = sorted((tmp_path / "out").glob("*/seed*"))
    plot.draw(folders, tmp_path / "x.png")
    plot.draw(folders[:ONE_PANEL], tmp_path / "x.png")
    many, few = drawn
    assert len(many.axes) == 7 * len(few.axes) and len(few.axes[0].lines) == ONE_PANEL
    first = [list(axis.lines[0].get_ydata()) for axis in many.axes[:7]]
    assert all(values == first[0] for values in first)
    assert [axis.get_title(loc="left").strip() for axis in many.axes[:7]] == [
        "/".join(folder.parts[-2:]) for folder in folders[1:]
    ]
