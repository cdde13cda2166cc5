"""What a run shows on its screen, and what goes to its log: real processes, pipes and a terminal,
around a training that is a fake."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from recipe.experiment.run import RunFolder

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 60
NOISE = ("target_num_threads", "megatron", "leaked", "of a process in C++", "of the checks")


def command(folder: Path, *words: str) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name("fake_training.py")), str(folder), *words]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **more}


def start(folder: Path, *words: str, **streams) -> subprocess.Popen:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} | streams
    return subprocess.Popen(command(folder, *words), env=environment(), **streams)


def finish(folder: Path, *words: str) -> tuple[int, list[str]]:
    process = start(folder, *words)
    text, _ = process.communicate(timeout=LIMIT)
    return process.returncode, text.splitlines()


def wait_for(condition) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_run_of_20_steps_is_a_line_each_in_a_pipe_and_all_else_is_in_its_log(tmp_path):
    code, lines = finish(tmp_path / "run", "20", "finished")
    assert code == 0
    assert len(lines) <= 30  # of the 60 that a whole run may have
    steps = [line.split() for line in lines if re.match(r"\s+\d+/20 ", line)]
    assert [words[0] for words in steps] == [f"{step}/20" for step in range(1, 21)]
    assert steps[6][1:5] == ["0.070", "0.143", "14.5", "2.0"]
    assert lines[0] == "[recipe] the header"
    assert lines.count("[recipe] entropy: actor/entropy") == 1
    assert "[recipe] finished: step 20 of 20" in lines[-1]
    text = (tmp_path / "run/log.txt").read_text()
    for noise in NOISE:
        assert noise in text and not any(noise in line for line in lines)
    assert text.startswith("$ ")
    assert RunFolder(tmp_path / "run").last_end() == "finished"


def test_an_error_ends_with_its_cause_and_shows_no_frames(tmp_path):
    code, lines = finish(tmp_path / "run", "3", "error")
    assert code == 1
    assert lines[-1] == "error: failed after step 3 of 3: rank 1 refuses this batch"
    assert any("CUDA out of memory on rank 1" in line for line in lines)
    assert not [line for line in lines if "File " in line or "Traceback" in line]
    assert len(lines) < 30
    log = (tmp_path / "run/log.txt").read_text()
    assert log.count("Traceback (most recent call last)") == 1 and "in train" in log
    assert RunFolder(tmp_path / "run").last_end() == "failed: rank 1 refuses this batch"


@pytest.mark.parametrize(("end", "code"), [("kill", -signal.SIGKILL), ("exit", 1)])
def test_a_run_that_dies_without_a_word_is_said_to_have(tmp_path, end, code):
    returned, lines = finish(tmp_path / "run", "2", end)
    assert returned == code
    assert lines[-1].startswith("error: killed after step 2 of 2")
    assert str(tmp_path / "run/log.txt") in lines[-3]
    assert RunFolder(tmp_path / "run").last_end().startswith("killed: ")


@pytest.mark.parametrize(
    ("number", "code", "how"),
    [(signal.SIGINT, -signal.SIGINT, "by Ctrl-C"), (signal.SIGTERM, signal.SIGTERM, "by SIGTERM")],
)
def test_signals_reach_the_run_whose_exit_code_stays(tmp_path, number, code, how):
    """The whole process group gets them, as from a terminal."""
    # a shell starts what is in its background with Ctrl-C ignored, and children inherit that
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = start(tmp_path / "run", "2", "wait", start_new_session=True)
    signal.signal(signal.SIGINT, before)
    wait_for(lambda: RunFolder(tmp_path / "run").steps_done() == 2)
    os.killpg(process.pid, number)
    text, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == code
    assert text.splitlines()[-1] == f"error: stopped after step 2 of 2: {how}"
    assert RunFolder(tmp_path / "run").last_end() == f"stopped: {how}"


def test_killing_the_run_ends_its_console(tmp_path):
    process = start(tmp_path / "run", "2", "wait")
    wait_for(lambda: RunFolder(tmp_path / "run").steps_done() == 2)
    consoles = psutil.Process(process.pid).children()
    assert len(consoles) == 1
    process.kill()
    process.communicate(timeout=LIMIT)
    psutil.wait_procs(consoles, timeout=LIMIT)
    assert not any(console.is_running() for console in consoles)


def test_a_resumed_run_adds_to_its_log_and_shows_its_own_steps(tmp_path):
    assert finish(tmp_path / "run", "4", "error")[0] == 1
    code, lines = finish(tmp_path / "run", "6", "finished", "--first", "4")
    assert code == 0
    assert [line.split()[0] for line in lines if "/6 " in line] == ["4/6", "5/6", "6/6"]
    text = (tmp_path / "run/log.txt").read_text()
    assert text.count("$ ") == 2 and "rank 1 refuses" in text
    assert RunFolder(tmp_path / "run").last_end() == "finished"


def test_an_end_of_a_start_that_failed_before_its_first_step_is_not_the_next_one_s(tmp_path):
    (tmp_path / "run/metrics").mkdir(parents=True)
    (tmp_path / "run/metrics/000.end").write_text("failed: earlier\n")
    code, lines = finish(tmp_path / "run", "3", "finished", "--pause", "1")
    assert code == 0 and "finished: step 3 of 3" in lines[-1]


def test_where_the_output_is_the_log_already_it_stays_so(tmp_path):
    """As of the runs that recipe.compare starts."""
    (tmp_path / "run").mkdir()
    with (tmp_path / "run/log.txt").open("a") as log:
        process = start(tmp_path / "run", "3", "error", stdout=log, stderr=log)
        assert process.wait(LIMIT) == 1
    text = (tmp_path / "run/log.txt").read_text()
    assert text.count("[recipe] the header") == text.count("Traceback") == 1
    assert "1/3" not in text and all(noise in text for noise in NOISE)
    assert RunFolder(tmp_path / "run").last_end() == "failed: rank 1 refuses this batch"


def test_verbose_shows_the_whole_log(tmp_path):
    code, lines = finish(tmp_path / "run", "3", "finished", "--verbose")
    log = (tmp_path / "run/log.txt").read_text().splitlines()
    assert code == 0
    shown = lines[1:]
    # all but what comes after the console's end
    assert shown == log[: len(shown)] and [line for line in log[len(shown) :] if line] == log[-1:]
    assert "leaked" in log[-1]


def test_a_reader_that_goes_away_does_not_end_the_run(tmp_path):
    process = start(tmp_path / "run", "6", "finished", "--pause", "0.3")
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(LIMIT) == 0
    assert RunFolder(tmp_path / "run").steps_done() == 6


def test_on_a_terminal_the_last_steps_are_a_table_with_curves(tmp_path):
    leader, terminal = pty.openpty()
    process = subprocess.Popen(
        command(tmp_path / "run", "9", "finished", "--pause", "0.2"),
        stdout=terminal,
        stderr=terminal,
        env=environment(TERM="xterm", LINES="30"),
    )
    os.close(terminal)
    shown = b""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        if select.select([leader], [], [], 0.2)[0]:
            try:
                shown += os.read(leader, 1 << 16)
            except OSError:  # of a terminal whose last writer is gone
                break
    os.close(leader)
    assert process.wait(LIMIT) == 0
    text = shown.decode()
    assert "\x1b[?25l" in text and "\x1b[?25h" in text  # the cursor is hidden, and shown again
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text[text.rindex("reward") :])
    assert "9/9" in last and "▁▂▃▄▅▅▆▇█" in last and "step 9 of 9" in last
    assert "[recipe] finished: step 9 of 9" in last
    assert not any(noise in text for noise in NOISE)
