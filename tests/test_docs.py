"""The tables of results in the documents against the committed results of each run."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from reports import evaluated, matrix, run
from scripts import load_script

from recipe.experiment.matrix import read_matrix
from recipe.report.__main__ import write

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


def test_the_table_is_of_the_runs():
    study = yaml.safe_load((ROOT / "studies/study_cpu.yaml").read_text())
    labels = {arm["label"]: key for key, arm in study["arms"].items()}
    runs = pd.read_csv(ROOT / "docs/study_cpu.csv")
    value = runs.pivot(index=["arm", "metric"], columns="seed", values="value")
    found = list(rows(ROOT / "docs/study_cpu.md"))
    assert len(found) == len(labels)
    for label, seeds, cells in found:
        assert seeds == 3
        for metric, estimate, difference in zip(METRICS, cells[::2], cells[1::2], strict=True):
            by_seed = value.loc[labels[label], metric]
            base = value.loc[study["baseline"], metric]
            assert list(by_seed.index) == study["seeds"] and by_seed.notna().all()
            assert estimate == student(by_seed)[0]
            if label != "GRPO":
                text, excludes_zero = student(by_seed - base, "+")
                assert difference == (f"**{text}**" if excludes_zero else text)


def test_tables_are_what_the_script_writes(tables):
    texts = {file: text for study in tables.STUDIES for file, text in study.texts().items()}
    assert {file.name for file in texts} >= {
        "study_cpu.md",
        "study_acts_cpu_results.md",
        "rivals_cpu_results.md",
    }
    for file, text in texts.items():
        assert text == file.read_text()


def test_another_baseline_is_printed_and_nothing_written(tables, capsys):
    files = [ROOT / name for study in tables.STUDIES for name in study.documents]
    before = [file.read_text() for file in files]
    tables.command(["--baseline", "reinforce"])
    head, _, first, *_ = capsys.readouterr().out.splitlines()
    assert head.count("to REINFORCE") == 3 and first.startswith("| REINFORCE | 3 |")
    assert [file.read_text() for file in files] == before


def test_the_report_s_own_results_give_the_report_s_own_table(tables, tmp_path):
    """Of data/results.csv, whose intervals speak of the problems too."""
    out, to = tmp_path / "out", tmp_path / "to"
    matrix(out, ["a", "b", "c"], seeds=(0, 1, 2))  # c has one seed, of which nothing is evaluated
    draws = np.random.default_rng(0)
    for arm, seeds in (("a", 3), ("b", 3), ("c", 1)):
        for seed in range(seeds):
            run(out, arm, seed, {k: {"actor/entropy": draws.random()} for k in (1, 2)}, planned=2)
            if arm != "c":
                evaluated(out, arm, seed, draws.random((5, 16)) < 0.4)
    write(out, to)
    study = tables.Study(str(out / "matrix.yaml"), str(to / "data/results.csv"), ())
    assert study.table() == (to / "data/results.md").read_text()
    assert study.table().count("\n") == 2 + len(study.read()[0].arms)


@pytest.mark.parametrize("name", ["study_cpu.yaml", "clip_shapes_cpu.yaml"])
def test_a_study_is_a_matrix(name):
    study = read_matrix(ROOT / "studies" / name)
    assert study.baseline == "grpo" and study.seeds == (0, 1, 2)
    for arm in study.arms:
        assert (ROOT / "recipe" / arm.recipe / arm.script).is_file()
    assert study.evaluate["samples"] == 32 and study.environment["STEPS"] == "30"
