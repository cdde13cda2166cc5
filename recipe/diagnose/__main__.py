"""What moved the entropy of a run: `python -m recipe.diagnose RUN_DIR [RUN_DIR ...] [--json]`.

Reads the metrics of a run, finished or not, and prints what they tell, each sentence with its
figures and the metric that it was read from. Where they cannot tell, it says which setting to log.
Of a run that has no metrics yet it says why; the exit code is 2 where none has any.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from recipe.core import cli
from recipe.diagnose.findings import diagnose
from recipe.experiment.evidence import Evidence, Finding
from recipe.experiment.run import RunFolder

WIDTH = 100  # characters of a line


def read(path: Path) -> Evidence:
    """Reads a run's metrics and config.

    Raises:
        FileNotFoundError: The folder is not one of a run.
        ValueError: No training step is logged.
    """
    folder = RunFolder(path)
    has_started = folder.last_end_file() is not None
    metrics = folder.metrics() if has_started else folder.logged_metrics()
    if any(step > 0 for step in metrics):
        return Evidence(metrics, (folder.last_record() or {}).get("config") or {})
    if end := folder.last_end():
        raise ValueError(
            f"{path} has logged no training step, as its last start has ended ({end}): correct "
            "that and start it again."
        )
    raise ValueError(f"{path} has logged no training step yet: wait for the first.")


def text_of(path: Path, findings: list[Finding]) -> str:
    """Returns the findings on a run as text."""
    lines = [str(path)]
    for topic, text, source in findings:
        lines += textwrap.wrap(
            f"{text} [{source}]",
            WIDTH,
            initial_indent=f"  {topic:<12}",
            subsequent_indent=" " * 14,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def command(arguments: list[str] | None) -> int:
    """Parses the command line and prints what each run's metrics tell, or why they cannot; returns
    the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m recipe.diagnose", description=__doc__.splitlines()[0]
    )
    parser.add_argument("run_dirs", nargs="+", type=Path, metavar="RUN_DIR")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    args = parser.parse_args(arguments)
    findings: dict[Path, list[Finding]] = {}
    errors: dict[Path, Exception] = {}
    for path in args.run_dirs:
        try:
            findings[path] = diagnose(read(path))
        except (ValueError, OSError) as error:
            errors[path] = error
    if args.json:
        table: dict[str, Any] = {
            str(path): [finding._asdict() for finding in rows] for path, rows in findings.items()
        }
        table |= {str(path): {"error": str(error)} for path, error in errors.items()}
        print(json.dumps(table, indent=2))
    else:
        if findings:
            print("\n\n".join(text_of(path, rows) for path, rows in findings.items()), flush=True)
        for error in errors.values():
            cli.fail(error)
    return 0 if findings else 2


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return cli.run(command, arguments)


if __name__ == "__main__":
    sys.exit(main())
