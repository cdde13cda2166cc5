"""Thresholds of a model: its tokens' entropies and log-probs, advantages, quantiles, and the
command, on a small model with random weights and given responses."""

import json

import pandas as pd
import pytest
import torch

pytest.importorskip("verl")

from builders import TOKEN_RULE
from transformers import AutoModelForCausalLM
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

from recipe.cpu.model import ModelShape, make_model, make_tokenizer
from recipe.launch.compose import compose
from recipe.sampling.engine import Hardware, Responses, Sampling
from recipe.sampling.prompts import read_prompts, tokenized
from recipe.sampling.responses import ResponseCache, cache_settings
from recipe.semantic_curriculum import calibrate
from recipe.semantic_curriculum.calibrate import (
    group_advantages,
    thresholds_of,
    token_values,
    value_above,
)
from recipe.semantic_curriculum.config import TokenRule

PROMPTS, G = 6, 4


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with random weights, whose entropies differ from token to token."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = make_tokenizer()
    network = make_model(ModelShape(hidden_size=64, layers=1, heads=2, mlp_size=64), tokenizer, 0)
    with torch.no_grad():
        network.lm_head.weight.mul_(8)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path):
    rows = [
        {
            "data_source": "test",
            "prompt": [{"role": "user", "content": f"{i}+2"}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": str(i + 2)},
            "extra_info": {"index": i},
        }
        for i in range(PROMPTS)
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "train.parquet")
    return tmp_path / "train.parquet"


def texts_of(prompt: int) -> list[str]:
    """The first `prompt` % 5 of four responses are correct."""
    correct = prompt % (G + 1)
    return [f"{prompt}+2={prompt + 2 if j < correct else 40 + j}" for j in range(G)]


@pytest.fixture
def cache(model, data, tmp_path):
    """Responses as `measure` keeps them, in chunks of two prompts."""
    prompts = read_prompts([data])
    sampling = Sampling(str(model), samples=G, max_response_length=24)
    settings = cache_settings(prompts, sampling, Hardware(dtype="float32"), 2)
    folder = tmp_path / "scores.parquet.responses"
    written = ResponseCache(folder, settings)
    for chunk in range(PROMPTS // 2):
        rows = [2 * chunk, 2 * chunk + 1]
        names = prompts["prompt_id"].iloc[rows].tolist()
        written.write(chunk, names, Responses([texts_of(row) for row in rows]))
    return folder


def run(model, data, responses, *more):
    words = ["--model", model, "--data", data, "--responses", responses, "--workers", 1, *more]
    return calibrate.main(list(map(str, words)))


# ---- the numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_entropies_and_log_probs_are_those_of_each_position(model, temperature):
    """Against the formula, response by response without padding, position by position."""
    network = AutoModelForCausalLM.from_pretrained(model, dtype="float32").eval()
    prompt, responses = [1, 4, 9, 8], [[7, 9, 2], [11], [3, 3, 8, 12, 2]]
    entropy_N, log_prob_N = token_values(network, prompt, responses, temperature)
    expected = []
    with torch.inference_mode():
        for response in responses:
            for t, token in enumerate(response):
                logits = network(torch.tensor([prompt + response[:t]])).logits[0, -1].double()
                p = (logits / temperature).softmax(-1)
                expected.append((-(p * p.log()).sum(), p[token].log()))
    assert entropy_N.tolist() == pytest.approx([float(h) for h, _ in expected], abs=1e-5)
    assert log_prob_N.tolist() == pytest.approx([float(x) for _, x in expected], abs=1e-5)
    assert entropy_N.std() > 0.01


@pytest.mark.parametrize("correct", [[1, 0, 0, 0], [1, 1, 0], [1, 1], [0, 0, 0]])
def test_advantages_are_verls_grpo(correct):
    lengths = list(range(1, len(correct) + 1))
    mask = (torch.arange(len(correct)) < torch.tensor(lengths)[:, None]).float()
    rewards = torch.zeros_like(mask)
    rewards[:, 0] = torch.tensor(correct, dtype=torch.float32)
    expected, _ = compute_grpo_outcome_advantage(rewards, mask, ["a"] * len(correct))
    found = group_advantages([bool(x) for x in correct], lengths)
    torch.testing.assert_close(found, expected[mask.bool()])


def test_a_single_response_has_no_advantage():
    assert group_advantages([True], [3]).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.05, 0.0), (0.1, 1.0), (0.8, 8.0), (0.99, 9.0)]
)
def test_a_value_that_a_share_is_below(fraction, expected):
    values_N = torch.arange(10.0)[torch.randperm(10, generator=torch.Generator().manual_seed(0))]
    found = value_above(values_N, fraction)
    assert found == expected
    assert (values_N < found).sum() == int(10 * fraction)


