"""How much GPU memory and disk a run will need, from its config and its model's config alone.

Nothing is loaded: parameters are counted on torch's meta device. What a GPU holds is fixed by the
config and counted exactly; what a micro-batch needs on top is a rough formula, and what CUDA,
NCCL and fragmentation take is a reserve. With P parameters on N ranks (Source: verl 0.9.1,
workers/engine/fsdp/transformer_impl.py; ours where it says rough):

    parameters   4 P / N   float32, of which each unit is gathered in bfloat16 when it is used
    Adam         8 P / N
    gradients    4 P / N   2 P if use_no_sync_for_gradient_accumulation keeps them unsharded
    reference    0         FSDP keeps a forward-only model on the CPU and gathers it by units
    vLLM         gpu_memory_utilization of the card, while it is awake

    init         parameters + vLLM
    rollout      parameters + Adam + vLLM, less what is offloaded
    log-prob     parameters + Adam, less an offloaded Adam, + gathered units + one layer + logits
    update       parameters + Adam + gradients + the largest of: the head (checkpoints, logits and
                 their gradients, gathered), a layer's backward pass, the gradients of the largest
                 unit before they are scattered, Adam's temporary

Logits are T x V in bfloat16 for the T tokens of a micro-batch on a GPU: once, once more if the
temperature is not 1, and in an update that needs the entropy twice more for two gradients (without
it the cross-entropy writes its gradient over the logits). That is for verl's default of a compiled
entropy of packed sequences, which keeps the logits only; uncompiled it also keeps float32
intermediates. Fused kernels keep no logits. 1 GB is 2^30 bytes, as in a card's name.

    python -m recipe.launch asymgrpo ... --dry-run      # its summary shows both lines
    GPU_GB=40 python -m recipe.launch ...               # another card; 80 by default
"""

from __future__ import annotations

import math
import os
import shutil
from typing import NamedTuple

import pyarrow.parquet as pq
from omegaconf import DictConfig

from recipe import machine
from recipe.core import config as run_config
from recipe.experiment.run import RunFolder
from recipe.launch.check_model import model_config
from recipe.launch.check_sizes import needs_reference, sequence_parallel_size
from recipe.launch.model_sizes import Model, model_sizes

GB = 2**30
RESERVE = 3.5 * GB  # two CUDA contexts, NCCL, CUDA graphs, fragmentation (a guess, not measured)
BYTES = {"fp32": 4, "float32": 4, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2}
COMPUTE = 2  # bytes of bfloat16, in which FSDP computes


class Estimate(NamedTuple):
    """Bytes per GPU of each phase, and bytes on disk.

    Attributes:
        phases: By name: init, rollout, log-prob, update.
        engine: What vLLM needs of its share at least, or it does not start: its weights and the
            cache of one sequence of `rollout.max_model_len`.
        checkpoint: One checkpoint.
        checkpoints: How many are on disk at once at most; None where the steps are not known.
        steps: Training steps; None where the data cannot be read here.
    """

    phases: dict[str, float]
    engine: float
    checkpoint: float
    checkpoints: int | None
    steps: int | None


def gpu_bytes() -> float:
    """Returns the memory of a card, from GPU_GB.

    Raises:
        ValueError: If GPU_GB is not a number above 0.
    """
    text = os.environ.get("GPU_GB") or "80"
    try:
        size = float(text)
    except ValueError:
        size = math.nan
    if not (math.isfinite(size) and size > 0):
        raise ValueError(f"GPU_GB={text} is not allowed: give a card's memory in GB, such as 80.")
    return size * GB


def tokens_per_gpu(config: DictConfig, *, update: bool) -> int:
    """Returns the most tokens of a micro-batch that one GPU computes on."""
    nodes = config.actor_rollout_ref
    if nodes.actor.use_dynamic_bsz:
        if update:
            return nodes.actor.ppo_max_token_len_per_gpu
        return nodes.rollout.log_prob_max_token_len_per_gpu
    rows = nodes.actor.ppo_micro_batch_size_per_gpu
    if not update:
        rows = nodes.rollout.log_prob_micro_batch_size_per_gpu
    longest = config.data.max_prompt_length + config.data.max_response_length
    return math.ceil((rows or 1) * longest / sequence_parallel_size(nodes.actor))


def logits_bytes(config: DictConfig, model: Model, *, update: bool) -> float:
    """Returns what the logits of a micro-batch need, with what is computed from them."""
    nodes, tokens = config.actor_rollout_ref, tokens_per_gpu(config, update=update)
    fsdp = nodes.actor.fsdp_config
    unit = tokens * model.vocabulary * COMPUTE
    if nodes.model.use_fused_kernels:
        return 0.0
    copies = 1 + (nodes.rollout.temperature != 1)
    entropy = not update or nodes.actor.calculate_entropy or nodes.actor.entropy_coeff != 0
    if entropy and update:
        copies += 2  # the gradients of the log-probs and of the entropy
    packed = nodes.model.use_remove_padding  # of padded sequences verl neither compiles nor chunks
    if entropy and not (packed and fsdp.use_torch_compile):
        chunked = packed and fsdp.entropy_from_logits_with_chunking and not update
        chunk = min(1, fsdp.entropy_from_logits_chunk_size / tokens) if chunked else 1
        copies += (6 if update else 4) * chunk  # softmax and product in float32, and gradients
    return copies * unit


