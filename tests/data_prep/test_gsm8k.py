"""data_prep/gsm8k.py: what it takes, drops and refuses; atomic writes."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep import gsm8k
from data_prep.rows import check_row, write
from recipe.judge.reward import compute_score

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "data_prep" / "gsm8k.py"
REAL = ROOT / ".." / "shared" / "data" / "gsm8k"
needs_real = pytest.mark.skipif(
    not (REAL / "train.jsonl").is_file(), reason="the original GSM8K is not at ../shared/data/gsm8k"
)

TRAIN = [
    {"question": "What is 600 + 634?", "answer": "600+634=<<600+634=1234>>1234\n#### 1,234"},
    {"question": "What is 1 - 4?", "answer": "#### -3"},
]
TEST = [{"question": "What is half of 5?", "answer": "5/2=2.5\n#### 2.5"}]


def folder(path, train=TRAIN, test=TEST):
    path.mkdir(exist_ok=True)
    for split, rows in (("train", train), ("test", test)):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (path / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture
def run(run_main):
    return lambda *args: run_main(SCRIPT, gsm8k.main, *args)


def refused(done, *words):
    assert done.returncode == 2, done
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ") and line.endswith("."), line
    for word in words:
        assert word in line, line


def bytes_of(path):
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def test_the_rows_are_in_verls_schema(run, tmp_path):
    out = tmp_path / "out"
    done = run("--source", folder(tmp_path / "in"), "--local_save_dir", out)
    assert done.returncode == 0, done.stderr
    assert f"train: 2 rows read, 2 taken, 0 dropped -> {out}/train.parquet" in done.stdout
    assert sorted(bytes_of(out)) == ["test.json", "test.parquet", "train.json", "train.parquet"]
    assert pq.read_table(out / "train.parquet").to_pylist()[0] == {
        "data_source": "openai/gsm8k",
        "prompt": [
            {
                "role": "user",
                "content": "What is 600 + 634?\nThink step by step, and put the final answer as a "
                "plain number in \\boxed{}.",
            }
        ],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "1234"},
        "extra_info": {
            "split": "train",
            "index": 0,
            "answer": TRAIN[0]["answer"],
            "question": TRAIN[0]["question"],
        },
    }
    (test,) = pq.read_table(out / "test.parquet").to_pylist()
    assert test["reward_model"]["ground_truth"] == "2.5"
    assert test["extra_info"]["split"] == "test"


def test_verl_reads_the_file(run, tmp_path):
    from omegaconf import OmegaConf
    from verl.utils.dataset.rl_dataset import RLHFDataset

    class Tokenizer:
        def apply_chat_template(self, messages, **kwargs):
            return list(range(len(messages[0]["content"])))

    run("--source", folder(tmp_path / "in"), "--local_save_dir", tmp_path / "out")
    config = OmegaConf.create(
        {"cache_dir": str(tmp_path / "cache"), "filter_overlong_prompts": False}
    )
    data = RLHFDataset(str(tmp_path / "out" / "train.parquet"), Tokenizer(), config)
    assert len(data) == 2
    assert data[1]["reward_model"]["ground_truth"] == "-3"
    assert data[1]["raw_prompt"][0]["content"].startswith("What is 1 - 4?")


def test_the_report_beside_the_parquet(run, tmp_path):
    source = folder(tmp_path / "in", train=[*TRAIN, TRAIN[0], TEST[0]])
    run("--source", source, "--local_save_dir", tmp_path / "out", "--max_samples", 1)
    report = json.loads((tmp_path / "out" / "train.json").read_text())
    data = (tmp_path / "out" / "train.parquet").read_bytes()
    assert report == {
        "dataset": "openai/gsm8k",
        "split": "train",
        "source": {
            "files": {
                "train.jsonl": hashlib.sha256((source / "train.jsonl").read_bytes()).hexdigest()
            }
        },
        "options": {"instruction": gsm8k.INSTRUCTION, "max_samples": 1},
        "rows": {
            "read": 4,
            "taken": 1,
            "dropped": {"duplicate": 1, "also in the test split": 1, "beyond --max_samples": 1},
        },
        "parquet": {"file": "train.parquet", "sha256": hashlib.sha256(data).hexdigest()},
        "versions": {"pyarrow": pa.__version__},
    }


def test_a_second_run_gives_the_same_bytes_also_as_a_script_from_elsewhere(run, tmp_path):
    source = folder(tmp_path / "in")
    os.utime(source / "train.jsonl", (1, 1))
    run("--source", source, "--local_save_dir", tmp_path / "one")
    before = bytes_of(tmp_path / "one")
    assert len(before) == 4
    run("--source", source, "--local_save_dir", tmp_path / "one")
    assert bytes_of(tmp_path / "one") == before

    (tmp_path / "elsewhere").mkdir()
    options = ["--local_dataset_path", "../in", "--local_save_dir", "two"]
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, str(SCRIPT), *options], cwd=tmp_path / "elsewhere", env=env, check=True
    )
    assert bytes_of(tmp_path / "elsewhere" / "two") == before


def test_help_as_a_script(tmp_path):
    command = [sys.executable, str(SCRIPT), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    for option in ("--source", "--local_dataset_path", "--local_save_dir", "--max_samples"):
        assert option in done.stdout


def test_parquet_source_gives_the_same_rows(run, tmp_path):
    folder(tmp_path / "in")
    (tmp_path / "hub").mkdir()
    pq.write_table(
        pa.Table.from_pylist(TRAIN[:1]), tmp_path / "hub" / "train-00000-of-00002.parquet"
    )
    pq.write_table(
        pa.Table.from_pylist(TRAIN[1:]), tmp_path / "hub" / "train-00001-of-00002.parquet"
    )
    pq.write_table(pa.Table.from_pylist(TEST), tmp_path / "hub" / "test-00000-of-00001.parquet")
    for source in ("in", "hub"):
        run("--source", tmp_path / source, "--local_save_dir", tmp_path / f"{source}_out")
    for split in ("train.parquet", "test.parquet"):
        assert bytes_of(tmp_path / "in_out")[split] == bytes_of(tmp_path / "hub_out")[split]


def test_one_file_gives_its_split_alone(run, tmp_path):
    source = folder(tmp_path / "in")
    run("--source", source / "test.jsonl", "--local_save_dir", tmp_path / "out")
    assert sorted(bytes_of(tmp_path / "out")) == ["test.json", "test.parquet"]
    other = source / "train_socratic.jsonl"
    other.write_text("{}\n")
    refused(run("--source", other, "--local_save_dir", tmp_path / "out"), "neither split")


def test_the_instruction_is_an_option(run, tmp_path):
    source = folder(tmp_path / "in")
    run("--source", source, "--local_save_dir", tmp_path / "out", "--instruction", "")
    rows = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    assert rows[0]["prompt"][0]["content"] == TRAIN[0]["question"]
    # bytes of the command line that are not UTF-8
    done = run("--source", source, "--local_save_dir", tmp_path / "o", "--instruction", "a\udcff")
    refused(done, r"--instruction 'a\udcff' is not allowed: give a text in UTF-8")


def test_a_folder_is_no_file_of_a_split(run, tmp_path):
    source = folder(tmp_path / "in")
    (source / "test.jsonl").unlink()
    (source / "test.jsonl").mkdir()
    done = run("--source", source, "--local_save_dir", tmp_path / "out")
    refused(done, "has no file of the split `test`")


BAD = {
    "a missing question": ({"answer": "#### 1"}, "no field `question`"),
    "a missing answer": ({"question": "Why?"}, "no field `answer`"),
    "no mark": ({"question": "Why?", "answer": "It is 5"}, "no final answer after `####`"),
    "nothing after the mark": ({"question": "Why?", "answer": "5 ####  "}, "no final answer"),
    "no number": ({"question": "Why?", "answer": "#### five"}, "'five'"),
    "a blank question": ({"question": "  ", "answer": "#### 5"}, "not blank"),
    "a number for a question": ({"question": 5, "answer": "#### 5"}, "`question`=5"),
    "no JSON": ('{"question": "Why?"', "is not JSON"),
    "no object": ("[1]", "not a JSON object"),
    "no UTF-8": ("\udcff", "is not JSON"),
    "half of a surrogate pair": ({"question": "Why \ud800?", "answer": "#### 5"}, "'\\ud800'"),
    "the same, unescaped": (r'{"question": "Why?", "answer": "\udfff #### 5"}', "'\\udfff'"),
    "JSON in JSON": ('{"question": ' + "[" * 9_000, "is JSON nested too deeply"),
}


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("bad", BAD)
def test_bad_rows_are_refused_and_leave_what_was_there(run, tmp_path, bad, split):
    out = tmp_path / "out"
    run("--source", folder(tmp_path / "in"), "--local_save_dir", out)
    before = bytes_of(out)
    row, words = BAD[bad]
    rows = {"train": [*TRAIN, {"question": "New?", "answer": "#### 9"}], "test": list(TEST)}
    source = folder(tmp_path / "bad", **rows)
    with open(source / f"{split}.jsonl", "ab") as file:
        text = row if isinstance(row, str) else json.dumps(row)
        file.write(b"\n" + text.encode("utf-8", "surrogateescape") + b"\n")
    line = len(rows[split]) + 2  # a blank line before it counts, and is no row
    refused(run("--source", source, "--local_save_dir", out), f"{split}.jsonl:{line}", words)
    assert bytes_of(out) == before


def test_a_bad_folder_is_refused(run, tmp_path):
    out = tmp_path / "out"
    save = ("--local_save_dir", out)
    refused(run("--source", tmp_path / "nowhere", *save), "nowhere does not exist", "a folder")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(run("--source", empty, *save), "no file of the split `test`")
    source = folder(tmp_path / "in")
    (source / "train.jsonl").unlink()
    refused(run("--source", source, *save), "no file of the split `train`")
    folder(source, train=[])
    refused(run("--source", source, *save), "`train` has no row")
    folder(source)
    (source / "train.parquet").write_bytes(b"PAR1 no more")
    refused(run("--source", source, *save), "train.jsonl and train.parquet")
    (source / "train.jsonl").unlink()
    refused(run("--source", source, *save), "train.parquet is not a parquet file")
    assert not out.exists()


def test_bad_options_are_refused(run, tmp_path):
    source = folder(tmp_path / "in")
    refused(run("--source", source, "--max_samples", 0), "--max_samples 0", "use 1 or more")
    file = tmp_path / "file"
    file.write_text("")
    refused(run("--source", source, "--local_save_dir", file), "cannot be written")
    pq.write_table(pa.Table.from_pylist(TRAIN), tmp_path / "train.parquet")
    pq.write_table(pa.Table.from_pylist(TEST), tmp_path / "test.parquet")
    before = (tmp_path / "train.parquet").read_bytes()
    refused(run("--source", tmp_path, "--local_save_dir", tmp_path), "choose another folder")
    assert (tmp_path / "train.parquet").read_bytes() == before


def test_its_own_output_is_refused_as_a_source(run, tmp_path):
    run("--source", folder(tmp_path / "in"), "--local_save_dir", tmp_path / "out")
    done = run("--source", tmp_path / "out", "--local_save_dir", tmp_path / "again")
    refused(done, "test.parquet row 1 has no field `question`", "'data_source'")


def test_without_the_hub_one_sentence_says_to_use_source(run, tmp_path, monkeypatch):
    def load_dataset(name, config):
        assert (name, config) == ("openai/gsm8k", "main")
        raise ConnectionError("no route\nto host")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    done = run("--local_save_dir", tmp_path / "out")
    refused(done, "(ConnectionError: no route)", "pass --source with a folder")
    assert not (tmp_path / "out").exists()


def test_from_the_hub_the_rows_are_the_same(run, tmp_path, monkeypatch):
    data = {"train": TRAIN, "test": TEST}
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=lambda *_: data))
    run("--local_save_dir", tmp_path / "hub")
    run("--source", folder(tmp_path / "in"), "--local_save_dir", tmp_path / "files")
    for split in ("train.parquet", "test.parquet"):
        assert bytes_of(tmp_path / "hub")[split] == bytes_of(tmp_path / "files")[split]
    del data["train"]
    refused(run("--local_save_dir", tmp_path / "hub"), "KeyError", "--source")


@pytest.mark.parametrize("fails_at", [0, 1, 2, 3])
def test_an_error_while_writing_leaves_what_was_there(tmp_path, monkeypatch, fails_at):
    """The disk is full at the n-th of the four files."""
    splits = {
        name: gsm8k.GSM8K.build([(f"{name}:1", row) for row in rows], name)
        for name, rows in (("train", TRAIN), ("test", TEST))
    }
    write(tmp_path, splits, gsm8k.COLUMNS, {"run": 1})
    before = bytes_of(tmp_path)
    calls = []

    def full(write, path_at):
        def writing(*args, **kwargs):
            calls.append(1)
            if len(calls) > fails_at:
                args[path_at].write_bytes(b"half")
                raise OSError(28, "No space left on device")
            return write(*args, **kwargs)

        return writing

    monkeypatch.setattr(pq, "write_table", full(pq.write_table, 1))
    monkeypatch.setattr(Path, "write_text", full(Path.write_text, 0))
    with pytest.raises(ValueError, match=r"cannot be written \(No space left on device\)"):
        write(tmp_path, splits, gsm8k.COLUMNS, {"run": 2})
    assert bytes_of(tmp_path) == before


def test_the_answer_stands_behind_the_last_mark():
    assert gsm8k.final_answer("x:1", "As #### says, 1 + 1.\n#### 1,234") == "1234"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("data_source", ""),
        ("ability", None),
        ("prompt", []),
        ("prompt", [{"role": "assistant", "content": "x"}]),
        ("prompt", [{"role": "user", "content": " "}]),
        ("reward_model", {"style": "model", "ground_truth": "5"}),
        ("reward_model", {"style": "rule", "ground_truth": ""}),
        ("extra_info", {"split": "train", "index": 0}),
    ],
)
def test_a_row_that_verl_cannot_use_is_refused(column, value):
    row = gsm8k.GSM8K.build([("train.jsonl:1", TRAIN[0])], "train").rows[0]
    check_row("train.jsonl:1", row, gsm8k.COLUMNS)
    with pytest.raises(ValueError, match=f"train.jsonl:1 makes a row of which .*{column}"):
        check_row("train.jsonl:1", row | {column: value}, gsm8k.COLUMNS)


@needs_real
def test_the_original_files_lose_no_row_and_every_solution_is_correct(run, tmp_path):
    done = run("--source", REAL, "--local_save_dir", tmp_path)
    assert "train: 7473 rows read, 7473 taken, 0 dropped" in done.stdout
    assert "test: 1319 rows read, 1319 taken, 0 dropped" in done.stdout
    for split in ("train", "test"):
        rows = pq.read_table(tmp_path / f"{split}.parquet").to_pylist()
        golds = [row["reward_model"]["ground_truth"] for row in rows]
        assert all(gold.lstrip("-").isdigit() for gold in golds)
        for row, gold in zip(rows, golds, strict=True):
            solution = row["extra_info"]["answer"]
            assert compute_score("openai/gsm8k", solution, gold)["acc"]
            assert compute_score("openai/gsm8k", f"{solution} \\boxed{{{gold}}}", gold)["acc"]
            assert not compute_score("openai/gsm8k", f"\\boxed{{1{gold}}}", gold)["acc"]
