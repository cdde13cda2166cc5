"""A method of another package, as docs/write_a_recipe.md makes it: no file of this repository
changes, and it trains in a comparison, is killed with -9, resumes with its state, and is reported.
"""

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

from recipe.experiment.run import RunFolder

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/write_a_recipe.md").read_text()
LIMIT = 480  # seconds for both starts; on a machine shared by several people they took 190
LOSS = "actor_rollout_ref.actor.policy_loss"
TARGET, RATE = 3.0, 0.01  # nats per token: above any entropy here, so that the coefficient grows

pytestmark = TRAINING_RUN


def git_status() -> str:
    command = ["git", "status", "--porcelain", "--untracked-files=all"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def status_before() -> str:
    return git_status()


@pytest.fixture(scope="module")
def package(tmp_path_factory, status_before) -> tuple[Path, dict[str, str]]:
    """The folder of the package, made by the page's commands, and an environment in which it is
    installed beside this repository."""
    folder = tmp_path_factory.mktemp("package")
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "PYTHONPATH": ":".join(filter(None, paths)),
    }
    copy = re.search(r"^```bash\n(recipes=.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    subprocess.run(["bash", "-euc", copy[1]], cwd=folder, env=env, check=True)
    files = re.findall(r"^\*\*`(my_project/[^`]+)`\*\*\n\n```\w+\n(.*?)^```$", PAGE, re.S | re.M)
    for name, text in files:
        (folder / name).write_text(text)
    pip = "-m pip install --quiet --no-index --no-deps --no-build-isolation --target site"
    command = [sys.executable, *pip.split(), "./my_project"]
    subprocess.run(command, cwd=folder, env=env, check=True)
    return folder, {**env, "PYTHONPATH": f"{folder / 'site'}:{env['PYTHONPATH']}"}


def run(command: list[str], package: tuple[Path, dict[str, str]], code: int = 0) -> str:
    folder, env = package
    command = [sys.executable, "-m", *command]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def matrix(package, small) -> Path:
    """A comparison of the package's method with one of this repository, of which only it is run."""
    model, data = small
    comparison = {
        "seeds": [0],
        "baseline": "grpo",
        "environment": {
            "MODEL_PATH": str(model),
            "DATA_DIR": str(data),
            "TRAIN_BATCH_SIZE": 8,
            "ROLLOUT_N": 4,
            "STEPS": 4,
            "SAVE_FREQ": 2,
            "TEST_FREQ": -1,
        },
        "overrides": [
            "trainer.val_before_train=false",
            "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        ],
        "arms": {
            "grpo": {"recipe": "asymgrpo", "preset": "grpo", "label": "GRPO"},
            "mine": {
                "recipe": "my_method",
                "preset": "my_method",
                "label": "My method",
                "overrides": [f"{LOSS}.my_target={TARGET}", f"{LOSS}.my_rate={RATE}"],
            },
        },
    }
    file = package[0] / "study.yaml"
    file.write_text(yaml.safe_dump(comparison))
    return file


class Trained(RunFolder):
    """The run of the package's method."""

    def steps_of(self, start: int) -> dict[int, dict[str, float]]:
        file = self.path / f"metrics/{start:03d}.jsonl"
        lines = file.read_text().splitlines() if file.is_file() else []
        rows = [json.loads(line) for line in lines if line.endswith("}")]
        return {row["step"]: row["data"] for row in rows}

    def saved(self, step: int) -> dict:
        return json.loads((self.path / f"global_step_{step}/recipe_state.json").read_text())


def family(process: subprocess.Popen) -> list[psutil.Process]:
    try:
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@pytest.fixture(scope="module")
def trained(package, matrix) -> Trained:
    """`recipe.compare` trains it; its process is killed with -9 once step 2 is saved and logged,
    and the comparison resumes it."""
    folder, env = package
    out = Trained(folder / "out/mine/seed0")
    command = ["-m", "recipe.compare", matrix, "--out", folder / "out", "--arms", "mine"]
    with (folder / "compare.txt").open("w") as log:
        compare = subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=folder,
            env=env,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    end = time.monotonic() + LIMIT

    def tail() -> str:
        logs = [folder / "compare.txt", out.log]
        return "\n".join(log.read_text()[-3000:] for log in logs if log.is_file())

    members = []
    try:
        while out.checkpoint_step() < 2 or 2 not in out.steps_of(0):  # logged after it is saved
            assert compare.poll() is None and time.monotonic() < end, tail()
            time.sleep(0.05)
        launched = [p for p in family(compare) if "recipe.launch" in p.cmdline()]
        members = [*launched, *(p for one in launched for p in one.children(recursive=True))]
        os.kill(launched[0].pid, signal.SIGKILL)
        assert compare.wait(max(1, end - time.monotonic())) == 0, tail()
    finally:
        for member in {*family(compare), *members}:
            if member.is_running():
                member.kill()
        compare.wait(60)
    return out


def test_it_trains_with_its_own_estimator_loss_and_part(trained):
    first = trained.steps_of(0)
    assert sorted(first)[:2] == [1, 2]
    config = yaml.safe_load((trained.path / "metrics/000.yaml").read_text())["config"]
    assert config["algorithm"]["adv_estimator"] == "my_advantage"
    assert config["actor_rollout_ref"]["actor"]["policy_loss"]["loss_mode"] == "my_loss"
    # coef <- coef + rate (target - H), from 0
    expected = 0.0
    for step in (1, 2):
        expected += RATE * (TARGET - first[step]["actor/entropy"])
        assert first[step]["my_method/coef"] == pytest.approx(expected, rel=1e-6)
        assert "actor/pg_clipfrac" in first[step] and first[step]["actor/grad_norm"] > 0


def test_it_resumes_with_its_state(trained):
    """Its coefficient goes further from where it was saved, which the second start has not seen."""
    first, second = trained.steps_of(0), trained.steps_of(1)
    assert sorted(second) == [3, 4] and trained.checkpoint_step() == 4
    saved = trained.saved(2)["my_loss"]["coef"]
    assert saved == first[2]["my_method/coef"] > 0
    expected = saved + RATE * (TARGET - second[3]["actor/entropy"])
    assert second[3]["my_method/coef"] == pytest.approx(expected, rel=1e-6)
    assert trained.saved(4)["my_loss"]["coef"] == second[4]["my_method/coef"]


def test_a_report_shows_it(trained, package):
    folder, _ = package
    run(["recipe.report", str(folder / "out"), "--to", str(folder / "report")], package)
    page = (folder / "report/index.html").read_text()
    assert "My method" in page


def test_no_file_of_this_repository_changed(trained, status_before):
    """Runs last: after all that the package has done here."""
    assert git_status() == status_before
