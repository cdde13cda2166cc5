"""Keeps the screen of a run for people: what verl, Ray and vLLM print goes to the run's log.

The run stays the process that was started, so that its exit code, Ctrl-C, `kill` and `kill -9` mean
what they meant. Its standard output and error are pointed at the log until it exits (Ray and others
have their last word then), and a second process (`recipe.console.__main__`) shows the run on the
screen. Where the output is the log already, as of the runs of `recipe.compare`, it stays so.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

from recipe.console.log import cause_of
from recipe.core.files import atomic_write
from recipe.experiment.run import RunFolder

STREAMS = (1, 2)  # standard output and error, of libraries in C++ and of child processes too
MARKS_OF_RECIPES = ("[preflight] ", "[recipe] ")
FOR_THE_RUN = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LAST_WORD = 20  # seconds that the console may take to show a run's end


def flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


@contextlib.contextmanager
def set_aside(kept: io.BytesIO, doing: str = "") -> Iterator[None]:
    """Keeps what is printed meanwhile off the screen, and appends it to `kept`; a terminal shows
    meanwhile what is being done."""
    terminal = bool(doing) and os.isatty(1)
    with tempfile.TemporaryFile() as file:
        if terminal:
            sys.stdout.write(f"[recipe] {doing} …")
        flush()
        screen = [os.dup(stream) for stream in STREAMS]
        for stream in STREAMS:
            os.dup2(file.fileno(), stream)
        try:
            yield
        finally:
            flush()
            for stream, copy in zip(STREAMS, screen, strict=True):
                os.dup2(copy, stream)
                os.close(copy)
            file.seek(0)
            kept.write(file.read())
            if terminal:
                sys.stdout.write("\r\x1b[K")
                flush()


def notes(kept: bytes) -> str:
    """Returns the lines of what was set aside that the recipes themselves have printed."""
    lines = kept.decode(errors="replace").splitlines(keepends=True)
    return "".join(line for line in lines if line.startswith(MARKS_OF_RECIPES))


def is_log(log: Path) -> bool:
    """Says whether standard output is this file already."""
    return log.is_file() and os.path.samestat(os.fstat(1), log.stat())


@contextlib.contextmanager
def written_end(file: Path) -> Iterator[None]:
    """Writes in one line how what happens meanwhile has ended, see `RunFolder`."""
    end = "finished"
    try:
        yield
    except Exception as error:
        end = f"failed: {cause_of(error)}"
        raise
    except KeyboardInterrupt:
        end = "stopped: by Ctrl-C"
        raise
    except SystemExit as error:  # Ray makes one of SIGTERM, with the signal's number
        end = f"stopped: {'by SIGTERM' if error.code == signal.SIGTERM else f'exit {error.code}'}"
        raise
    finally:
        # a disk may be full
        with contextlib.suppress(OSError), atomic_write(file) as temporary:
            temporary.write_text(end + "\n")


@contextlib.contextmanager
def followed(folder: RunFolder, verbose: bool = False, before: bytes = b"") -> Iterator[None]:
    """Shows the start of a run that happens meanwhile, and writes how it ended to its folder.

    Standard output and error are the log's afterwards. An exception passes through; its traceback
    is written to the log, and the interpreter prints it no more.

    Args:
        folder: Of the run.
        verbose: Copy the log to the screen instead.
        before: What was printed before, for the log.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    end_file = folder.next_metrics_file().with_suffix(".end")
    end_file.unlink(missing_ok=True)  # of an earlier start that failed before it logged a step
    if is_log(folder.log):
        sys.stdout.write(before.decode(errors="replace"))
        with written_end(end_file):
            yield
        return
    with folder.log.open("ab", buffering=0) as file:
        begin = file.tell()
        file.write(f"$ {shlex.join(sys.orig_argv)}\n".encode() + before)
        viewer = start_viewer(end_file, begin, verbose)
        flush()
        for stream in STREAMS:
            os.dup2(file.fileno(), stream)
    try:
        with written_end(end_file):
            try:
                yield
            except Exception:
                traceback.print_exc()
                raise
            finally:
                flush()
    except BaseException:
        sys.excepthook = lambda *_: None  # the log has it; the exit code stays the interpreter's
        raise
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            viewer.wait(LAST_WORD)


def start_viewer(end_file: Path, begin: int, verbose: bool) -> subprocess.Popen[bytes]:
    """Starts the process that shows the run on what are standard output and error now."""
    command = [sys.executable, "-m", "recipe.console", str(end_file), f"--begin={begin}"]
    command += [f"--process={os.getpid()}", *(["--verbose"] if verbose else [])]
    # those signals are for the run, whose end is the console's: it inherits that they are blocked
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FOR_THE_RUN)
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
