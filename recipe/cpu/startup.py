"""What a run's start does side by side, where verl does one thing after another.

verl starts TransferQueue's processes and waits for them, then the actor's, then imports vLLM, then
starts the servers, then a load balancer. Each of these is seconds of imports in a process of its
own, and none needs another. `SideBySide` starts the first and the servers' processes at once, on
threads, and answers verl's requests for them with what is there.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from typing import Any

import ray
import transfer_queue
from omegaconf import DictConfig

_early_servers: Future[dict[str, Any]] | None = None  # {verl's name: handle}


class SideBySide:
    """The start of a run, from when it is made until `finished`."""

    def __init__(self, config: DictConfig):
        global _early_servers
        threads = ThreadPoolExecutor(2, thread_name_prefix="start-up")
        self._init = transfer_queue.init
        self._queue = threads.submit(self._init, deepcopy(config.transfer_queue))
        transfer_queue.init = self._queue_ready
        _early_servers = threads.submit(start_servers, deepcopy(config))
        threads.shutdown(wait=False)

    def _queue_ready(self, config: DictConfig | None = None) -> Any:
        """Stands for `transfer_queue.init`. verl calls it with a config before all else, and
        without one where something is about to use the queue."""
        return config if config is not None else self._queue.result()

    def finished(self) -> None:
        """Gives `transfer_queue.init` back."""
        transfer_queue.init = self._init


def server_names(config: DictConfig) -> list[str]:
    """Returns verl's names of the servers that take requests: one a replica, on its first node."""
    rollout = config.actor_rollout_ref.rollout
    devices = config.trainer.nnodes * config.trainer.n_gpus_per_node
    per_replica = (
        rollout.tensor_model_parallel_size
        * rollout.data_parallel_size
        * rollout.pipeline_model_parallel_size
    )
    return [f"{rollout.name}_server_{replica}_0" for replica in range(devices // per_replica)]


def start_servers(config: DictConfig) -> dict[str, Any]:
    """Starts the processes of the servers, if there is one node on which they can be."""
    if len(ray.nodes()) > 1 or config.actor_rollout_ref.rollout.name != "vllm":
        return {}
    from recipe.cpu.server import start  # imports vLLM, which this process needs later too

    return {name: start(name) for name in server_names(config)}


def early_server(name: str) -> Any | None:
    """Returns the handle of a server that was started early, once."""
    return None if _early_servers is None else _early_servers.result().pop(name, None)


class OnDemand:
    """The handle of an actor that is made when somebody uses it, or sends it to a process."""

    def __init__(self, make: Callable[[], Any]):
        self._make, self._handle = make, None

    def _actor(self) -> Any:
        if self._handle is None:
            self._handle = self._make()
        return self._handle

    def __getattr__(self, name: str) -> Any:
        return getattr(self._actor(), name)

    def __reduce__(self) -> tuple:
        return _same, (self._actor(),)


def _same(handle: Any) -> Any:
    return handle
