"""What can be known to be wrong with the sizes of a run before Ray starts: how it is split over
ranks, how long its sequences are, and by what its attention is computed."""

from __future__ import annotations

import importlib.util
from typing import Any

from omegaconf import DictConfig

from recipe import machine
from recipe.launch.check_model import model_config, text_config

ATTENTION = "actor_rollout_ref.model.override_config.attn_implementation"


def sequence_parallel_size(worker: Any) -> int:
    """Returns the Ulysses size of an actor's or a reference's node; verl has two places for it."""
    return max(
        worker.get("ulysses_sequence_parallel_size", 1) or 1,
        worker.fsdp_config.get("ulysses_sequence_parallel_size", 1) or 1,
    )


def parallel_sizes(config: DictConfig) -> None:
    """Tensor and sequence parallel sizes against the ranks and the model's heads."""
    nodes = config.actor_rollout_ref
    ranks = config.trainer.nnodes * config.trainer.n_gpus_per_node
    tensor = nodes.rollout.tensor_model_parallel_size
    key = f"actor_rollout_ref.rollout.tensor_model_parallel_size={tensor}"
    engine = tensor * nodes.rollout.get("data_parallel_size", 1)
    if ranks % engine:
        raise ValueError(
            f"{key} (times data_parallel_size) does not divide the {ranks} ranks of trainer.nnodes "
            "times n_gpus_per_node: change one of them."
        )
    sizes = {"tensor": (key, tensor)}
    for name in ("actor", "ref"):
        if "fsdp_config" not in nodes[name]:
            continue
        size = sequence_parallel_size(nodes[name])
        key = f"actor_rollout_ref.{name}.fsdp_config.ulysses_sequence_parallel_size={size}"
        if ranks % size:
            raise ValueError(f"{key} does not divide the {ranks} ranks: change one of them.")
        shards = nodes[name].fsdp_config.get("fsdp_size", -1)
        if 0 < shards < ranks and ranks % shards:
            raise ValueError(
                f"actor_rollout_ref.{name}.fsdp_config.fsdp_size={shards} does not divide the "
                f"{ranks} ranks: use a divisor of them, or -1 for all."
            )
        sizes[name] = (key, size)
    hf_config = model_config(config)
    if hf_config is None:
        return
    text = text_config(hf_config)
    heads = getattr(text, "num_attention_heads", None)
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    if not isinstance(heads, int) or not isinstance(kv_heads, int):
        print(f"[preflight] model {nodes.model.path} states no heads: its sizes are not checked")
        return
    for key, size in sizes.values():
        if heads % size:
            raise ValueError(
                f"{key} does not divide the model's {heads} attention heads: use a divisor of "
                f"{heads}."
            )
        if kv_heads % size and size % kv_heads:
            raise ValueError(
                f"{key} and the model's {kv_heads} key-value heads do not divide one another: use "
                f"a size that divides {heads} and divides, or is a multiple of, {kv_heads}."
            )
    if (width := getattr(text, "intermediate_size", None)) and width % tensor:
        raise ValueError(
            f"{sizes['tensor'][0]} does not divide the model's intermediate size {width}, which "
            "vLLM splits: use a smaller size."
        )


def lengths(config: DictConfig) -> None:
    """The longest sequence against the model's context and the limits of a micro-batch."""
    nodes, data = config.actor_rollout_ref, config.data
    sync = config.trainer.v1.recipe_sync
    longest = data.max_prompt_length + data.max_response_length
    what = (
        f"data.max_prompt_length={data.max_prompt_length} and "
        f"data.max_response_length={data.max_response_length} make sequences of {longest} tokens"
    )
    limits = [
        ("actor", "ppo_max_token_len_per_gpu", "actor", nodes.actor.use_dynamic_bsz),
        (
            "rollout",
            "log_prob_max_token_len_per_gpu",
            "actor",
            nodes.rollout.get("log_prob_use_dynamic_bsz") or sync.held_out_entropy,
        ),
        (
            "ref",
            "log_prob_max_token_len_per_gpu",
            "ref",
            nodes.ref.get("log_prob_use_dynamic_bsz") and needs_reference(config),
        ),
    ]
    for name, key, worker, dynamic in limits:
        limit = nodes[name].get(key)
        if not dynamic or limit is None:
            continue
        sequence = sequence_parallel_size(nodes[worker]) if "fsdp_config" in nodes[worker] else 1
        if limit * sequence < longest:
            raise ValueError(
                f"actor_rollout_ref.{name}.{key}={limit}, times the sequence parallel size "
                f"{sequence}, is less than one sequence: {what}; raise it, or shorten them."
            )
    context_of_rollouts(config, longest, what)


