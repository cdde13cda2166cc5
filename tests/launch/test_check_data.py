"""Wrong data, reward functions and prompts: one sentence each, with file, row and cure.

Every case is a file on disk. The config is composed once, as `recipe.launch` composes it, and the
checks of data, reward and lengths run on it; what verl's own dataset then makes of a valid file is
the last test.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("verl")

from builders import run_overrides
from omegaconf import DictConfig, OmegaConf

from recipe.launch import __main__ as launch
from recipe.launch.check_data import data
from recipe.launch.check_lengths import prompt_lengths
from recipe.launch.check_reward import reward
from recipe.launch.compose import compose

ROWS = 8


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> DictConfig:
    """The config of a valid run; its files are those of every case but one."""
    return compose("asymgrpo", run_overrides(tmp_path_factory.mktemp("run")))


@pytest.fixture
def config(composed: DictConfig) -> Iterator[DictConfig]:
    """A copy of that config which a test may change."""
    return OmegaConf.create(OmegaConf.to_container(composed))


def check(config: DictConfig) -> None:
    """The checks in preflight's order."""
    for check_one in (reward, data, prompt_lengths):
        check_one(config)


def valid_row(index: int) -> dict[str, Any]:
    return {
        "data_source": "made/up",
        "prompt": [{"role": "user", "content": f"{index}+1"}],
        "reward_model": {"style": "rule", "ground_truth": str(index + 1)},
        "extra_info": {"index": index},
    }


def rows_with(changes: dict[str, Any] | None = None, row: int = 3) -> list[dict[str, Any]]:
    """Valid rows, of which one (counted from 1) has other values."""
    rows = [valid_row(index) for index in range(ROWS)]
    rows[row - 1].update(changes or {})
    return rows


def column_of(name: str, value: Any) -> list[dict[str, Any]]:
    """Valid rows, with one column replaced: a parquet column has one type."""
    return [{**row, name: value} for row in rows_with()]


def without(name: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != name} for row in rows_with()]


def truth(value: Any) -> dict[str, Any]:
    return {"reward_model": {"style": "rule", "ground_truth": value}}


def prompt(*messages: tuple[str | None, str | None]) -> dict[str, Any]:
    return {"prompt": [{"role": role, "content": content} for role, content in messages]}


def to_parquet(rows: list[dict[str, Any]], file: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows), file)


def to_jsonl(rows: list[dict[str, Any]], file: Path) -> None:
    file.write_text("\n".join(json.dumps(row) for row in rows))


