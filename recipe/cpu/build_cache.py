"""A folder that is built once, atomically, and reused while it is still what was built.

The manifest `built.json` inside holds the key (everything the content depends on), the sha256 of
every other file, and a report of the build.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

MANIFEST = "built.json"


def sha256(path: Path) -> str:
    """Returns the hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes(folder: Path) -> dict[str, str]:
    """Returns the sha256 of every file below `folder` but the manifest, by its path inside."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(f.relative_to(folder)): sha256(f) for f in files if f != folder / MANIFEST}


def read(folder: Path, key: dict) -> dict | None:
    """Returns the report of a finished build of `key`, or None for another or a damaged folder.

    Files that were added later do not matter; one that is missing or has changed does.
    """
    try:  # a manifest that is missing or damaged means: build
        manifest = json.loads((folder / MANIFEST).read_text())
        same_key = manifest["key"] == json.loads(json.dumps(key))
        intact = manifest["files"].items() <= hashes(folder).items()
        return manifest["report"] if same_key and intact else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def build(
    folder: Path, key: dict, make: Callable[[Path], dict], force: bool = False
) -> tuple[dict, bool]:
    """Returns the report of `folder`, calling `make` first if there is no intact build of `key`.

    Args:
        folder: where the result stands. A folder that this module did not write is never replaced.
        key: what the content depends on, as JSON values.
        make: writes the files into the empty folder it is given and returns a report (JSON values).
        force: build even if there is an intact one.

    Returns:
        (report, whether it was built now)

    Raises:
        FileExistsError: if `folder` exists and is not one of these.
    """
    folder = Path(folder).expanduser().absolute()
    if not force and (report := read(folder, key)) is not None:
        return report, False
    if folder.exists() and not (folder.is_dir() and _replaceable(folder)):
        raise FileExistsError(
            f"--out {folder} exists and was not written by this command: choose another folder, or "
            "move it away."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        fresh = Path(scratch) / "new"
        fresh.mkdir()
        report = make(fresh)
        manifest = {"key": key, "files": hashes(fresh), "report": report}
        (fresh / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        if folder.exists():
            os.rename(folder, Path(scratch) / "old")
        os.rename(fresh, folder)
    return report, True


def _replaceable(folder: Path) -> bool:
    return (folder / MANIFEST).exists() or not any(folder.iterdir())
