"""A command that only checks makes nothing: no data, no warm start, no measurement."""

import os
import subprocess
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[2] / "recipe"


def test_a_dry_run_on_a_new_machine_makes_nothing_and_says_what_is_missing(tmp_path):
    script = RECIPES / "semantic_curriculum/run_cpu.sh"
    unset = {"SCORES", "THRESHOLDS", "DATA_DIR", "MODEL_PATH", "TRAIN_FILE", "TEST_FILE"}
    environment = {k: v for k, v in os.environ.items() if k not in unset}
    done = subprocess.run(
        ["bash", str(script), "--dry-run"],
        env={**environment, "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    note, *_, error = done.stderr.strip().splitlines()
    assert note == (
        "note: the task's data or model is missing; a start makes them, in a few minutes"
    )
    assert error.startswith(f"error: data.train_files={tmp_path}/data/arithmetic/train.parquet")
    assert not list(tmp_path.iterdir())


def test_neither_does_that_of_a_comparison(tmp_path, monkeypatch, capfd):
    pytest.importorskip("verl")
    from recipe.compare.__main__ import main

    for name in ("SCORES", "THRESHOLDS", "DATA_DIR", "MODEL_PATH", "TRAIN_FILE", "TEST_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    study = RECIPES.parent / "studies/study_acts_cpu.yaml"
    command = ["--arms", "grpo", "--seeds", "10", "--out", str(tmp_path / "out"), "--dry-run"]
    assert main([str(study), *command]) == 2
    note, *_, error = capfd.readouterr().err.strip().splitlines()
    assert note.startswith("note: the task's data or model is missing")
    assert f"data.train_files={tmp_path}/data/target_sums/train.parquet does not exist" in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["run_nope.sh"], {}, "'run_nope.sh' is no run script"),
        ([], {}, "'' is no run script"),
        (["run_qwen7b.sh"], {}, "SCORES is not set"),
        (["run_qwen7b.sh"], {"SCORES": "s", "REFRESH": "1"}, "TRAIN_FILE is not set"),
        (["run_cpu.sh", "--dry-run"], {}, "--dry-run is not allowed"),
        (["run_cpu.sh"], {"STAGES": "0"}, "STAGES=0 is not allowed"),
    ],
)
def test_stages_refuses_in_a_sentence_and_makes_no_folder(
    tmp_path, arguments, environment, sentence
):
    script = RECIPES / "semantic_curriculum/stages.sh"
    done = subprocess.run(
        ["bash", str(script), *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {sentence}") and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_thresholds_that_no_file_has_are_refused_by_their_name(tmp_path):
    missing = tmp_path / "none.txt"
    done = subprocess.run(
        ["bash", str(RECIPES / "semantic_curriculum/run_qwen7b.sh")],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PRESET": "sent_paper",
             "SCORES": "s", "THRESHOLDS": str(missing), "COMMAND_FILE": str(tmp_path / "c")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: THRESHOLDS={missing} is no file: write it with")
