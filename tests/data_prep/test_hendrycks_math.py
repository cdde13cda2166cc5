"""`data_prep/hendrycks_math.py`; what it shares with gsm8k.py is tested there."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_prep import hendrycks_math


def record(problem: str, solution: str) -> dict:
    return {"problem": problem, "level": "Level 2", "type": "Algebra", "solution": solution}


def write(folder: Path, train: list[dict], test: list[dict]) -> tuple:
    """Writes the source's files; returns the options that read them."""
    for split, records in (("train", train), ("test", test)):
        lines = "".join(json.dumps(r) + "\n" for r in records)
        (folder / f"{split}.jsonl").write_text(lines)
    return "--source", folder, "--local_save_dir", folder / "out"


@pytest.fixture
def prepare(run_main, tmp_path):
    def prepare(*records: list[dict]):
        options = write(tmp_path, *records)
        return run_main(hendrycks_math.__file__, hendrycks_math.main, *options)

    return prepare


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"So $x = \boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"First \boxed{1}, but then $\boxed{\{a, \sqrt{b}\}}$.", r"\{a, \sqrt{b}\}"),
        (r"Thus $\boxed 5$.", "5"),
        (r"First $\boxed 3$, but then $\boxed 5$.", "5"),
        (r"\fbox{7}", "7"),
    ],
)
def test_the_last_box_is_the_answer(solution, answer):
    row = hendrycks_math.to_row(("x:1", record("p", solution)), "train", 0, "")
    assert row["reward_model"]["ground_truth"] == answer


ALL = "Enter all the solutions, separated by commas."


@pytest.mark.parametrize(
    ("problem", "solution", "answer"),
    [
        (f"Solve. {ALL}", r"so $x=\boxed{-2}$ and $\boxed{1}$.", "-2, 1"),
        (f"Solve. {ALL}", r"$\boxed{30^\circ}$, $\boxed{45^\circ}$, $\boxed{105^\circ}$",
         r"30^\circ, 45^\circ, 105^\circ"),
        ("What is d?", r"$d=\boxed{-3}$. Note: $\boxed{3}$ is also accepted as an answer.",
         '["-3", "3"]'),
        ("Enter only one of the foci.", r"$\boxed{(10, 0)}$ and $\boxed{(0,0)}$",
         '["(10, 0)", "(0,0)"]'),
        ("What is it?", r"$\boxed{x+11}$ or $\boxed{11+x}$", "11+x"),
        ("Find a+b.", r"gives $\boxed{\frac{2}{53}}$. Thus $\boxed{55}$", "55"),
        (r"$1 = \boxed{\phantom{2}}$?", r"$1 = \boxed{\phantom{2}}$, so $\boxed{4}$.", "4"),
    ],
)  # fmt: skip
def test_several_boxes(problem, solution, answer):
    assert hendrycks_math.boxed_answer(problem, solution) == answer


def test_boxes_that_are_notation_are_dropped_and_counted(prepare):
    odd = record(r"Find $\boxed{12}$.", r"$\boxed{11}=2$, $\boxed{12}=6$. Therefore $6$.")
    done = prepare([record("a", r"\boxed{1}"), odd], [record("b", r"\boxed{2}")])
    assert done.returncode == 0, done.stderr
    assert "1 boxes that are notation" in done.stdout


def test_rows_and_counts(tmp_path, start):
    train = [record("a", r"\boxed{1}"), record("b", r"\boxed{2}"), record("a", r"\boxed{1}")]
    options = write(tmp_path, train, [record("b", r"\boxed{2}")])
    done = start(hendrycks_math.__file__, *options)
    assert done.returncode == 0, done.stderr
    assert "train: 3 rows read, 1 taken, 2 dropped (1 duplicate, 1 also in the" in done.stdout
    row = pq.read_table(tmp_path / "out/train.parquet").to_pylist()[0]
    assert row["prompt"][0]["content"] == f"a\n{hendrycks_math.INSTRUCTION}"
    assert row["extra_info"]["level"] == "Level 2"


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (record("p", "no box"), "train.jsonl:1 has no complete \\boxed{}"),
        (record("p", r"\boxed{1"), "train.jsonl:1 has no complete \\boxed{}"),
        (record(" ", r"\boxed{1}"), "has `problem`=' '"),
        ({"question": "p"}, "has no field `problem`"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, prepare, bad, sentence):
    done = prepare([bad], [record("b", r"\boxed{2}")])
    assert done.returncode == 2
    assert sentence in done.stderr
    assert not (tmp_path / "out").exists()
