"""`data_prep/hendrycks_math.py`; what it shares with gsm8k.py is tested there."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_prep import hendrycks_math


def record(problem: str, solution: str) -> dict:
    return {"problem": problem, "level": "Level 2", "type": "Algebra", "solution": solution}


def prepare(tmp_path: Path, train: list[dict], test: list[dict]) -> subprocess.CompletedProcess:
    for split, records in (("train", train), ("test", test)):
        lines = "".join(json.dumps(r) + "\n" for r in records)
        (tmp_path / f"{split}.jsonl").write_text(lines)
    command = [sys.executable, hendrycks_math.__file__]
    command += ["--source", str(tmp_path), "--local_save_dir", str(tmp_path / "out")]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"So $x = \boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"First \boxed{1}, but then $\boxed{\{a, \sqrt{b}\}}$.", r"\{a, \sqrt{b}\}"),
        (r"Thus $\boxed 5$.", "5"),
        (r"\fbox{7}", "7"),
    ],
)
def test_the_last_box_is_the_answer(solution, answer):
    row = hendrycks_math.to_row(("x:1", record("p", solution)), "train", 0, "")
    assert row["reward_model"]["ground_truth"] == answer


def test_rows_and_counts(tmp_path):
    train = [record("a", r"\boxed{1}"), record("b", r"\boxed{2}"), record("a", r"\boxed{1}")]
    done = prepare(tmp_path, train, [record("b", r"\boxed{2}")])
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
def test_bad_input_is_one_sentence(tmp_path, bad, sentence):
    done = prepare(tmp_path, [bad], [record("b", r"\boxed{2}")])
    assert done.returncode == 2
    assert sentence in done.stderr
    assert not (tmp_path / "out").exists()
