"""The trained policy of a checkpoint as a Hugging Face model, merged from FSDP shards where needed.

    python -m recipe.sampling.checkpoints CHECKPOINT     # prints its folder

`huggingface/` in a checkpoint need not be the trained policy: it may be older than the shards, cut
off, or of a LoRA run, whose adapter is not in those weights. What cannot be known to be the trained
policy is merged anew from the shards, or refused.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from safetensors import SafetensorError, safe_open

from recipe.core import cli
from recipe.experiment.run import RunFolder, run_of
from recipe.sampling import lora
from recipe.sampling.prompts import resolve_model

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"  # all weights, or their index


def model_of(checkpoint: str) -> tuple[str, Path | None]:
    """Finds the trained policy of a checkpoint; merges its shards where that is needed.

    Args:
        checkpoint: a Hugging Face folder or name, a run's folder (its last checkpoint), a
            global_step_N of it, that one's actor/, or a model in there.

    Returns:
        (folder or name of a Hugging Face model, the checkpoint's folder if it is a local one).

    Raises:
        FileNotFoundError, ValueError: for a path that does not exist, or from which the trained
            policy cannot be made.
        RuntimeError: if verl's model merger fails.
    """
    folder = resolve_model(checkpoint, "", "give a checkpoint's folder, or a model's name")
    if folder is None:
        return checkpoint, None
    if (folder / "config.json").is_file():
        if any(folder.parent.glob("model_world_size_*.pt")):
            return str(trained_policy(folder.parent)), folder
        if has_adapter(folder):
            raise ValueError(
                f"{checkpoint} is of a LoRA run and its weights are not the trained policy's: give "
                "the checkpoint with its FSDP shards (global_step_N), or merge the adapter first."
            )
        return str(folder), folder
    folder = RunFolder(folder).checkpoint() or folder
    actor = folder if folder.name == "actor" else folder / "actor"
    check_complete(actor.parent)
    return str(trained_policy(actor)), actor.parent


def check_complete(folder: Path) -> None:
    """Raises ValueError for a checkpoint that its run had not finished when it ended."""
    run, step = run_of(folder), folder.name.removeprefix("global_step_")
    last = run.checkpoint_step() if run else 0
    if last and step.isdecimal() and int(step) > last:
        raise ValueError(
            f"{folder} is later than the run's last complete checkpoint, which is of step {last}: "
            "it may be cut off; give that one, or resume the run."
        )


def trained_policy(actor: Path) -> Path:
    """Returns the folder of the policy that an actor's folder holds; see `model_of`."""
    shards, model = shards_of(actor), actor / "huggingface"
    if (actor / lora.META).is_file() or has_adapter(model):
        return merged_adapter(actor, shards)
    if weight_names(model) is not None and not is_older(model, shards):
        return model
    if not shards:
        raise ValueError(
            f"{actor} holds no trained model: neither FSDP shards (model_world_size_*.pt) nor all "
            "weights in huggingface/; give a run's folder, a global_step_N or a Hugging Face model."
        )
    merge(actor, model)
    return model


def shards_of(actor: Path) -> list[Path]:
    """Returns the shards that the last save has written, of all ranks; those of an earlier world
    size may lie beside them.

    Raises:
        ValueError: if some are missing, or nothing says how many there are.
    """
    present = set(actor.glob("model_world_size_*_rank_*.pt"))
    if not present:
        return []
    try:
        size = int(json.loads((actor / "fsdp_config.json").read_text())["world_size"])
    except (OSError, ValueError, TypeError, KeyError):
        raise ValueError(
            f"{actor} holds FSDP shards and no readable fsdp_config.json, which says of how many "
            "ranks they are: copy it there too."
        ) from None
    shards = [actor / f"model_world_size_{size}_rank_{rank}.pt" for rank in range(size)]
    if missing := [shard.name for shard in shards if shard not in present]:
        raise ValueError(
            f"{actor} lacks {len(missing)} of its {size} FSDP shards ({missing[0]}): copy those of "
            "the other nodes there."
        )
    return shards


def weight_names(model: Path) -> set[str] | None:
    """Returns the names of the weights of a Hugging Face folder; None if some are missing or cut
    off, or if it holds both a single file and an index."""
    try:
        files = {SINGLE}
        if (model / INDEX).is_file():
            if (model / SINGLE).is_file():
                return None
            files = set(json.loads((model / INDEX).read_text())["weight_map"].values())
        names = set()
        for file in files:
            with safe_open(model / file, "pt") as weights:
                names |= set(weights.keys())
        return names
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError):
        return None


