"""SENT's curriculum stage by stage, as three runs of `stages.sh`: killed with -9 in the second
stage and started again by the same command. Four starts of verl, so only if asked for."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from marks import TRAINING_RUN

from recipe.sampling.model_content import fingerprint

ROOT = Path(__file__).parents[2]
LIMIT = 1200  # seconds for the whole command
STAGES, PROMPTS = 3, 24  # eight prompts a stage: two steps of four

pytestmark = [
    *TRAINING_RUN,
    pytest.mark.skipif(
        not os.environ.get("RECIPE_TEST_LONG"),
        reason="too long for every run of the tests: RECIPE_TEST_LONG=1",
    ),
]


def steps_of(folder: Path, start: int) -> dict[int, dict]:
    file = folder / f"metrics/{start:03d}.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    return {row["step"]: row["data"] for row in rows}


def kill(process: subprocess.Popen) -> None:
    members = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait(60)


@pytest.fixture(scope="module")
def run(tmp_path_factory, small) -> Path:
    folder = tmp_path_factory.mktemp("stages")
    model, data = map(str, small)
    environment = {
        **os.environ,
        "STAGES": str(STAGES),
        "PYTHON": sys.executable,
        "CKPTS_DIR": str(folder),
        "SCORES": str(folder / "scores.parquet"),
        "MODEL_PATH": model,
        "DATA_DIR": data,
        "PROMPTS": str(PROMPTS),
        "TRAIN_BATCH_SIZE": "4",
        "ROLLOUT_N": "4",
        "SAVE_FREQ": "1",
        "TEST_FREQ": "-1",
    }
    command = ["bash", str(ROOT / "recipe/semantic_curriculum/stages.sh"), "run_cpu.sh"]
    command += ["trainer.val_before_train=false", "data.curriculum.epochs_per_stage=1"]
    command += ["actor_rollout_ref.actor.ppo_mini_batch_size=2"]
    with (folder / "log.txt").open("w") as log:

        def start() -> subprocess.Popen:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log)

        process, end = start(), time.monotonic() + LIMIT
        while 1 not in steps_of(folder / "stage2", 0):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        kill(process)
        assert start().wait(end - time.monotonic()) == 0, (folder / "log.txt").read_text()[-4000:]
    return folder


def test_every_stage_is_trained_to_its_end(run):
    """The first not again; the second from its checkpoint."""
    for stage, starts in ((1, 1), (2, 2), (3, 1)):
        folder = run / f"stage{stage}"
        assert len(list(folder.glob("metrics/*.yaml"))) == starts
        rows = {}
        for start in range(starts):
            rows |= steps_of(folder, start)
        assert sorted(rows) == [1, 2]
        assert {row["curriculum/stage"] for row in rows.values()} == {stage}
    resumed = sorted(steps_of(run / "stage2", 1))
    assert resumed[-1] == 2 and "stage 1 of 3 is done" in (run / "log.txt").read_text()


def test_each_stage_begins_with_the_last_model_of_the_one_before(run):
    configs = [
        yaml.safe_load(next((run / f"stage{n}/metrics").glob("000.yaml")).read_text())["config"]
        for n in (1, 2, 3)
    ]
    models = [config["actor_rollout_ref"]["model"]["path"] for config in configs]
    for stage, model in enumerate(models[1:], 1):
        assert model == str(run / f"stage{stage}/global_step_2/actor/huggingface")
    assert len({fingerprint(model) for model in models}) == 3  # each stage has moved the weights
    for config in configs:
        assert config["data"]["curriculum"]["stages"] == STAGES


def test_the_stages_rise_in_semantic_entropy(run):
    means = []
    for stage in (1, 2, 3):
        last = steps_of(run / f"stage{stage}", 1 if stage == 2 else 0)
        means.append(last[2]["curriculum/semantic_entropy"])
    assert means == sorted(means)
