"""The run scripts and the thresholds of the paper's preset, with a stand-in for Python that only
notes its command and writes what `calibrate` would."""

import os
import subprocess
from pathlib import Path

import pytest
from builders import THRESHOLDS

FOLDER = Path(__file__).resolve().parents[2] / "recipe/semantic_curriculum"
STAND_IN = f"""#!/usr/bin/env bash
echo "$*" >> "$COMMANDS"
[[ $* != *semantic_curriculum.calibrate* ]] || printf '%s\\n' {" ".join(THRESHOLDS)} > "${{@: -1}}"
"""


@pytest.fixture
def run(tmp_path):
    """run(script, **environment): the commands that it starts."""
    stand_in, commands = tmp_path / "python", tmp_path / "commands"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    for name in ("config.json", "train.parquet", "test.parquet", "scores.parquet"):
        (tmp_path / name).touch()
    environment = {
        **{"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHON": str(stand_in)},
        **{"COMMANDS": str(commands), "CKPTS_DIR": str(tmp_path / "run")},
        **{"MODEL_PATH": str(tmp_path), "DATA_DIR": str(tmp_path)},
        "SCORES": str(tmp_path / "scores.parquet"),
    }

    def call(script: str, **more: str) -> list[list[str]]:
        commands.unlink(missing_ok=True)
        subprocess.run(["bash", FOLDER / script], env={**environment, **more}, check=True)
        return [line.split() for line in commands.read_text().splitlines()]

    return call


@pytest.mark.parametrize("preset", ["paper", "sent_paper"])
def test_the_cpu_run_calibrates_once_for_its_scores(run, tmp_path, preset):
    calibrated, launched = run("run_cpu.sh", PRESET=preset)
    assert calibrated[:2] == ["-m", "recipe.semantic_curriculum.calibrate"]
    options = dict(zip(calibrated[2::2], calibrated[3::2], strict=True))
    scores = tmp_path / "scores.parquet"
    assert options["--responses"] == f"{scores}.responses"
    assert options["--model"] == str(tmp_path)
    assert options["--out"] == f"{tmp_path}/scores_thresholds.txt"
    assert set(THRESHOLDS) <= set(launched)
    assert not any("high_cov_fraction" in word for word in launched)
    (again,) = run("run_cpu.sh", PRESET=preset)
    assert again == launched
    os.utime(scores, (2**32, 2**32))  # measured again since
    assert len(run("run_cpu.sh", PRESET=preset)) == 2


@pytest.mark.parametrize(
    ("more", "cure"),
    [
        ({"PREPARE": "0"}, "scores_thresholds.txt is no file: a start without --dry-run writes it"),
        ({"THRESHOLDS": "absent"}, "absent is no file: write it with python -m"),
    ],
)
def test_thresholds_that_are_missing_are_a_sentence_with_their_cure(run, capfd, more, cure):
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run("run_cpu.sh", PRESET="sent_paper", **more)
    assert failed.value.returncode == 2 and cure in capfd.readouterr().err


def test_another_preset_has_no_thresholds(run):
    (launched,) = run("run_cpu.sh", PRESET="sent")
    assert not any("threshold" in word for word in launched)


@pytest.mark.parametrize("script", sorted(path.name for path in FOLDER.glob("run_*.sh")))
def test_a_script_takes_the_file_of_thresholds(run, tmp_path, script):
    file = tmp_path / "thresholds.txt"
    file.write_text("\n".join(THRESHOLDS) + "\n")
    os.utime(file, (1, 1))  # older than the scores: the user's own choice all the same
    (launched,) = run(script, PRESET="sent_paper", THRESHOLDS=str(file))
    assert set(THRESHOLDS) <= set(launched)
    # a comparison's environment is that of all arms, and GRPO has no token rule
    (launched,) = run(script, PRESET="grpo", THRESHOLDS=str(file))
    assert not any("threshold" in word for word in launched)
