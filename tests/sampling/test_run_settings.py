"""The settings of evaluation and measurement: flag, preset, the run's record, default; and the
prompt, token by token as verl's trainer makes it."""

import argparse
import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import yaml
from omegaconf import OmegaConf
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

from recipe import machine
from recipe.cpu.model import make_tokenizer
from recipe.judge.reward_function import RewardFunction
from recipe.sampling import flags
from recipe.sampling.engine import Hardware, Sampling
from recipe.sampling.prompts import tokenized
from recipe.sampling.responses import ResponseCache, cache_settings
from recipe.sampling.run_settings import run_settings

PROMPT = [{"role": "user", "content": "7+2"}]
THINKING = {"enable_thinking": False}
TRAINED = {
    "data": {
        "apply_chat_template_kwargs": THINKING,
        "max_prompt_length": 32,
        "max_response_length": 24,
    },
    "actor_rollout_ref": {"rollout": {"dtype": "bfloat16"}},
    "reward": {
        "custom_reward_function": {
            "path": "pkg://recipe.judge",
            "reward_kwargs": {"boxed_only": True},
        }
    },
}


@pytest.fixture
def model(tmp_path):
    """A model in a run's checkpoint, whose chat template has Qwen3's switch."""
    folder = tmp_path / "run/global_step_3/actor/huggingface"
    tokenizer = make_tokenizer()
    switch = "{% if enable_thinking is defined and not enable_thinking %}={% endif %}"
    tokenizer.chat_template += switch
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "qwen2"}')
    write_record(tmp_path / "run", TRAINED)
    return folder


def write_record(run, config, start=0):
    (run / "metrics").mkdir(parents=True, exist_ok=True)
    (run / f"metrics/{start:03d}.yaml").write_text(yaml.safe_dump({"config": config}))


def resolved(*words, model="Qwen/Qwen3-4B", **preset):
    parser = argparse.ArgumentParser(exit_on_error=False)
    flags.add_sampling(parser)
    flags.add_hardware(parser, chunk=1, what="prompts")
    return flags.resolve(parser.parse_args(words), str(model), "paper", preset)


def test_evaluation_s_prompt_is_training_s_token_by_token(model, tmp_path):
    """By verl's own code: the agent loop's builder, and the dataset, which filters by length."""
    tokenizer = make_tokenizer().from_pretrained(model)
    sampling = resolved(model=model).sampling
    (ids,) = tokenized(pd.DataFrame({"prompt": [np.array(PROMPT)]}), sampling)
    kwargs = OmegaConf.create(TRAINED["data"]).apply_chat_template_kwargs
    builder = create_continuous_token_builder(
        tokenizer, hf_model_type="qwen2", chat_template_kwargs=kwargs
    )
    assert ids == builder.build_initial_tokens(PROMPT)
    file = str(tmp_path / "train.parquet")
    pd.DataFrame({"prompt": [PROMPT], "reward_model": [{"ground_truth": "9"}]}).to_parquet(file)
    for limit, rows in ((len(ids), 1), (len(ids) - 1, 0)):
        config = OmegaConf.create(
            TRAINED["data"]
            | {"max_prompt_length": limit, "filter_overlong_prompts_workers": 1}
            | {"cache_dir": str(tmp_path / "cache")}
        )
        assert len(RLHFDataset(file, tokenizer, config)) == rows
    # without the run's kwargs it is another prompt, one token shorter
    plain = dataclasses.replace(sampling, chat_template_kwargs={})
    assert tokenized(pd.DataFrame({"prompt": [PROMPT]}), plain) == [ids[:-1]]


def test_a_run_s_record_gives_the_defaults(model, tmp_path):
    run = tmp_path / "run"
    for path in (run, run / "global_step_3", model.parent, model):
        values, record = run_settings(str(path))
        assert record == run / "metrics/000.yaml"
        assert values == {
            "chat_template_kwargs": THINKING,
            "max_prompt_length": 32,
            "max_response_length": 24,
            "dtype": "bfloat16",
            "boxed_only": True,
        }
    for path in (tmp_path, tmp_path / "no", "Qwen/Qwen3-4B"):
        assert run_settings(str(path)) == ({}, None)


def test_a_run_with_a_reward_function_of_its_own_is_judged_by_it(model, tmp_path):
    own = {"path": "pkg://own.grader", "name": "grade", "reward_kwargs": {"strict": True}}
    write_record(tmp_path / "run", {"reward": {"custom_reward_function": own}}, start=10)
    reward = RewardFunction("pkg://own.grader", "grade", {"strict": True})
    assert run_settings(str(model))[0] == {"reward": reward}
    chosen = resolved(model=model)
    assert (
        chosen.reward == reward and "reward pkg://own.grader:grade (strict=True)" in chosen.sources
    )
    # a flag overrides it, also back to this repository's judge
    assert resolved("--reward", "pkg://b:f", model=model).reward == RewardFunction("pkg://b", "f")
    assert resolved("--reward", "pkg://recipe.judge", model=model).reward is None
    # verl's own choice by data_source, and no run: recipe.judge
    write_record(tmp_path / "run", {"reward": {"custom_reward_function": {"path": None}}}, start=11)
    assert resolved(model=model).reward is None and resolved().reward is None


