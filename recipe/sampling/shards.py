"""A checkpoint's FSDP shards as one Hugging Face model, a LoRA adapter in its base.

verl's own exports need not be the trained policy: its merger rounds all weights to bfloat16 (the
actor's are float32 as a rule), and unpickles whatever the files hold; of a LoRA run it writes the
base's weights and the adapter apart, and `hf_model` saves both under PEFT's names, which a plain
load ignores.
"""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe.experiment.run import run_of

if TYPE_CHECKING:
    from torch import Tensor

META = "lora_train_meta.json"  # rank and alpha, which verl writes beside the shards
PREFIX = "base_model.model."  # of PEFT's names


def merge(actor: Path, shards: Sequence[Path], target: Path) -> None:
    """Writes the model that the actor's policy is: its weights as they are; of a LoRA run
    W + (alpha / r) B A in each adapted layer, computed and kept in float32, as an update that is
    smaller than bfloat16's rounding of W would be lost.

    Args:
        actor: the checkpoint's folder of the actor.
        shards: its FSDP shards, one per rank.
        target: the folder to make.

    Raises:
        ValueError: if the shards are neither of the model of huggingface/ nor of a plain LoRA
            adapter and that model as its base.
    """
    import torch
    from transformers import AutoConfig
    from verl.utils.model import get_hf_auto_model_class

    hub_files = actor / "huggingface"
    state = full_state(shards)
    adapted = (actor / META).is_file() or any(".lora_" in name for name in state)
    if adapted:
        state = {name: weight.float() for name, weight in state.items()}
    dtype = next(iter(state.values())).dtype
    hf_config = AutoConfig.from_pretrained(hub_files)
    with torch.device("meta"):  # of the class that verl trains
        plain = get_hf_auto_model_class(hf_config).from_config(hf_config, dtype=dtype)
    model, prefix = plain, ""
    if adapted:
        from peft import get_peft_model

        config = adapter_config(actor, list(state))
        with torch.device("meta"):
            model, prefix = get_peft_model(plain, config), PREFIX
    tied = {f"{prefix}{name}" for name in plain.all_tied_weights_keys}
    absent = {name for name in model.state_dict() if name not in state} - tied
    if strange := sorted(absent | (state.keys() - model.state_dict().keys())):
        if adapted:
            raise ValueError(
                f"{actor} is no LoRA adapter with its base model, as {strange[0]} shows: only "
                "plain LoRA can be merged here, with "
                "actor_rollout_ref.actor.checkpoint.save_lora_only=false."
            )
        raise ValueError(
            f"{actor}: its FSDP shards are not of the model of {hub_files / 'config.json'}, as "
            f"{strange[0]} shows: copy the checkpoint's own files there."
        )
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    (model.merge_and_unload() if adapted else model).save_pretrained(target)
    for file in hub_files.iterdir():  # tokenizer, template, generation config
        if file.is_file() and file.name != "config.json" and "safetensors" not in file.name:
            shutil.copy(file, target)


def adapter_config(actor: Path, names: Sequence[str]) -> Any:
    """Returns PEFT's config of the adapter that was trained.

    Args:
        actor: the checkpoint's folder of the actor.
        names: of the shards' weights.

    Raises:
        ValueError: if its scale is not known.
    """
    from peft import LoraConfig, PeftConfig

    run = run_of(actor)
    record = (run.last_record() if run else None) or {}
    started_from = (
        record.get("config", {})
        .get("actor_rollout_ref", {})
        .get("model", {})
        .get("lora_adapter_path")
    )
    if started_from:  # it may scale in another way, which only its own config says
        folder = Path(started_from).expanduser()
        if not (folder / "adapter_config.json").is_file():
            raise ValueError(
                f"{actor}: its adapter started from actor_rollout_ref.model.lora_adapter_path="
                f"{started_from}, which has no adapter_config.json here: copy that folder there."
            )
        return PeftConfig.from_pretrained(str(folder))
    try:
        meta = json.loads((actor / META).read_text())
        rank, alpha = int(meta["r"]), int(meta["lora_alpha"])
    except (OSError, ValueError, TypeError, KeyError):
        raise ValueError(
            f"{actor} is of a LoRA run and has no readable {META} with r and lora_alpha, the "
            "adapter's scale: copy it there too."
        ) from None
    layers = {name.removeprefix(PREFIX).split(".lora_")[0] for name in names if ".lora_" in name}
    return LoraConfig(r=rank, lora_alpha=alpha, target_modules=sorted(layers))


def full_state(shards: Sequence[Path]) -> dict[str, Tensor]:
    """Returns the weights of a model from the FSDP shards of all ranks.

    Raises:
        ValueError: if they hold anything but tensors, or a copy differs between ranks.
    """
    import torch
    import torch.distributed.tensor  # lets torch.load read DTensor without any other class

    try:
        parts = [torch.load(file, "cpu", weights_only=True, mmap=True) for file in shards]
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{shards[0].parent}: its FSDP shards hold more than tensors, which is not read "
            f"({' '.join(str(error).split()):.160}): give a checkpoint that verl's FSDP actor has "
            "written."
        ) from error
    return {name: joined(name, parts) for name in parts[0]}


def joined(name: str, parts: Sequence[Mapping[str, Any]]) -> Tensor:
    """Returns a weight from its parts on all ranks: sharded on the last axis of the mesh of ranks,
    copied on the first one if there are two, or whole on each rank."""
    import torch

    first = parts[0][name]
    if isinstance(first, torch.Tensor) and not hasattr(first, "placements"):
        if not all(torch.equal(first, part[name]) for part in parts[1:]):
            raise ValueError(
                f"{name} is whole in each FSDP shard and differs between ranks: the checkpoint is "
                "not of one model; give an earlier one."
            )
        return first
    placement = first.placements[-1]
    if not placement.is_shard():
        return first.to_local()
    ranks = first.device_mesh.shape[-1]
    return torch.cat([part[name].to_local() for part in parts[:ranks]], placement.dim)
