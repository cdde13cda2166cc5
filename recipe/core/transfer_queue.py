"""TransferQueue: the one module that knows how verl 0.9.1 keeps a batch's fields.

`read`, `write` and `for_workers` are all that the recipes do with them. The rest are two patches.

verl hands rollouts from process to process through TransferQueue 0.1.11, whose controller has one
name and one namespace in the whole Ray cluster: `tq.init()` of a second run attaches itself to the
first one's queue, and from then on each run takes the other's rollouts for its own, or dies of a
missing key. There is no setting for it. With the first patch the namespace also has the id of the
Ray job, which all processes of a run share and no other run has. The second, `gather_puts`, is for
agent loops whose rollouts end together (`recipe.cpu.rollout`).

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


def for_workers(batch: KVBatchMeta) -> KVBatchMeta:
    """Returns the batch with the fields that a worker computes with: tensors and images.

    The dataset's columns and the rollouts' records (texts, dicts) are the driver's. verl sends them
    to every worker, which takes them apart and puts them together for each mini-batch.
    """
    import transfer_queue as tq

    schema = tq.get_client().kv_retrieve_meta(batch.keys, batch.partition_id).field_schema
    batch.fields = [
        name
        for name, field in schema.items()
        if not field["is_non_tensor"] or name == "multi_modal_inputs"
    ]
    return batch


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


class GatheredPuts(wrapt.ObjectProxy):
    """The module `transfer_queue` as verl's agent loops see it, which keeps what they put until
    `send`: a rollout a request costs more than a small model's rollout does."""

    def __init__(self, module: Any):
        super().__init__(module)
        self._self_rows: dict[Any, list[tuple]] = {}  # (partition, names of fields): rows
        self._self_tags: dict[str, dict[str, dict]] = {}  # partition: {prompt: tag}

    async def async_kv_put(self, *, key: str, partition_id: str, tag: dict[str, Any]) -> None:
        """Keeps the tag of a prompt; the last one counts."""
        self._self_tags.setdefault(partition_id, {})[key] = tag

    async def async_kv_batch_put(
        self, *, keys: list[str], fields: list[dict], tags: list[dict], partition_id: str
    ) -> None:
        """Keeps rollouts."""
        for row in zip(keys, fields, tags, strict=True):
            self._self_rows.setdefault((partition_id, tuple(row[1])), []).append(row)

    async def send(self) -> None:
        """Puts the rollouts in one request (one per set of fields), then the tags of the prompts
        in another, after which the trainer takes the rollouts."""
        from verl.utils.tensordict_utils import list_of_dict_to_tensordict

        rows, self._self_rows = self._self_rows, {}
        tags, self._self_tags = self._self_tags, {}
        put = self.__wrapped__.async_kv_batch_put
        for (partition, _), group in rows.items():
            keys, fields, row_tags = map(list, zip(*group, strict=True))
            fields = list_of_dict_to_tensordict(fields)
            await put(keys=keys, fields=fields, tags=row_tags, partition_id=partition)
        for partition, tag in tags.items():
            await put(keys=list(tag), tags=list(tag.values()), partition_id=partition)


def gather_puts(agent_loop_tq: Any) -> GatheredPuts:
    """Lets the agent loops of this process put through a `GatheredPuts`, which it returns.

    Args:
        agent_loop_tq: The module `verl.trainer.ppo.v1.agent_loop_tq`.
    """
    source = inspect.getsource(agent_loop_tq)
    calls = ("tq.async_kv_put(key=uid,", "fields=list_of_dict_to_tensordict(fields),")
    if not all(call in source for call in calls) or source.count("tq.async_kv_batch_put(") != 1:
        raise RuntimeError(
            "recipe.core.transfer_queue was written for verl 0.9.1, whose agent loops put each "
            "prompt and each rollout by its key; that is no longer so: install the versions of "
            "requirements/, or adapt the patch."
        )
    agent_loop_tq.tq = GatheredPuts(agent_loop_tq.tq)
    agent_loop_tq.list_of_dict_to_tensordict = list  # one is made of all rollouts
    return agent_loop_tq.tq
