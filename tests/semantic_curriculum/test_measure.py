"""The semantic-entropy command on given responses: clusters, resuming, refusing, bad answers.

What needs a model to sample is in tests/e2e.
"""

import json
import math
import shutil

import pandas as pd
import pytest
from omegaconf import OmegaConf

pytest.importorskip("math_verify")

from recipe.judge.responses import Grading, judge_prompts
from recipe.sampling import responses
from recipe.sampling.engine import Responses
from recipe.sampling.prompts import prompt_id
from recipe.semantic_curriculum import measure
from recipe.semantic_curriculum.checks import check_curriculum
from recipe.semantic_curriculum.measure import Weighting
from recipe.semantic_curriculum.scores import COLUMNS, read_scores
from recipe.semantic_curriculum.semantic_entropy import WEIGHTS


def scored(texts, truth="4", weighting=None, likelihoods=None, tokens=None, **grading):
    """The row of one prompt."""
    rules = Grading(**grading)
    judged = judge_prompts([texts], [truth], rules, rules.equivalence())[0]
    return measure.scores_of(judged, weighting or Weighting(), likelihoods, tokens)


def test_a_prompt_worked_out():
    """Three 4s in three spellings, two 8s, one 1/2, two without an answer: K = 4 of G = 8."""
    texts = [r"so \boxed{x=4}", "#### 4", "it is 4.0", "#### 8", r"\boxed{8}", r"\boxed{\frac12}"]
    row = scored([*texts, "I do not know", ""])
    p = [3 / 8, 2 / 8, 1 / 8, 2 / 8]
    assert row["semantic_entropy"] == pytest.approx(-sum(x * math.log(x) for x in p))
    assert row["clusters"] == 4
    assert row["pass_rate"] == 3 / 8
    assert row["majority_correct"] is True
    assert row["majority_answer"] in ("x=4", "4", "4.0")
    assert row["without_answer"] == 2
    assert row["responses"] == 8


def test_options_change_what_they_say():
    texts = ["#### 4", "#### 4", "nothing", "none at all"]
    assert scored(texts)["clusters"] == 2
    assert scored(texts, unparsable="own")["clusters"] == 3
    assert scored(texts, weighting=Weighting(base=2.0))["semantic_entropy"] == pytest.approx(1.0)
    metres = [r"\boxed{4\text{ m}}", r"\boxed{4}"]
    assert scored(metres)["clusters"] == 1
    assert scored(metres, units="compare")["clusters"] == 2
    thousand = [r"\boxed{1,234}", r"\boxed{1234}"]
    assert scored(thousand)["clusters"] == 1
    assert scored(thousand, thousands=False)["clusters"] == 2


def entropy_of(*p):
    return pytest.approx(-sum(x * math.log(x) for x in p))


def test_the_three_weights_of_two_responses():
    """Probabilities 0.3 and 0.01, of 1 and of 2 tokens: per token 0.3 and 0.1."""
    texts, logs = ["#### 4", "#### 5"], [math.log(0.3), math.log(0.01)]
    entropy = {
        name: scored(texts, weighting=Weighting(name), likelihoods=logs, tokens=[1, 2])
        for name in WEIGHTS
    }
    assert entropy["counts"]["semantic_entropy"] == entropy_of(1 / 2, 1 / 2)
    assert entropy["likelihood"]["semantic_entropy"] == entropy_of(30 / 31, 1 / 31)
    assert entropy["length_normalised"]["semantic_entropy"] == entropy_of(3 / 4, 1 / 4)


def test_a_clusters_weight_is_the_sum_of_its_members():
    """0.3 and 0.1 say 4, 0.2 says 5."""
    logs = [math.log(p) for p in (0.3, 0.1, 0.2)]
    texts = ["#### 4", r"\boxed{4}", "#### 5"]
    row = scored(texts, weighting=Weighting("likelihood"), likelihoods=logs)
    assert row["semantic_entropy"] == entropy_of(2 / 3, 1 / 3)


