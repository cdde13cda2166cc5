"""Values of a comparison that is run in several sittings, on made-up runs with known values."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import reports
import yaml
from scripts import load_script

ROOT = Path(__file__).parents[2]
HYPOTHESES = """
"1": {family: f, arm: id, minus: grpo, metric: E, steps: [1, 2], claim: above}
"""


@pytest.fixture
def keep(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "studies")  # as Python does for a script
    return load_script("studies/keep.py")


def sitting(
    out: Path, runs: dict, model: str = "m", offset: float = 0, evaluated=True, commit="c0ffee"
) -> Path:
    """Writes a comparison of which some runs are there: {(arm, seed): steps}."""
    reports.matrix(out, ["grpo", "id"], seeds=(0, 1))
    file = out / "matrix.yaml"
    file.write_text(file.read_text() + "evaluate: {benchmarks: [b.parquet], samples: 2}\n")
    for (arm, seed), steps in runs.items():
        rows = {
            step: {"E": step + seed + offset, "diagnostics/held_out_entropy": step + offset}
            for step in range(1, steps + 1)
        }
        record = {"started": f"day {seed}", "files": {"model": model}, "commit": commit}
        reports.run(out, arm, seed, rows, planned=2, **record)
        if evaluated:
            reports.evaluated(out, arm, seed, np.array([[1, 0], [1, 1]]))
    (out / "hypotheses.yaml").write_text(HYPOTHESES)
    return out


def run(keep, out: Path, prefix: Path) -> dict[str, pd.DataFrame]:
    keep.command([str(out), str(out / "hypotheses.yaml"), str(prefix)])
    return kept(prefix)


def kept(prefix: Path) -> dict[str, pd.DataFrame]:
    ends = ("_runs", "", "_curves", "_results")
    return {end: pd.read_csv(prefix.parent / f"{prefix.name}{end}.csv") for end in ends}


def test_each_sitting_adds_its_finished_runs(keep, tmp_path, capsys):
    prefix = tmp_path / "study"
    # grpo at seed 1 has not ended, and is no run to keep
    runs = {("grpo", 0): 2, ("id", 0): 2, ("grpo", 1): 1}
    first = run(keep, sitting(tmp_path / "first", runs), prefix)
    assert first["_runs"].drop(columns="commit").values.tolist() == [
        ["grpo", 0, "day 0", "m"],
        ["id", 0, "day 0", "m"],
    ]
    assert "0.75" not in (printed := capsys.readouterr().out) and printed.endswith(
        "2 runs, 2 of them new\n"
    )
    # on another machine, from another model: id at seed 0 is run again, with other values
    runs = {("id", 0): 2, ("grpo", 1): 2, ("id", 1): 2}
    second = sitting(tmp_path / "second", runs, model="n", offset=0.5)
    values = run(keep, second, prefix)
    assert values["_runs"][["arm", "seed", "model"]].values.tolist() == [
        *(["grpo", 0, "m"], ["id", 0, "m"], ["grpo", 1, "n"], ["id", 1, "n"])
    ]
    # the mean of steps 1 and 2 is 1.5 + seed; what was kept before stays as it was
    by_run = values[""].set_index(["arm", "seed"])["value"]
    expected = {("grpo", 0): 1.5, ("id", 0): 1.5, ("grpo", 1): 3.0, ("id", 1): 3.0}
    assert by_run.to_dict() == expected
    curves = values["_curves"].set_index(["arm", "seed", "step"])["entropy"]
    assert len(curves) == 8
    assert (curves["id", 0, 2], curves["id", 1, 2]) == (2.0, 2.5)
    results = values["_results"].query("metric == 'avg@2'")
    assert results.value.tolist() == [0.75] * 4 and set(results.problems) == {2}
    capsys.readouterr()
    # a command that was stopped before it wrote the record leaves rows of runs that are not kept
    record = tmp_path / "study_runs.csv"
    lines = record.read_text().splitlines(keepends=True)
    record.write_text("".join(lines[:3]))
    again = run(keep, second, prefix)
    assert all(again[end].equals(values[end]) for end in values)
    capsys.readouterr()
    before = {file: file.read_bytes() for file in tmp_path.glob("study*.csv")}
    run(keep, second, prefix)
    assert capsys.readouterr().out.endswith("4 runs, no new ones\n")
    assert {file: file.read_bytes() for file in tmp_path.glob("study*.csv")} == before


def test_runs_of_one_seed_began_from_one_model(keep, tmp_path):
    prefix = tmp_path / "study"
    run(keep, sitting(tmp_path / "first", {("grpo", 0): 2}), prefix)
    before = {file: file.read_bytes() for file in tmp_path.glob("study*.csv")}
    other = sitting(tmp_path / "second", {("id", 0): 2}, model="n")
    with pytest.raises(ValueError, match="the runs of seed 0 would have 2 different model"):
        run(keep, other, prefix)
    other = sitting(tmp_path / "third", {("id", 0): 2})
    # begun at another commit, and gone on with at the kept runs'
    start = other / "id/seed0/metrics/000.yaml"
    record = yaml.safe_load(start.read_text())
    start.write_text(yaml.safe_dump(record | {"commit": "0ld"}))
    (other / "id/seed0/metrics/001.yaml").write_text(yaml.safe_dump(record))
    (other / "id/seed0/metrics/001.jsonl").write_text("")
    with pytest.raises(ValueError, match="the runs of seed 0 would have 2 different commit"):
        run(keep, other, prefix)
    assert {file: file.read_bytes() for file in tmp_path.glob("study*.csv")} == before


def test_a_run_without_its_evaluation_is_left_for_later(keep, tmp_path, capsys):
    out = sitting(tmp_path / "out", {("grpo", 0): 2}, evaluated=False)
    keep.command([str(out), str(out / "hypotheses.yaml"), str(tmp_path / "study")])
    assert capsys.readouterr().out == (
        "grpo, seed 0: has ended without its evaluation b, and is left out\n"
        f"{tmp_path / 'study_runs.csv'}: 0 runs, no new ones\n"
    )
    assert not list(tmp_path.glob("study*"))


def test_a_run_is_kept_once_it_has_the_evaluation_of_each_preset(keep, tmp_path, capsys):
    out = sitting(tmp_path / "out", {("grpo", 0): 2}, evaluated=False)
    file = out / "matrix.yaml"
    presets = "evaluate: {benchmarks: [x/b.parquet, c.parquet], presets: [p1, p2]}"
    file.write_text(re.sub("evaluate: .*", presets, file.read_text()))
    groups = ["p1/b", "p1/c", "p2/b", "p2/c"]
    for number, group in enumerate(groups):
        (out / "grpo/seed0/evaluation" / group).parent.mkdir(parents=True, exist_ok=True)
        reports.evaluated(out, "grpo", 0, np.array([[1, 0], [1, 1]]), group)
        keep.command([str(out), str(out / "hypotheses.yaml"), str(tmp_path / "study")])
        if missing := groups[number + 1 :]:
            printed = capsys.readouterr().out
            assert f"without its evaluation {', '.join(missing)}, and is left out" in printed
            assert not list(tmp_path.glob("study*"))
    results = kept(tmp_path / "study")["_results"].query("metric == 'avg@2'")
    assert results.group.tolist() == groups


@pytest.mark.parametrize("text", [None, "config: [", "started: day 0"])
def test_a_finished_run_without_a_readable_record_is_left_out(keep, tmp_path, capsys, text):
    out = sitting(tmp_path / "out", {("grpo", 0): 2, ("id", 0): 2})
    record = out / "grpo/seed0/metrics/000.yaml"
    record.unlink() if text is None else record.write_text(text)
    values = run(keep, out, tmp_path / "study")
    assert capsys.readouterr().out == (
        "grpo, seed 0: has a start without a readable metrics/*.yaml, and is left out\n"
        "id, seed 0\n"
        f"{tmp_path / 'study_runs.csv'}: 1 runs, 1 of them new\n"
    )
    assert all(set(rows["arm"]) == {"id"} for rows in values.values())


def test_the_kept_values_give_the_tables_of_the_runs(keep, tmp_path, monkeypatch):
    """The same table from two sittings' kept values as from all runs in one folder."""
    runs = {(arm, seed): 2 for arm in ("grpo", "id") for seed in (0, 1)}
    whole = sitting(tmp_path / "whole", runs)
    for seed in (0, 1):
        part = sitting(tmp_path / f"part{seed}", {(arm, seed): 2 for arm in ("grpo", "id")})
        run(keep, part, tmp_path / "study")
    import windows

    matrix = windows.read_matrix(whole)
    hypotheses = windows.read_hypotheses(whole / "hypotheses.yaml")
    of_runs = windows.run_values(matrix, hypotheses)
    assert windows.read_values(tmp_path / "study.csv") == of_runs
    needed = windows.seeds_of_families(matrix, hypotheses)
    assert yaml.safe_load(HYPOTHESES)["1"]["arm"] in windows.table(hypotheses, of_runs, needed)
    tables = load_script("studies/tables.py")
    study = tables.Study(str(whole / "matrix.yaml"), str(tmp_path / "study_results.csv"), ())
    by_arm = {r.arm: r for r in study.read()[2] if r.metric == "avg@2"}
    assert (by_arm["id"].seeds, by_arm["id"].paired_seeds) == (2, 2)
    assert by_arm["id"].difference.mean == 0 and by_arm["grpo"].estimate.mean == 0.75
