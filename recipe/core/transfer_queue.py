"""TransferQueue: the one module that knows how verl 0.9.1 keeps a batch's fields.

`read` and `write` are all that the recipes do with them. The rest is a patch. verl hands rollouts
from process to process through TransferQueue 0.1.11, whose controller has one name and one
namespace in the whole Ray cluster: `tq.init()` of a second run attaches itself to the first one's
queue, and from then on each run takes the other's rollouts for its own, or dies of a missing key.
There is no setting for it. With the patch the namespace also has the id of the Ray job, which all
processes of a run share and no other run has.

Only the controller is patched: the storage units (SimpleStorage, verl's default) are reached
through it. Other storage backends have fixed names of their own.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import wrapt

if TYPE_CHECKING:  # every process that imports verl imports this module for its patch
    from tensordict import TensorDict
    from torch import Tensor
    from transfer_queue import KVBatchMeta

VERSION = "0.1.11"  # of TransferQueue
NAMESPACE = "transfer_queue"


def read(batch: KVBatchMeta, *names: str) -> TensorDict:
    """Returns fields of a batch's rows; a field that no process has written is left out."""
    import transfer_queue as tq

    return tq.kv_batch_get(
        keys=batch.keys, partition_id=batch.partition_id, select_fields=list(names)
    )


def write(batch: KVBatchMeta, **fields: Tensor) -> KVBatchMeta:
    """Writes nested fields, one row per rollout.

    Returns:
        The batch that names the new fields, without which no worker gets them.
    """
    import transfer_queue as tq
    from tensordict import TensorDict

    return tq.kv_batch_put(
        keys=batch.keys,
        partition_id=batch.partition_id,
        fields=TensorDict(dict(fields), batch_size=len(batch)),
    )


def namespace_of_run(namespace: str) -> str:
    """Returns the namespace with the id of this run's Ray job."""
    import ray

    return f"{namespace}_{ray.get_runtime_context().get_job_id()}"


class _Ray(wrapt.ObjectProxy):
    """The module `ray` as transfer_queue.interface sees it."""

    def get_actor(self, name: str, namespace: str) -> object:
        return self.__wrapped__.get_actor(name, namespace=namespace_of_run(namespace))


class _Controller(wrapt.ObjectProxy):
    def options(self, *, namespace: str, **options: Any) -> object:
        return self.__wrapped__.options(namespace=namespace_of_run(namespace), **options)


def installed() -> bool:
    """Returns whether the patch is in place in this process."""
    import transfer_queue.interface

    return isinstance(transfer_queue.interface.ray, _Ray)


def install(interface: Any) -> None:
    """Patches transfer_queue.interface; for `wrapt.register_post_import_hook` on that module."""
    sources = [inspect.getsource(f) for f in (interface.init, interface._init_from_existing)]
    if any(source.count(f'namespace="{NAMESPACE}"') != 1 for source in sources):
        raise RuntimeError(
            f"recipe.core.transfer_queue was written for TransferQueue {VERSION}, whose init() "
            "looks for its controller in a fixed namespace; that is no longer so: install the "
            "versions of requirements/, or adapt the patch."
        )
    interface.ray = _Ray(interface.ray)
    interface.TransferQueueController = _Controller(interface.TransferQueueController)
