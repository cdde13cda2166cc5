"""A model's name by its content: every byte of what decides its responses, and nothing else."""

import os

import pytest

from recipe.sampling.model_content import fingerprint

SIZE = 5_000_000


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for shard in (1, 2):
        (folder / f"model-0000{shard}-of-00002.safetensors").write_bytes(bytes(SIZE))
    for name in ("config.json", "tokenizer.json", "chat_template.jinja"):
        (folder / name).write_text("{}")
    return folder


@pytest.mark.parametrize("place", [0, SIZE // 2, SIZE - 1])
def test_any_byte_of_the_weights_makes_another_model(model, place):
    """Also under the same size and time, which a copy with its times has."""
    name = fingerprint(model)
    assert len(name) == 20 and fingerprint(model) == name
    file = model / "model-00002-of-00002.safetensors"
    with file.open("r+b") as stream:
        stream.seek(place)
        stream.write(b"x")
    assert fingerprint(model) != name


def test_the_time_of_a_file_is_not_its_content(model, tmp_path):
    name = fingerprint(model)
    for file in model.iterdir():
        os.utime(file, (1, 1))
    assert fingerprint(model) == name
    model.rename(tmp_path / "elsewhere")
    assert fingerprint(tmp_path / "elsewhere") == name


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "chat_template.jinja"])
def test_config_tokenizer_and_template_are_of_the_model(model, name):
    before = fingerprint(model)
    (model / name).write_text('{"other": 1}')
    assert fingerprint(model) != before


def test_which_file_has_which_content_counts(model):
    (model / "config.json").write_text("[]")
    before = fingerprint(model)
    (model / "config.json").write_text("{}")
    (model / "tokenizer.json").write_text("[]")
    assert fingerprint(model) != before


def test_what_lies_beside_a_model_does_not(model):
    before = fingerprint(model)
    (model / "README.md").write_text("a model")
    (model / "built.json").write_text("{}")  # times of the warm start
    (model / "checkpoint").mkdir()
    (model / "checkpoint/model.safetensors").write_bytes(b"x")
    assert fingerprint(model) == before


def test_a_name_on_the_hub_stands_for_itself(model):
    assert fingerprint("Qwen/Qwen2.5-7B") == "Qwen/Qwen2.5-7B"
    assert fingerprint(str(model)) == fingerprint(model)
