"""The Hugging Face model of a checkpoint, whose FSDP shards are merged where that is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from recipe.experiment.run import RunFolder
from recipe.sampling.prompts import resolve_model

# of these two one is there when all weights are: the only file, or the index of several
LAST_FILES = ("model.safetensors", "model.safetensors.index.json")


def model_of(checkpoint: str) -> tuple[str, Path | None]:
    """Finds the model of a checkpoint; merges FSDP shards into actor/huggingface where no weights
    are there yet.

    Args:
        checkpoint: a Hugging Face folder or name, a run's folder (its last checkpoint), a
            global_step_N of it, or that one's actor/.

    Returns:
        (folder or name of a Hugging Face model, the checkpoint's folder if it is a local one).

    Raises:
        FileNotFoundError, ValueError: for a path that does not exist or is no checkpoint.
        RuntimeError: if verl's model merger fails.
    """
    folder = resolve_model(checkpoint, "", "give a checkpoint's folder, or a model's name")
    if folder is None:
        return checkpoint, None
    if (folder / "config.json").is_file():
        return str(folder), folder
    folder = RunFolder(folder).checkpoint() or folder
    actor = folder if folder.name == "actor" else folder / "actor"
    model = actor / "huggingface"
    if any((model / name).is_file() for name in LAST_FILES):
        return str(model), actor.parent
    if not any(actor.glob("model_world_size_*_rank_*.pt")):
        raise ValueError(
            f"{checkpoint} is no checkpoint: it has neither a config.json nor actor/ with FSDP "
            "shards or huggingface/."
        )
    merge(actor, model)
    return str(model), actor.parent


def merge(actor: Path, model: Path) -> None:
    """Merges FSDP shards by verl's model merger, atomically.

    Args:
        actor: the folder of the shards.
        model: the folder that gets the weights; it holds config and tokenizer already.
    """
    target = model.with_name(f".huggingface.{os.getpid()}")
    command = ["merge", "--backend", "fsdp", "--local_dir", actor, "--target_dir", target]
    done = subprocess.run(
        [sys.executable, "-m", "verl.model_merger", *map(str, command)],
        capture_output=True,
        text=True,
    )
    if done.returncode or not any((target / name).is_file() for name in LAST_FILES):
        raise RuntimeError(
            f"verl's model merger failed on {actor}: {' '.join(done.stderr.split())[-300:]}"
        )
    for file in sorted(target.iterdir(), key=lambda file: file.name in LAST_FILES):
        file.replace(model / file.name)
    target.rmdir()