def test_thresholds_worked_out():
    """Ten tokens, L the eight of entropy below 0.8; C a quarter of them, by means over all ten."""
    found = thresholds_of(
        torch.arange(10.0) / 10,
        torch.tensor([-1.0, -2, -3, -4, -5, -6, -7, -8, -2, -2]),  # mean -4
        torch.tensor([1.0] * 8 + [-4.0, -4.0]),  # mean 0
        low=0.8,
        high_cov=0.25,
    )
    # Cov = log p + 4 on L: 3, 2, 1, 0, ...; two are above 1
    assert found.low_threshold == pytest.approx(0.8) and found.high_cov_threshold == 1


# ---- the command --------------------------------------------------------------------------------


def test_the_command_reads_cached_responses(model, data, cache, tmp_path, capsys):
    out = tmp_path / "thresholds.txt"
    shares = ["--low-fraction", "0.7", "--high-cov-fraction", "0.1"]
    assert run(model, data, cache, "--out", out, *shares) == 0
    printed = capsys.readouterr().out
    lines = out.read_text().splitlines()
    assert [line.partition("=")[0] for line in lines] == [
        f"{TOKEN_RULE}.low_threshold",
        f"{TOKEN_RULE}.high_cov_threshold",
    ]
    assert all(line in printed for line in lines)
    assert "24 responses to 6 prompts" in printed
    # its own tokens, end tokens among them: the shares are those that were asked for
    tokenizer = make_tokenizer()
    network = AutoModelForCausalLM.from_pretrained(model, dtype="float32").eval()
    prompts = read_prompts([data])
    parts = []
    for row, prompt in enumerate(tokenized(prompts, Sampling(str(model)))):
        ids = [[*tokenizer.encode(text), tokenizer.eos_token_id] for text in texts_of(row)]
        correct = [j < row % (G + 1) for j in range(G)]
        advantages = group_advantages(correct, [len(x) for x in ids])
        parts.append((*token_values(network, prompt, ids, 1.0), advantages))
    values = [torch.cat(column) for column in zip(*parts, strict=True)]
    chosen = thresholds_of(*values, low=0.7, high_cov=0.1)
    assert [float(line.partition("=")[2]) for line in lines] == pytest.approx(list(chosen))
    below = values[0] < chosen.low_threshold
    assert below.sum() == pytest.approx(int(0.7 * len(below)), abs=1)  # but for ties
    assert f"{len(below)} tokens of 24 responses" in printed
    # a run takes the lines as they are
    config = compose("semantic_curriculum", [f"{TOKEN_RULE}.preset=paper", *lines])
    node = config.actor_rollout_ref.actor.policy_loss.token_rule
    rule = TokenRule(
        preset="paper",
        low_threshold=node.low_threshold,
        high_cov_threshold=node.high_cov_threshold,
    )
    assert torch.tensor(rule.low_threshold, dtype=torch.float32) == chosen.low_threshold


def test_the_settings_are_those_of_the_responses(model, data, cache, capsys):
    file = cache / "settings.json"
    settings = json.loads(file.read_text())
    shares = ["--high-cov-fraction", "0.1"]
    assert run(model, data, cache, *shares) == 0
    at_one = capsys.readouterr().out
    file.write_text(json.dumps(settings | {"temperature": 0.5}))
    assert run(model, data, cache, *shares) == 0
    at_half = capsys.readouterr().out
    assert at_half != at_one
    assert run(model, data, cache, *shares, "--temperature", "1") == 0
    assert capsys.readouterr().out == at_one
    file.write_text(json.dumps(settings | {"max_response_length": 3}))
    assert run(model, data, cache, *shares) == 0
    assert f"{PROMPTS * G * 3} tokens of 24" in capsys.readouterr().out


