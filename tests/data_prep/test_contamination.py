"""`data_prep/contamination.py`: what counts as an overlap, what is written, what is refused."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import contamination
from data_prep.contamination import (
    Problems,
    find_pairs,
    ngrams,
    split_words,
    without_instruction,
)

SCRIPT = Path(contamination.__file__)
LONG = "A farmer has 17 sheep and all but 9 of them run away in the night , how many are left ?"
NEAR = "A farmer has 17 sheep and all but 9 of them run away in the night. How many did he lose?"
OTHER = "Find the number of ordered pairs of integers whose product is twice the sum of both."
PHRASE = "Find the number of ordered pairs of integers such that the first divides the second."


def row(question: str, kind: str = "question") -> dict:
    """A row of verl's schema, with the problem alone or with an instruction behind it only."""
    prompt = [{"role": "user", "content": f"{question}\nThink, and put the answer in \\boxed{{}}."}]
    extra = {"index": 0, "question": question} if kind == "question" else {"index": 0}
    return {
        "data_source": "x",
        "prompt": prompt,
        "reward_model": {"style": "rule", "ground_truth": "1"},
        "extra_info": extra,
    }


def write(path: Path, questions: list[str], kind: str = "question") -> Path:
    pq.write_table(pa.Table.from_pylist([row(q, kind) for q in questions]), path)
    return path


@pytest.fixture
def run(run_main):
    return lambda *args: run_main(SCRIPT, contamination.main, *args)


def problems(name: str, texts: list[str]) -> Problems:
    return Problems(Path(name), texts, [split_words(text) for text in texts])


def pair_keys(train: list[str], evals: list[str], ngram: int = 8, threshold: float = 0.5) -> set:
    pairs = find_pairs(problems("train", train), problems("eval", evals), ngram, threshold)
    return {(pair.eval_row, pair.train_row, pair.kind, pair.overlap) for pair in pairs}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is $x + 1$?", "what is x+1 ?"),
        (r"Find \(\dfrac{1}{2}\,\left( x \right)\).", r"Find $\frac12(x)$".replace("12", "{1}{2}")),
        ("The  set\n{1, 2} is\tgiven.", "the set { 1, 2 } is given"),
        ("ﬁnd ２ + ２", "find 2+2"),
    ],
)
def test_the_same_words(one, other):
    assert split_words(one) == split_words(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 2 + 3?", "What is 2 - 3?"),
        (r"x \leftarrow 1", "x arrow 1"),
        ("a^2", "a_2"),
        ("1.5", "15"),
    ],
)
def test_other_words(one, other):
    assert split_words(one) != split_words(other)


def test_exact_near_and_different_problems():
    # NEAR has 21 words, so 14 8-grams; it shares its first 18 words, so 11 8-grams, with LONG
    assert pair_keys([LONG, OTHER], [NEAR]) == {(0, 0, "n-gram", round(11 / 14, 4))}
    assert pair_keys([LONG], [LONG.upper().replace(" ,", ",")]) == {(0, 0, "exact", 1.0)}
    assert pair_keys([LONG], [OTHER]) == set()


def test_the_threshold_is_a_share_of_the_evaluation_problems_ngrams():
    # PHRASE has 15 words, so 8 8-grams, of which the first is in OTHER
    assert pair_keys([OTHER], [PHRASE]) == set()
    for threshold in (0, 0.125):
        assert pair_keys([OTHER], [PHRASE], threshold=threshold) == {(0, 0, "n-gram", 0.125)}
    assert pair_keys([OTHER], [PHRASE], threshold=0.126) == set()


def test_a_problem_inside_a_longer_one_is_found():
    assert pair_keys([f"Read this first. {LONG} Explain."], [LONG]) == {(0, 0, "n-gram", 1.0)}


def test_a_phrase_of_many_problems_alone_makes_no_pair():
    evals = [f"{PHRASE} {i}" for i in range(contamination.COMMON + 1)]
    assert pair_keys([PHRASE], evals[:-1], threshold=0) != set()
    assert pair_keys([PHRASE], evals, threshold=0) == set()
    assert pair_keys([PHRASE], [*evals, PHRASE], threshold=0) == {(101, 0, "exact", 1.0)}


def test_the_longest_shared_sequence_is_named():
    (pair,) = find_pairs(problems("train", [LONG]), problems("eval", [NEAR]), 8, 0.5)
    night = "a farmer has 17 sheep and all but 9 of them run away in the night"
    assert pair.shared == f"{night} how many"


