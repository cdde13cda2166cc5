"""The trained policy of a checkpoint as a Hugging Face model, merged from FSDP shards where needed.

    python -m recipe.sampling.checkpoints CHECKPOINT     # prints its folder

`huggingface/` in a checkpoint need not be the trained policy: it may be older than the shards, cut
off, or of a LoRA run, whose adapter is not in those weights. What cannot be known to be the trained
policy is merged anew from the shards, or refused.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open

from recipe.core import cli
from recipe.experiment.run import RunFolder, run_of
from recipe.sampling import shards
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
    """Returns the folder of the policy that an actor's folder holds; see `model_of`. It is merged
    where that is not done or older than the shards."""
    files, model, merged = shards_of(actor), actor / "huggingface", actor / "merged"
    adapted = (actor / shards.META).is_file() or has_adapter(model)
    if not adapted and is_newest(model, files):
        return model
    if is_newest(merged, files):  # also where the shards have been removed since
        return merged
    if not files and adapted:
        raise ValueError(
            f"{actor} is of a LoRA run and holds no FSDP shards, which alone have the trained "
            "adapter and its base: add `model` to actor_rollout_ref.actor.checkpoint.save_contents."
        )
    if not files:
        raise ValueError(
            f"{actor} holds no trained model: neither FSDP shards (model_world_size_*.pt) nor all "
            "weights in huggingface/; give a run's folder, a global_step_N or a Hugging Face model."
        )
    with (actor / ".merge.lock").open("w") as file:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if not is_newest(merged, files):  # no other command has done it meanwhile
            with tempfile.TemporaryDirectory(prefix=".merged.", dir=actor) as temporary:
                made = Path(temporary) / "model"  # the folder around it is this user's alone
                shards.merge(actor, files, made)
                shutil.rmtree(merged, ignore_errors=True)
                made.rename(merged)
    return merged


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
    return (model / "lora_adapter").is_dir() or any(
        name.startswith(shards.PREFIX) for name in names
    )


def is_newest(model: Path, files: list[Path]) -> bool:
    """Says whether a folder holds all weights of a model, none of them written before the shards:
    else the step was trained again since."""
    if weight_names(model) is None:
        return False
    written = max(f.stat().st_mtime_ns for f in (model / SINGLE, model / INDEX) if f.is_file())
    return all(file.stat().st_mtime_ns <= written for file in files)


def main(arguments: list[str] | None = None) -> int:
    """Prints the folder of a checkpoint's trained policy; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m recipe.sampling.checkpoints",
        description="Print the folder of the trained policy.",
    )
    parser.add_argument("checkpoint", help="a run's folder, a checkpoint or a model")

    def command(words: list[str] | None) -> None:
        print(model_of(parser.parse_args(words).checkpoint)[0])

    return cli.run(command, arguments)


if __name__ == "__main__":
    sys.exit(main())