def test_likelihoods_of_long_responses_are_summed_as_logarithms():
    """exp(-2000) is 0 in any float; what counts is the difference, 1 nat."""
    texts = ["#### 4", "#### 5"]
    row = scored(texts, weighting=Weighting("likelihood"), likelihoods=[-2000.0, -2001.0])
    p = 1 / (1 + math.exp(-1))
    assert row["semantic_entropy"] == entropy_of(p, 1 - p)
    far = scored(texts, weighting=Weighting("likelihood"), likelihoods=[-200.0, -240.0])
    assert far["semantic_entropy"] < 1e-15  # forty nats apart: one response has all the weight
    per_token = scored(
        texts,
        weighting=Weighting("length_normalised"),
        likelihoods=[-200.0, -240.0],
        tokens=[400] * 2,
    )
    p = 1 / (1 + math.exp(-0.1))
    assert per_token["semantic_entropy"] == entropy_of(p, 1 - p)


def test_weights_without_what_they_need_are_refused():
    for name, more in (("likelihood", {}), ("length_normalised", {"likelihoods": [-1.0]})):
        with pytest.raises(
            ValueError, match=f"weights={name} needs the responses' log-likelihoods"
        ):
            scored(["#### 4"], weighting=Weighting(name), **more)
    with pytest.raises(ValueError, match="weights=length is not known: use one of counts, likelih"):
        scored(["#### 4"], weighting=Weighting("length"), likelihoods=[-1.0])


def test_no_answer_at_all_is_no_majority():
    row = scored(["nothing", "none"])
    assert row["semantic_entropy"] == 0
    assert row["majority_answer"] == ""
    assert row["majority_correct"] is False


def test_pathological_answers_cost_their_limit_and_are_counted():
    """A tower of powers, a megabyte of brackets, and others beside them: no hang, no crash."""
    bad = [r"\boxed{9**9**9**9**9}", r"\boxed{9^{9^{9^{9^{9}}}}}", r"\boxed{" + "(" * 1_000_000]
    bad += ["\\boxed{" + "\\frac{1}{" * 200 + "2" + "}" * 200 + "}", "\ud800 \\boxed{\x00\ud800}"]
    row = scored([*bad, "#### 4", r"\boxed{4}", r"\boxed{2+2}"], time_limit=0.5)
    assert row["pass_rate"] == 3 / 8
    assert row["majority_correct"] is True
    assert 1 <= row["timed_out"] <= 3  # each is counted once, however many it stands beside
    assert scored(["#### 4"])["pass_rate"] == 1  # the pool still answers


# ---- the command, with responses that are there already ---------------------------------------


