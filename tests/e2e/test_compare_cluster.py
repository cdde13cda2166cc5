"""A comparison of 2 methods x 2 seeds in one Ray cluster of 4 virtual GPUs: two runs side by side,
each on two ranks and evaluated on its own two devices. It is killed with -9 together with one of
its runs, while the other is left behind; the same command then finishes all four.

Five starts of verl, so only if asked for: RECIPE_TEST_LONG=1 pytest tests/e2e/<this file>.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from marks import TRAINING_RUN
from ray_head import ray_cluster

from recipe.experiment.matrix import read_matrix
from recipe.experiment.run import Run, read_runs

ROOT = Path(__file__).parents[2]
LIMIT = 2400  # seconds for all of it
STEPS = 2
WAITED_FOR = "still running from an earlier start"

pytestmark = [
    *TRAINING_RUN,
    pytest.mark.skipif(
        not os.environ.get("RECIPE_TEST_LONG"),
        reason="too long for every run of the tests: RECIPE_TEST_LONG=1",
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, small) -> Path:
    model, data = small
    comparison = {
        "seeds": [0, 1],
        "baseline": "grpo",
        "environment": {
            "MODEL_PATH": str(model),
            "DATA_DIR": str(data),
            "NGPUS_PER_NODE": 2,
            "TRAIN_BATCH_SIZE": 8,
            "ROLLOUT_N": 4,
            "STEPS": STEPS,
            "SAVE_FREQ": 1,
            "TEST_FREQ": -1,
        },
        "overrides": [
            "trainer.val_before_train=false",
            "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        ],
        "evaluate": {
            "benchmarks": [str(data / "test.parquet")],
            "max_prompts": 32,
            "chunk": 4,
            "samples": 2,
            "max_response_length": 24,
            "engine": "transformers",
        },
        "arms": {
            name: {"recipe": "asymgrpo", "preset": name, "label": name}
            for name in ("grpo", "asymgrpo")
        },
    }
    folder = tmp_path_factory.mktemp("comparison")
    (folder / "study.yaml").write_text(yaml.safe_dump(comparison))
    return folder


def started_runs(out: Path) -> dict[int, Path]:
    """Returns the folder of each training that runs now by its process's number."""
    running = {}
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        for word in words if "recipe.launch" in words else []:
            if word.startswith("trainer.default_local_dir=") and str(out) in word:
                running[process.pid] = Path(word.partition("=")[2].strip("'\""))
    return running


def kill(*numbers: int) -> None:
    """Ends the processes that were started in sessions of their own, each with its session."""
    for number in numbers:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(number, signal.SIGKILL)


@pytest.fixture(scope="module")
def finished(folder) -> dict:
    """What was seen while the comparison ran, was killed, and ran again."""
    out, seen = folder / "out", {"side_by_side": 0, "begin": time.monotonic()}
    with ray_cluster({"num_gpus": 4, "num_cpus": 32}) as address:
        env = {**os.environ, "RAY_ADDRESS": address, "PYTHON": sys.executable}
        command = [sys.executable, "-m", "recipe.compare", folder / "study.yaml", "--out", out]

        def start() -> subprocess.Popen:
            with (folder / "compare.txt").open("a") as log:
                return subprocess.Popen(
                    list(map(str, command)),
                    cwd=ROOT,
                    env=env,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )

        def tail() -> str:
            logs = [folder / "compare.txt", *out.glob("*/*/*.txt")]
            return "\n".join(f"== {log}\n{log.read_text()[-2000:]}" for log in logs)

        def watch() -> None:
            running = set(started_runs(out).values())  # a process that forks is there twice
            seen["side_by_side"] = max(seen["side_by_side"], len(running))
            assert time.monotonic() < seen["begin"] + LIMIT, tail()
            time.sleep(0.3)

        compare = start()
        try:

            def saved() -> list[Run]:
                runs = read_runs(read_matrix(folder / "study.yaml", out))
                at = {run.folder.path: run.folder.checkpoint_step() for run in runs}
                # logged after it is saved
                return [run for run in runs if 1 in run.steps and at[run.folder.path] < STEPS]

            while not saved():
                assert compare.poll() is None, tail()
                watch()
            killed = saved()[0].folder.path
            kill(compare.pid, *(pid for pid, path in started_runs(out).items() if path == killed))
            compare.wait()
            left = started_runs(out)
            seen |= {"killed": killed, "left": set(left.values())}
            seen["kill"] = time.monotonic() - seen["begin"]
            for number in left:  # so that it does not finish before the command looks for it
                os.kill(number, signal.SIGSTOP)
            compare = start()
            while left and WAITED_FOR not in (folder / "compare.txt").read_text():
                assert compare.poll() is None, tail()
                watch()
            for number in left:
                os.kill(number, signal.SIGCONT)
            while compare.poll() is None:
                watch()
            assert compare.returncode == 0, tail()
        finally:
            kill(compare.pid, *started_runs(out))
        seen["seconds"] = time.monotonic() - seen["begin"]
        script = "import ray; ray.init(); print('free', ray.available_resources()['GPU'])"
        run = [sys.executable, "-c", script]
        seen["free"] = subprocess.run(run, env=env, capture_output=True, text=True, check=True)
    print(f"killed after {seen['kill']:.0f} s, finished after {seen['seconds']:.0f} s")
    return seen


def test_two_runs_are_side_by_side(finished):
    assert finished["side_by_side"] == 2


def test_all_runs_are_finished_and_evaluated_after_the_kill(finished, folder):
    runs = read_runs(read_matrix(folder / "out"))
    assert {run.name for run in runs} == {
        f"{arm}/seed{seed}" for arm in ("grpo", "asymgrpo") for seed in (0, 1)
    }
    for run in runs:
        assert run.folder.is_complete(STEPS) and sorted(run.steps) == list(range(1, STEPS + 1))
        (file,) = run.folder.evaluations()
        record = json.loads(file.with_suffix(".json").read_text())
        assert record["problems"] == 32 and 0 <= record["figures"]["avg@2"]["mean"] <= 1


def test_the_killed_run_is_resumed_and_the_one_left_behind_is_waited_for(finished, folder):
    runs = {run.folder.path: run for run in read_runs(read_matrix(folder / "out"))}
    assert len(runs[finished["killed"]].records) == 2
    for path in finished["left"]:
        assert path != finished["killed"] and len(runs[path].records) == 1
    printed = (folder / "compare.txt").read_text()
    assert printed.count(WAITED_FOR) == len(finished["left"])
    assert re.search(r"\[compare\] [34] runs finished .* 0 failed", printed)


def test_each_is_evaluated_on_its_own_two_devices(finished, folder):
    logs = list((folder / "out").glob("*/seed*/evaluation.txt"))
    assert len(logs) == 4
    for log in logs:
        assert "--replicas 2" in log.read_text().splitlines()[0]


def test_all_devices_are_free_at_the_end(finished):
    assert finished["free"].stdout.split()[-2:] == ["free", "4.0"]
