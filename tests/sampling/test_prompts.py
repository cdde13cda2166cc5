"""Prompts: what names them, which model they are for, and as which tokens it gets them."""

import json

import pandas as pd
import pytest
from PIL import Image

from recipe.cpu.model import make_tokenizer
from recipe.sampling import rows as data_rows
from recipe.sampling.engine import Sampling
from recipe.sampling.prompts import prompt_id, read_prompts, resolve_model, tokenized


def messages(text):
    return [{"role": "user", "content": text}]


def test_a_prompt_is_named_by_its_messages_alone():
    name = prompt_id(messages("7+2"))
    assert name == prompt_id([{"content": "7+2", "role": "user", "more": 1}])
    assert name == "097851f50c10149283c1"  # tables that are on disk have these names
    assert len({name, prompt_id(messages("7+3")), prompt_id([*messages("7+2")] * 2)}) == 3


def test_a_model_is_a_folder_or_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Qwen").mkdir()
    assert resolve_model(str(tmp_path)) == tmp_path
    assert resolve_model("Qwen").is_dir()
    assert resolve_model("Qwen/Qwen3-4B") is None
    for path in ("./no", "~/no/such/folder", str(tmp_path / "no")):
        with pytest.raises(
            FileNotFoundError, match=r"^a.path=.*no.* does not exist: set MODEL_PATH"
        ):
            resolve_model(path, "a.path=", "set MODEL_PATH")


def test_equal_prompts_are_read_once_and_keep_the_index_of_their_first_row(tmp_path):
    rows = [
        {"prompt": messages(text), "reward_model": {"ground_truth": truth}}
        for text, truth in (("a", 1), ("b", "2"), ("a", "1"), ("c", "3"))
    ]
    for name, part in (("one", rows[1:3]), ("two", rows[2:])):
        pd.DataFrame(part).to_parquet(tmp_path / f"{name}.parquet")
    files = [tmp_path / "one.parquet", tmp_path / "two.parquet"]
    table = read_prompts(files)
    assert table["index"].tolist() == [0, 1, 3]
    assert table["ground_truth"].tolist() == ["2", "1", "3"]
    assert read_prompts(files, limit=1)["ground_truth"].tolist() == ["2"]


def test_copies_are_counted_and_a_prompt_with_two_truths_is_refused(tmp_path, capsys):
    def write(name, *truths):
        rows = [{"prompt": messages(t[0]), "reward_model": {"ground_truth": t[1:]}} for t in truths]
        pd.DataFrame(rows).to_parquet(tmp_path / name)
        return tmp_path / name

    first, second = write("one.parquet", "a1", "b2", "a1"), write("two.parquet", "c3", "b2")
    assert len(read_prompts([first, second])) == 3
    assert capsys.readouterr().out == "2 of 5 rows are copies of an earlier one and left out\n"
    assert len(read_prompts([first], limit=2)) == 2 and not capsys.readouterr().out
    write("two.parquet", "c3", "b9")
    with pytest.raises(ValueError) as error:
        read_prompts([first, second])
    assert str(error.value) == (
        f"--data {second} row 2: its prompt is the one of --data {first} row 2, but its truth is "
        "'9', not '2': correct one, or leave one out."
    )
    assert len(read_prompts([first, second], limit=4)) == 3


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
@pytest.mark.parametrize("truths", [[1, 2], [1.5, 2], [{"low": 1, "high": 2}] * 2, [[1], [2, 3]]])
def test_another_reward_function_gets_the_truth_as_the_file_has_it(tmp_path, truths, ending):
    """As in training, where verl hands it on; `recipe.judge` gets texts."""
    rows = [
        {"prompt": messages(str(i)), "reward_model": {"ground_truth": truth}}
        for i, truth in enumerate(truths)
    ]
    file = tmp_path / f"a.{ending}"
    if ending == "parquet":
        pd.DataFrame(rows).to_parquet(file)
    else:
        file.write_text("\n".join(map(json.dumps, rows)))
    table = read_prompts([file], judged=False)
    assert [row["ground_truth"] for row in table.to_dict("records")] == truths
    assert list(map(type, table["ground_truth"])) == [type(truths[0])] * 2
    if isinstance(truths[0], dict | list):
        with pytest.raises(ValueError, match="not a text"):
            read_prompts([file])
    else:
        assert read_prompts([file])["ground_truth"].tolist() == [
            str(type(truths[0])(t)) for t in truths
        ]


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_no_more_rows_are_converted_than_asked_for_and_no_file_is_read_twice(
    tmp_path, monkeypatch, ending
):
    rows = [
        {"prompt": messages(text), "reward_model": {"ground_truth": text}, "images": []}
        for text in "123"
    ]
    file = tmp_path / f"a.{ending}"
    if ending == "parquet":
        pd.DataFrame(rows).to_parquet(file)
    else:
        file.write_text("\n".join(map(json.dumps, rows)))
    converted = []
    read_columns = data_rows.read_columns

    def note(*args, **kwargs):
        columns = read_columns(*args, **kwargs)
        converted.append(len(columns["prompt"]))
        return columns

    monkeypatch.setattr(data_rows, "read_columns", note)
    assert len(read_prompts([file, file], limit=2)) == 2
    assert converted == [2]


