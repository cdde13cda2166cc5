"""Stock verl 0.9.1 on CPUs: FSDP over gloo, rollouts by vLLM's CPU build.

verl has an extension point for the device layer (`PlatformRegistry`) and one for engines
(`EngineRegistry`); what they do not reach is patched (`patches.py`).

`active()` decides once a process: vLLM's CPU distribution is what marks a CPU environment, so that
on a GPU cluster (where `vllm` is installed) nothing here does anything, not even in the Ray actors
that see no device.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import types
from contextlib import contextmanager

import torch
import wrapt

PLATFORM = "cpu"

# Defaults for every verl process; a value that is already set wins.
ENVIRONMENT = {
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB, vLLM's smallest
    # With "1" vLLM moves the "uni" executor to a process of its own, which the engine then spins
    # for on the cores that it needs (vllm/platforms/cpu.py).
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # OpenMP threads that wait by spinning take the cores from the processes that they wait for.
    "OMP_WAIT_POLICY": "passive",
    # Ray starts its workers at nice 15, where anything else that runs on a laptop starves them,
    # and starts one idle worker a logical slot at once, which costs seconds on few cores.
    "RAY_worker_niceness": "0",
    "RAY_prestart_worker_first_driver": "0",
}


def distribution_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def active() -> bool:
    """True if this process is to run verl on CPUs: chosen by VERL_PLATFORM, else where vLLM's CPU
    distribution is installed and torch sees no CUDA device."""
    chosen = os.environ.get("VERL_PLATFORM", "").strip().lower()
    if chosen:
        return chosen == PLATFORM
    return distribution_version("vllm-cpu") is not None and not torch.cuda.is_available()


class _CPUIndex(str):
    """verl uses `current_device()` both as `.to(device)` and inside f"cpu:{device}".

    As a string it is "cpu", formatted it is "0".
    """

    def __format__(self, spec: str) -> str:
        return format("0", spec)


def _device_module() -> types.ModuleType:
    """`torch.cpu` with the parts of `torch.cuda` that verl asks every device for."""
    module = types.ModuleType("recipe.cpu.device")
    module.__dict__.update({k: v for k, v in vars(torch.cpu).items() if not k.startswith("__")})
    no_op = lambda *args, **kwargs: None  # noqa: E731
    for name in ("empty_cache", "ipc_collect", "set_per_process_memory_fraction", "set_device"):
        setattr(module, name, no_op)
    for name in ("memory_allocated", "memory_reserved", "max_memory_allocated"):
        setattr(module, name, lambda *args, **kwargs: 0)
    module.max_memory_reserved = module.memory_allocated
    module.mem_get_info = lambda *args, **kwargs: (
        os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
    )
    module.get_rng_state, module.set_rng_state = torch.get_rng_state, torch.set_rng_state
    module.manual_seed = module.manual_seed_all = torch.manual_seed
    module.get_device_name = lambda *args, **kwargs: "cpu"
    return module


def _platform_class() -> type:
    """The `PlatformBase` subclass; made in a function so that importing this needs no verl."""
    from verl.plugin.platform.platform_base import PlatformBase

    module = _device_module()

    class PlatformCPU(PlatformBase):
        """CPUs behind virtual slots: Ray resource "GPU", of which `ray_init.num_gpus` exist."""

        device_name = PLATFORM
        vendor_name = PLATFORM
        device_module = module

        def is_available(self) -> bool:
            return True

        def is_platform_available(self, use_smi_check: bool = False) -> bool:
            return active()

        def current_device(self) -> str:
            return _CPUIndex("cpu")

        def device_count(self) -> int:
            return 1

        def set_device(self, device_index: int) -> None:
            pass

        def synchronize(self, device_index: int | None = None) -> None:
            pass

        def manual_seed(self, seed: int) -> None:
            torch.manual_seed(seed)

        manual_seed_all = manual_seed

        def set_allocator_settings(self, settings: str) -> None:
            pass

        def empty_cache(self) -> None:
            pass

        def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
            return None, None

        def communication_backend_name(self) -> str:
            return "gloo"

        def visible_devices_envvar(self) -> str:
            return "CUDA_VISIBLE_DEVICES"  # what Ray sets for its resource "GPU"

        def ray_resource_name(self) -> str:
            return "GPU"

        def ray_noset_envvars(self) -> list[str]:
            return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

        def is_ipc_supported(self) -> bool:
            return False  # weights go through shared memory

        def rollout_env_vars(self) -> dict[str, str]:
            return {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}

        @contextmanager
        def nvtx_range(self, msg: str):
            yield

        def profiler_start(self) -> None:
            pass

        profiler_stop = profiler_start

        def cudart(self) -> None:
            return None

    return PlatformCPU


@functools.cache  # a second call must not patch what is patched
def install() -> None:
    """Registers the platform and hooks the patches; does nothing where `active()` is False."""
    if not active():
        return
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from verl.plugin.platform.platform_manager import PlatformRegistry

    PlatformRegistry.register(platform=PLATFORM)(_platform_class())
    from recipe.cpu.patches import PATCHES

    for module, patch in PATCHES.items():
        wrapt.register_post_import_hook(patch, module)
