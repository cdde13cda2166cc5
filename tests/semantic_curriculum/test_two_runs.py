"""two_runs.sh alone: what it starts, with a stand-in for Python that only notes its command."""

import os
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "recipe/semantic_curriculum"
STAND_IN = """#!/usr/bin/env bash
echo "$*" >> "$COMMANDS"
out=""
for word in "$@"; do
  [[ $word != trainer.default_local_dir=* ]] || folder=$(tr -d "'" <<<"${word#*=}")
  [[ $before != --out ]] || out=$word
  before=$word
done
if [[ $* == *recipe.launch* ]]; then
  mkdir -p "$folder/global_step_7/actor/lora_merged"
  touch "$folder/global_step_7/actor/lora_merged/config.json"
  echo 7 > "$folder/latest_checkpointed_iteration.txt"
elif [[ $* == *sampling.checkpoints* ]]; then
  echo "${@: -1}/global_step_7/actor/lora_merged"
elif [[ -n $out ]]; then
  touch "$out"
fi
"""


def run(tmp_path, script, **environment):
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    (tmp_path / "config.json").touch()  # of the model
    for name in ("train.parquet", "test.parquet"):
        (tmp_path / name).touch()
    base = {
        **{"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHON": str(stand_in)},
        **{"COMMANDS": str(tmp_path / "commands"), "CKPTS_DIR": str(tmp_path / "run")},
        **{"MODEL_PATH": str(tmp_path), "DATA_DIR": str(tmp_path)},
    }
    done = subprocess.run(
        ["bash", FOLDER / "two_runs.sh", script, "data.curriculum.order=pass_rate"],
        env={**base, **environment},
        capture_output=True,
        text=True,
    )
    commands = tmp_path / "commands"
    return done, commands.read_text().splitlines() if commands.exists() else []


@pytest.mark.parametrize("refresh", ["0", "1"])
@pytest.mark.parametrize("script", ["run_cpu.sh", "run_qwen7b.sh"])
def test_the_second_stage_begins_with_the_first_ones_model(tmp_path, script, refresh):
    scores, train = str(tmp_path / "scores.parquet"), str(tmp_path / "train.parquet")
    given = {"SCORES": scores, "TRAIN_FILE": train}
    done, commands = run(tmp_path, script, REFRESH=refresh, **given)
    assert done.returncode == 0, done.stderr
    first, second = (c.split() for c in commands if "recipe.launch" in c)
    measured = [c.split() for c in commands if "semantic_curriculum.measure" in c]
    last = f"{tmp_path}/run/stage1/global_step_7/actor/lora_merged"  # as it was printed
    assert f"actor_rollout_ref.model.path='{tmp_path}'" in first
    assert f"actor_rollout_ref.model.path='{last}'" in second
    for words, stage in ((first, 1), (second, 2)):
        assert f"data.curriculum.only_stage={stage}" in words
        assert f"trainer.default_local_dir='{tmp_path}/run/stage{stage}'" in words
        assert "data.curriculum.order=pass_rate" in words
    assert f"data.curriculum.scores='{scores}'" in first
    if refresh == "0":
        assert f"data.curriculum.scores='{scores}'" in second
    else:
        fresh = f"{tmp_path}/run/semantic_entropy_stage2.parquet"
        assert f"data.curriculum.scores='{fresh}'" in second
        by_first_model = [c for c in measured if c[c.index("--out") + 1] == fresh]
        assert len(by_first_model) == 1
        assert by_first_model[0][by_first_model[0].index("--model") + 1] == last


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"REFRESH": "yes"}, "REFRESH=yes"),
        ({}, "SCORES"),
        ({"REFRESH": "1", "SCORES": "x"}, "TRAIN_FILE"),
    ],
)
def test_what_is_missing_is_said_before_anything_starts(tmp_path, environment, said):
    done, commands = run(tmp_path, "run_qwen7b.sh", **environment)
    assert done.returncode != 0 and said in done.stderr and not commands
