"""Prompts: what names them, which model they are for, and as which tokens it gets them."""

import pandas as pd
import pytest

from recipe.cpu.model import make_tokenizer
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


def test_a_prompt_gets_its_chat_template_and_nothing_else(tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    (tokens,) = tokenized(pd.DataFrame({"prompt": [messages("7+2")]}), Sampling(str(tmp_path)))
    assert tokenizer.decode(tokens) == "<|im_start|>user\n7+2<|im_end|>\n<|im_start|>assistant\n"
