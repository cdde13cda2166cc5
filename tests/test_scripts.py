"""The scripts that are run by hand still fit the code that they import."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted((*ROOT.glob("perf/*.py"), *ROOT.glob("studies/*.py")))
# one process for all: a script may patch the trainer that it measures
IMPORT_ALL = """
import runpy, sys
failed = []
for script in sys.argv[1:]:
    sys.path.insert(0, script.rpartition("/")[0])  # as Python does for a script
    try:
        runpy.run_path(script)
    except Exception as error:
        failed.append(f"{script}: {error!r}")
    del sys.path[0]
sys.exit("\\n".join(failed) or 0)
"""


def test_each_script_can_be_imported():
    pytest.importorskip("verl")
    assert len(SCRIPTS) > 5
    command = [sys.executable, "-W", "ignore", "-c", IMPORT_ALL, *map(str, SCRIPTS)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
