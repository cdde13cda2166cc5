"""Which machine this process is on, and what that decides.

Only this folder and `recipe/cpu/` ask: `cpu.yaml` and `gpu.yaml` hold what differs in verl's
config, this module what differs outside it. Everywhere else the same lines run on both machines.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from recipe.cpu import platform
from recipe.machine import cpus


class EngineDefaults(NamedTuple):
    """What a vLLM engine outside training is started with, where the user does not say."""

    dtype: str
    enforce_eager: bool
    gpu_memory_utilization: float


DEFAULTS = {
    "cpu": EngineDefaults(dtype="float32", enforce_eager=True, gpu_memory_utilization=0.5),
    "gpu": EngineDefaults(dtype="auto", enforce_eager=False, gpu_memory_utilization=0.9),
}


def name() -> str:
    """Returns the name of this machine's yaml: `cpu` or `gpu`."""
    return "cpu" if platform.active() else "gpu"


def engine_defaults() -> EngineDefaults:
    """Returns the settings of a vLLM engine that fit this machine."""
    return DEFAULTS[name()]


def prepare() -> None:
    """Readies this process for verl and vLLM; to be called before either is imported."""
    platform.install()


def worker_environment(ranks: int) -> dict[str, str]:
    """Returns the environment variables that Ray shall give to the processes of a run.

    On a machine without a GPU that is the number of threads, which Ray sets to 1 for an actor that
    asks for no cores: `cpus.threads_per_rank`, or what the user has set. In a cluster (RAY_ADDRESS)
    the cores may be other runs' too, and Ray's 1 stays unless the user says more.

    Args:
        ranks: Ranks of the run on each machine.
    """
    if not platform.active():
        return {}
    threads = os.environ.get("OMP_NUM_THREADS")
    if not threads and not os.environ.get("RAY_ADDRESS"):
        threads = str(cpus.threads_per_rank(cpus.usable_cpus(), ranks))
    return {"OMP_NUM_THREADS": threads} if threads else {}


def device_slots() -> int:
    """Returns how many devices this machine can lend to ranks and engines.

    On a machine without a GPU slots are virtual: Ray gets as many as are asked for.
    """
    if platform.active():
        return sys.maxsize
    import torch

    return torch.cuda.device_count()


def torch_device() -> str:
    """Returns the device of a model outside verl and vLLM: an accelerator that this process sees,
    or the CPU."""
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return "cpu" if accelerator is None else accelerator.type


def has_own_memory(device: str) -> bool:
    """Returns whether a device is an accelerator, with kernels and memory of its own.

    Args:
        device: verl's `trainer.device`, or `torch_device()`.
    """
    return device != "cpu"


def default_engines(devices_per_engine: int) -> int:
    """Returns how many engines to start on this machine where the user does not say: as many as
    its devices hold, and one on a machine without a GPU, whose slots share the same cores."""
    if platform.active():
        return 1
    return max(1, device_slots() // devices_per_engine)
