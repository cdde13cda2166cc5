"""What a run's log says: how far its start is, what ended it, its last lines that say something."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

from recipe.experiment.run import printable, tail

TAIL = 1 << 18  # bytes of a log that are read from its end
PREFIX = re.compile(r"^(\([\w.]+ pid=\d+[^)]*\) ?)+")  # of Ray, before what a worker prints
EXCEPTION = re.compile(r"^(?:\w+\.)*(\w*(?:Error|Exception|Interrupt|Timeout)(?:: .*)?)$")
FRAME = re.compile(r'^\s*File "[^"]+", line \d+')
# of a log's end on the screen: frames of tracebacks, progress bars, metrics, which the table has
SAYS_NOTHING = re.compile(
    r"^(Traceback \(most|The above exception|During handling|\S*ray::)|^[\s~^]*$|RayTaskError\("
    r"|target_num_threads|Training Progress|^step:\d+ - |val-(core|aux)/|np\.(float|int)64"
    r"|^\[recipe\] curve"
)
LONGEST = 200  # characters of such a line
BAR = re.compile(r"Training Progress:.*?\| *\d+/(\d+) \[")
# what verl prints once something is done, and what it does next
PHASES = (
    ("ray init kwargs", "starting Ray"),
    ("Started a local Ray instance", "loading the model"),
    ("Connected to Ray cluster", "loading the model"),
    ("actor and ref model engine initialized", "starting vLLM"),
    ("all initialize finished", "validating, or the first rollouts"),
    ("Training Progress:", "the first step"),
)


def end_of(log: Path, begin: int = 0) -> str:
    """Returns the end of a log as text without escape sequences and control characters.

    Args:
        log: The file; it need not exist.
        begin: Byte before which nothing is read.
    """
    return printable(tail(log, TAIL, begin).decode(errors="replace"))


def phase(text: str) -> str:
    """Returns what a run that has no step yet is doing, by what its log says last."""
    place, doing = max((text.rfind(mark), doing) for mark, doing in PHASES)
    return doing if place >= 0 else "starting"


def total_steps(text: str) -> int | None:
    """Returns the steps of the run by verl's progress bar, None before it."""
    bars = BAR.findall(text)
    return int(bars[-1]) if bars else None


def shown_lines(text: str) -> list[str]:
    """Returns the lines of a text without Ray's prefixes, and without what a progress bar has
    overwritten."""
    return [PREFIX.sub("", line.rpartition("\r")[2].rstrip()) for line in text.split("\n")]


def cause(text: str) -> str:
    """Returns the last line of a text that is an exception, "" where none is. Of a ValueError or a
    FileNotFoundError, which are sentences here, the sentence alone."""
    exceptions = [match[1] for line in shown_lines(text) if (match := EXCEPTION.match(line))]
    last = exceptions[-1] if exceptions else ""
    return re.sub(r"^(ValueError|FileNotFoundError): ", "", last)


def cause_of(error: BaseException) -> str:
    """Returns the cause of an exception in one line: of one that Ray has carried over from a
    worker, the exception that was raised there."""
    text = printable("".join(traceback.format_exception_only(error)))
    return cause(text) or " ".join(text.split())


def last_lines(text: str, count: int, longest: int = LONGEST) -> list[str]:
    """Returns the last lines that say something: no frames of tracebacks, no progress bars, no
    metrics, and lines that are repeated once.

    Args:
        text: Of a log.
        count: Of the lines.
        longest: Characters of a line; of a longer one the beginning.
    """
    kept: list[str] = []
    after_frame = False
    for line in shown_lines(text):
        is_frame = bool(FRAME.match(line))
        source = after_frame and line.startswith("    ")  # the line of code of a frame
        after_frame = is_frame or source
        if not is_frame and not source and not SAYS_NOTHING.search(line) and line not in kept[-1:]:
            kept.append(line)
    return [line if len(line) <= longest else f"{line[: longest - 1]}…" for line in kept[-count:]]
