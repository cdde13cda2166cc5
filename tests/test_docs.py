"""The tables of results in the documents against the committed results of each run."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scripts import load_script

from recipe.experiment.matrix import read_matrix

ROOT = Path(__file__).resolve().parents[1]
METRICS = ("avg@32", "pass@8", "final entropy")  # of the table's columns, in turn
STUDENT = 4.302653  # of two degrees of freedom, 97.5 %


@pytest.fixture(scope="module")
def tables():
    return load_script("studies/tables.py")


def rows(file):
    """The rows of a document's tables of results: label, seeds, cells."""
    for table in re.findall(r"<!-- results.*?-->\n(.*?)<!-- end", file.read_text(), re.DOTALL):
        for line in table.splitlines()[2:]:
            label, seeds, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            yield label, int(seeds), cells


def student(values, sign=""):
    half = STUDENT * np.std(values, ddof=1) / np.sqrt(len(values))
    mean = np.mean(values)
    return f"{mean:{sign}.3f} [{mean - half:{sign}.3f}, {mean + half:{sign}.3f}]", abs(mean) > half


@pytest.mark.parametrize(
    ("name", "methods"), [("docs/study_cpu.md", 24), ("docs/semantic_curriculum_cpu.md", 8)]
)
def test_tables_are_of_the_runs(name, methods):
    matrix = yaml.safe_load((ROOT / "studies/study_cpu.yaml").read_text())
    labels = {arm["label"]: key for key, arm in matrix["arms"].items()}
    runs = pd.read_csv(ROOT / "docs/study_cpu.csv")
    value = runs.pivot(index=["arm", "metric"], columns="seed", values="value")
    found = list(rows(ROOT / name))
    assert len(found) == methods
    for label, seeds, cells in found:
        assert seeds == 3
        for metric, estimate, difference in zip(METRICS, cells[::2], cells[1::2], strict=True):
            by_seed = value.loc[labels[label], metric]
            base = value.loc[matrix["baseline"], metric]
            assert list(by_seed.index) == matrix["seeds"] and by_seed.notna().all()
            assert estimate == student(by_seed)[0]
            if label != "GRPO":
                text, excludes_zero = student(by_seed - base, "+")
                assert difference == (f"**{text}**" if excludes_zero else text)


def test_tables_are_what_the_script_writes(tables):
    assert {file.name for file in tables.DOCUMENTS} == {
        *("study_cpu.md", "semantic_curriculum_cpu.md")
    }
    for file in tables.DOCUMENTS:
        assert tables.document(file) == file.read_text()


def test_another_baseline_is_printed_and_nothing_written(tables, capsys):
    before = [file.read_text() for file in tables.DOCUMENTS]
    tables.command(["--baseline", "reinforce"])
    head, _, first, *_ = capsys.readouterr().out.splitlines()
    assert head.count("to REINFORCE") == 3 and first.startswith("| REINFORCE | 3 |")
    assert [file.read_text() for file in tables.DOCUMENTS] == before


@pytest.mark.parametrize("name", ["study_cpu.yaml", "clip_shapes_cpu.yaml"])
def test_a_study_is_a_matrix(name):
    matrix = read_matrix(ROOT / "studies" / name)
    assert matrix.baseline == "grpo" and matrix.seeds == (0, 1, 2)
    for arm in matrix.arms:
        assert (ROOT / "recipe" / arm.recipe / arm.script).is_file()
    assert matrix.evaluate["samples"] == 32 and matrix.environment["STEPS"] == "30"
