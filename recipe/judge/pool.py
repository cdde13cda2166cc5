"""The child processes of `recipe.judge` (`child.py`): safe to ask from any thread."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
from collections import OrderedDict
from pathlib import Path

from recipe.core.settings import check_number

PROGRAM = Path(__file__).with_name("child.py")
WALL_FACTOR = 4  # seconds by the clock for a second of CPU time: a busy machine changes no verdict
START_LIMIT = 120  # seconds for a child to import math-verify


class Child:
    """One process of child.py, with `time_limit` and `memory_mb` as in `Pool`."""

    def __init__(self, time_limit: float, memory_mb: int):
        self.wall = WALL_FACTOR * time_limit
        limits = (str(limit) for limit in (time_limit, self.wall, memory_mb))
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", PROGRAM, *limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is the parent's business
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        greeting = self._read(START_LIMIT) or {}
        if not greeting.get("ready"):
            self.close()
            why = greeting.get("error", f"exit code {self.process.returncode}")
            raise RuntimeError(
                f"The judge's child process did not start with memory_mb={memory_mb} ({why}): "
                f"check that `{sys.executable} -c 'import math_verify'` works."
            )

    def ask(self, request: dict) -> dict | None:
        """Returns the child's reply, or None where it ran into a limit or crashed."""
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
        except OSError:
            return None
        return self._read(self.wall + 1)

    def used_its_time(self) -> bool:
        """Says whether the kernel ended the child at its limit of CPU time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(1) == -signal.SIGPROF
        return False

    def _read(self, seconds: float) -> dict | None:
        poll = select.poll()  # unlike select.select, for any number of open files
        poll.register(self.process.stdout, select.POLLIN)
        # a reply is one short write, which a pipe hands over in one piece
        line = self.process.stdout.read(4096) if poll.poll(seconds * 1000) else b""
        return json.loads(line) if line else None

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Pool:
    """At most `children` processes, each started when first needed and used by one thread a time.

    time_limit: seconds of CPU time for one answer (by the clock at most WALL_FACTOR times that,
    not counting the wait for a free child). memory_mb: address space of a child.
    """

    def __init__(self, children: int, time_limit: float, memory_mb: int):
        self.limits = time_limit, memory_mb
        self.idle = queue.LifoQueue()  # the one used last is warm
        for _ in range(children):
            self.idle.put(None)

    def ask(self, gold: str, answer: str) -> tuple[dict | None, bool]:
        """Waits for a free child and asks it (see `child.py`).

        Returns:
            Its reply, None without one; and whether the answer would have the same again: it has
            a reply, or it ran into the limit of CPU time.
        """
        child, reply, decided = self.idle.get(), None, False
        try:
            if child is not None and child.process.poll() is not None:
                child.close()
                child = None
            child = child or Child(*self.limits)
            reply = child.ask({"gold": gold, "answer": answer})
            decided = reply is not None or child.used_its_time()
        finally:
            if reply is None and child is not None:  # also when this thread was interrupted
                child.close()
                child = None
            self.idle.put(child)
        return reply, decided

    def close(self) -> None:
        """Ends the idle children."""
        taken = []
        with contextlib.suppress(queue.Empty):
            while True:
                taken.append(self.idle.get_nowait())
        for child in taken:
            if child is not None:
                child.close()
            self.idle.put(None)


_pools: dict[tuple, Pool] = {}
_lock = threading.Lock()
_replies: OrderedDict[tuple[int, str, str], dict | None] = OrderedDict()  # of `reply_of`
MOST_REPLIES = 4096  # the rollouts of a prompt share many answers


def reply_of(pool: Pool, gold: str, answer: str) -> dict | None:
    """Returns {"equal": bool, "parsed": bool}, or None where a limit or a crash left no verdict.

    A reply is remembered, and that the answer takes more CPU time than its limit. A crash and the
    limit by the clock are no property of the answer (another process took the memory or the cores):
    the question is asked once more, and nothing is remembered.
    """
    key = (id(pool), gold, answer)
    with _lock:
        if key in _replies:
            return _replies[key]
    for _ in range(2):
        reply, decided = pool.ask(gold, answer)
        if decided:
            with _lock:
                _replies[key] = reply
                if len(_replies) > MOST_REPLIES:
                    _replies.popitem(last=False)
            return reply
    return None


def pool_of(*, children: int, time_limit: float, memory_mb: int) -> Pool:
    """Returns this process's pool with these limits, started when first needed.

    Raises ValueError for a limit out of its range.
    """
    for name, value, low, high in (
        ("children", children, 1, 1024),
        ("time_limit", time_limit, 0.1, 3600),
        ("memory_mb", memory_mb, 128, 1 << 20),
    ):
        check_number(
            f"reward_kwargs.{name}",
            value,
            f"a number from {low} to {high}",
            lambda number, low=low, high=high: low <= number <= high,
        )
    key = int(children), float(time_limit), int(memory_mb)
    with _lock:
        if key not in _pools:
            _pools[key] = Pool(*key)
        return _pools[key]


def close() -> None:
    """Ends the idle children; the next call that needs one starts it again."""
    for pool in list(_pools.values()):
        pool.close()


def _after_fork() -> None:
    """The children belong to the parent: two processes on one pipe would swap their replies."""
    global _lock
    _lock = threading.Lock()
    _pools.clear()
    _replies.clear()


atexit.register(close)
os.register_at_fork(after_in_child=_after_fork)
