"""Shared-memory segments of a killed run: removed when no process uses them, else kept."""

import subprocess
import sys
from multiprocessing import shared_memory

import pytest

from recipe.cpu import segments

pytestmark = pytest.mark.skipif(not segments.SEGMENTS.is_dir(), reason="needs /dev/shm (Linux)")

HOLD = """
import sys, time
from multiprocessing import resource_tracker, shared_memory
s = shared_memory.SharedMemory("{name}", create=True, size=4096)
resource_tracker.unregister(s._name, "shared_memory")  # as after kill -9: nobody cleans up
print("ready", flush=True)
time.sleep(600)
"""


def test_a_segment_in_use_is_kept_and_one_whose_owner_was_killed_is_removed():
    name = "verl_weights_recipe_test"
    owner = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(name=name)], stdout=subprocess.PIPE, text=True
    )
    path = segments.SEGMENTS / name
    try:
        assert owner.stdout.readline().strip() == "ready"
        assert path not in segments.remove_orphaned_segments()
        assert path.exists()
        owner.kill()
        owner.wait()
        assert path.exists()  # the kernel does not remove it
        assert path in segments.remove_orphaned_segments()
        assert not path.exists()
    finally:
        owner.kill()
        path.unlink(missing_ok=True)


def test_segments_with_other_names_are_not_looked_at():
    segment = shared_memory.SharedMemory("recipe_test_other", create=True, size=64)
    try:
        assert all(p.name != "recipe_test_other" for p in segments.orphaned_segments())
    finally:
        segment.close()
        segment.unlink()
