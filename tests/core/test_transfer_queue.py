"""Two runs in one Ray cluster do not see each other's TransferQueue."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("transfer_queue")

HEAD = """
import ray
print(ray.init(num_cpus=8, include_dashboard=False).address_info["gcs_address"], flush=True)
input()
"""
RUN = """
import sys
import ray
import recipe.plugin
ray.init(address=sys.argv[1], logging_level="ERROR")
import transfer_queue as tq
from omegaconf import OmegaConf
tq.init(OmegaConf.create({"backend": {"SimpleStorage": {"num_data_storage_units": 1}}}))

@ray.remote
def elsewhere():  # in another process of the run
    import recipe.plugin
    import transfer_queue as tq
    tq.init()
    return tq.kv_list(partition_id="train")

tq.kv_put(key=sys.argv[2], partition_id="train", fields={}, tag={"x": 1})
print(sorted(tq.kv_list(partition_id="train")["train"]), flush=True)
print(sorted(ray.get(elsewhere.remote())["train"]), flush=True)
input()
"""


@pytest.mark.ray
def test_a_second_run_has_a_queue_of_its_own():
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    started = []

    def start(*command):
        process = subprocess.Popen(
            [sys.executable, "-c", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        started.append(process)
        return process

    def line(process):
        return next(text for text in process.stdout if text[:1] in "[1").strip()

    try:
        address = line(start(HEAD))
        runs = [start(RUN, address, key) for key in "ab"]
        assert [line(run) for run in runs] == ["['a']", "['b']"]
        assert [line(run) for run in runs] == ["['a']", "['b']"]
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()
