"""`python -m recipe.watch`: runs that go on, were killed or have ended; comparisons; no runs."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from comparisons import methods_of_the_study, write_comparison
from rich.console import Console

from recipe import watch
from recipe.experiment.run import RunFolder

ROOT = Path(__file__).resolve().parents[1]
FAKE = Path(__file__).with_name("console") / "fake_training.py"  # of its console alone
LIMIT = 60


def once(capsys, *folders, width=150) -> str:
    assert watch.main([*map(str, folders), "--once"]) == 0
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")


def row_of(text: str, name: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.startswith(f"{name} "))


def age(folder: Path, seconds: float) -> None:
    for file in folder.rglob("*"):
        os.utime(file, (time.time() - seconds,) * 2)


@pytest.fixture
def two_runs(tmp_path):
    """Two runs that are going on."""
    environment = {**os.environ, "PYTHONPATH": str(FAKE.parents[2])}
    processes = [
        subprocess.Popen(
            [sys.executable, str(FAKE), str(tmp_path / name), "5", "wait"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name in ("a", "b")
    ]
    try:
        end = time.monotonic() + LIMIT
        while any(RunFolder(tmp_path / name).steps_done() < 5 for name in ("a", "b")):
            assert time.monotonic() < end
            time.sleep(0.05)
        for name in ("a", "b"):  # so that they are not at their last step
            record = tmp_path / name / "metrics/000.yaml"
            record.write_text(record.read_text().replace(": 5", ": 9"))
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait(LIMIT)


def test_of_two_runs_one_is_killed_and_the_other_stopped(two_runs, tmp_path, capsys):
    folders = (tmp_path / "a", tmp_path / "b")
    text = once(capsys, *folders)
    assert row_of(text, "a")[:4] == ["a", "running", "5/9", "0.050"]
    assert row_of(text, "b")[1:3] == ["running", "5/9"]
    assert text.splitlines()[-1].strip() == "2 running"
    two_runs[0].kill()
    two_runs[1].send_signal(signal.SIGTERM)
    for process in two_runs:
        process.wait(LIMIT)
    end = time.monotonic() + LIMIT
    while not RunFolder(folders[0]).last_end():  # its console, which lives, has yet to see it
        assert time.monotonic() < end
        time.sleep(0.05)
    text = once(capsys, *folders)
    assert row_of(text, "a")[1] == "killed" and row_of(text, "b")[1] == "stopped"
    assert "1 killed, 1 stopped" in text
    assert "a killed: the process is gone" in text and "b stopped: by SIGTERM" in text
    command = [sys.executable, "-m", "recipe.watch", *map(str, folders)]
    terminal = {**os.environ, "TTY_COMPATIBLE": "1", "TERM": "xterm"}
    ended = subprocess.run(command, env=terminal, capture_output=True, timeout=LIMIT, cwd=ROOT)
    assert ended.returncode == 0  # it has ended, as both runs have


def test_a_run_whose_node_is_gone_is_stalled_after_two_minutes(two_runs, tmp_path, capsys):
    """Nobody is left there who could write how it ended."""
    folder = tmp_path / "a"
    text = once(capsys, folder, tmp_path / "b")
    assert row_of(text, "a")[1] == "running"
    age(folder, 600)
    text = once(capsys, folder, tmp_path / "b")
    assert row_of(text, "a")[1] == "stalled"
    assert "a stalled: nothing written for 10 min" in text


def test_one_run_is_shown_with_its_last_steps_and_its_curves(tmp_path, capsys):
    write_comparison(tmp_path / "out", {"grpo": {"recipe": "r", "preset": "p"}}, seeds=1)
    text = once(capsys, tmp_path / "out/grpo/seed0")
    assert text.startswith("seed0: finished")
    assert "40/40" in text and "29/40" in text and "28/40" not in text
    for name in ("reward", "clipped"):
        assert text.count(name) == 2  # a column and a curve
    assert text.count("held-out: made_up; entropy: actor/entropy") == 1  # below the table
    assert max(map(len, text.splitlines())) <= 150


def test_a_finished_comparison_of_24_methods_is_a_line_a_run(tmp_path, capsys):
    out = tmp_path / "out"
    write_comparison(out, methods_of_the_study(), seeds=2, steps=12)
    text = once(capsys, out)
    assert len(text.splitlines()) == 48 + 3
    assert text.splitlines()[-1].strip() == "48 finished"
    assert row_of(text, "did/seed1")[:3] == ["did/seed1", "finished", "12/12"]


def test_of_more_runs_than_a_screen_holds_those_that_change_are_shown(tmp_path):
    out = tmp_path / "out"
    write_comparison(out, methods_of_the_study(), seeds=2, steps=12)
    last = RunFolder(out / "all_three/seed1")
    lines = last.metrics_files()[0].read_text().splitlines(keepends=True)
    last.metrics_files()[0].write_text("".join(lines[:7]))
    for height, width in ((24, 80), (50, 160)):
        console = Console(file=io.StringIO(), width=width, height=height)
        console.print(watch.picture(watch.runs_of([out]), width, height))
        shown = console.file.getvalue().splitlines()
        assert len(shown) <= height
        assert shown[1].startswith("all_three/seed1") and " running " in shown[1]
        assert f"{48 - (height - 4)} more do not fit" in shown[-1]
        assert max(map(len, shown)) <= width


def test_a_comparison_that_has_just_begun(tmp_path, capsys):
    write_comparison(tmp_path / "out", {"a": {"recipe": "r", "preset": "p"}}, seeds=1, steps=2)
    matrix = tmp_path / "out/matrix.yaml"
    matrix.write_text(matrix.read_text().replace("- 0", "- 0\n- 1"))
    text = once(capsys, tmp_path / "out")
    assert row_of(text, "a/seed1")[1] == "waiting"
    assert "1 finished, 1 waiting" in text


@pytest.mark.parametrize("content", [None, "metrics/x", "notes.txt", "log.txt"])
def test_a_folder_without_a_run_is_one_sentence(tmp_path, capsys, content):
    folder = tmp_path / "folder"
    if content:
        (folder / content).parent.mkdir(parents=True)
        (folder / content).write_text("")
    assert watch.main([str(folder)]) == 2
    out, error = capsys.readouterr()
    assert not out and len(error.splitlines()) == 1
    assert f"{folder} holds no run: give the folder that has metrics/ in it" in error


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e9"])
def test_a_time_between_looks_is_above_zero_and_at_most_a_day(tmp_path, capsys, seconds):
    assert watch.main([str(tmp_path), "--every", seconds]) == 2
    assert f"--every={float(seconds)} is not allowed: use seconds" in capsys.readouterr().err


def test_runs_of_two_comparisons_are_told_apart(tmp_path, capsys):
    for name in ("one", "two"):
        arms = {"a": {"recipe": "r", "preset": "p"}, "b": {"recipe": "r", "preset": "p"}}
        write_comparison(tmp_path / name, arms, seeds=1, steps=2)
    (tmp_path / "one/a/seed0/metrics/000.end").write_text("failed: no memory\n")
    (tmp_path / "one/a/seed0/metrics/000.jsonl").write_text("")
    text = once(capsys, tmp_path / "one", tmp_path / "two")
    assert row_of(text, "one/a/seed0")[1] == "failed"
    assert row_of(text, "two/a/seed0")[1] == "finished"
    assert "1 failed, 3 finished" in text
    assert text.splitlines()[-1].strip() == "one/a/seed0 failed: no memory"


def test_a_run_that_is_given_twice_has_its_state_twice(tmp_path, capsys):
    write_comparison(tmp_path / "out", {"a": {"recipe": "r", "preset": "p"}}, seeds=1, steps=2)
    text = once(capsys, tmp_path / "out", tmp_path / "out/a/seed0")
    assert text.count("a/seed0") == 2 and "2 finished" in text
