"""Files that are whole: written at once or not at all, and not a pointer to their content; and the
paths of those that are here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LFS = b"version https://git-lfs"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary name in the same folder, with the same ending, to write to; then renames
    it to `path`. Nothing is left where the body raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def is_lfs_pointer(path: Path) -> bool:
    """Says whether a file is a pointer of Git LFS, which stands for a file that was not fetched."""
    with path.open("rb") as file:
        return file.read(len(LFS)) == LFS


def local_path(text: str) -> str | None:
    """Returns the absolute path of a file or folder of this machine, None for what is none."""
    path = Path(os.path.expanduser(text)).absolute()
    return str(path) if path.exists() else None