def test_images_in_json_are_refused_too(tmp_path):
    row = {"prompt": messages("a"), "reward_model": {"ground_truth": "1"}, "images": ["a.png"]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    with pytest.raises(ValueError, match=r"a\.jsonl has images, and a model is given the text"):
        read_prompts([tmp_path / "a.jsonl"])


def test_a_prompt_gets_its_chat_template_and_nothing_else(tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    (tokens,) = tokenized(pd.DataFrame({"prompt": [messages("7+2")]}), Sampling(str(tmp_path)))
    assert tokenizer.decode(tokens) == "<|im_start|>user\n7+2<|im_end|>\n<|im_start|>assistant\n"


def image() -> list[dict]:
    return [{"bytes": b"PNG", "path": None}]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            {"reward_model": {"ground_truth": " "}},
            "row 2 of 3: its reward_model.ground_truth is bl",
        ),
        (
            {"reward_model": {"ground_truth": None}},
            "row 2 of 3: its reward_model.ground_truth is n",
        ),
        ({"reward_model": None}, "row 2 of 3: its reward_model is null, not a mapping"),
        ({"prompt": []}, "row 2 of 3: its prompt is empty"),
        ({"prompt": None}, "row 2 of 3: its prompt is null"),
        ({"images": image()}, "has images, and a model is given the text of a prompt alone here"),
    ],
)
def test_a_row_that_cannot_be_judged_is_named_before_anything_is_sampled(tmp_path, row, sentence):
    """`evaluate` and `measure` read their files here."""
    rows = [
        {"prompt": messages(text), "reward_model": {"ground_truth": "1"}, "images": []}
        for text in "abc"
    ]
    file = tmp_path / "a.parquet"
    pd.DataFrame(rows).to_parquet(file)
    assert len(read_prompts([file])) == 3
    rows[1].update(row)
    pd.DataFrame(rows).to_parquet(file)
    with pytest.raises(ValueError) as error:
        read_prompts([file], option="--data ")
    assert str(error.value).startswith(f"--data {file} ") and sentence in str(error.value)


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda file: None, "does not exist: write it with a script of data_prep/"),
        (lambda file: file.touch(), "is empty: write it with"),
        (
            lambda file: file.write_text("version https://git-lfs.github.com/spec/v1"),
            "git lfs pull",
        ),
        (lambda file: file.write_text("a,b\n" * 9), "is not parquet ("),
        (
            lambda file: pd.DataFrame({"prompt": [messages("a")]}).to_parquet(file),
            "lacks the column",
        ),
        (
            lambda file: pd.DataFrame({"prompt": [], "reward_model": []}).to_parquet(file),
            "has no rows",
        ),
    ],
)
def test_a_file_that_is_no_table_of_prompts_is_one_sentence(tmp_path, write, sentence):
    file = tmp_path / "a.parquet"
    write(file)
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        read_prompts([file], option="")
    assert str(error.value).startswith(f"{file} ") and sentence in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_the_first_rows_alone_are_read_and_checked(tmp_path):
    rows = [{"prompt": messages("a"), "reward_model": {"ground_truth": text}} for text in "1 "]
    for name in "ab":
        pd.DataFrame(rows).to_parquet(tmp_path / f"{name}.parquet")
    files = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    assert read_prompts(files[:1], limit=1)["ground_truth"].tolist() == ["1"]
    with pytest.raises(ValueError, match=r"a\.parquet row 2 of 2: its reward_model\.ground_truth"):
        read_prompts(files, limit=4)


def test_messages_with_images_have_a_name_where_they_can():
    def shown(picture) -> list[dict]:
        parts = [{"type": "image", "image": picture}, {"type": "text", "text": "x?"}]
        return [{"role": "user", "content": parts}]

    assert len({prompt_id(shown(picture)) for picture in (b"a", b"b", "a.png", b"a")}) == 3
    with pytest.raises(ValueError, match="a prompt with a Image in its messages has no name"):
        prompt_id(shown(Image.new("RGB", (1, 1))))


def test_json_lines_are_read_as_parquet_is(tmp_path):
    rows = [{"prompt": messages(text), "reward_model": {"ground_truth": text}} for text in "12"]
    pd.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    parquet, lines = (read_prompts([tmp_path / name]) for name in ("a.parquet", "a.jsonl"))
    pd.testing.assert_frame_equal(parquet, lines)