WRONG_ROWS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "truth blank": (rows_with(truth("  ")), "row 3 of 8: its reward_model.ground_truth is blank"),
    "truth empty": (rows_with(truth("")), "row 3 of 8: its reward_model.ground_truth is blank"),
    "truth null": (rows_with(truth(None)), "row 3 of 8: its reward_model.ground_truth is null"),
    "truth of LaTeX is blank": (rows_with(truth("$ $")), "ground_truth is blank"),
    "truth no list in JSON": (rows_with(truth('["a", 1]')), "is no list of texts in JSON"),
    "truth with a blank alternative": (rows_with(truth('["a", ""]')), "ground_truth is blank"),
    "truth not a number": (
        [{**row, **truth(1.0 if i else float("nan"))} for i, row in enumerate(rows_with())],
        "row 1 of 8: its reward_model.ground_truth is null",
    ),
    "truth a list": (column_of("reward_model", {"ground_truth": ["2"]}), "is a list, not a text"),
    "truth a mapping": (column_of("reward_model", {"ground_truth": {"a": "2"}}), "a mapping, not"),
    "truth true": (column_of("reward_model", {"ground_truth": True}), "true or false, not a text"),
    "truth missing": (column_of("reward_model", {"style": "x"}), "has no ground_truth"),
    "reward_model text": (column_of("reward_model", '{"ground_truth": "2"}'), "is text, not a map"),
    "reward_model null": (
        rows_with({"reward_model": None}),
        "row 3 of 8: its reward_model is null",
    ),
    "reward_model absent": (without("reward_model"), "lacks the column reward_model"),
    "several rows": (
        [{**row, **truth("")} for row in rows_with()],
        "row 1 of 8: its reward_model.ground_truth is blank, and 7 more rows are like it: give the",
    ),
    "prompt text": (
        column_of("prompt", "1+1"),
        "row 1 of 8: its prompt is text, not chat messages",
    ),
    "prompt a list of texts": (column_of("prompt", ["1+1"]), "message 1 of its prompt is text"),
    "prompt one message": (column_of("prompt", {"role": "user", "content": "x"}), "is a mapping"),
    "prompt null": (rows_with({"prompt": None}), "row 3 of 8: its prompt is null"),
    "prompt empty": (rows_with({"prompt": []}), "row 3 of 8: its prompt is empty"),
    "prompt blank": (rows_with(prompt(("user", " \n"))), "row 3 of 8: its prompt is blank"),
    "prompt without role": (
        column_of("prompt", [{"from": "human", "content": "x"}]),
        "message 1 of its prompt has no role, and 7 more rows are like it: give chat messages",
    ),
    "prompt without content": (
        column_of("prompt", [{"role": "user", "value": "x"}]),
        "message 1 of its prompt has no content",
    ),
    "prompt with a null content": (
        rows_with(prompt(("system", "Count."), ("user", None))),
        "row 3 of 8: message 2 of its prompt has no content",
    ),
    "prompt absent": (without("prompt"), "lacks the column prompt"),
    "data_source null": (rows_with({"data_source": None}), "row 3 of 8: its data_source is null"),
    "data_source blank": (rows_with({"data_source": ""}), "row 3 of 8: its data_source is null or"),
    "data_source absent": (without("data_source"), "lacks the column data_source"),
    "extra_info text": (column_of("extra_info", "{}"), "row 1 of 8: its extra_info is text, not a"),
    "no rows": ([], "has no rows: write it with a script of data_prep/"),
}


@pytest.mark.parametrize("key", ["train_files", "val_files"])
@pytest.mark.parametrize("kind", WRONG_ROWS)
def test_a_wrong_row_is_one_sentence_with_its_file_and_number(config, tmp_path, kind, key):
    rows, sentence = WRONG_ROWS[kind]
    file = tmp_path / "data.parquet"
    table = pa.Table.from_pylist(rows or rows_with())
    pq.write_table(table.slice(0, len(rows)), file)
    config.data[key] = str(file)
    with pytest.raises(ValueError) as error:
        check(config)
    assert str(error.value).startswith(f"data.{key}={file} ")
    assert sentence in str(error.value)
    assert len(str(error.value).splitlines()) == 1


AS_JSON = [
    "truth blank",
    "truth null",
    "prompt text",
    "prompt empty",
    "data_source null",
    "reward_model absent",
    "reward_model text",
]


@pytest.mark.parametrize("ending", ["jsonl", "json"])
@pytest.mark.parametrize("kind", AS_JSON)
def test_a_wrong_row_of_json_is_the_same_sentence(config, tmp_path, kind, ending):
    rows, sentence = WRONG_ROWS[kind]
    file = tmp_path / f"data.{ending}"
    to_jsonl(rows, file) if ending == "jsonl" else file.write_text(json.dumps(rows))
    config.data.train_files = str(file)
    with pytest.raises(ValueError, match=r"^data\.train_files=") as error:
        check(config)
    assert sentence in str(error.value)


def cut(file: Path) -> None:
    to_parquet(rows_with(), file)
    file.write_bytes(file.read_bytes()[:-200])


def damaged(file: Path) -> None:
    """The footer is whole, the pages are not."""
    to_parquet(rows_with(), file)
    content = bytearray(file.read_bytes())
    content[4:400] = bytes(396)
    file.write_bytes(content)