def test_a_response_that_was_cut_off_has_no_end_token(model, data, cache, capsys):
    """Also where its text has fewer tokens than the limit, as the tokenizer may have it. The last
    chunk is an older version's, which does not say."""
    shares = ["--high-cov-fraction", "0.1"]
    assert run(model, data, cache, *shares) == 0
    ended = int(capsys.readouterr().out.split(" tokens of 24")[0].split()[-1])
    for file in sorted(cache.glob("*.parquet"))[:2]:  # of four prompts, one response of each
        table = pd.read_parquet(file)
        table["truncated"] = [[True] + [False] * (G - 1)] * len(table)
        table.to_parquet(file)
    assert run(model, data, cache, *shares) == 0
    assert f"{ended - 4} tokens of 24 responses" in capsys.readouterr().out


def test_as_many_prompts_as_asked_for_are_read(model, data, cache, capsys):
    assert run(model, data, cache, "--max-prompts", 3, "--high-cov-fraction", "0.1") == 0
    assert "12 responses to 3 prompts" in capsys.readouterr().out


def test_a_reward_function_of_ones_own_gets_the_truth_as_the_data_has_it(
    model, data, cache, tmp_path, capsys
):
    """As in training: a number here. Otherwise no response would be correct."""
    reward = tmp_path / "own.py"
    reward.write_text(
        "def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n"
        "    return int(solution_str.rpartition('=')[2]) == ground_truth\n"
    )
    shares = ["--high-cov-fraction", "0.1"]
    assert run(model, data, cache, *shares) == 0
    by_judge = capsys.readouterr().out
    table = pd.read_parquet(data)
    table["reward_model"] = [{"ground_truth": i + 2} for i in range(PROMPTS)]
    table.to_parquet(data)
    assert run(model, data, cache, *shares, "--reward", reward) == 0
    assert capsys.readouterr().out == by_judge


def test_verls_dumps_are_read_too(model, data, tmp_path, capsys):
    folder, tokenizer = tmp_path / "rollouts", make_tokenizer()
    folder.mkdir()
    prompts = read_prompts([data])
    lines = []
    for row, ids in enumerate(tokenized(prompts, Sampling(str(model)))):
        text = tokenizer.decode(ids, skip_special_tokens=True)
        lines += [json.dumps({"input": text, "output": response}) for response in texts_of(row)]
    (folder / "1.jsonl").write_text("\n".join(lines))
    assert run(model, data, folder, "--high-cov-fraction", "0.1") == 0
    assert "24 responses to 6 prompts" in capsys.readouterr().out


def sentence(capsys) -> str:
    """What is printed after the progress bars."""
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    return error


def test_responses_of_another_model_are_refused(model, data, cache, capsys):
    settings = json.loads((cache / "settings.json").read_text())
    (cache / "settings.json").write_text(json.dumps(settings | {"model": "other"}))
    assert run(model, data, cache) == 2
    assert "are of another model (other) than --model" in sentence(capsys)


def test_what_cannot_be_calibrated_is_one_sentence(model, data, cache, tmp_path, capsys):
    assert run(model, data, cache) == 2
    assert "--high-cov-fraction 0.0002 of the" in sentence(capsys)
    assert run(model, data, cache, "--max-prompts", 1) == 2  # no response is correct
    assert "all correct or all incorrect" in sentence(capsys)
    assert run(model, data, tmp_path / "nothing") == 2
    assert "--responses" in sentence(capsys)
    other = pd.read_parquet(data)
    other["prompt"] = [[{"role": "user", "content": f"{i}+3"}] for i in range(PROMPTS)]
    other.to_parquet(tmp_path / "other.parquet")
    assert run(model, tmp_path / "other.parquet", cache) == 2
    assert "holds no response to a prompt of --data" in sentence(capsys)
    for file in cache.glob("0*.parquet"):
        file.unlink()
    assert run(model, data, cache) == 2
    assert "holds no chunk of responses yet" in sentence(capsys)


def test_the_shares_are_the_released_code_s_unless_given():
    args = calibrate.parse(["--model", "m", "--data", "d", "--responses", "r"])
    assert (args.low_fraction, args.high_cov_fraction) == (0.8, 0.0002)


@pytest.mark.parametrize(
    "flags",
    [
        ("--low-fraction", "1"),
        ("--dtype", "fp8"),
        ("--temperature", "inf"),
        ("--high-cov-fraction", "0"),
        ("--temperature", "0"),
        ("--max-prompts", "-1"),
        ("--workers", "0"),
    ],
)
def test_bad_flags_are_refused(flags, capsys):
    with pytest.raises(SystemExit) as stopped:
        calibrate.main(["--model", "m", "--data", "d", "--responses", "r", *flags])
    assert stopped.value.code == 2
    assert flags[0] in capsys.readouterr().err
