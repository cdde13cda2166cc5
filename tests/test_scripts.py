"""The scripts that are run by hand still fit the code that they import."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted((*ROOT.glob("perf/*.py"), *ROOT.glob("studies/*.py")))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_a_script_can_be_imported(script, monkeypatch):
    pytest.importorskip("verl")
    monkeypatch.syspath_prepend(script.parent)  # as Python does for a script
    name = f"{script.parent.name}_{script.stem}"
    spec = importlib.util.spec_from_file_location(name, script)
    monkeypatch.setitem(sys.modules, name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(sys.modules[name])


def test_there_are_scripts():
    assert len(SCRIPTS) > 5
