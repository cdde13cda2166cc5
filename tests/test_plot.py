"""Reading a run's metrics, over several starts, and drawing them."""

import json

import pytest

from recipe import plot


def write(folder, start: int, steps: dict[int, dict], tail: str = "") -> None:
    (folder / "metrics").mkdir(exist_ok=True)
    lines = [json.dumps({"step": step, "data": data}) for step, data in steps.items()]
    (folder / "metrics" / f"{start:03d}.jsonl").write_text("\n".join(lines) + "\n" + tail)


def test_a_later_start_s_steps_win_and_a_cut_last_line_is_left_out(tmp_path):
    write(tmp_path, 0, {1: {"a": 1.0}, 2: {"a": 2.0}, 3: {"a": 3.0}}, tail='{"step": 4, "da')
    write(tmp_path, 1, {3: {"a": 30.0}, 4: {"a": 4.0}})
    steps = plot.read(tmp_path)
    assert plot.series(steps, "a") == ([1, 2, 3, 4], [1.0, 2.0, 30.0, 4.0])


def test_a_prefix_takes_the_mean_of_a_validation_metric(tmp_path):
    write(tmp_path, 0, {0: {"val-core/x/acc/best@4/mean": 0.9, "val-core/x/acc/mean@4": 0.5}})
    assert plot.series(plot.read(tmp_path), "val-core/") == ([0], [0.5])


def test_a_picture_of_two_runs(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, 0, {i: {"critic/rewards/mean": i / 10} for i in range(5)})
    picture = plot.draw([tmp_path / "one", tmp_path / "two"], tmp_path / "both.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.glob(".*")) == []


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no metrics/\*.jsonl"):
        plot.read(tmp_path)
