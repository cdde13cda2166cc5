"""`data_prep/dapo_math.py` on files in the published shape: about 100 copies a problem, wrapped."""

import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from data_prep import dapo_math

SCRIPT = Path(dapo_math.__file__)
WRAPPER = (
    "Solve the following math problem step by step. The last line of your response should be of "
    "the form Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n"
    '{}\n\nRemember to put your answer on its own line after "Answer:".'
)


def record(problem: str, answer: str, index: int = 0) -> dict:
    return {
        "data_source": "math_dapo",
        "prompt": [{"role": "user", "content": WRAPPER.format(problem)}],
        "ability": "MATH",
        "reward_model": {"style": "rule-lighteval/MATH_v2", "ground_truth": answer},
        "extra_info": {"index": str(index)},
    }


def problems(count: int) -> list[dict]:
    return [record(f"What is ${i}$ plus\n\n$1$?", str(i + 1), i) for i in range(count)]


def write(folder: Path, records: list[dict]) -> Path:
    path = folder / dapo_math.FILE
    pd.DataFrame(records).to_parquet(path)
    return path


@pytest.fixture
def run(run_main):
    return lambda *arguments: run_main(SCRIPT, dapo_math.main, *arguments)


@pytest.fixture
def prepare(run):
    def prepare(folder: Path, records: list[dict], *options: str):
        write(folder, records)
        return run("--source", folder, "--local_save_dir", folder / "out", *options)

    return prepare


def test_copies_are_counted_and_dropped(tmp_path, prepare):
    done = prepare(tmp_path, problems(10) * 100, "--test_size", "3")
    assert done.returncode == 0, done.stderr
    assert "train: 997 rows read, 7 taken, 990 dropped (990 copies)" in done.stdout
    train, test = (
        pq.read_table(tmp_path / f"out/{s}.parquet").to_pylist() for s in ("train", "test")
    )
    assert len(train) == 7
    assert len(test) == 3
    texts = {row["extra_info"]["question"] for row in train + test}
    assert texts == {f"What is ${i}$ plus\n\n$1$?" for i in range(10)}
    report = json.loads((tmp_path / "out/train.json").read_text())
    assert report["rows"]["dropped"]["copies"] == 990


def test_five_hundred_problems_are_held_out_unless_it_is_given(tmp_path, prepare):
    done = prepare(tmp_path, problems(501))
    assert "train: 1 rows read, 1 taken" in done.stdout, done
    assert "test: 500 rows read, 500 taken" in done.stdout


def test_the_wrapper_is_taken_off_and_the_answer_kept(tmp_path, prepare):
    prepare(tmp_path, problems(4), "--test_size", "1")
    row = pq.read_table(tmp_path / "out/train.parquet").to_pylist()[0]
    number = int(row["reward_model"]["ground_truth"]) - 1
    expected = f"What is ${number}$ plus\n\n$1$?\n{dapo_math.INSTRUCTION}"
    assert row["prompt"] == [{"role": "user", "content": expected}]
    assert row["reward_model"]["style"] == "rule"
    assert row["extra_info"]["index"] == number


def test_whole_numbers_are_answers_too(tmp_path, prepare):
    records = [record(f"p {i}", i) for i in range(4)]
    done = prepare(tmp_path, records, "--test_size", "1")
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(tmp_path / "out/train.parquet").to_pylist()
    for row in rows:
        assert row["reward_model"]["ground_truth"] == row["extra_info"]["question"][2:]


@pytest.mark.parametrize("answer", [2.5, True, ["2"]])
def test_what_is_neither_a_text_nor_a_whole_number_is_one_sentence(tmp_path, prepare, answer):
    done = prepare(tmp_path, [record(f"p {i}", answer) for i in range(4)], "--test_size", "1")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert f"row 1 has reward_model.ground_truth={answer!r}" in done.stderr


def test_a_git_lfs_pointer_is_named(tmp_path, run):
    (tmp_path / dapo_math.FILE).write_text("version https://git-lfs.github.com/spec/v1")
    done = run("--source", tmp_path, "--local_save_dir", tmp_path / "out")
    assert done.returncode == 2
    assert f"{dapo_math.FILE} is a Git LFS pointer" in done.stderr


def test_a_problem_with_two_answers_is_dropped(tmp_path, prepare):
    bad = [record("Which is it?", "1"), record("Which is it?", "2")]
    done = prepare(tmp_path, [*problems(3), *bad, *problems(1)], "--test_size", "1")
    assert "(1 copies, 2 answers disagree)" in done.stdout


def test_the_held_out_problems_do_not_depend_on_the_order(tmp_path, prepare):
    folders = []
    for name, records in (("a", problems(30)), ("b", problems(30)[::-1] * 3)):
        (tmp_path / name).mkdir()
        assert prepare(tmp_path / name, records, "--test_size", "5").returncode == 0
        rows = pq.read_table(tmp_path / name / "out/test.parquet").to_pylist()
        folders.append({row["extra_info"]["question"] for row in rows})
    assert folders[0] == folders[1]


def test_again_gives_the_same_bytes(tmp_path, run, start):
    write(tmp_path, problems(9) * 4)
    options = ("--source", tmp_path, "--test_size", "2", "--local_save_dir")
    assert run(*options, tmp_path / "a").returncode == 0
    assert start(SCRIPT, *options, tmp_path / "b").returncode == 0
    for file in ("train.parquet", "test.parquet", "train.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize(
    ("records", "options", "sentence"),
    [
        ([{"question": "?", "answer": "1"}], [], "lacks `prompt` (a list of messages)"),
        ([record("?", " ")], [], "row 1 has a blank reward_model.ground_truth"),
        ([record("?", "1"), record(" ", "1")], [], "row 2 has a blank prompt"),
        ([{**record("?", "1"), "prompt": []}], [], "row 1 has not one prompt message"),
        (problems(3), ["--test_size", "3"], "--test_size 3 leaves no training problem of 3"),
        (problems(3), ["--test_size", "0"], "--test_size 0 is not allowed"),
        (problems(3), ["--max_samples", "0"], "--max_samples 0 is not allowed"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(
    tmp_path, prepare, records, options, sentence
):
    done = prepare(tmp_path, records, *(options or ["--test_size", "1"]))
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_without_the_file(tmp_path, run):
    done = run("--source", tmp_path, "--local_save_dir", tmp_path / "out")
    assert done.returncode == 2
    assert f"has no {dapo_math.FILE}" in done.stderr


def test_not_a_parquet_file(tmp_path, run):
    (tmp_path / dapo_math.FILE).write_text("nonsense")
    done = run("--source", tmp_path, "--local_save_dir", tmp_path / "out")
    assert "is not a parquet file" in done.stderr


def test_max_samples_counts_what_it_leaves_out(tmp_path, prepare):
    done = prepare(tmp_path, problems(10), "--test_size", "2", "--max_samples", "5")
    assert "5 taken, 3 dropped (3 beyond --max_samples)" in done.stdout