def test_the_last_start_s_record_counts_and_a_broken_one_is_named(model, tmp_path):
    run = tmp_path / "run"
    write_record(run, {"data": {"max_response_length": 48}}, start=10)
    assert run_settings(str(model))[0] == {"max_response_length": 48}
    (run / "metrics/011.yaml").write_text("config: [")
    with pytest.raises(ValueError, match=r"011\.yaml, the run's record, has no config"):
        run_settings(str(model))


def test_another_reward_function_s_settings_are_not_the_judge_s(model, tmp_path):
    function = {"path": "mine.py", "reward_kwargs": {"boxed_only": True}}
    write_record(tmp_path / "run", {"reward": {"custom_reward_function": function}})
    assert run_settings(str(model))[0].keys() == {"reward"}


def test_a_flag_goes_before_a_preset_before_the_run_before_the_default(model):
    preset = {"temperature": 0.7, "max_response_length": 8000}
    words = ("--max-prompt-length", "64", "--no-boxed-only")
    found = resolved(*words, model=model, **preset)
    sampling = found.sampling
    assert (sampling.max_prompt_length, sampling.max_response_length) == (64, 8000)
    assert (sampling.temperature, sampling.top_p) == (0.7, 1.0)
    assert sampling.chat_template_kwargs == THINKING
    assert (found.dtype, found.boxed_only) == ("bfloat16", False)
    assert found.sources.startswith("[settings] by flags: max_prompt_length 64, boxed_only False; ")
    assert "by preset paper: temperature 0.7, max_response_length 8000; by the run (" in (
        found.sources
    )
    assert "000.yaml): chat_template_kwargs {'enable_thinking': False}, dtype bfloat16; by default"
    assert "\n" not in found.sources
    over = resolved("--chat-template-kwargs", "{}", "--dtype", "auto", model=model)
    assert (over.sampling.chat_template_kwargs, over.dtype, over.boxed_only) == ({}, "auto", True)


def test_a_bare_model_has_the_built_in_defaults():
    found = resolved()
    assert found.sampling == Sampling("Qwen/Qwen3-4B")
    assert (found.dtype, found.boxed_only) == (machine.engine_defaults().dtype, False)
    assert found.sources.startswith("[settings] by default: samples 8, ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{'enable_thinking': False}", "use a JSON mapping"),
        ("enable_thinking", "use a JSON mapping"),
        ("[1]", "use a JSON mapping"),
        ('{"a": NaN}', "use a JSON mapping"),
        ("", "use a JSON mapping"),
        ('{"tokenize": false}', "tokenize is not allowed: it is no setting of a prompt"),
    ],
)
def test_bad_kwargs_are_refused(text, message):
    with pytest.raises(argparse.ArgumentError, match=message):
        resolved("--chat-template-kwargs", text)


def test_cached_responses_of_other_kwargs_or_weights_are_not_taken(model, tmp_path):
    prompts = pd.DataFrame({"prompt_id": ["a"]})
    sampling = Sampling(str(model))
    hardware = Hardware(dtype=machine.engine_defaults().dtype)
    settings = cache_settings(prompts, sampling, hardware, 2)
    before = {k: v for k, v in settings.items() if k not in ("chat_template_kwargs", "dtype")}
    (tmp_path / "cache").mkdir()
    # what older versions have written was sampled without kwargs, by the machine's dtype
    (tmp_path / "cache/settings.json").write_text(json.dumps(before))
    chunk = tmp_path / "cache/000000.parquet"
    chunk.write_text("responses")
    ResponseCache(tmp_path / "cache", settings)
    for change, name in (
        ({"chat_template_kwargs": THINKING}, "chat_template_kwargs"),
        ({"max_response_length": 24}, "max_response_length"),
    ):
        other = cache_settings(prompts, dataclasses.replace(sampling, **change), hardware, 2)
        with pytest.raises(ValueError, match=f"another {name}"):
            ResponseCache(tmp_path / "cache", other)
    with pytest.raises(ValueError, match="another dtype"):
        other = cache_settings(prompts, sampling, Hardware(dtype="bfloat16"), 2)
        ResponseCache(tmp_path / "cache", other)
    (model / "config.json").write_text("{}")
    other = cache_settings(prompts, sampling, hardware, 2)
    with pytest.raises(ValueError, match="another model"):
        ResponseCache(tmp_path / "cache", other)
    ResponseCache(tmp_path / "cache", settings, again_if_changed=True)
    assert chunk.exists()  # nothing has changed
    ResponseCache(tmp_path / "cache", other, again_if_changed=True)
    assert not chunk.exists()
    ResponseCache(tmp_path / "cache", other)