def has_adapter(model: Path) -> bool:
    """Says whether a Hugging Face folder is of a LoRA run: verl's merger puts the adapter beside
    the base model's weights, and verl's hf_model saves both under PEFT's names."""
    names = weight_names(model) or ()
    return (model / "lora_adapter").is_dir() or any(name.startswith(lora.PREFIX) for name in names)


def is_older(model: Path, shards: list[Path]) -> bool:
    """Says whether weights were written before the shards: the step was trained again since."""
    weights = max(f.stat().st_mtime_ns for f in (model / SINGLE, model / INDEX) if f.is_file())
    return any(shard.stat().st_mtime_ns > weights for shard in shards)


def merged_adapter(actor: Path, shards: list[Path]) -> Path:
    """Returns actor/lora_merged: the base model with its trained adapter, merged where that is
    not done or older than the shards.

    Raises ValueError if it cannot be done.
    """
    if not shards:
        raise ValueError(
            f"{actor} is of a LoRA run and holds no FSDP shards, which alone have the trained "
            "adapter and its base: add `model` to actor_rollout_ref.actor.checkpoint.save_contents."
        )
    merged = actor / "lora_merged"
    if weight_names(merged) is None or is_older(merged, shards):
        temporary = actor / f".lora_merged.{os.getpid()}"
        try:
            lora.merge(actor, shards, temporary)
            shutil.rmtree(merged, ignore_errors=True)
            temporary.rename(merged)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return merged


def merge(actor: Path, model: Path) -> None:
    """Merges FSDP shards by verl's model merger, atomically.

    Args:
        actor: the folder of the shards.
        model: the folder that gets the weights; it holds config and tokenizer already.

    Raises:
        RuntimeError: if the merger fails.
        ValueError: if the shards turn out to be of a LoRA run of which nothing else is known.
    """
    target = model.with_name(f".huggingface.{os.getpid()}")
    command = ["merge", "--backend", "fsdp", "--local_dir", actor, "--target_dir", target]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "verl.model_merger", *map(str, command)],
            capture_output=True,
            text=True,
        )
        if done.returncode or weight_names(target) is None:
            raise RuntimeError(
                f"verl's model merger failed on {actor}: {' '.join(done.stderr.split())[-300:]}"
            )
        if has_adapter(target):
            raise ValueError(
                f"{actor} is of a LoRA run and has no {lora.META}, without which the adapter's "
                "scale is not known: copy it there too."
            )
        # a reader takes weights for complete once one of these is there
        last = (INDEX, SINGLE)
        for name in last:
            (model / name).unlink(missing_ok=True)
        for file in model.glob("model-*.safetensors"):
            file.unlink()
        for file in sorted(target.iterdir(), key=lambda file: file.name in last):
            file.replace(model / file.name)
    finally:
        shutil.rmtree(target, ignore_errors=True)


def main(arguments: list[str] | None = None) -> int:
    """Prints the folder of a checkpoint's trained policy; returns the exit code."""
    parser = argparse.ArgumentParser(description="Print the folder of the trained policy.")
    parser.add_argument("checkpoint", help="a run's folder, a checkpoint or a model")

    def command(words: list[str] | None) -> None:
        print(model_of(parser.parse_args(words).checkpoint)[0])

    return cli.run(command, arguments)


if __name__ == "__main__":
    sys.exit(main())
