"""Tables of evaluated responses: their order, their figures, and which of them are paired."""

import json

import numpy as np
import pandas as pd
import pytest

from recipe.experiment.evaluation import (
    COLUMNS,
    figures,
    read_evaluation,
    read_evaluations,
    read_values,
    values,
)
from recipe.experiment.run import Run, RunFolder


def table_of(correct_PN):
    """In no order; tokens are 10 p + n, a majority is correct from half of the samples."""
    correct_PN = np.asarray(correct_PN, dtype=bool)
    problems, samples = correct_PN.shape
    index, sample = np.divmod(np.arange(problems * samples), samples)
    columns = {
        "index": index,
        "prompt_id": [f"p{i}" for i in index],
        "sample": sample,
        "response": "r",
        "answer": "a",
        "correct": correct_PN.ravel(),
        "cluster": 0,
        "majority_correct": np.repeat(correct_PN.mean(1) >= 0.5, samples),
        "tokens": 10 * index + sample,
        "truncated": ~correct_PN.ravel(),
    }
    assert list(columns) == list(COLUMNS)
    return pd.DataFrame(columns).sample(frac=1, random_state=0)


CORRECT_PN = np.arange(4)[None] < np.arange(5)[:, None]  # c = 0 1 2 3 4 correct of n = 4


def write(tmp_path, name, table):
    run = Run(*name, RunFolder(tmp_path / f"{name[0]}/seed{name[1]}"))
    run.folder.evaluation.mkdir(parents=True, exist_ok=True)
    table.to_parquet(run.folder.evaluation / "b.parquet")
    return run


def test_a_column_is_read_in_the_benchmarks_order(tmp_path):
    run = write(tmp_path, ("a", 0), table_of(CORRECT_PN))
    problems, correct_PN = read_evaluation(run.folder.evaluation / "b.parquet")
    assert problems == tuple((i, f"p{i}") for i in range(5))
    assert correct_PN.dtype == bool and np.array_equal(correct_PN, CORRECT_PN)
    tokens_PN = read_values(run.folder.evaluation, "b", "tokens")
    assert np.array_equal(tokens_PN, 10 * np.arange(5)[:, None] + np.arange(4))


def test_the_figures_worked_out():
    """pass@2 = 1 - C(4 - c, 2) / 6: 0, 3/6, 5/6, 1, 1; pass@3 = 1 - C(4 - c, 3) / 4."""
    estimates = figures(table_of(CORRECT_PN), [1, 2, 3])
    assert {name: estimate.mean for name, estimate in estimates.items()} == pytest.approx(
        {
            "avg@4": 0.5,
            "pass@1": 0.5,
            "pass@2": (3 / 6 + 5 / 6 + 2) / 5,
            "pass@3": (3 / 4 + 3) / 5,
            "majority@4": 3 / 5,
            "tokens": 21.5,
            "truncated": 0.5,
        }
    )
    assert estimates["avg@4"].low < 0.5 < estimates["avg@4"].high
    for samples, ks in ((4, ["pass@2"]), (32, ["pass@2", "pass@4", "pass@8", "pass@16"])):
        found = figures(table_of(np.ones((1, samples))))  # by default the powers of 2 below N
        assert [name for name in found if "pass" in name] == ks


def test_a_table_with_a_sample_too_few_is_refused():
    with pytest.raises(ValueError, match="differing numbers of samples"):
        values(table_of(CORRECT_PN).iloc[1:])
    with pytest.raises(ValueError, match="differing numbers of samples"):
        values(table_of(CORRECT_PN).iloc[:0])


def test_a_table_of_other_columns_is_named(tmp_path):
    old = table_of(CORRECT_PN).rename(columns={"correct": "right"})
    run = write(tmp_path, ("a", 0), old)
    assert read_evaluations([run]) == (
        {},
        ["a/seed0: b.parquet is left out: it has no column 'correct', evaluate the run again."],
    )


