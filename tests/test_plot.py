"""Drawing the curves of runs."""

import json

import matplotlib.axes
import pytest

from recipe import plot
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
