"""How many CPUs this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

# Ours, and not measured: no machine with more than two cores was at hand. torch gives a thread
# 32,768 elements or more of an operation, of which one of a model of a million parameters seldom
# has sixteen times as many; of a larger model more threads may be better (OMP_NUM_THREADS).
MOST_THREADS = 16
CGROUPS = Path("/sys/fs/cgroup")
CGROUP_OF_PROCESS = Path("/proc/self/cgroup")


def usable_cpus() -> int:
    """Returns how many processes of this one's can compute at the same time: the machine's CPUs
    within its affinity (Slurm, taskset) and its cgroup's limit (containers), a share of a CPU
    counted as one. `os.cpu_count` has the whole machine's, of which a container gets a few.
    """
    affinity = len(os.sched_getaffinity(0))
    return max(1, min([affinity, *(math.ceil(limit) for limit in cgroup_limits())]))


def threads_per_rank(cpus: int, ranks: int) -> int:
    """Returns the threads of each rank of the actor and of each engine: the CPUs divided among the
    ranks of a machine, since generation and the actor's phases take turns, and at most
    MOST_THREADS.

    Args:
        cpus: CPUs that this machine lends.
        ranks: Ranks on this machine, each with its engine.
    """
    return max(1, min(cpus // ranks, MOST_THREADS))


def cgroup_limits() -> list[float]:
    """Returns the limits, in CPUs, of this process's cgroup and of those above it; of either
    version of cgroups, and none where nothing limits it."""
    limits = []
    for line in CGROUP_OF_PROCESS.read_text().splitlines() if CGROUP_OF_PROCESS.is_file() else []:
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = CGROUPS / controllers if controllers else CGROUPS
        if not top.is_dir():
            top = CGROUPS / "cpu"
        # in a container the name is often the host's, and the limits are those of the top
        folders = [top / name.strip("/"), *(top / name.strip("/")).parents]
        for folder in folders[: folders.index(top) + 1]:
            if (limit := _limit(folder)) is not None:
                limits.append(limit)
    return limits


def _limit(folder: Path) -> float | None:
    """Returns the quota of a cgroup in CPUs, None without one."""
    files = [folder / "cpu.max"], [folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us"]
    for names in files:
        if all(file.is_file() for file in names):
            quota, period = " ".join(file.read_text() for file in names).split()
            if quota not in ("max", "-1"):
                return int(quota) / int(period)
    return None
