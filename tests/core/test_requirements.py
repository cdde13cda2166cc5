"""An environment that lacks what the package needs ends in one sentence, with what to install."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recipe.core import cli, requirements

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Returns a function that installs the metadata of `a-package` with these requirements."""

    def install(*needs, name="a-package", version="1.0"):
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {n}" for n in needs)]
        (folder / "METADATA").write_text("Metadata-Version: 2.1\n" + "\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(tmp_path)

    return install


def test_this_environment_has_what_the_package_needs():
    requirements.check()


def test_all_that_is_missing_or_of_another_version_is_named_at_once(package):
    package("numpy", "not-there>=2", "other-package>=0.1.10", 'windows-only; os_name == "nt"')
    package(name="other-package", version="0.1.8")
    with pytest.raises(RuntimeError) as error:
        requirements.check("a-package")
    sentence = str(error.value)
    assert "not-there>=2, other-package>=0.1.10 (0.1.8 is installed)" in sentence
    assert "pip install 'not-there>=2' 'other-package>=0.1.10'" in sentence
    assert "numpy" not in sentence and "windows" not in sentence


def test_vllm_is_missed_by_its_module_since_its_distribution_has_two_names(monkeypatch):
    monkeypatch.setattr(requirements, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"pip install 'verl\[vllm\]'`"):
        requirements.check()


def test_an_extra_is_not_asked_for(package):
    package('not-there; extra == "test"')
    requirements.check("a-package")


def test_a_package_that_is_not_installed():
    with pytest.raises(RuntimeError, match="pip install --no-deps -e"):
        requirements.check("not-there")


def test_a_missing_module_is_one_sentence(capsys):
    def command(_):
        import not_a_module  # noqa: F401

    assert cli.run(command) == 2
    assert "error: No module named 'not_a_module' in " in capsys.readouterr().err


def test_launch_in_an_interpreter_without_packages_ends_in_a_sentence():
    run = subprocess.run(
        [sys.executable, "-S", "-m", "recipe.launch", "asymgrpo", "--dry-run"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2
    assert run.stderr.startswith("error: ") and run.stderr.count("\n") == 1, run.stderr
