"""A Ray cluster on this machine for tests: `ray start --head` with virtual GPUs.

In a temporary folder of its own, so that no other Ray on this machine finds it by accident.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import ray

from recipe.cpu import platform

ROOT = Path(__file__).parents[1]
START = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]


@contextmanager
def ray_cluster(*nodes: dict[str, int]):
    """Yields the address of a cluster.

    Args:
        nodes: of each the options of `ray start`: num_gpus, num_cpus; the first is the head.
    """
    if "RAY_AUTH_MODE" not in os.environ:
        # a local start chooses it for this process and its children, and makes Ray's token
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
        ray.shutdown()
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # short: the paths of sockets have 107 bytes
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, **platform.ENVIRONMENT, "PYTHONPATH": path}
    env.pop("RAY_ADDRESS", None)
    started = []

    def start(*options: str, **resources: int) -> None:
        words = [f"--{name.replace('_', '-')}={value}" for name, value in resources.items()]
        with (folder / f"node{len(started)}.txt").open("w") as log:
            command = [*START, *options, *words]
            started.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))

    def wait_for(condition) -> None:
        end = time.monotonic() + 180  # three processes import Ray on a busy machine
        while not condition():
            logs = [file.read_text()[-2000:] for file in folder.glob("node*.txt")]
            assert time.monotonic() < end and all(p.poll() is None for p in started), logs
            time.sleep(0.1)

    try:
        head, *others = nodes
        options = ["--head", "--port=0", f"--temp-dir={folder}", "--include-dashboard=false"]
        start(*options, **head)
        address = folder / "ray_current_cluster"
        wait_for(address.is_file)
        wait_for(lambda: "--address=" in (folder / "node0.txt").read_text())
        for node in others:
            start(f"--address={address.read_text()}", **node)
        for number in range(len(nodes)):
            log = folder / f"node{number}.txt"
            wait_for(lambda log=log: "Ray runtime started" in log.read_text())
        yield address.read_text().strip()
    finally:
        members = set()
        for process in started:
            if process.poll() is None:
                members |= set(psutil.Process(process.pid).children(recursive=True))
            process.terminate()
        _, alive = psutil.wait_procs(members, timeout=10)
        for process in [*alive, *started]:
            process.kill()
        for process in started:
            process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)
