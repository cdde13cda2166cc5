"""How many runs can run at the same time, and on which devices."""

from __future__ import annotations

import os
from collections.abc import Sequence

from recipe import machine
from recipe.compare.plan import PlannedRun

Slot = dict[str, str]  # environment variables of the runs in it


def run_slots(runs: Sequence[PlannedRun], jobs: int | None, gpus: str | None) -> list[Slot]:
    """Returns a slot for each run that can run at the same time.

    Several only in one Ray cluster (RAY_ADDRESS), which gives out its devices. Runs with Ray
    instances of their own must not share a machine: verl 0.9.1 names the socket of its weight
    transfer by Ray's job id, which is 01000000 in each of them, so that two transfers at one time
    wait for each other forever.

    Args:
        jobs: runs at the same time; default: in a cluster as many as fit, else 1.
        gpus: ids of this machine's GPUs to use, "0,1"; default: all that it can lend.

    Raises:
        ValueError: they do not fit, or the cluster cannot be joined.
    """
    if os.environ.get("RAY_ADDRESS"):
        needed = max((run.devices for run in runs), default=1)
        available = cluster_devices(os.environ["RAY_ADDRESS"])
        fitting = available // needed
        if not fitting or (jobs or 1) > fitting:
            raise ValueError(
                f"{jobs or 1} runs at once need {(jobs or 1) * needed} GPUs and the Ray cluster of "
                f"RAY_ADDRESS has {available}: use fewer --jobs, or change NGPUS_PER_NODE."
            )
        return [{} for _ in range(jobs or fitting)]
    if (jobs or 1) > 1:
        raise ValueError(
            f"--jobs={jobs} needs one Ray cluster for all runs: start it (ray start --head) and "
            "set RAY_ADDRESS."
        )
    needed = max((r.record["config"]["trainer"]["n_gpus_per_node"] for r in runs), default=1)
    available = len(gpus.split(",")) if gpus else machine.device_slots()
    if available < needed:
        raise ValueError(
            f"a run needs {needed} GPUs of this machine and {available} may be used: change "
            "NGPUS_PER_NODE or --gpus."
        )
    return [{"CUDA_VISIBLE_DEVICES": gpus} if gpus else {}]


def cluster_devices(address: str) -> int:
    """Returns the GPUs, real or virtual, of a Ray cluster; raises ValueError if it cannot be
    joined."""
    import ray

    try:
        ray.init(address=address, logging_level="ERROR")
    except ConnectionError as error:
        raise ValueError(
            f"RAY_ADDRESS={address} cannot be joined ({error}): start the cluster, and set "
            "RAY_AUTH_MODE=token if its `ray start` switched that on."
        ) from error
    devices = int(ray.cluster_resources().get("GPU", 0))
    ray.shutdown()
    return devices
