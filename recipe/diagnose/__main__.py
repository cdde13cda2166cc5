"""What moved the entropy of a run: `python -m recipe.diagnose RUN_DIR [RUN_DIR ...] [--json]`.

Reads the metrics of a run, finished or not, and prints what they tell, each sentence with its
figures and the metric that it was read from. Where they cannot tell, it says which setting to log.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from pathlib import Path

from recipe.core import cli
from recipe.diagnose.findings import diagnose
from recipe.experiment.evidence import Evidence, Finding
from recipe.experiment.run import RunFolder

WIDTH = 100  # characters of a line


def read(path: Path) -> Evidence:
    """Reads a run's metrics and config.

    Raises:
        FileNotFoundError: The folder has no metrics.
    """
    folder = RunFolder(path)
    metrics = folder.logged_metrics()
    record = folder.last_record() or {}
    return Evidence(metrics, record.get("config") or {})


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


def command(arguments: list[str] | None) -> None:
    """Parses the command line and prints what each run's metrics tell."""
    parser = argparse.ArgumentParser(
        prog="python -m recipe.diagnose", description=__doc__.splitlines()[0]
    )
    parser.add_argument("run_dirs", nargs="+", type=Path, metavar="RUN_DIR")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    args = parser.parse_args(arguments)
    findings = {}
    for path in args.run_dirs:
        try:
            findings[path] = diagnose(read(path))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    if args.json:
        table = {
            str(path): [finding._asdict() for finding in rows] for path, rows in findings.items()
        }
        print(json.dumps(table, indent=2))
    else:
        print("\n\n".join(text_of(path, rows) for path, rows in findings.items()))


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return cli.run(command, arguments)


if __name__ == "__main__":
    sys.exit(main())