def test_a_benchmark_that_was_evaluated_with_several_presets_is_several(tmp_path):
    run = write(tmp_path, ("a", 0), table_of(CORRECT_PN))
    for folder, table in (("sent", ~CORRECT_PN), ("sent/b.responses", CORRECT_PN)):
        (run.folder.evaluation / folder).mkdir()
        table_of(table).to_parquet(run.folder.evaluation / folder / "b.parquet")
    (run.folder.evaluation / "b.responses").mkdir()
    (run.folder.evaluation / "b.responses/000000.parquet").write_bytes(b"cached responses")
    results, left_out = read_evaluations([run])
    assert list(results) == ["b", "sent/b"] and left_out == []
    assert np.array_equal(results["sent/b"]["a"][0], ~CORRECT_PN)


SETTINGS = {"samples": 4, "temperature": 1.0, "seed": 0, "max_prompts": 0, "model": "m"}


def test_runs_are_paired_by_the_settings_of_most_of_them(tmp_path):
    def evaluated(arm, number, correct_PN=CORRECT_PN, **change):
        run = write(tmp_path, (arm, number), table_of(correct_PN))
        record = {"settings": {**SETTINGS, "model": f"{arm}{number}", **change}}
        (run.folder.evaluation / "b.json").write_text(json.dumps(record))
        return run

    def paired(*runs):
        results, left_out = read_evaluations(runs)
        return {(arm, seed) for arm, by_seed in results["b"].items() for seed in by_seed}, left_out

    usual = [evaluated("a", seed) for seed in (0, 1)]
    warm = evaluated("b", 0, temperature=0.6)
    few = evaluated("b", 1, CORRECT_PN[:, :2], samples=2, temperature=0.6)
    assert paired(warm, few, *usual) == (
        {("a", 0), ("a", 1)},
        [
            "b/seed0: b.parquet is left out: it was evaluated with temperature=0.6 (most runs: "
            "1.0).",
            "b/seed1: b.parquet is left out: it was evaluated with samples=2 (most runs: 4), "
            "temperature=0.6 (most runs: 1.0).",
        ],
    )
    # of equally many, those with more samples
    assert paired(few, usual[0])[0] == {("a", 0)}
    # another seed of the sampling, and as many problems by another limit, are no other evaluation
    other = evaluated("b", 0, seed=3, max_prompts=5)
    assert paired(*usual, other)[1] == []
    # nor is one that has no readable record, or does not name a setting that came later
    unknown = [write(tmp_path, ("c", seed), table_of(CORRECT_PN)) for seed in (0, 1)]
    (unknown[1].folder.evaluation / "b.json").write_text("{")
    later = [evaluated("d", seed, dtype="float32") for seed in (0, 1)]
    runs, left_out = paired(*usual, *unknown, *later)
    assert len(runs) == 6
    assert left_out == [
        f"c/seed{seed}: b.parquet has no record of its settings (.json), and is taken to have "
        "those of most runs."
        for seed in (0, 1)
    ]


def test_runs_are_paired_on_the_problems_of_most_of_them(tmp_path):
    shorter = table_of(CORRECT_PN[:3])
    runs = [
        write(tmp_path, ("a", 0), table_of(CORRECT_PN)),
        write(tmp_path, ("a", 1), table_of(CORRECT_PN)),
        write(tmp_path, ("b", 0), shorter),
        write(tmp_path, ("b", 1), table_of(~CORRECT_PN)),
        Run("b", 2, RunFolder(tmp_path / "b/seed2")),
    ]
    (runs[0].folder.evaluation / "c.parquet").write_bytes(b"no parquet")
    results, left_out = read_evaluations(runs)
    assert {arm: list(of_arm) for arm, of_arm in results["b"].items()} == {"a": [0, 1], "b": [1]}
    assert np.array_equal(results["b"]["b"][1], ~CORRECT_PN)
    assert list(results) == ["b"] and len(left_out) == 2
    assert left_out[0].startswith("a/seed0: c.parquet is left out")
    assert left_out[1] == (
        "b/seed0: b.parquet is left out: its 3 problems are not the 5 of most runs."
    )
    lengths, _ = read_evaluations(runs, "tokens")
    assert lengths["b"]["a"][0].sum() == 430
    # of equally many, the larger set
    assert list(read_evaluations([runs[2], runs[0]])[0]["b"]) == ["a"]
