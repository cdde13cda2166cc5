"""stages.sh alone: what it starts, with a stand-in for Python that only notes its command."""

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
  [[ -z ${FAIL:-} || $* != *"$FAIL"* ]] || exit 137
  mkdir -p "$folder/global_step_7/actor/merged"
  touch "$folder/global_step_7/actor/merged/config.json"
  echo 7 > "$folder/latest_checkpointed_iteration.txt"
elif [[ $* == *sampling.checkpoints* ]]; then
  echo "${@: -1}/global_step_7/actor/merged"
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
        ["bash", FOLDER / "stages.sh", script, "data.curriculum.order=pass_rate"],
        env={**base, **environment},
        capture_output=True,
        text=True,
    )
    commands = tmp_path / "commands"
    return done, commands.read_text().splitlines() if commands.exists() else []


def launched(commands):
    """The words of each start of a run, in order."""
    return [command.split() for command in commands if "recipe.launch" in command]


def words_after(flag, words):
    return [words[i + 1] for i, word in enumerate(words) if word == flag]


@pytest.mark.parametrize("refresh", ["0", "1"])
@pytest.mark.parametrize("stages", [None, "1", "3"])
@pytest.mark.parametrize("script", ["run_cpu.sh", "run_qwen7b.sh"])
def test_each_stage_begins_with_the_model_of_the_one_before(tmp_path, script, stages, refresh):
    scores, train = str(tmp_path / "scores.parquet"), str(tmp_path / "train.parquet")
    given = {"SCORES": scores, "TRAIN_FILE": train, "REFRESH": refresh}
    done, commands = run(tmp_path, script, **given, **({"STAGES": stages} if stages else {}))
    assert done.returncode == 0, done.stderr
    count = int(stages or 2)  # two, as released
    starts = launched(commands)
    measured = [c.split() for c in commands if "semantic_curriculum.measure" in c]
    assert len(starts) == count
    model, order = str(tmp_path), scores
    for stage, words in enumerate(starts, 1):
        if stage > 1:  # as it was printed
            model = f"{tmp_path}/run/stage{stage - 1}/global_step_7/actor/merged"
        if stage > 1 and refresh == "1":
            order = f"{tmp_path}/run/semantic_entropy_stage{stage}.parquet"
            (command,) = (c for c in measured if words_after("--out", c) == [order])
            assert words_after("--model", command) == [model]
        # a later stage's model is not the one that was measured, unless it was measured again
        whose = "any" if stage > 1 and refresh == "0" else "this"
        for word in (
            f"actor_rollout_ref.model.path='{model}'",
            f"data.curriculum.scores='{order}'",
            f"data.curriculum.stages={count}",
            f"data.curriculum.only_stage={stage}",
            f"trainer.default_local_dir='{tmp_path}/run/stage{stage}'",
            "data.curriculum.order=pass_rate",
            f"data.curriculum.scores_from={whose}_model",
        ):
            assert word in words, word


def test_a_killed_stage_is_resumed_and_the_ones_before_are_not_started(tmp_path):
    """By the same command; another one starts every stage, whose launcher judges the difference."""
    given = {"SCORES": str(tmp_path / "scores.parquet"), "STAGES": "3"}
    stage_of = lambda words: int(words_after_equals("data.curriculum.only_stage", words))  # noqa: E731
    done, commands = run(tmp_path, "run_qwen7b.sh", FAIL="only_stage=2", **given)
    assert done.returncode == 137
    assert [stage_of(words) for words in launched(commands)] == [1, 2]
    (tmp_path / "commands").unlink()
    done, commands = run(tmp_path, "run_qwen7b.sh", **given)
    assert done.returncode == 0 and "stage 1 of 3 is done" in done.stdout
    assert [stage_of(words) for words in launched(commands)] == [2, 3]
    (tmp_path / "commands").unlink()
    done, commands = run(tmp_path, "run_qwen7b.sh", **given)
    assert done.returncode == 0 and not launched(commands)
    # another seed is another run
    done, commands = run(tmp_path, "run_qwen7b.sh", **given, SEED="1")
    assert done.returncode == 0
    assert [stage_of(words) for words in launched(commands)] == [1, 2, 3]
    (tmp_path / "commands").unlink()
    # a first stage that is trained again: what follows begins with another model
    (tmp_path / "run/stage1/done").unlink()
    done, commands = run(tmp_path, "run_qwen7b.sh", **given, SEED="1")
    assert [stage_of(words) for words in launched(commands)] == [1, 2, 3]


def words_after_equals(key, words):
    return next(word.partition("=")[2] for word in words if word.startswith(f"{key}="))


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"REFRESH": "yes"}, "REFRESH=yes"),
        ({"STAGES": "0"}, "STAGES=0 is not allowed: use a whole number above 0"),
        ({"STAGES": "two"}, "STAGES=two"),
        ({}, "SCORES"),
        ({"REFRESH": "1", "SCORES": "x"}, "TRAIN_FILE"),
    ],
)
def test_what_is_missing_is_said_before_anything_starts(tmp_path, environment, said):
    done, commands = run(tmp_path, "run_qwen7b.sh", **environment)
    assert done.returncode != 0 and said in done.stderr and not commands
