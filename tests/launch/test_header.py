"""What stands on the screen of a run before its steps, and what does not."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from builders import run_overrides

from recipe.console import screen
from recipe.launch import __main__ as launch
from recipe.launch.compose import compose

ROOT = Path(__file__).resolve().parents[2]

pytest.importorskip("verl")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def overrides(folder):
    return run_overrides(folder)


def test_the_header_says_what_is_run_where_and_for_how_long(folder, overrides):
    lines = launch.header("asymgrpo", compose("asymgrpo", overrides)).splitlines()
    assert len(lines) <= 8
    text = "\n".join(lines)
    for part in (
        "asymgrpo, preset asymgrpo: estimator asymgrpo, loss vanilla",
        f"{folder}/model",
        f"{folder}/train.parquet",
        "4 prompts x 8 rollouts, 2 updates, on 1 x 1 (cpu)",
        f"{folder}/run/log.txt",
    ):
        assert part in text
    assert any(line.startswith("[recipe] steps    10;") for line in lines)


def test_the_header_of_a_run_that_resumes_says_after_which_step(folder, overrides):
    config = compose("asymgrpo", [*overrides, f"trainer.default_local_dir={folder}/other"])
    (folder / "other").mkdir()
    (folder / "other/latest_checkpointed_iteration.txt").write_text("7")
    assert "10, resumed after step 7;" in launch.header("asymgrpo", config)
    config.trainer.resume_mode = "disable"
    assert "resumed" not in launch.header("asymgrpo", config)


@pytest.mark.parametrize(
    ("more", "code", "out", "errors"),
    [
        (["trainer.total_training_steps=0"], 2, [], 1),
        (["--dry-run"], 0, ["[recipe] ", "[preflight] "], 0),
        (["--dry-run", "--verbose", "trainer.total_training_steps=0"], 2, [], 2),
    ],
)
def test_a_check_s_sentence_is_all_that_is_seen(overrides, tmp_path, more, code, out, errors):
    """Of a real process: what verl prints while it is imported and checked is left out."""
    done = subprocess.run(
        [sys.executable, "-m", "recipe.launch", "asymgrpo", *overrides, *more],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stderr
    assert [line for line in done.stdout.splitlines() if not line.startswith(tuple(out))] == []
    lines = done.stderr.splitlines()
    assert lines[-1].startswith("error: ") if code else lines == []
    # with --verbose the libraries' own lines too
    assert len(lines) == errors if errors < 2 else len(lines) > 2


def test_what_is_set_aside_is_kept_and_the_recipes_own_lines_are_shown(capfd):
    kept = io.BytesIO()
    with pytest.raises(ValueError), screen.set_aside(kept):
        os.write(1, b"[preflight] not checked\nof a library\n")
        os.write(2, b"engine is not available\n")
        raise ValueError
    os.write(1, b"afterwards\n")
    assert capfd.readouterr() == ("afterwards\n", "")
    assert kept.getvalue().count(b"\n") == 3
    assert screen.notes(kept.getvalue()) == "[preflight] not checked\n"
