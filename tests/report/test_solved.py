"""Problems that one method solves and another does not: known answers, texts, and what the page
makes of them."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
from reports import Page, evaluated, matrix, run

from recipe.experiment.statistics import interval
from recipe.report import __main__ as report
from recipe.report.solved import SHOWN, prompt_texts, solved_by_one
from recipe.sampling.prompts import prompt_id

EVIL = "</table><script>alert(1)</script> & {{ 7 * 7 }}"


def correct(*counts: int, samples: int = 4) -> np.ndarray:
    """(P, N): so many of each problem's samples are correct."""
    return np.arange(samples) < np.array(counts)[:, None]


PROBLEMS = {"b": tuple((index, f"p{index}") for index in range(4))}


def test_solved_is_more_than_half_over_the_seeds_that_both_have():
    values = {
        "b": {
            # problem 0: 3 of 8 and 8; 1: 5 and 4 (half is not solved); 2: 1 and 7; 3: both
            "a": {0: correct(2, 3, 0, 4), 1: correct(1, 2, 1, 4), 5: correct(4, 4, 4, 0)},
            "base": {0: correct(4, 2, 4, 4), 1: correct(4, 2, 3, 3), 7: correct(0, 0, 0, 0)},
        }
    }
    rows = solved_by_one(values, PROBLEMS, ["base", "a"], "base")
    assert [(row.solver, row.index, row.correct, row.baseline_correct) for row in rows] == [
        ("a", 1, 5, 4),
        ("base", 2, 1, 7),  # the largest difference first
        ("base", 0, 3, 8),
    ]
    assert {(row.arm, row.seeds, row.samples) for row in rows} == {("a", 2, 4)}
    # 2: 0 - 1 and 1/4 - 3/4: Student's t over two seeds
    assert rows[1].difference == interval([[-1.0], [-0.5]])
    assert rows[1].difference.mean == -0.75


def test_one_seed_gives_counts_and_an_interval_without_width():
    values = {"b": {"a": {3: correct(3, 0, 0, 0)}, "base": {3: correct(0, 0, 0, 0)}}}
    (row,) = solved_by_one(values, PROBLEMS, ["a", "base"], "base")
    assert row.difference == (0.75, 0.75, 0.75)


def test_of_seeds_with_more_samples_only_as_many_as_all_have_count():
    # 4 samples: 4 of 4 and 3 of 4 of the arm, 2 and 0 of the baseline, though it has 10 of 12 more
    few, more = correct(3), np.roll(correct(12, samples=16), 4, axis=1)
    more_of_base = np.concatenate([correct(0), correct(10, samples=12)], axis=1)
    values = {"b": {"a": {0: correct(4), 1: few}, "base": {0: correct(2), 1: more_of_base}}}
    (row,) = solved_by_one(values, PROBLEMS, ["a"], "base")
    assert (row.solver, row.samples, row.correct, row.baseline_correct) == ("a", 4, 7, 2)
    assert row.difference == interval([[0.5], [0.75]])
    values["b"]["a"][1] = more  # none of its first four: half of both seeds is not solved
    assert solved_by_one(values, PROBLEMS, ["a"], "base") == []


def test_methods_without_a_shared_seed_are_left_out():
    values = {"b": {"a": {0: correct(4, 4, 4, 4)}, "base": {1: correct(0, 0, 0, 0)}}}
    assert solved_by_one(values, PROBLEMS, ["a", "base"], "base") == []


def test_equal_methods_solve_nothing_that_the_other_does_not():
    values = {"b": {name: {0: correct(4, 2, 1, 3)} for name in ("a", "base")}}
    assert solved_by_one(values, PROBLEMS, ["a", "base"], "base") == []


# ---- the texts and the page ----------------------------------------------------------------------


def write_benchmark(file, texts) -> list[str]:
    prompts = [
        [{"role": "system", "content": "be brief"}, {"role": "user", "content": text}]
        for text in texts
    ]
    rows = {"prompt": prompts, "reward_model": [{"ground_truth": "1"}] * len(prompts)}
    pd.DataFrame(rows).to_parquet(file)
    return [prompt_id(prompt) for prompt in prompts]


@pytest.fixture
def compared(tmp_path):
    """A method that solves the first problems, a baseline that solves the second one."""
    out, texts = tmp_path / "out", ["first?", EVIL, *(f"{i}?" for i in range(2, 30))]
    matrix(out, ["base", "a"])
    ids = write_benchmark(tmp_path / "b.parquet", texts)
    solves = {"a": [4, 0] + [4] * 28, "base": [0, 4] + [0] * 28}
    for arm, counts in solves.items():
        for seed in (0, 1):
            run(out, arm, seed, {1: {"actor/entropy": 1.0}}, planned=1)
            evaluated(out, arm, seed, correct(*counts))
            table = out / arm / f"seed{seed}/evaluation/b.parquet"
            frame = pd.read_parquet(table)
            frame["prompt_id"] = [ids[index] for index in frame["index"]]
            frame.to_parquet(table)
            record = {"benchmark": str(tmp_path / "b.parquet")}
            table.with_suffix(".json").write_text(json.dumps(record))
    return out, texts


def test_the_page_and_the_table_have_the_problems_with_their_texts_escaped(compared):
    out, texts = compared
    file = report.write(out)
    page = Page(file.read_text())
    assert "a solves 29 that base does not; base solves 1 that it does not" in page.text
    assert "8 of 8" in page.text and "first?" in page.text and EVIL in page.text
    assert len(page.scripts) == 2 and "alert(1)" not in "".join(page.scripts)
    assert "+1.00 (all equal)" in page.text and "-1.00 (all equal)" in page.text
    shown = [text for text in texts if f" {text}" in page.text]
    assert len(shown) == SHOWN + 1  # the longer list is cut
    rows = list(csv.DictReader((file.parent / "data/solved.csv").open()))
    assert len(rows) == 30 and [row["text"] for row in rows if row["solver"] == "base"] == [EVIL]
    assert {row["text"] for row in rows} == set(texts)


def test_problems_of_a_benchmark_that_is_gone_are_named_by_their_hash(compared):
    out, _ = compared
    (out.parent / "b.parquet").unlink()
    text = Page(report.write(out).read_text()).text
    (name, *_) = pd.read_parquet(out / "a/seed0/evaluation/b.parquet")["prompt_id"]
    assert "first?" not in text and f"prompt {name}" in text


def test_a_record_that_says_nothing_of_its_benchmark_gives_no_texts(tmp_path):
    assert prompt_texts(tmp_path / "none.json") == {}
    for content in ("{", "{}", "[]", json.dumps({"benchmark": str(tmp_path / "none.parquet")})):
        (tmp_path / "b.json").write_text(content)
        assert prompt_texts(tmp_path / "b.json") == {}
    write_benchmark(tmp_path / "b.parquet", ["x?"])
    (tmp_path / "b.json").write_text(json.dumps({"benchmark": str(tmp_path / "b.parquet")}))
    assert list(prompt_texts(tmp_path / "b.json").values()) == ["x?"]