def test_a_short_problem_is_only_compared_exactly():
    assert pair_keys(["What is 2+3 in base 4?"], ["What is 2+3?"], threshold=0) == set()
    assert pair_keys(["What is 2 + 3?"], ["what is 2+3?"]) == {(0, 0, "exact", 1.0)}


def test_all_rows_of_equal_problems_are_named():
    assert pair_keys([LONG, OTHER, LONG], [LONG, LONG]) == {
        (i, j, "exact", 1.0) for i in (0, 1) for j in (0, 2)
    }


def test_an_instruction_that_all_prompts_share_is_no_overlap():
    instruction = "Please think step by step and put your final answer within a box."
    train = [split_words(f"{text} {instruction}") for text in (LONG, OTHER, "What is 1+1?")]
    assert without_instruction(train) == [split_words(t) for t in (LONG, OTHER, "What is 1+1?")]
    assert without_instruction([train[0]] * 2) == [train[0]] * 2  # which is the instruction?


def test_three_words_that_all_share_are_no_instruction():
    def texts(words):
        return [(*words, "x"), (*words, "y")]

    assert without_instruction(texts(["find", "the", "sum"])) == texts(["find", "the", "sum"])
    assert without_instruction(texts(["find", "the", "sum", "of"])) == texts([])


def test_half_of_the_8_grams_make_a_pair_unless_it_is_given():
    args = contamination.parse(["train.parquet", "eval.parquet"])
    assert (args.ngram, args.threshold) == (8, 0.5)


text = st.lists(st.sampled_from("abc"), max_size=14).map(tuple)


@settings(max_examples=200, deadline=None)
@given(st.lists(text, max_size=6), st.lists(text, max_size=6), st.integers(1, 4), st.floats(0, 1))
def test_the_index_finds_what_comparing_all_finds(train, evals, ngram, threshold):
    def overlap(eval_words, train_words):
        grams = ngrams(eval_words, ngram)
        return len(grams & ngrams(train_words, ngram)) / len(grams) if grams else 0

    expected = set()
    for i, eval_words in enumerate(evals):
        for j, train_words in enumerate(train):
            share = overlap(eval_words, train_words)
            if eval_words and eval_words == train_words:
                expected.add((i, j, "exact", 1.0))
            elif share > 0 and share >= threshold:
                expected.add((i, j, "n-gram", round(share, 4)))
    texts = [[" ".join(words) for words in side] for side in (train, evals)]
    assert pair_keys(*texts, ngram, threshold) == expected


def test_seventeen_thousand_by_five_thousand_take_seconds():
    rng = random.Random(0)
    vocabulary = [f"w{i}" for i in range(3000)]
    phrase = "find the number of ordered pairs of positive integers such that"

    def problem():
        return f"{phrase} {' '.join(rng.choices(vocabulary, k=30))}"

    train = [problem() for _ in range(17_000)]
    evals = [problem() for _ in range(4_990)] + train[:10]
    start = time.process_time()
    pairs = pair_keys(train, evals)
    assert time.process_time() - start < 20  # a few seconds on an idle core
    assert pairs == {(4_990 + i, i, "exact", 1.0) for i in range(10)}


def test_what_it_prints_and_writes(run, tmp_path):
    train = write(tmp_path / "train.parquet", [OTHER, LONG, "What is 1+1?"])
    first = write(tmp_path / "a.parquet", [NEAR, LONG, "What is 5?"])
    second = write(tmp_path / "b.parquet", ["What is 1 + 1 ?", "What is 3?"])
    done = run(train, first, second, "--out", tmp_path / "p.csv", "--clean", tmp_path / "c.parquet")
    assert done.returncode == 0, done.stderr
    assert "a.parquet: 3 problems, 1 exactly in the training data, 1 more with" in done.stdout
    assert "; 1 of fewer than 8 words only compared exactly" in done.stdout
    assert "b.parquet: 2 problems, 1 exactly in the training data, 0 more" in done.stdout
    assert "2 of 3 training rows (66.67%) are in 3 pairs" in done.stdout
    assert "n-gram 0.79, row 0 and training row 1" in done.stdout
    table = pd.read_csv(tmp_path / "p.csv")
    assert table[["eval_file", "eval_row", "train_row", "kind"]].values.tolist() == [
        ["a.parquet", 0, 1, "n-gram"],
        ["a.parquet", 1, 1, "exact"],
        ["b.parquet", 0, 2, "exact"],
    ]
    clean = pq.read_table(tmp_path / "c.parquet")
    assert clean.to_pylist() == [row(OTHER)]
    assert clean.schema == pq.read_schema(train)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("a.parquet", "b.parquet", "c.parquet", "p.csv", "train.parquet")
    ]


