import subprocess
import sys
from typing import NamedTuple

import pytest

from data_prep import cli


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run_main(monkeypatch, capsys):
    """Calls a script's main in this process; each has a test that starts it as a user does."""

    def run_main(script, main, *args):
        monkeypatch.setattr(sys, "argv", [str(script), *map(str, args)])
        try:
            code = cli.run(main)
        except SystemExit as exit:
            code = exit.code
        return Done(code, *capsys.readouterr())

    return run_main


@pytest.fixture
def start():
    """Starts a script as a user does."""

    def start(script, *args):
        command = [sys.executable, str(script), *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True)

    return start
