"""The curve of a run as a picture: `python -m recipe.plot RUN_DIR [RUN_DIR ...] [--out FILE]`.

Reads the metrics files that `recipe.launch` has verl's file logger write (one a start; after a
resume the later file's steps win).
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from recipe.core.files import whole

PANELS = (  # (title, metric or prefix of several, y label)
    ("reward of training rollouts", "critic/rewards/mean", "mean reward"),
    ("held-out accuracy", "val-core/", "accuracy"),
    ("policy entropy", "actor/entropy", "nats a token"),
    ("tokens clipped", "actor/pg_clipfrac", "share"),
)
OPTIONAL = (  # drawn where a run has logged them
    ("mean upper clip bound", "clip_entropy/bound_upper", "eps"),
    ("mean lower clip bound", "clip_entropy/bound_lower", "eps"),
)


def read(run_dir: Path) -> dict[int, dict[str, float]]:
    """{step: {metric: value}} of one run, its starts merged in order."""
    steps: dict[int, dict[str, float]] = defaultdict(dict)
    files = sorted(Path(run_dir).glob("metrics/[0-9]*.jsonl"))
    if not files:
        raise FileNotFoundError(f"{run_dir} has no metrics/*.jsonl: is it the folder of a run?")
    for file in files:
        for line in file.read_text().splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # the last line of a start that was killed
                continue
            steps[row["step"]].update(row["data"])
    return dict(sorted(steps.items()))


def series(steps: dict[int, dict[str, float]], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of a metric; a name that ends in / takes the first metric below it."""
    matching = sorted({k for row in steps.values() for k in row if k == name or k.startswith(name)})
    if name.endswith("/"):
        name = next((k for k in matching if "/mean@" in k), matching[0] if matching else name)
    points = [(step, row[name]) for step, row in steps.items() if name in row]
    return [step for step, _ in points], [value for _, value in points]


def draw(run_dirs: Path | Sequence[Path], out: Path | None = None) -> Path:
    """Draw one or several runs over one another; returns the picture's path."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    run_dirs = [run_dirs] if isinstance(run_dirs, str | Path) else list(run_dirs)
    runs = {Path(d).name: read(Path(d)) for d in run_dirs}
    logged = {name for steps in runs.values() for row in steps.values() for name in row}
    panels = [*PANELS, *(panel for panel in OPTIONAL if panel[1] in logged)]
    rows = len(panels) // 2
    figure, axes = plt.subplots(rows, 2, figsize=(10, 3 * rows), constrained_layout=True)
    for axis, (title, metric, label) in zip(axes.flat, panels, strict=True):
        for name, steps in runs.items():
            x, y = series(steps, metric)
            axis.plot(x, y, label=name, linewidth=1.5, marker="." if len(x) < 40 else None)
        axis.set(title=title, xlabel="step", ylabel=label)
        axis.grid(alpha=0.3)
    axes.flat[0].legend(fontsize="small")
    out = Path(out) if out else Path(run_dirs[0]) / "curve.png"
    with whole(out) as file:
        figure.savefig(file, dpi=110)
    plt.close(figure)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dirs", nargs="+", type=Path, metavar="RUN_DIR")
    parser.add_argument("--out", type=Path, help="picture to write; default RUN_DIR/curve.png")
    known = parser.parse_args()
    print(draw(known.run_dirs, known.out))


if __name__ == "__main__":
    main()
