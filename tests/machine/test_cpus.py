"""The number of CPUs that a process may use."""

import os

import pytest

from recipe import machine
from recipe.cpu import platform
from recipe.machine import cpus

# of each: /proc/self/cgroup, the files below /sys/fs/cgroup, and the CPUs out of 192
V2 = "0::/job/step\n"
QUOTA, PERIOD = "job/cpu.cfs_quota_us", "job/cpu.cfs_period_us"
V1 = "5:memory:/x\n4:cpu,cpuacct:/job\n"
CASES = {
    "no cgroup": ("", {}, 192),
    "no limit": (V2, {"job/step/cpu.max": "max 100000", "cpu.max": "max 100000"}, 192),
    "its own": (V2, {"job/step/cpu.max": "400000 100000"}, 4),
    "one above": (V2, {"job/step/cpu.max": "max 100000", "job/cpu.max": "250000 100000"}, 3),
    "the smaller": (V2, {"job/step/cpu.max": "800000 100000", "job/cpu.max": "50000 100000"}, 1),
    "a container's": ("0::/\n", {"cpu.max": "200000 100000"}, 2),
    "a host's name": (V2, {"cpu.max": "600000 100000"}, 6),
    "version 1": (V1, {f"cpu,cpuacct/{QUOTA}": "300000", f"cpu,cpuacct/{PERIOD}": "100000"}, 3),
    "version 1, none": (V1, {f"cpu/{QUOTA}": "-1", f"cpu/{PERIOD}": "100000"}, 192),
}


@pytest.mark.parametrize("case", CASES)
def test_a_cgroup_limits_the_cpus(tmp_path, monkeypatch, case):
    own, files, expected = CASES[case]
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        file = tmp_path / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    monkeypatch.setattr(cpus, "CGROUP_OF_PROCESS", tmp_path / "own")
    monkeypatch.setattr(cpus, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(192)))
    assert cpus.usable_cpus() == expected


def test_so_does_its_affinity(monkeypatch):
    monkeypatch.setattr(cpus, "cgroup_limits", lambda: [100.0])
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 7})
    assert cpus.usable_cpus() == 2


def test_here_there_is_at_least_one():
    assert 1 <= cpus.usable_cpus() <= os.cpu_count()


@pytest.mark.parametrize(
    ("cores", "ranks", "threads"),
    [
        (1, 1, 1),
        (2, 1, 2),
        (2, 2, 1),
        (2, 4, 1),  # more ranks than cores: one each
        (8, 1, 8),
        (8, 2, 4),
        (8, 3, 2),
        (64, 1, 16),  # cpus.MOST_THREADS
        (64, 8, 8),
    ],
)
def test_the_cores_are_divided_among_the_ranks(cores, ranks, threads):
    assert cpus.threads_per_rank(cores, ranks) == threads


def test_a_run_s_processes_get_their_threads_from_ray(monkeypatch):
    """On a machine without a GPU; a number that the user has set stays, and a cluster's cores are
    not this run's alone."""
    for name in ("OMP_NUM_THREADS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cpus, "usable_cpus", lambda: 8)
    monkeypatch.setattr(platform, "active", lambda: True)
    assert machine.worker_environment(ranks=2) == {"OMP_NUM_THREADS": "4"}
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert machine.worker_environment(ranks=2) == {}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert machine.worker_environment(ranks=2) == {"OMP_NUM_THREADS": "3"}
    monkeypatch.setattr(platform, "active", lambda: False)
    assert machine.worker_environment(ranks=2) == {}