@pytest.fixture
def data(tmp_path):
    def row(i):
        return {
            "data_source": "test",
            "prompt": [{"role": "user", "content": f"question {i}"}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": str(i)},
            "extra_info": {"index": i},
        }

    file = tmp_path / "train.parquet"
    pd.DataFrame([row(i) for i in range(5)]).to_parquet(file)
    return file


class FakeSampler:
    """Stands for vLLM: response j to question i is correct for j < i. The last chunk is done first,
    as may be with several replicas. Fails when it is told to."""

    def __init__(self, fail_after=99):
        self.left, self.sampled = fail_after, []

    def __call__(self, chunks, sampling, hardware, longest_prompt):
        for chunk in reversed(list(chunks)):
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            self.sampled.append(chunk.number)
            texts = [
                [f"#### {ids[0]}"] * ids[0] + ["#### 99"] * (4 - ids[0]) for ids in chunk.prompts
            ]
            # each response is half as probable as the one before it, and has as many tokens
            logs = [[-j * math.log(2) for j in range(4)] for _ in chunk.prompts]
            yield chunk.number, Responses(texts, logs, [[1] * 4 for _ in chunk.prompts])


@pytest.fixture
def command(monkeypatch, data, tmp_path):
    monkeypatch.setattr(
        responses, "tokenized", lambda prompts, model: [[i] for i in range(len(prompts))]
    )
    out = tmp_path / "scores.parquet"

    def call(*more, sampler=None):
        monkeypatch.setattr(responses, "sample_all", sampler or FakeSampler())
        arguments = ["--model", "none", "--data", str(data), "--out", str(out), "--chunk", "2"]
        return measure.main([*arguments, "--samples", "4", *more])

    call.out = out
    return call


def test_the_table_has_its_columns_in_the_order_of_the_data(command, capsys):
    assert command() == 0
    table = pd.read_parquet(command.out)
    assert list(table.columns) == list(COLUMNS)
    assert table["index"].tolist() == [0, 1, 2, 3, 4]
    assert table["pass_rate"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert table["clusters"].tolist() == [1, 2, 2, 2, 1]
    assert table["prompt_id"][3] == prompt_id([{"role": "user", "content": "question 3"}])
    printed = capsys.readouterr().out
    assert "5 prompts" in printed and "SE = 0: 40.0%" in printed


def test_stopped_and_started_again_it_samples_only_the_rest(command):
    assert command(sampler=FakeSampler(fail_after=2)) == 130
    assert not command.out.exists()
    rest = FakeSampler()
    assert command(sampler=rest) == 0
    assert rest.sampled == [0]
    table = pd.read_parquet(command.out)
    assert table["pass_rate"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    again = FakeSampler()
    assert command("--base", "2", sampler=again) == 0  # clustered anew without sampling
    assert again.sampled == []
    assert pd.read_parquet(command.out)["semantic_entropy"][2] == pytest.approx(1.0)


def test_the_weights_are_chosen_without_sampling_again(command):
    """Question 1: one response says 1, three say 99; their probabilities are as 8 to 4 + 2 + 1."""
    assert command() == 0
    counts = pd.read_parquet(command.out)
    assert counts["semantic_entropy"][1] == entropy_of(1 / 4, 3 / 4)
    assert counts.attrs["weights"] == "counts"
    fresh = FakeSampler()
    for weights in ("likelihood", "length_normalised"):
        assert command("--weights", weights, sampler=fresh) == 0
        table = pd.read_parquet(command.out)
        assert table["semantic_entropy"][1] == entropy_of(8 / 15, 7 / 15)
        assert table.attrs["weights"] == weights
    assert not fresh.sampled


def test_responses_of_other_settings_are_not_mixed(command, capsys):
    assert command() == 0
    before = command.out.read_bytes()
    assert command("--temperature", "0.5") == 2
    assert "another temperature (1.0, now 0.5)" in capsys.readouterr().err
    assert command.out.read_bytes() == before
    fresh = FakeSampler()
    assert command("--temperature", "0.5", "--again", sampler=fresh) == 0
    assert fresh.sampled == [2, 1, 0]


def config_with_scores(scores, data, model="none"):
    """Returns as much of a run's config as the curriculum's check reads."""
    return OmegaConf.create(
        {
            "data": {
                "curriculum": {"order": "semantic_entropy", "scores": str(scores)},
                "train_files": str(data),
                "train_batch_size": 1,
                "shuffle": False,
                "max_prompt_length": 1024,
                "filter_overlong_prompts": True,
            },
            "actor_rollout_ref": {"model": {"path": model}},
            "algorithm": {},
            "trainer": {"total_training_steps": None},
        }
    )


def test_scores_of_another_prompt_format_are_refused_before_the_run(command, data):
    assert command("--chat-template-kwargs", '{"enable_thinking": false}') == 0
    config = config_with_scores(command.out, data)
    config.data.apply_chat_template_kwargs = {"enable_thinking": False}
    check_curriculum(config)
    config.data.apply_chat_template_kwargs = {}
    with pytest.raises(ValueError, match=r"\{'enable_thinking': False\}, and .* is \{\}: meas"):
        check_curriculum(config)
    # tables of older versions do not say with which kwargs they were measured
    table = pd.read_parquet(command.out)
    table.attrs.clear()
    table.to_parquet(command.out)
    check_curriculum(config)


def test_scores_by_another_reward_function_are_refused_before_the_run(command, data):
    assert command() == 0
    config = config_with_scores(command.out, data)
    config.reward = {"custom_reward_function": {"path": "pkg://recipe.judge"}}
    check_curriculum(config)
    config.reward.custom_reward_function.path = "pkg://recipe.judge.reward"  # the same function
    check_curriculum(config)
    config.reward.custom_reward_function.path = "pkg://recipe.cpu.tasks.target_sums"
    message = r"judged by pkg://recipe.judge, and .* is pkg://recipe.cpu.tasks.target_sums:compute"
    with pytest.raises(ValueError, match=message + r"_score: measure .* --reward pkg://recipe.cpu"):
        check_curriculum(config)
    config.reward.custom_reward_function.reward_kwargs = {"scale": 2}
    with pytest.raises(ValueError, match=r"""compute_score --reward-kwargs '\{"scale": 2\}'\.$"""):
        check_curriculum(config)
    config.reward.custom_reward_function.path = None  # verl's own, by the data's source
    check_curriculum(config)


def test_responses_of_a_model_that_was_trained_again_are_not_taken(command, tmp_path, capsys):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    assert command("--model", str(model)) == 0
    assert command("--model", str(model), sampler=FakeSampler(fail_after=0)) == 0
    (model / "config.json").write_text('{"trained": "again"}')
    assert command("--model", str(model)) == 2
    assert "another model" in capsys.readouterr().err


def test_scores_of_another_model_are_refused_before_the_run(command, data, tmp_path):
    """By content: a model that is trained again under its path is another one, a copy is not."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(bytes(3_000_000))
    assert command("--model", str(model)) == 0
    config = config_with_scores(command.out, data, str(model))
    curriculum = config.data.curriculum
    check_curriculum(config)
    shutil.copytree(model, tmp_path / "copy")
    config.actor_rollout_ref.model.path = str(tmp_path / "copy")
    check_curriculum(config)
    # one byte in the middle: neither the size nor either end of the file has changed
    with (model / "model.safetensors").open("r+b") as file:
        file.seek(1_500_000)
        file.write(b"x")
    config.actor_rollout_ref.model.path = str(model)
    with pytest.raises(ValueError, match=r"measured with another model .* or set .*any_model") as e:
        check_curriculum(config)
    assert str(e.value).count(". ") == 0 and str(model) in str(e.value)
    config.data.curriculum = {**curriculum, "scores_from": "any_model"}
    check_curriculum(config)
    config.data.curriculum = curriculum
    # the responses to it are no other's either
    assert command("--model", str(model)) == 2
    assert command("--model", str(model), "--again") == 0
    check_curriculum(config)
    table = pd.read_parquet(command.out)  # one of an older version does not say its model
    table.attrs = {"chat_template_kwargs": {}}
    table.to_parquet(command.out)
    config.actor_rollout_ref.model.path = "elsewhere"
    check_curriculum(config)


def test_prompts_that_are_too_long_are_left_out(command, data, monkeypatch, capsys):
    monkeypatch.setattr(responses, "tokenized", lambda p, s: [[i] * (i + 1) for i in range(len(p))])
    assert command("--max-prompt-length", "3") == 0
    assert "2 of 5 prompts are longer" in capsys.readouterr().out
    assert pd.read_parquet(command.out)["index"].tolist() == [0, 1, 2]
    # a run that leaves them out too needs no score of them, and any other does
    config = config_with_scores(command.out, data)
    config.data.max_prompt_length = 3
    check_curriculum(config)
    config.data.max_prompt_length = 4
    with pytest.raises(ValueError, match=r"no score for 2 of the 5 .*: .* with --max"):
        check_curriculum(config)
    config.data.max_prompt_length, config.data.filter_overlong_prompts = 3, False
    with pytest.raises(ValueError, match="no score for 2 of the 5 training prompts"):
        check_curriculum(config)
    # of the first two prompts none is too long; with shuffle any two of the five may be taken
    config.data.train_max_samples = 2
    check_curriculum(config)
    config.data.shuffle = True
    with pytest.raises(ValueError, match="no score for 2 of the 5 training prompts"):
        check_curriculum(config)
    config.data.filter_overlong_prompts = True
    check_curriculum(config)
    assert command("--max-prompt-length", "1", "--again") == 0
    monkeypatch.setattr(responses, "tokenized", lambda p, _: [[0, 0] for _ in range(len(p))])
    assert command("--max-prompt-length", "1", "--again") == 2
    assert "raise --max-prompt-length" in capsys.readouterr().err


def test_a_table_of_before_the_columns_were_renamed_is_still_read(command, tmp_path):
    assert command() == 0
    new = pd.read_parquet(command.out)
    names = {"clusters": "groups", "majority_correct": "majority_right", "timed_out": "gave_up"}
    new.rename(columns=names).to_parquet(tmp_path / "old.parquet")
    columns = ["semantic_entropy", "pass_rate"]
    assert read_scores(tmp_path / "old.parquet")[columns].equals(read_scores(command.out)[columns])


def test_a_reward_function_of_ones_own_gets_the_truth_as_the_data_has_it(command, data, tmp_path):
    """As in training: a number here."""
    reward = tmp_path / "own.py"
    reward.write_text(
        "def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n"
        "    return int(solution_str.removeprefix('#### ')) == ground_truth\n"
    )
    table = pd.read_parquet(data)
    table["reward_model"] = [{"ground_truth": i} for i in range(5)]
    table.to_parquet(data)
    assert command("--reward", str(reward)) == 0
    assert pd.read_parquet(command.out)["pass_rate"].tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_a_reward_function_of_ones_own_gets_its_settings(command, tmp_path, capsys):
    reward = tmp_path / "own.py"
    reward.write_text(
        "def compute_score(data_source, solution_str, ground_truth, extra_info=None, *, right):\n"
        "    return int(solution_str.removeprefix('#### ') == right)\n"
    )
    assert command("--reward", str(reward), "--reward-kwargs", '{"right": "2"}') == 0
    table = pd.read_parquet(command.out)
    assert table.attrs["reward"] == f"{reward}:compute_score (right=2)"
    by_text = pd.Series(table["pass_rate"].tolist())
    assert command("--reward", str(reward), "--reward-kwargs", '{"right": "none"}') == 0
    assert by_text.sum() > 0 == pd.read_parquet(command.out)["pass_rate"].sum()
    assert command("--reward-kwargs", '{"right": "2"}') == 2
    assert "give --reward too" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"text", "is not parquet"),
        (pd.DataFrame({"question": ["a"]}), "lacks the column prompt"),
        (pd.DataFrame({"prompt": [], "reward_model": []}), "has no rows"),
    ],
)
def test_bad_data_is_refused_in_one_sentence(content, message, command, data, capsys):
    data.unlink()
    if isinstance(content, bytes):
        data.write_bytes(content)
    elif content is not None:
        content.to_parquet(data)
    assert command() == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --data") and message in error
    assert error.count("\n") == 1
    assert not command.out.exists()


@pytest.mark.parametrize(
    "flags",
    [
        ("--samples", "0"),
        ("--base", "1"),
        ("--units", "metric"),
        ("--workers", "-1"),
        ("--temperature", "-1"),
        ("--temperature", "0"),
        ("--top-p", "0"),
        ("--top-k", "0"),
        ("--dtype", "fp8"),
        ("--gpu-memory-utilization", "2"),
        ("--max-prompts", "-1"),
        ("--time-limit", "0"),
        ("--weights", "likelihood", "--rollouts", "somewhere"),
        ("--weights", "length_normalised", "--rollouts", "somewhere"),
    ],
)
def test_bad_flags_are_refused(flags, command, capsys):
    with pytest.raises(SystemExit) as stopped:
        command(*flags)
    assert stopped.value.code == 2
    assert flags[0] in capsys.readouterr().err


def test_a_model_that_is_not_there_is_named(data, tmp_path, capsys):
    arguments = ["--model", str(tmp_path / "no"), "--data", str(data), "--out", str(tmp_path / "o")]
    assert measure.main(arguments) == 2
    assert "does not exist" in capsys.readouterr().err


# ---- out of verl's rollout dumps ---------------------------------------------------------------


@pytest.fixture
def dumps(monkeypatch, tmp_path):
    """Three steps of a run; question i is written as its token, the tokenizer as its inverse. The
    responses of later steps say something else."""
    import transformers

    monkeypatch.setattr(
        "recipe.sampling.dumps.tokenized", lambda prompts, model: [[i] for i in range(len(prompts))]
    )

    class FakeTokenizer:
        def decode(self, tokens, skip_special_tokens):
            return f"user question {tokens[0]}"

    monkeypatch.setattr(
        transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: FakeTokenizer()
    )
    folder = tmp_path / "rollouts"
    folder.mkdir()
    for step in (1, 2, 10):
        rows = [
            {"input": f"user question {i}", "output": f"#### {answer}", "step": step}
            for i, answer in ((1, step), (1, 7), (3, 2 + step), (8, 8))
        ]
        rows += [{"input": "user question 4", "output": f"#### {6 - step}"}] * (step == 2)
        rows += [{"input": "user question 4", "output": "#### 0"}] * (step == 10)
        (folder / f"{step}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder


def test_rollout_dumps_are_read(dumps, data, tmp_path, capsys):
    out = tmp_path / "scores.parquet"
    arguments = ["--model", "none", "--data", str(data), "--out", str(out)]
    assert measure.main([*arguments, "--rollouts", str(dumps)]) == 0
    table = pd.read_parquet(out)
    assert table["index"].tolist() == [1, 3, 4]
    assert table["responses"].tolist() == [2, 1, 1]  # 3 and 4 of steps 1 and 2
    assert table["semantic_entropy"].tolist() == pytest.approx([math.log(2), 0, 0])
    assert table["pass_rate"].tolist() == [0.5, 1, 1]
    assert "4 responses to 3 of 5 prompts; left out are 7 of later steps and 3 to other" in (
        capsys.readouterr().out
    )
    # they are of several policies, and a run says that it takes them
    config = config_with_scores(out, data)
    config.data.max_prompt_length, config.data.filter_overlong_prompts = 1024, True
    with pytest.raises(ValueError, match=r"another model .none, content the policies of .*any"):
        check_curriculum(config)


def test_rollout_dumps_are_judged_in_chunks_of_prompts(dumps, data, tmp_path, monkeypatch):
    judged = []

    def score_chunk(chunk, *rest):
        judged.append(len(chunk))
        return original(chunk, *rest)

    original = measure.score_chunk
    monkeypatch.setattr(measure, "score_chunk", score_chunk)
    arguments = ["--model", "none", "--data", str(data), "--out", str(tmp_path / "scores.parquet")]
    # with dumps nothing is sampled, at whatever temperature
    more = ["--rollouts", str(dumps), "--chunk", "1", "--temperature", "0"]
    assert measure.main([*arguments, *more]) == 0
    assert judged == [1, 1, 1]
    assert pd.read_parquet(tmp_path / "scores.parquet")["index"].tolist() == [1, 3, 4]


def test_a_broken_dump_is_named_by_file_and_line(dumps, data, tmp_path, capsys):
    with (dumps / "2.jsonl").open("a") as file:
        file.write('{"input": "user')
    out = tmp_path / "scores.parquet"
    arguments = ["--model", "none", "--data", str(data), "--out", str(out)]
    assert measure.main([*arguments, "--rollouts", str(dumps)]) == 2
    assert "2.jsonl, line 6" in capsys.readouterr().err
    assert not out.exists()