WRONG_FILES: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "missing": (
        "a.parquet",
        lambda file: None,
        "does not exist: write it with a script of data_pr",
    ),
    "a folder": ("a.parquet", lambda file: file.mkdir(), "is a folder: name its files"),
    "empty": ("a.parquet", lambda file: file.touch(), "is empty: write it with"),
    "Git LFS": (
        "a.parquet",
        lambda file: file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "is a pointer of Git LFS, not the data: run `git lfs pull`",
    ),
    "text": (
        "a.parquet",
        lambda file: file.write_text("data" * 9),
        "is not parquet (Parquet magic",
    ),
    "cut": ("a.parquet", cut, "is not parquet ("),
    "damaged": ("a.parquet", damaged, "is not parquet ("),
    "CSV": ("a.csv", lambda file: file.write_text("a,b\n"), "ends in .csv, and verl reads files"),
    "no ending": ("data", lambda file: file.write_text("x"), "ends in data, and verl reads files"),
    "empty JSON": ("a.jsonl", lambda file: file.touch(), "is empty: write it with"),
    "broken JSON": ("a.jsonl", lambda file: file.write_text('{"a": 1}\n{"a'), "is not JSON ("),
    "JSON without rows": ("a.json", lambda file: file.write_text("[]"), "has no rows: write it"),
    "JSON of numbers": ("a.jsonl", lambda file: file.write_text("1\n2\n"), "is not JSON ("),
    "JSON pointer": (
        "a.jsonl",
        lambda file: file.write_text("version https://git-lfs.github.com/spec/v1\n"),
        "is a pointer of Git LFS",
    ),
}


@pytest.mark.parametrize("kind", WRONG_FILES)
def test_a_file_that_cannot_be_read_is_one_sentence(config, tmp_path, kind):
    name, write, sentence = WRONG_FILES[kind]
    write(tmp_path / name)
    config.data.train_files = [str(tmp_path / name)]
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        check(config)
    assert str(error.value).startswith(f"data.train_files={tmp_path / name} ")
    assert sentence in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("key", ["train_files", "val_files"])
@pytest.mark.parametrize("value", [None, [], "", [None], 5])
def test_no_file_is_one_sentence(config, key, value):
    config.data[key] = value
    with pytest.raises(ValueError, match=rf"^data\.{key}=.* is not allowed: name one file"):
        check(config)


