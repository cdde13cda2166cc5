"""How many runs can run at the same time, on which devices, and when those are free."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tqdm import tqdm

from recipe import machine
from recipe.compare.plan import PlannedRun
from recipe.launch.nodes import (
    CPUS_PER_DEVICE,
    cpus_of,
    joined,
    lacking,
    own_cpus,
    places,
    resources,
)

Slot = dict[str, str]  # environment variables of the runs in it


class TooFewDevices(ValueError):
    """This machine lends fewer devices than a run needs, as a login node does."""


DEVICE_WAIT = 3600  # seconds that a run waits for devices while nothing of the comparison runs


def run_slots(runs: Sequence[PlannedRun], jobs: int | None, gpus: str | None) -> list[Slot]:
    """Returns a slot for each run that can run at the same time.

    Several only in one Ray cluster, which gives out its devices: that of RAY_ADDRESS, into which as
    many go as fit into all of its devices, held by other jobs or not (`wait_for_devices`), or one
    of this machine (`cluster`). Runs with Ray instances of their own must not share a machine: verl
    0.9.1 names the socket of its weight transfer by Ray's job id, which is 01000000 in each of
    them, so that two transfers at one time wait for each other forever.

    Args:
        jobs: runs at the same time; default: in the cluster of RAY_ADDRESS as many as fit, else 1.
        gpus: ids of this machine's GPUs to use, "0,1"; default: all that it can lend.

    Raises:
        TooFewDevices: they do not fit on this machine.
        ValueError: they do not fit into the cluster or on `gpus`, or it cannot be joined.
    """
    if os.environ.get("RAY_ADDRESS"):
        if gpus:
            raise ValueError(
                f"--gpus={gpus} cannot be kept to in the Ray cluster of RAY_ADDRESS, which chooses "
                "the devices itself: use --jobs, or a cluster that has these GPUs only."
            )
        with joined() as ray:
            nodes = resources(ray)
        needed = min(runs, key=lambda run: places(nodes, run.config))
        fitting = places(nodes, needed.config)
        if (jobs or 1) > fitting:
            raise ValueError(
                f"{jobs or 1} runs at once, each with {lacking(nodes, needed.config)}: use fewer "
                "--jobs, change NNODES or NGPUS_PER_NODE, or start Ray with more --num-cpus."
            )
        return [{} for _ in range(jobs or fitting)]
    jobs = jobs or 1
    needed = jobs * max((run.shape[1] for run in runs), default=1)
    at_once = f"{jobs} runs at once need" if jobs > 1 else "a run needs"
    if gpus and len(gpus.split(",")) < needed:
        raise ValueError(
            f"--gpus={gpus} names fewer than the {needed} GPUs that {at_once}: name more, use "
            "fewer --jobs, or change NGPUS_PER_NODE."
        )
    if not gpus and machine.device_slots() < needed:
        raise TooFewDevices(
            f"{at_once} {needed} GPUs of this machine, which has {machine.device_slots()}: use a "
            "machine that has them, fewer --jobs, or change NGPUS_PER_NODE."
        )
    environment = {"CUDA_VISIBLE_DEVICES": gpus} if gpus else {}
    if jobs > 1:  # the cores too are shared by the runs
        environment |= machine.worker_environment(needed)
    return [dict(environment) for _ in range(jobs)]


@contextmanager
def cluster(runs: Sequence[PlannedRun] = (), slots: Sequence[Slot] = ()) -> Iterator[None]:
    """Joins the Ray cluster of RAY_ADDRESS; where it is not set, starts one on this machine for
    runs that are side by side, and sets it meanwhile.

    Raises:
        ValueError: it cannot be joined.
    """
    if os.environ.get("RAY_ADDRESS"):
        with joined():
            yield
    elif len(slots) > 1:
        with started(runs, slots):
            yield
    else:
        yield


@contextmanager
def started(runs: Sequence[PlannedRun], slots: Sequence[Slot]) -> Iterator[None]:
    """Starts a Ray cluster on this machine, with what each slot's run would have started Ray with.
    It ends with this process, also where that is killed."""
    machine.prepare()
    import ray

    cpus = [own_cpus(run.config, len(slots)) for run in runs]
    gpus = [run.config["ray_kwargs"]["ray_init"].get("num_gpus") for run in runs]
    has = {  # None: what Ray finds
        "num_cpus": None if None in cpus else max(cpus),
        "num_gpus": None if None in gpus else len(slots) * max(gpus),
    }
    if visible := slots[0].get("CUDA_VISIBLE_DEVICES"):
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    context = ray.init(
        "local", include_dashboard=False, log_to_driver=False, logging_level="ERROR", **has
    )
    os.environ["RAY_ADDRESS"] = context.address_info["gcs_address"]  # its runs join it
    try:
        yield
    finally:
        del os.environ["RAY_ADDRESS"]
        ray.shutdown()


def wait_for_devices(run: PlannedRun, patient: Callable[[], bool | None]) -> None:
    """Waits until the cluster has free what a run takes; without a cluster there is nothing to wait
    for. verl itself does not wait, it raises.

    Ray says so by lending the devices for a moment, in a placement group like verl's.

    Args:
        patient: True: wait however long; False: for DEVICE_WAIT; None: no longer.

    Raises:
        TimeoutError: other jobs have held them for DEVICE_WAIT seconds.
    """
    if not os.environ.get("RAY_ADDRESS"):
        return
    from ray.util import placement_group, remove_placement_group

    nodes_of_run, devices = run.shape
    part = {"GPU": devices, "CPU": CPUS_PER_DEVICE * devices}
    others = cpus_of(run.config) - CPUS_PER_DEVICE * run.devices  # TransferQueue's
    group = placement_group([part] * nodes_of_run + [{"CPU": 1}] * others, strategy="PACK")
    try:
        end, told = time.monotonic() + DEVICE_WAIT, False
        while not group.wait(timeout_seconds=2):
            patience = patient()
            if patience is None:
                return
            if patience:
                end = time.monotonic() + DEVICE_WAIT
            elif time.monotonic() > end:
                raise TimeoutError(
                    f"{nodes_of_run} x {devices} GPUs of the Ray cluster have not been free for "
                    f"{DEVICE_WAIT // 60} minutes, other jobs hold them: start the same command "
                    "again when they are."
                )
            if not told:
                tqdm.write(f"{run.name}: waiting for {nodes_of_run} x {devices} free GPUs")
                told = True
    finally:
        remove_placement_group(group)