def phases(config: DictConfig, model: Model, card: float) -> dict[str, float]:
    """Returns the bytes on a GPU in each phase of a step, as this module's text describes them.

    Args:
        config: A resolved config whose actor is on FSDP.
        model: `model_sizes` of its model.
        card: Bytes of a GPU.
    """
    nodes = config.actor_rollout_ref
    rollout, fsdp = nodes.rollout, nodes.actor.fsdp_config
    ranks = config.trainer.nnodes * config.trainer.n_gpus_per_node
    shards = fsdp.fsdp_size if 0 < fsdp.fsdp_size < ranks else ranks
    size = BYTES.get(str(fsdp.model_dtype or "fp32"), 4)
    parameters = size * model.parameters / shards
    adam = 2 * size * model.trainable / shards
    gradients = size * model.trainable / shards
    if fsdp.use_no_sync_for_gradient_accumulation and shards > 1:
        gradients += COMPUTE * model.trainable
    if fsdp.offload_policy:  # FSDP2 keeps all of them on the CPU, in every phase
        parameters = adam = gradients = 0.0
    kept_parameters = 0.0 if fsdp.param_offload else parameters
    kept_adam = 0.0 if fsdp.optimizer_offload else adam

    vllm = rollout.gpu_memory_utilization * card
    asleep = 0.0 if rollout.free_cache_engine and rollout.get("enable_sleep_mode", True) else vllm

    gathered = COMPUTE * model.root
    heads = (model.heads + 2 * model.kv_heads) * model.head
    layer_tokens = COMPUTE * (6 * model.hidden + 2 * heads + 5 * model.intermediate)  # rough
    forward = 2 * COMPUTE * model.layer + layer_tokens * tokens_per_gpu(config, update=False)
    log_prob = gathered + max(forward, logits_bytes(config, model, update=False))

    tokens = tokens_per_gpu(config, update=True)
    checkpoint = COMPUTE * model.hidden * tokens
    inside = layer_tokens * tokens
    kept = model.layers * (checkpoint if nodes.model.enable_gradient_checkpointing else inside)
    unsharded = COMPUTE + 4  # a unit's gradients in bfloat16, and in float32 to be scattered
    update = max(
        gathered + kept + logits_bytes(config, model, update=True),
        gathered + kept + inside + (2 * COMPUTE + unsharded) * model.layer,
        gathered + unsharded * max(model.layer, model.root),
        size * model.trainable / shards,
    )
    return {
        "init": kept_parameters + vllm + RESERVE,
        "rollout": kept_parameters + kept_adam + vllm + RESERVE,
        "log-prob": parameters + kept_adam + log_prob + asleep + RESERVE,
        "update": parameters + adam + gradients + update + asleep + RESERVE,
    }


def engine_bytes(config: DictConfig, model: Model) -> float:
    """Returns the bytes of vLLM's weights on a GPU and of the cache of one sequence."""
    rollout = config.actor_rollout_ref.rollout
    size, split = BYTES.get(str(rollout.dtype), 2), rollout.tensor_model_parallel_size
    token = 2 * model.layers * math.ceil(model.kv_heads / split) * model.head
    return size * (model.parameters / split + token * rollout.max_model_len)


def training_steps(config: DictConfig, rows: int | None = None) -> int | None:
    """Returns how many steps a run trains: `trainer.total_training_steps`, or the epochs, each of
    which ends with a batch that is not full, or a curriculum's plan, where only the last one may
    be (`curriculum.steps_of_plan`); None where the plan has another length, which the trainer
    knows.

    Args:
        config: A resolved config.
        rows: Of the training data; None: counted in its files, None again if they are not here.
    """
    if config.trainer.total_training_steps is not None:
        return config.trainer.total_training_steps
    curriculum = run_config.has_curriculum(config)
    if curriculum:
        plan = config.data.curriculum
        epochs = plan.epochs_per_stage
        if plan.only_stage or plan.replay or epochs != config.trainer.total_epochs:
            return None
    if rows is None:
        files = run_config.local_parquet_files(config, "train_files")
        if files is None:
            return None
        rows = sum(pq.read_metadata(file).num_rows for file in files)
        limit = config.data.get("train_max_samples", -1)
        rows = min(rows, limit) if limit > 0 else rows
    if curriculum:
        return rows * config.trainer.total_epochs // config.data.train_batch_size
    return run_config.steps_of_epochs(config, rows)