def test_prompts_with_other_instructions_are_compared_without_them(run, tmp_path):
    train = write(tmp_path / "train.parquet", [LONG, "What is 1+1?"], "prompt")
    evals = write(tmp_path / "e.parquet", [LONG, OTHER])
    done = run(train, evals, "--out", tmp_path / "p.parquet")
    assert "1 exactly in the training data, 0 more" in done.stdout
    assert pd.read_parquet(tmp_path / "p.parquet")["kind"].tolist() == ["exact"]


def test_without_overlap_the_table_is_empty_and_the_data_complete(run, tmp_path):
    train = write(tmp_path / "train.parquet", [OTHER])
    evals = write(tmp_path / "e.parquet", [LONG])
    done = run(train, evals, "--out", tmp_path / "p.parquet", "--clean", tmp_path / "c.parquet")
    assert "0 of 1 training rows (0.00%) are in 0 pairs" in done.stdout
    assert len(pd.read_parquet(tmp_path / "p.parquet")) == 0
    assert pq.read_table(tmp_path / "c.parquet") == pq.read_table(train)


def test_an_error_while_writing_leaves_what_was_there(tmp_path, monkeypatch):
    def full_disk(table, path, index):
        path.write_text("half")
        raise OSError("no space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full_disk)
    (tmp_path / "p.csv").write_text("old")
    with pytest.raises(ValueError, match=r"--out .*p\.csv cannot be written .*make room"):
        contamination.write_pairs(tmp_path / "p.csv", [])
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_the_pairs_are_kept_where_no_clean_row_is_left(run, tmp_path):
    train = write(tmp_path / "train.parquet", [LONG])
    evals = write(tmp_path / "e.parquet", [LONG])
    done = run(train, evals, "--out", tmp_path / "p.csv", "--clean", tmp_path / "c.parquet")
    assert done.returncode == 2 and "c.parquet would have no row" in done.stderr
    assert len(pd.read_csv(tmp_path / "p.csv")) == 1
    assert not (tmp_path / "c.parquet").exists()


def test_as_a_user_starts_it(tmp_path):
    train = write(tmp_path / "train.parquet", [LONG])
    done = subprocess.run([sys.executable, SCRIPT, train, train], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 of 1 training rows" in done.stdout


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--ngram", "0"], "--ngram 0 is not allowed: use 1 or more words."),
        (["--threshold", "1.5"], "--threshold 1.5 is not allowed: use a share from 0 to 1."),
        (["--threshold", "nan"], "--threshold nan is not allowed"),
        (["--out", "pairs.txt"], "--out pairs.txt is not allowed: end it in .csv or .parquet."),
        (["--clean", "train.parquet"], "is one of the files compared: choose another name."),
        (["--out", "e.parquet"], "is one of the files compared: choose another name."),
        (["--out", "c.parquet", "--clean", "c.parquet"], "--out and --clean are both c.parquet"),
        (["--clean", "c.csv"], "--clean c.csv is not allowed: end it in .parquet."),
        (["none.parquet"], "none.parquet is no file"),
        (["folder.parquet"], "folder.parquet is no file"),
        (["bad.parquet"], "bad.parquet is not a parquet file"),
        (["blank.parquet"], "blank.parquet has no problem (row 1)"),
        (["other.parquet"], "other.parquet has no problem (row 0)"),
        (["empty.parquet"], "empty.parquet has no problem (no row)"),
        (["train.parquet", "--clean", "c.parquet"], "c.parquet would have no row"),
        (["--clean", "blocked/c.parquet"], "--clean blocked/c.parquet cannot be written"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(
    run, tmp_path, monkeypatch, options, sentence
):
    monkeypatch.chdir(tmp_path)
    write(Path("train.parquet"), [LONG])
    write(Path("e.parquet"), [OTHER])
    write(Path("blank.parquet"), [LONG, " "], "question")
    pq.write_table(pa.table({"text": ["a"]}), "other.parquet")
    pq.write_table(pa.Table.from_pylist([row(LONG)]).slice(0, 0), "empty.parquet")
    Path("bad.parquet").write_text("nonsense")
    Path("blocked").write_text("a file, not a folder")
    blank = pq.read_table("blank.parquet").to_pylist()
    blank[1]["prompt"] = []
    pq.write_table(pa.Table.from_pylist(blank), "blank.parquet")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    Path("folder.parquet").mkdir()
    done = run("train.parquet", "e.parquet", *options)
    Path("folder.parquet").rmdir()
    assert done.returncode == 2, done
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ") and line.endswith("."), line
    assert sentence in line
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
