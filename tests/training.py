"""A training of a test: a run script on the small model, to its end."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TESTS = Path(__file__).parent
STOCK_MANAGER = (  # verl's own agent loops, in place of those of the CPU machine
    "actor_rollout_ref.rollout.agent.agent_loop_manager_class=null",
    "reward.num_workers=1",
)


def train(
    script: str,
    folder: Path,
    small: tuple[Path, Path],
    limit: float,
    overrides: Sequence[str] = (),
    **environment: str,
) -> None:
    """Runs a script to its end; the run is in folder/run, what it prints in folder/log.txt.

    Args:
        script: Below recipe/.
        small: The model and the data.
        limit: Seconds that it may take.
        overrides: Hydra's.
        environment: Of the script, beside where things are; modules of tests/e2e can be loaded.
    """
    model, data = map(str, small)
    env = {
        **os.environ,
        "PYTHON": sys.executable,
        "CKPTS_DIR": str(folder / "run"),
        "MODEL_PATH": model,
        "DATA_DIR": data,
        "TEST_FREQ": "-1",
        "PYTHONPATH": f"{TESTS / 'e2e'}:{os.environ.get('PYTHONPATH', '')}",
        **environment,
    }
    command = ["bash", str(TESTS.parent / "recipe" / script), "trainer.val_before_train=false"]
    log = folder / "log.txt"
    with log.open("w") as file:
        done = subprocess.run(
            [*command, *overrides], env=env, stdout=file, stderr=subprocess.STDOUT, timeout=limit
        )
    assert done.returncode == 0, log.read_text()[-4000:]
