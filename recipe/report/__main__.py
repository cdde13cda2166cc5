"""A comparison as one page: `python -m recipe.report OUT [--to FOLDER] [--baseline ARM] …`.

OUT is the folder of `recipe.compare`: matrix.yaml and the runs' folders, of which any file may be
missing. Writes FOLDER/index.html (one file, needs no network), the same charts as figures/*.png and
every number behind them as data/*.csv. The page says what is missing. The same input gives the same
files: no times, no machine's names.

`--into README.md` also writes the table of results into a Markdown file, in place of what is
between its lines `<!-- results -->`, or `<!-- results: ARM ARM -->` for some arms, and
`<!-- end of results -->`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from recipe.core import cli
from recipe.core.files import atomic_write
from recipe.report.figures import draw
from recipe.report.page import collect, render
from recipe.report.tables import fill, write_tables


def write(
    out: Path,
    to: Path | None = None,
    extra: Sequence[str] = (),
    baseline: str | None = None,
    into: Sequence[Path] = (),
) -> Path:
    """Writes the report of a comparison.

    Args:
        out: the comparison's folder.
        to: folder to write; default: OUT/report.
        extra: more metrics to chart, names or patterns.
        baseline: an arm's name; default: the matrix's baseline.
        into: Markdown files whose tables of results are made anew.

    Returns:
        The page's file.

    Raises:
        ValueError: the folder is no comparison, no run has logged a metric of `extra`, or a file of
            `into` has no place for the table; nothing is written then.
    """
    to = to or out / "report"
    page = collect(out, extra, baseline)
    names = [arm.name for arm in page.arms]
    filled = {file: fill(file.read_text(), str(file), names, page.markdown) for file in into}
    for file, text in filled.items():
        with atomic_write(file) as temporary:
            temporary.write_text(text)
    for folder in ("data", "figures"):
        (to / folder).mkdir(parents=True, exist_ok=True)
    write_tables(to / "data", page)
    styles = [page.styles[arm.name] for arm in page.arms]
    for name, charts in (("charts", page.charts), ("final_charts", page.final_charts)):
        picture = to / "figures" / f"{name}.png"
        picture.unlink(missing_ok=True)
        if charts:
            draw(charts, styles, picture)
    file = to / "index.html"
    with atomic_write(file) as temporary:
        temporary.write_text(render(page))
    return file


def command(arguments: list[str] | None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m recipe.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of a comparison")
    parser.add_argument("--to", type=Path, help="folder to write; default OUT/report")
    parser.add_argument("--metric", action="append", default=[], help="one more curve, * allowed")
    parser.add_argument("--baseline", metavar="ARM", help="default: the matrix's")
    parser.add_argument(
        "--into", action="append", default=[], type=Path, metavar="MARKDOWN", help="see above"
    )
    args = parser.parse_args(arguments)
    print(write(args.out, args.to, args.metric, args.baseline, args.into))


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return cli.run(command, arguments)


if __name__ == "__main__":
    sys.exit(main())