def checkpoint_bytes(config: DictConfig, model: Model) -> float:
    """Returns the size of one checkpoint of the actor, of what its `save_contents` names."""
    actor = config.actor_rollout_ref.actor
    size = BYTES.get(str(actor.fsdp_config.model_dtype or "fp32"), 4)
    parts = {
        "model": size * model.parameters,
        "optimizer": 2 * size * model.trainable,
        "hf_model": size * model.parameters,  # verl does not cast it
    }
    return float(sum(parts.get(part, 0) for part in actor.checkpoint.save_contents))


def estimate(config: DictConfig, rows: int | None = None) -> Estimate | None:
    """Estimates a run's memory and disk.

    Args:
        config: A resolved config.
        rows: As in `training_steps`.

    Returns:
        The estimate; None where it cannot be made: a model that is not on this machine, or whose
        sizes have other names, or an actor that is not on FSDP.
    """
    hf_config = model_config(config)
    if hf_config is None or "fsdp_config" not in config.actor_rollout_ref.actor:
        return None
    try:
        model = model_sizes(hf_config, config.actor_rollout_ref.model.get("lora_rank") or 0)
    except (AttributeError, ImportError, ValueError, TypeError):  # a model unlike a transformer
        return None
    steps, every = training_steps(config, rows), config.trainer.save_freq
    count: int | None = 0
    if every > 0:
        count = None if steps is None else math.ceil(steps / every)  # verl saves the last one too
    keep = config.trainer.max_actor_ckpt_to_keep
    if keep and count != 0:
        keep = max(keep, 2)  # the new one is written before the only old one goes
        count = keep if count is None else min(keep, count)
    return Estimate(
        phases(config, model, gpu_bytes()),
        engine_bytes(config, model),
        checkpoint_bytes(config, model),
        count,
        steps,
    )


def memory(config: DictConfig) -> None:
    """A run whose estimate is above the card's memory in some phase, or vLLM's share below what
    its weights and one sequence need."""
    if not machine.has_own_memory(config.trainer.device):
        return
    card, needs = gpu_bytes(), estimate(config)
    if needs is None:
        return
    nodes = config.actor_rollout_ref
    share = nodes.rollout.gpu_memory_utilization
    if share * card < needs.engine:
        raise ValueError(
            f"actor_rollout_ref.rollout.gpu_memory_utilization={share} gives vLLM "
            f"{share * card / GB:.1f} GB of GPU_GB={card / GB:g}, and its weights and one sequence "
            f"of rollout.max_model_len={nodes.rollout.max_model_len} tokens need "
            f"{needs.engine / GB:.1f}: raise it, or tensor_model_parallel_size (now "
            f"{nodes.rollout.tensor_model_parallel_size}), or lower max_model_len."
        )
    phase, most = max(needs.phases.items(), key=lambda item: item[1])
    if most <= card:
        return
    actor = "actor_rollout_ref.actor"
    if phase in ("init", "rollout"):
        cures = [f"lower actor_rollout_ref.rollout.gpu_memory_utilization (now {share})"]
        if not (
            nodes.actor.fsdp_config.param_offload and nodes.actor.fsdp_config.optimizer_offload
        ):
            cures.append(f"set {actor}.fsdp_config.{{param_offload,optimizer_offload}}=true")
    else:
        cures = [
            f"lower {actor}.ppo_max_token_len_per_gpu (now {nodes.actor.ppo_max_token_len_per_gpu})"
        ]
        if not nodes.model.use_fused_kernels:
            cures.append("set actor_rollout_ref.model.use_fused_kernels=true")
    raise ValueError(
        f"{phase} needs about {most / GB:.0f} GB on each GPU, and a card of GPU_GB={card / GB:g} "
        f"has less: {', '.join(cures)}, train on more GPUs, or set GPU_GB if the cards are larger."
    )


def summary(config: DictConfig) -> dict[str, str]:
    """Returns what the summary of a run says of memory and disk."""
    needs = estimate(config)
    if needs is None:
        return {"memory": "not estimated (its model is not a folder here, or not of a known kind)"}
    lines = {}
    if machine.has_own_memory(config.trainer.device):
        sizes = ", ".join(f"{name} {size / GB:.1f}" for name, size in needs.phases.items())
        lines["memory"] = f"about {sizes} of {gpu_bytes() / GB:g} GB on each GPU"
        if needs_reference(config):
            lines["memory"] += "; the reference is on the CPU"
    lines["disk"] = disk_line(config, needs)
    return lines


def disk_line(config: DictConfig, needs: Estimate) -> str:
    """Returns how much disk the checkpoints take, and how much there is if it is less."""
    each = needs.checkpoint / GB
    if needs.checkpoints is None:
        return f"{each:.1f} GB for each checkpoint, all kept"
    total = each * needs.checkpoints
    line = f"{total:.1f} GB for {needs.checkpoints} x {each:.1f} GB of checkpoints"
    if needs.steps is not None:
        line += f" ({needs.steps} steps)"
    place = RunFolder.from_config(config).path
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / GB
    return f"{line}, but only {free:.1f} GB are free" if free < total else line
