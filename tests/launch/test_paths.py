"""A checkout, a model, data and run folders with any name: what a run script hands on to Hydra, and
what `recipe.compare` composes of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("verl")

from builders import write_data, write_model, write_scores

from recipe.core.recipe import FOLDER
from recipe.launch.compose import compose

SCRIPTS = sorted(FOLDER.glob("*/run_*.sh"))
STRANGE = "é, =(x)# 'q' \"d\" $h [l]{m}\\"


def environment(folder: Path) -> dict[str, str]:
    """A script's environment, with all of its files in one folder."""
    names = {
        "MODEL_PATH": "model",
        "TRAIN_FILE": "train.parquet",
        "TEST_FILE": "test.parquet",
        "SCORES": "scores.parquet",
        "CKPTS_DIR": "run",
    }
    return {
        **os.environ,
        "PYTHON": sys.executable,
        **{variable: str(folder / name) for variable, name in names.items()},
        "EXPERIMENT_NAME": "null",
        "PROJECT_NAME": STRANGE,
    }


def write_files(folder: Path) -> None:
    folder.mkdir(parents=True)
    write_data(folder, rows=700)
    write_model(folder / "model")
    write_scores(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("paths") / STRANGE
    write_files(folder)
    return folder


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_run_script_hands_every_path_on_as_it_is(script, folder, tmp_path):
    """By COMMAND_FILE, as `recipe.compare` asks for the command."""
    file = tmp_path / "command"
    env = environment(folder)
    subprocess.run(["bash", str(script)], env={**env, "COMMAND_FILE": str(file)}, check=True)
    command = file.read_bytes().decode().rstrip("\0").split("\0")
    recipe, *overrides = command[command.index("recipe.launch") + 1 :]
    config = compose(recipe, overrides)
    assert config.actor_rollout_ref.model.path == env["MODEL_PATH"]
    assert config.data.train_files == env["TRAIN_FILE"]
    assert config.data.val_files == env["TEST_FILE"]
    assert config.trainer.default_local_dir == env["CKPTS_DIR"]
    assert (config.trainer.project_name, config.trainer.experiment_name) == (STRANGE, "null")
    if recipe == "semantic_curriculum":
        assert config.data.curriculum.scores == env["SCORES"]
    if config.trainer.rollout_data_dir is not None:
        assert config.trainer.rollout_data_dir == f"{env['CKPTS_DIR']}/rollouts"


def test_a_list_of_files_stays_a_list(folder, tmp_path):
    file, files = tmp_path / "command", "[/a/x.parquet,/a/y.parquet]"
    env = {**environment(folder), "TRAIN_FILE": files, "COMMAND_FILE": str(file)}
    script = FOLDER / "asymgrpo" / "run_qwen7b.sh"
    subprocess.run(["bash", str(script)], env=env, check=True)
    assert f"data.train_files={files}" in file.read_bytes().decode().split("\0")


def test_a_checkout_of_any_name_dry_runs(folder):
    """The whole way, from a copy of the recipes in such a folder."""
    checkout = folder / "checkout"
    shutil.copytree(FOLDER, checkout / "recipe", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        ["bash", str(checkout / "recipe" / "asymgrpo" / "run_cpu.sh"), "--dry-run"],
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "dry run: the config is valid" in done.stdout


def test_a_python_that_is_not_there_is_one_sentence(folder, tmp_path):
    """Another one, found by chance, would be another environment."""
    script, file = FOLDER / "asymgrpo" / "run_cpu.sh", tmp_path / "command"
    env = {**environment(folder), "COMMAND_FILE": str(file)}
    command = ["bash", str(script)]
    done = subprocess.run(command, env={**env, "PYTHON": "pyhton"}, capture_output=True, text=True)
    assert done.returncode == 2 and not file.exists()
    assert "error: PYTHON=pyhton is no program" in done.stderr
    subprocess.run(command, env={**env, "PYTHON": "python3"}, check=True)  # a name, as of a program
    assert file.read_bytes().startswith(b"python3\0")


def test_a_path_that_refers_to_another_key_is_one_sentence(folder):
    script = FOLDER / "asymgrpo" / "run_cpu.sh"
    done = subprocess.run(
        ["bash", str(script), "--dry-run"],
        env={**environment(folder), "CKPTS_DIR": "/runs/${x}"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 2
    assert "error: trainer.default_local_dir cannot be resolved" in done.stderr
