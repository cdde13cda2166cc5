"""The model and the data of the training runs, made once."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> tuple[Path, Path]:
    """A warm-started model (a few steps: it need not be good) and its data."""
    folder = tmp_path_factory.mktemp("task")
    script = ROOT / "data_prep/arithmetic.py"
    subprocess.run([sys.executable, script, "--local_save_dir", folder / "data"], check=True)
    command = [sys.executable, "-m", "recipe.cpu.warm_start", "--steps", "60", "--target", "0.9"]
    subprocess.run([*command, "--data", folder / "data", "--out", folder / "model"], check=True)
    return folder / "model", folder / "data"
