"""Several runs in one Ray cluster, each with a TransferQueue of its own.

verl 0.9.1 hands rollouts from process to process through TransferQueue 0.1.11, whose controller has
one name and one namespace in the whole cluster: `tq.init()` of a second run attaches itself to the
first one's queue, and from then on each takes the other's rollouts for its own, or dies of a
missing key. There is no setting for it. Here the namespace also has the id of the Ray job, which
all processes of a run share and no other run has.

Only the controller: the storage units (SimpleStorage, verl's default) are reached through it. Other
storage backends have fixed names of their own.
"""

from __future__ import annotations

import inspect
import types

import wrapt

VERSION = "0.1.11"  # of TransferQueue
NAMESPACE = "transfer_queue"


def own(namespace: str) -> str:
    import ray

    return f"{namespace}_{ray.get_runtime_context().get_job_id()}"


class _Ray(wrapt.ObjectProxy):
    """The module `ray` as transfer_queue.interface sees it."""

    def get_actor(self, name: str, namespace: str) -> object:
        return self.__wrapped__.get_actor(name, namespace=own(namespace))


class _Controller(wrapt.ObjectProxy):
    def options(self, *, namespace: str, **options) -> object:
        return self.__wrapped__.options(namespace=own(namespace), **options)


def installed() -> bool:
    import transfer_queue.interface

    return isinstance(transfer_queue.interface.ray, _Ray)


def install(interface: types.ModuleType) -> None:
    """For `wrapt.register_post_import_hook` on transfer_queue.interface."""
    sources = [inspect.getsource(f) for f in (interface.init, interface._init_from_existing)]
    if any(source.count(f'namespace="{NAMESPACE}"') != 1 for source in sources):
        raise RuntimeError(
            f"recipe.core.transfer_queue was written for TransferQueue {VERSION}, whose init() "
            "looks for its controller in a fixed namespace; that is no longer so: install the "
            "versions of requirements/, or adapt the patch."
        )
    interface.ray = _Ray(interface.ray)
    interface.TransferQueueController = _Controller(interface.TransferQueueController)