def test_a_home_folder_that_verl_does_not_expand_is_refused(config, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    to_parquet(rows_with(), tmp_path / "a.parquet")
    config.data.train_files = "~/a.parquet"
    with pytest.raises(ValueError, match="verl does not expand: write /"):
        check(config)


def test_files_that_verl_cannot_put_into_one_table_are_refused(config, tmp_path):
    files = [tmp_path / f"{name}.parquet" for name in "abc"]
    to_parquet(rows_with(), files[0])
    to_parquet(without("extra_info"), files[1])  # verl fills what lacks with nulls
    to_parquet([{**row, **truth(5)} for row in rows_with()], files[2])
    config.data.train_files = [str(file) for file in files[:2]]
    check(config)
    config.data.train_files = [str(file) for file in files]
    with pytest.raises(ValueError, match=r"cannot put .*c\.parquet below .*a\.parquet") as error:
        check(config)
    assert "the key ground_truth of features" in str(error.value)
    to_parquet(without("prompt"), files[1])
    config.data.train_files = [str(file) for file in files[:2]]
    with pytest.raises(ValueError, match=r"b\.parquet lacks the column prompt"):
        check(config)


# ---- the reward function -------------------------------------------------------------------------


def test_another_reward_function_may_take_any_truth(config, tmp_path):
    (tmp_path / "mine.py").write_text(
        "def score(data_source, solution_str, ground_truth, extra_info=None, *, scale=1.0):\n"
        "    return 0.0\n"
    )
    to_parquet(column_of("reward_model", {"ground_truth": ["2"]}), tmp_path / "a.parquet")
    node = {"path": f"{tmp_path}/mine.py", "name": "score", "reward_kwargs": {"scale": 2}}
    config.reward.custom_reward_function = node
    config.data.train_files = str(tmp_path / "a.parquet")
    check(config)
    to_parquet(column_of("reward_model", {"style": "x"}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="its reward_model has no ground_truth"):
        check(config)


MINE = """
def needs_more(data_source, solution_str, ground_truth, extra_info, threshold):
    return 0.0

def old(solution, truth):
    return 0.0

limit = 5
"""


@pytest.mark.parametrize(
    ("node", "sentence"),
    [
        ({"reward_kwargs": {"time_limt": 3}}, "reward_kwargs.time_limt does not exist: did you me"),
        ({"reward_kwargs": {"time_limit": -1}}, "reward_kwargs.time_limit=-1 is not allowed"),
        ({"reward_kwargs": 5}, "reward_kwargs=5 is not allowed: give its settings"),
        ({"reward_kwarg": {"time_limit": 3}}, "reward_kwarg does not exist: did you mean reward_"),
        ({"path": "/nowhere/reward.py"}, "(path=/nowhere/reward.py, name=compute_score) cannot be"),
        ({"path": "pkg://recipe.juge"}, "No module named 'recipe.juge'): name a file or"),
        ({"name": "compute_scores"}, "name=compute_scores) cannot be loaded (Object not found"),
        ({"path": "MINE", "name": "limit"}, "name=limit of MINE is not a function"),
        ({"path": "MINE", "name": "needs_more"}, "missing a required argument: 'threshold'"),
        ({"path": "MINE", "name": "old"}, "must take data_source, solution_str, ground_truth"),
        ({"path": "BROKEN"}, "cannot be loaded (division by zero)"),
    ],
)
def test_a_wrong_reward_function_is_one_sentence(config, tmp_path, node, sentence):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    names = {"MINE": f"{tmp_path}/mine.py", "BROKEN": f"{tmp_path}/broken.py"}
    node = {key: names.get(value, value) if key == "path" else value for key, value in node.items()}
    standard = OmegaConf.to_container(config.reward.custom_reward_function)
    config.reward.custom_reward_function = {**standard, **node}
    with pytest.raises(ValueError) as error:
        check(config)
    assert str(error.value).startswith("reward")
    assert sentence.replace("MINE", names["MINE"]) in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_settings_at_verls_former_places_are_refused_for_they_do_nothing(config):
    config.custom_reward_function.path = "mine.py"
    with pytest.raises(ValueError, match=r"^custom_reward_function\.path=mine\.py has no effect"):
        check(config)


def test_a_reward_manager_that_does_not_exist_is_refused(config):
    config.reward.reward_manager.name = "naiv"
    with pytest.raises(ValueError, match="name=naiv does not exist: did you mean naive"):
        check(config)


def test_a_reward_manager_of_a_file_has_the_name_of_its_class(config):
    config.reward.reward_manager.update({"source": "importlib", "name": "MyManager"})
    check(config)


# ---- lengths -------------------------------------------------------------------------------------


def write_lengths(config: DictConfig, tmp_path: Path, digits: list[int]) -> None:
    """Prompts of so many digits, a token each, and 15 more tokens of the chat template."""
    rows = rows_with()
    made = [
        {**rows[i % ROWS], "prompt": [{"role": "user", "content": "1" * count}]}
        for i, count in enumerate(digits)
    ]
    to_parquet(made, tmp_path / "lengths.parquet")
    config.data.train_files = str(tmp_path / "lengths.parquet")


def test_too_few_prompts_that_fit_are_refused(config, tmp_path):
    config.data.filter_overlong_prompts = True
    config.data.max_prompt_length = 40
    write_lengths(config, tmp_path, [500] * 600 + [1] * 4)  # the batch is of 4
    check(config)
    write_lengths(config, tmp_path, [500] * 600 + [1] * 3)
    with pytest.raises(ValueError, match="leaves 3 of the 603 prompts of data"):
        check(config)
    write_lengths(config, tmp_path, [500] * 8)
    with pytest.raises(ValueError, match=r"leaves 0 of the 8 .*the shortest has 5\d\d tokens"):
        check(config)
    config.data.val_files, config.data.train_files = config.data.train_files, config.data.val_files
    with pytest.raises(ValueError, match=r"leaves 0 of the 8 .*data\.val_files.* one is needed"):
        check(config)


def test_too_few_prompts_for_the_planned_steps_are_refused(config, tmp_path):
    """3 steps of batches of 4 in 2 epochs take 8 prompts; where 7 fit, verl ends after step 2."""
    config.data.filter_overlong_prompts = True
    config.data.max_prompt_length = 40
    config.trainer.total_training_steps, config.trainer.total_epochs = 3, 2
    write_lengths(config, tmp_path, [500] * 8 + [1] * 8)
    check(config)
    write_lengths(config, tmp_path, [500] * 8 + [1] * 7)
    with pytest.raises(ValueError, match=r"leaves 7 of the 15 .* the 3 steps of .* take 8 in"):
        check(config)
    config.data.train_max_samples, config.data.shuffle = 15, True  # of which verl draws its own
    check(config)
    config.data.train_max_samples, config.trainer.total_training_steps = -1, 2
    check(config)


def test_a_prompt_that_verl_would_cut_is_refused_unless_the_cut_is_wanted(config, tmp_path):
    config.data.filter_overlong_prompts = False
    config.data.max_prompt_length = 40
    write_lengths(config, tmp_path, [1, 1, 300, 1, 1, 500, 1, 1])
    with pytest.raises(
        ValueError, match=r"lengths\.parquet row 6: its prompt has 5\d\d tokens, more"
    ):
        check(config)
    config.data.truncation = "left"
    check(config)


def test_the_template_that_does_not_take_a_prompt_is_named_with_the_row(config):
    template = "{% if messages[0]['role'] == 'user' %}{{ raise_exception('no users') }}{% endif %}"
    config.actor_rollout_ref.model.custom_chat_template = template
    with pytest.raises(ValueError, match=r"train.parquet row 1: the chat template of .*no users"):
        check(config)
    config.data.apply_chat_template_kwargs = None
    with pytest.raises(ValueError, match=r"apply_chat_template_kwargs=None is not allowed"):
        check(config)


def test_what_cannot_be_known_is_said(config, tmp_path, capsys):
    to_parquet(
        [{**row, "images": [{"path": "a.png"}]} for row in rows_with()], tmp_path / "a.parquet"
    )
    config.data.val_files = str(tmp_path / "a.parquet")
    check(config)
    assert "lengths of the prompts are not checked: data.val_files has images" in (
        capsys.readouterr().out
    )
    config.data.train_files = "hdfs://data/train.parquet"
    check(config)
    assert "hdfs://data/train.parquet is not on this machine: it is not checked" in (
        capsys.readouterr().out
    )


# ---- the command, and verl -----------------------------------------------------------------------


def test_the_command_prints_the_sentence(tmp_path, capsys):
    overrides = run_overrides(tmp_path)
    to_parquet(rows_with(truth("")), tmp_path / "train.parquet")
    assert launch.main(["asymgrpo", *overrides, "--dry-run"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error == (
        f"error: data.train_files={tmp_path}/train.parquet row 3 of 8: "
        "its reward_model.ground_truth is blank: give the final answer, {ground_truth: ...}, "
        "or leave the row out."
    )


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "json"])
def test_what_is_called_valid_verls_dataset_reads(config, tmp_path, ending):
    from verl.utils import hf_tokenizer
    from verl.utils.dataset.rl_dataset import RLHFDataset

    file = tmp_path / f"a.{ending}"
    if ending == "parquet":
        pd.DataFrame(rows_with()).to_parquet(file)
    elif ending == "jsonl":
        to_jsonl(rows_with(), file)
    else:
        file.write_text(json.dumps(rows_with()))
    config.data.train_files = str(file)
    config.data.cache_dir = str(tmp_path)
    check(config)
    tokenizer = hf_tokenizer(config.actor_rollout_ref.model.path)
    dataset = RLHFDataset([str(file)], tokenizer, config.data)
    assert dataset[0]["raw_prompt"][0]["role"] == "user"
    assert dataset[0]["reward_model"]["ground_truth"]
