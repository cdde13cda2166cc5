"""How a command ends: its exit code, or one sentence on stderr and exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Callable

# what a user can cause: a wrong setting, file or environment
ERRORS = (ValueError, AssertionError, RuntimeError, OSError, ModuleNotFoundError)


def run(
    command: Callable[[list[str] | None], int | None],
    arguments: list[str] | None = None,
    errors: tuple[type[Exception], ...] = ERRORS,
) -> int:
    """Runs a command and returns its exit code; that of Ctrl-C is 130, as of any program.

    Args:
        command: Takes the words of the command line (None: those of this process); returns its
            exit code, None for 0. It raises for what a user can correct.
        arguments: Handed to `command`.
        errors: The exceptions that are printed as `error: <one line>`, with exit code 2.
    """
    try:
        return command(arguments) or 0
    except errors as error:
        return fail(error)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def fail(error: Exception) -> int:
    """Prints the error as one sentence on stderr; returns the exit code 2."""
    message = " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError):
        message += f" in {sys.prefix}: install it there, or run `bash setup.sh cpu|gpu`."
    print(f"error: {message}", file=sys.stderr)
    return 2
