"""The tables of results in the documents against the committed results of each run."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
METRICS = ("avg@32", "pass@8", "final entropy")  # of the table's columns, in turn


def tables(file):
    """The rows of a document's tables of results: label, seeds, cells."""
    for table in re.findall(r"<!-- results.*?-->\n(.*?)<!-- end", file.read_text(), re.DOTALL):
        for line in table.splitlines()[2:]:
            label, seeds, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            yield label, int(seeds), cells


@pytest.mark.parametrize(
    ("name", "arms"),
    [("docs/study_cpu.md", 24), ("docs/semantic_curriculum_cpu.md", 8), ("README.md", 8)],
)
def test_tables_are_of_the_runs(name, arms):
    matrix = yaml.safe_load((ROOT / "studies/study_cpu.yaml").read_text())
    labels = {arm["label"]: key for key, arm in matrix["arms"].items()}
    runs = pd.read_csv(ROOT / "docs/study_cpu.csv")
    value = runs.pivot(index=["arm", "metric"], columns="seed", values="value")
    rows = list(tables(ROOT / name))
    assert len(rows) == arms
    for label, seeds, cells in rows:
        assert seeds == 3
        for metric, mean, difference in zip(METRICS, cells[::2], cells[1::2], strict=True):
            own = value.loc[labels[label], metric]
            base = value.loc[matrix["baseline"], metric]
            assert list(own.index) == matrix["seeds"] and own.notna().all()
            assert mean.startswith(f"{np.mean(own):.3f} [")
            if label != "GRPO":
                assert difference.strip("*").startswith(f"{np.mean(own - base):+.3f} [")