def context_of_rollouts(config: DictConfig, longest: int, what: str) -> None:
    """The longest sequence against what vLLM takes; `what` describes it."""
    rollout = config.actor_rollout_ref.rollout
    hf_config, context = model_config(config), None
    if hf_config is not None:
        context = getattr(text_config(hf_config), "max_position_embeddings", None)
        if context is None:
            print(
                f"[preflight] model {config.actor_rollout_ref.model.path} states no "
                "max_position_embeddings: its context is not checked"
            )
    limit, key = rollout.max_model_len, f"rollout.max_model_len={rollout.max_model_len}"
    if context is not None and longest > context:
        raise ValueError(
            f"{what}, more than the model's context (max_position_embeddings), {context}: shorten "
            "one of them."
        )
    if context is not None and limit > context:
        raise ValueError(
            f"actor_rollout_ref.{key} is more than the model's max_position_embeddings "
            f"({context}), which verl refuses: use at most {context}, or give a model that "
            "stretches its positions (rope_scaling) its longer context in config.json."
        )
    if longest > limit:
        raise ValueError(
            f"{what}, more than {key}, at which vLLM cuts a response off: shorten one of them."
        )
    batched = rollout.max_num_batched_tokens
    if not rollout.enable_chunked_prefill and batched < limit:
        raise ValueError(
            f"actor_rollout_ref.rollout.max_num_batched_tokens={batched} is less than {key} with "
            "enable_chunked_prefill=false, and verl would raise it to that and use more memory: "
            f"set it to at least {longest} and rollout.max_model_len to as much, or "
            "enable_chunked_prefill=true."
        )


def needs_reference(config: DictConfig) -> bool:
    """Returns whether verl loads a reference model for this run."""
    from verl.trainer.ppo.utils import need_reference_policy

    return bool(need_reference_policy(config))


def attention_of(config: DictConfig) -> str:
    """Returns the attention of the actor and the reference (verl/workers/config/model.py)."""
    overrides = config.actor_rollout_ref.model.get("override_config") or {}
    return str(overrides.get("attn_implementation", "flash_attention_2"))


def installed(name: str) -> bool:
    """Returns whether a package can be imported here; it is not imported."""
    return importlib.util.find_spec(name) is not None


def attention(config: DictConfig) -> None:
    """Another attention than flash-attn is only correct without sequence parallelism, and wants
    verl's fused kernels where the computation is in bfloat16.

    verl hands sequence parallelism to `_flash_attention_forward` alone, so with another attention
    each rank would attend to its own part of a sequence. And flash-attn also brings the
    cross-entropy from which verl takes log-probabilities; without it verl goes through the tokens
    one by one, and on a CPU, where autocast leaves log_softmax in bfloat16, rounds them.
    """
    nodes, name = config.actor_rollout_ref, attention_of(config)
    for worker in ("actor", "ref"):
        if "fsdp_config" not in nodes[worker] or "flash" in name:
            continue
        if (size := sequence_parallel_size(nodes[worker])) > 1:
            raise ValueError(
                f"{ATTENTION}={name} with actor_rollout_ref.{worker}.fsdp_config."
                f"ulysses_sequence_parallel_size={size} would attend to a part of each sequence "
                "only: use flash_attention_2, or a sequence parallel size of 1."
            )
    if "fsdp_config" not in nodes.actor or "flash" in name or nodes.model.use_fused_kernels:
        return
    precision = nodes.actor.fsdp_config.get("mixed_precision") or {}
    dtype = precision.get("param_dtype", "bf16")
    if str(dtype) not in ("fp32", "float32") and not installed("flash_attn"):
        raise ValueError(
            f"{ATTENTION}={name} without flash-attn and in {dtype} takes log-probabilities token "
            "by token from rounded logits, which is slow and can move the ratio by 1 to 4 %: set "
            "actor_rollout_ref.model.use_fused_kernels=true."
        )


def missing_flash_attention(config: DictConfig) -> str | None:
    """Returns what to do if a run wants flash-attn and this environment lacks it, else None.

    A run is refused for it; so is a dry run on a machine with a GPU. A dry run elsewhere, such as
    on a login node, says it beside its verdict.
    """
    wanted = attention_of(config) == "flash_attention_2" and "fsdp_config" in (
        config.actor_rollout_ref.actor
    )
    if not wanted or not machine.has_own_memory(config.trainer.device):
        return None
    from transformers.utils import is_kernels_available

    if installed("flash_attn"):
        return None
    if is_kernels_available():  # attention is from the hub then, verl's cross-entropy is not
        if config.actor_rollout_ref.model.use_fused_kernels:
            return None
        return (
            "flash_attn is not installed in this environment, and attention alone can come from "
            "the package `kernels`: set actor_rollout_ref.model.use_fused_kernels=true, without "
            "which log-probabilities are taken token by token, or install it (bash setup.sh gpu)."
        )
    return (
        "flash_attn is not installed in this environment, and the actor would fail in its worker: "
        f"install it (bash setup.sh gpu), or run without it: +{ATTENTION}=sdpa, "
        "actor_rollout_ref.model.use_fused_kernels=true and a sequence parallel size of 1."
    )
