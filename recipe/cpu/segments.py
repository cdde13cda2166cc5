"""What a run that was killed with -9 leaves on this machine, and how the next start removes it.

verl's and vLLM's shared-memory segments have no owner that the kernel would clean up after. A
segment is an orphan when no living process maps it or holds it open; only this user's segments
with the names that verl and Python's `multiprocessing` give are looked at.
"""

from __future__ import annotations

import os
from pathlib import Path

import psutil

SEGMENTS = Path("/dev/shm")
PREFIXES = ("verl_weights_", "psm_")


def _in_use() -> set[str]:
    """Returns the names of the segments that some living process maps or has open."""
    used = set()
    for process in psutil.process_iter():
        try:
            paths = [m.path for m in process.memory_maps()]
            paths += [f.path for f in process.open_files()]
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
        used.update(Path(p).name for p in paths if p.startswith(f"{SEGMENTS}/"))
    return used


def orphaned_segments() -> list[Path]:
    """Returns this user's segments of verl and vLLM that no living process uses."""
    if not SEGMENTS.is_dir():
        return []
    candidates = [
        path
        for path in SEGMENTS.iterdir()
        if path.name.startswith(PREFIXES) and path.stat().st_uid == os.getuid()
    ]
    used = _in_use() if candidates else set()
    return [path for path in candidates if path.name not in used]


def remove_orphaned_segments() -> list[Path]:
    """Unlinks the orphaned segments, prints how many, and returns them."""
    orphans = orphaned_segments()
    for path in orphans:
        path.unlink(missing_ok=True)
    if orphans:
        print(f"[recipe] removed {len(orphans)} shared-memory segments of a run that was killed")
    return orphans
