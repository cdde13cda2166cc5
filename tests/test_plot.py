"""Drawing the curves of runs."""

import json

import matplotlib.axes
import pytest
from matplotlib.figure import Figure

from recipe import plot
from recipe.core import cli
from recipe.experiment.run import RunFolder


def write(folder, steps: dict[int, dict]) -> None:
    (folder / "metrics").mkdir(parents=True)
    lines = [json.dumps({"step": step, "data": data}) for step, data in steps.items()]
    (folder / "metrics/000.jsonl").write_text("\n".join(lines) + "\n")


def test_a_prefix_takes_the_mean_of_a_validation_metric(tmp_path):
    write(tmp_path, {0: {"val-core/x/acc/best@4/mean": 0.9, "val-core/x/acc/mean@4": 0.5}})
    assert plot.series(RunFolder(tmp_path).metrics(), "val-core/") == ([0], [0.5])


def test_a_picture_of_two_runs(tmp_path):
    for name in ("one", "two"):
        write(tmp_path / name, {i: {"critic/rewards/mean": i / 10} for i in range(5)})
    picture = plot.draw([tmp_path / "one", tmp_path / "two"], tmp_path / "both.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize("name", ["curve", "curve.", "curve.txt", "png"])
def test_a_picture_without_the_ending_of_a_format_is_refused(tmp_path, name, capsys):
    write(tmp_path / "run", {1: {"critic/rewards/mean": 0.1}})
    arguments = [str(tmp_path / "run"), "--out", str(tmp_path / name)]
    assert cli.run(plot.command, arguments) == 2
    assert f"the picture {tmp_path / name} must end with its format" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_runs_whose_folders_share_a_name_are_both_drawn_and_told_apart(tmp_path, monkeypatch):
    for number, name in enumerate(("grpo/seed0", "sent/seed0")):
        write(tmp_path / name, {i: {"critic/rewards/mean": i + number} for i in range(3)})
    drawn, draw = {}, matplotlib.axes.Axes.plot

    def recorded(axis, x, y, **look):
        if y:
            drawn[look["label"].strip()] = y
        return draw(axis, x, y, **look)

    monkeypatch.setattr(matplotlib.axes.Axes, "plot", recorded)
    plot.draw([tmp_path / "grpo/seed0", tmp_path / "sent/seed0"], tmp_path / "both.png")
    assert drawn == {"grpo/seed0": [0, 1, 2], "sent/seed0": [1, 2, 3]}


def test_values_that_are_no_numbers_are_left_out(tmp_path):
    steps = {1: 0.5, 2: "x", 3: {"a": 1}, 4: [1], 5: None, 6: float("nan"), 7: 10**400, 8: 2}
    write(tmp_path, {step: {"critic/rewards/mean": value} for step, value in steps.items()})
    shown = plot.series(RunFolder(tmp_path).metrics(), "critic/rewards/mean")
    assert shown == ([1, 8], [0.5, 2.0])
    plot.draw(tmp_path)


def test_a_folder_s_name_is_neither_maths_nor_hidden(tmp_path, monkeypatch):
    shown, draw = set(), matplotlib.axes.Axes.plot

    def recorded(axis, x, y, **look):
        shown.add(look["label"])
        return draw(axis, x, y, **look)

    monkeypatch.setattr(matplotlib.axes.Axes, "plot", recorded)
    for name in ("_$a_$^", "b"):
        write(tmp_path / name, {1: {"critic/rewards/mean": 1.0}})
    plot.draw([tmp_path / "_$a_$^", tmp_path / "b"], tmp_path / "both.png")
    assert shown == {r" _\$a_\$^", " b"}


def test_labels_are_as_short_as_tells_the_folders_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert plot.run_labels(["."]) == [tmp_path.name]
    assert plot.run_labels(["a/x", "b/y"]) == ["x", "y"]
    assert plot.run_labels(["a/x/s", "b/x/s", "b/x/t"]) == ["a/x/s", "b/x/s", "b/x/t"]
    assert plot.run_labels(["a/x", "a/../a/x"]) == ["x", "x"]  # one folder, given twice


def test_a_folder_that_is_no_run(tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match=r"has no metrics/\*.jsonl"):
        plot.draw(tmp_path)
    assert plot.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_run_without_a_trained_step_has_no_picture(tmp_path, capsys):
    write(tmp_path / "run", {0: {"val-core/x/acc/mean@4": 0.5}})
    assert plot.main([str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path / 'run'} has no trained step to draw: give a run that has logged one.\n"
    )
    assert not (tmp_path / "run/curve.png").exists()


def test_all_runs_are_drawn_by_one_benchmark_and_one_entropy(tmp_path, monkeypatch, capsys):
    aime, math = "val-core/aime24/acc/mean@8", "val-core/math500/acc/mean@1"
    write(tmp_path / "a", {1: {aime: 0.05, math: 0.6, "diagnostics/entropy/all": 0.5}})
    write(tmp_path / "b", {1: {math: 0.7, "diagnostics/entropy/all": 0.25}})
    write(tmp_path / "c", {1: {aime.replace("24", "25"): 0.1, "actor/entropy": 40.0}})
    drawn = {}
    monkeypatch.setattr(plot, "few_runs", lambda curves: drawn.update(curves) or Figure())
    plot.draw([tmp_path / name for name in "abc"], tmp_path / "x.png")
    values = {title: [line.y for line in lines] for (title, _), lines in drawn.items()}
    title = "held-out accuracy: math500 (and 2 more, not shown)"
    assert values[title] == [[0.6], [0.7], []]
    assert values["policy entropy"] == [[0.5], [0.25], []]
    accuracy, entropy = capsys.readouterr().err.splitlines()
    assert accuracy == f"c: left out of the held-out accuracy, which shows {math}."
    assert entropy.startswith("c: left out of the policy entropy, which shows diagnostics/entropy")
