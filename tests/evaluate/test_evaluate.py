"""Evaluation of a checkpoint with a stand-in for the engine; the real ones are in tests/e2e."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

pytest.importorskip("math_verify")

from recipe.core.recipe import Recipe
from recipe.cpu.tasks import target_sums
from recipe.evaluate import __main__ as evaluate
from recipe.experiment.evaluation import COLUMNS, read_values
from recipe.experiment.provenance import fingerprint
from recipe.sampling import responses
from recipe.sampling.engine import Responses


class FakeEngine:
    """Response j to question i is correct for j < i; the others end at the limit of tokens. The
    last chunk is done first, as may be with several replicas."""

    def __init__(self, fail_after=99):
        self.left, self.sampled, self.seeds = fail_after, [], []

    def __call__(self, chunks, sampling, hardware, longest_prompt):
        n = sampling.samples
        for chunk in reversed(list(chunks)):
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            self.sampled.append(chunk.number)
            self.seeds = [*chunk.seeds, *self.seeds]
            correct = [[j < ids[0] for j in range(n)] for ids in chunk.prompts]
            texts = [
                [f"#### {ids[0]}" if c else "#### 99" for c in row]
                for ids, row in zip(chunk.prompts, correct, strict=True)
            ]
            tokens = [list(range(10, 10 + n)) for _ in correct]
            cut = [[not c for c in row] for row in correct]
            yield chunk.number, Responses(texts, None, tokens, cut)


def write_data(file, truths):
    rows = [
        {
            "data_source": "test",
            "prompt": [{"role": "user", "content": f"question {i}"}],
            "reward_model": {"style": "rule", "ground_truth": truth},
        }
        for i, truth in enumerate(truths)
    ]
    pd.DataFrame(rows).to_parquet(file)


@pytest.fixture
def command(monkeypatch, tmp_path):
    """The command on five questions, 4 samples each, in chunks of two; a folder as checkpoint."""
    model, data = tmp_path / "model", tmp_path / "five.parquet"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    write_data(data, "01234")
    monkeypatch.setattr(responses, "tokenized", lambda p, s: [[i] for i in range(len(p))])

    def call(*more, engine=None, checkpoint=model, data=data, also=()):
        monkeypatch.setattr(responses, "sample_all", engine or FakeEngine())
        arguments = [str(checkpoint), str(data), *also, "--chunk", "2", "--samples", "4"]
        return evaluate.main([*arguments, *more])

    call.out, call.model, call.data = model / "evaluation", model, data
    return call


def test_the_figures_worked_out(command, capsys):
    """c = 0 1 2 3 4 correct of n = 4. Majorities: 3, 4, and 2, whose tie the first answer wins."""
    assert command("--k", "1", "2", "3") == 0
    record = json.loads((command.out / "five.json").read_text())
    # pass@2 = 1 - C(4 - c, 2) / 6: 0, 3/6, 5/6, 1, 1; pass@3 = 1 - C(4 - c, 3) / 4
    assert {name: figure["mean"] for name, figure in record["figures"].items()} == pytest.approx(
        {
            "avg@4": 0.5,
            "pass@1": 0.5,
            "pass@2": (3 / 6 + 5 / 6 + 2) / 5,
            "pass@3": (3 / 4 + 3) / 5,
            "majority@4": 3 / 5,
            "tokens": 11.5,
            "truncated": 0.5,
        }
    )
    figure = record["figures"]["avg@4"]
    assert figure["low"] < 0.5 < figure["high"]
    assert record["problems"] == 5 and record["settings"]["samples"] == 4
    assert "majority@4" in capsys.readouterr().out


def test_every_response_is_written_in_the_benchmarks_order(command):
    assert command() == 0
    table = pd.read_parquet(command.out / "five.parquet")
    assert list(table.columns) == list(COLUMNS)
    assert table["index"].tolist() == sorted(table["index"])
    correct_PN = read_values(command.out, "five")
    assert correct_PN.dtype == bool
    assert np.array_equal(correct_PN, np.arange(4)[None] < np.arange(5)[:, None])
    tokens_PN = read_values(command.out, "five", "tokens")
    assert np.array_equal(tokens_PN, np.tile(np.arange(10, 14), (5, 1)))


def test_stopped_and_started_again_it_samples_only_the_rest(command):
    assert command(engine=FakeEngine(fail_after=2)) == 130
    rest, none = FakeEngine(), FakeEngine()
    assert command(engine=rest) == 0 and command(engine=none) == 0
    assert (rest.sampled, none.sampled) == ([0], [])
    assert read_values(command.out, "five").sum(1).tolist() == [0, 1, 2, 3, 4]


def test_other_settings_or_weights_are_never_mixed(command, capsys):
    assert command() == 0
    before = (command.out / "five.parquet").read_bytes()
    assert command("--temperature", "0.5") == 2
    assert "another temperature" in capsys.readouterr().err
    assert command("--engine", "transformers") == 2
    (command.model / "model.safetensors").write_bytes(b"trained")
    assert command() == 2
    assert "another model" in capsys.readouterr().err
    assert (command.out / "five.parquet").read_bytes() == before
    fresh = FakeEngine()
    assert command("--again", engine=fresh) == 0
    assert fresh.sampled == [2, 1, 0]


def test_each_prompt_has_a_seed_of_its_own_that_the_command_s_moves(command):
    """1009 times its row, and 1,000,003 times the seed: whatever is decoded beside it."""
    engines = [FakeEngine() for _ in range(4)]
    flags = ((), ("--seed", "1"), ("--chunk", "5"), ("--max-prompts", "3"))
    for engine, more in zip(engines, flags, strict=True):
        assert command("--again", *more, engine=engine) == 0
    seeds = [engine.seeds for engine in engines]
    assert seeds[0] == [0, 1009, 2018, 3027, 4036]
    assert seeds[1] == [1_000_003 + seed for seed in seeds[0]]
    assert seeds[2:] == [seeds[0], seeds[0][:3]]


def test_judging_alone_takes_the_new_truths_and_samples_nothing(command, capsys):
    assert command("--judge-only") == 2
    assert "does not hold all responses" in capsys.readouterr().err
    assert command() == 0
    write_data(command.data, ["99", "1", "2", "3", "4"])
    assert command("--judge-only", engine=FakeEngine(fail_after=0)) == 0
    assert read_values(command.out, "five").sum(1).tolist() == [4, 1, 2, 3, 4]


def test_judging_alone_judges_nothing_where_a_later_benchmark_lacks_responses(
    command, tmp_path, monkeypatch, capsys
):
    other = tmp_path / "other.parquet"
    write_data(other, "012")
    assert command() == 0
    judged = []
    judge_chunk = evaluate.judge_chunk
    monkeypatch.setattr(evaluate, "judge_chunk", lambda *x: judged.append(x) or judge_chunk(*x))
    assert command("--judge-only", also=[str(other)]) == 2
    assert f"{command.out}/other.responses does not hold all resp" in capsys.readouterr().err
    assert not judged
    assert command("--judge-only") == 0 and len(judged) == 3


@pytest.mark.parametrize(
    ("method", "file", "left"),
    [
        ((pd.DataFrame, "to_parquet"), "five.parquet", "the old ones"),
        ((Path, "replace"), "five.json", "no settings"),
    ],
)
def test_an_evaluation_that_is_interrupted_leaves_no_old_settings_beside_new_responses(
    command, monkeypatch, method, file, left
):
    assert command() == 0
    files = [command.out / "five.parquet", command.out / "five.json"]
    before = [path.read_bytes() for path in files]
    write = getattr(*method)

    def interrupted(thing, path, **options):
        if path.name.endswith(file):
            raise KeyboardInterrupt
        return write(thing, path, **options)

    monkeypatch.setattr(*method, interrupted)
    assert command("--again", "--temperature", "0.5") == 130
    if left == "the old ones":
        assert [path.read_bytes() for path in files] == before
    else:
        assert files[0].is_file() and not files[1].exists()
    assert not [*command.out.glob(".*")]


def test_several_benchmarks_share_an_engine(command, tmp_path):
    other = tmp_path / "other.parquet"
    write_data(other, "012")
    engine = FakeEngine()
    assert command(also=[str(other)], engine=engine) == 0
    assert len(set(engine.sampled)) == 5  # 3 chunks and 2
    assert read_values(command.out, "other").sum(1).tolist() == [0, 1, 2]
    assert read_values(command.out, "five").sum(1).tolist() == [0, 1, 2, 3, 4]


def test_errors_are_one_sentence_and_come_before_the_engine(command, capsys):
    never = FakeEngine(fail_after=0)
    for change, message in (
        ({"checkpoint": "./no"}, "./no does not exist"),
        ({"data": "no.parquet"}, "no.parquet does not exist"),
        ({"checkpoint": "some/model"}, "set --out"),
    ):
        assert command(engine=never, **change) == 2
        errors = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error")]
        assert len(errors) == 1 and message in errors[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--k", "4"), "pass@k wants"),
        (("--temperature", "0"), "--temperature 0 with --samples 4 is not allowed"),
        (("--temperature", "nan"), "use 0 to 100"),
        (("--top-p", "0"), "--top-p 0.0 is not allowed: use a number above 0, at most 1"),
        (("--top-p", "1.1"), "a number above 0, at most 1"),
        (("--top-k", "0"), "--top-k 0 is not allowed: use -1 for all tokens, or 1 or more"),
        (("--top-k", "-2"), "-1 for all tokens"),
        (("--time-limit", "0"), "--time-limit 0.0 is not allowed: use 0.1 to 3600 seconds"),
        (("--gpu-memory-utilization", "0"), "--gpu-memory-utilization 0.0 is not allowed: use"),
        (("--gpu-memory-utilization", "90"), "a number above 0, at most 1"),
        (("--dtype", "fp8"), "--dtype fp8 is not allowed: use one of auto, bfloat16, float16"),
        (("--max-prompts", "-1"), "--max-prompts -1 is not allowed: use 0 for all, or 1 or more"),
        (("--chunk", "0"), "use 1 or more"),
        (("--temperature", "-1"), "use 0 to 100"),
        (("--judge-only", "--again"), "give one of them"),
    ],
)
def test_bad_flags_are_refused(command, flags, message, capsys):
    with pytest.raises(SystemExit):
        command(*flags)
    assert message in capsys.readouterr().err


def test_two_benchmarks_of_one_name_are_refused(command, capsys):
    with pytest.raises(SystemExit):
        command(also=["other/five.parquet"])
    assert "same file name" in capsys.readouterr().err


def test_flags_override_a_papers_preset():
    sampling = evaluate.parse(["m", "d", "--preset", "clip_entropy", "--top-p", "1"]).sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.7, 1.0, 20)
    assert sampling.samples == 8
    plain = evaluate.parse(["m", "d"]).sampling
    assert (plain.temperature, plain.top_p, plain.top_k) == (1.0, 1.0, -1)


def test_each_paper_has_a_preset_and_a_misspelt_one_is_named(monkeypatch, command, capsys):
    assert {"asymgrpo", "clip_entropy", "sent"} <= set(evaluate.presets())
    record = Recipe("new", "new", "a paper", evaluation={"p": {"temprature": 1.0}})
    monkeypatch.setattr(evaluate, "recipes", lambda: (record,))
    assert command() == 2
    error = capsys.readouterr().err
    assert "recipe new: evaluation.p.temprature does not exist: did you mean temperature" in error


def test_responses_of_another_prompt_format_are_never_mixed(command, capsys):
    """Those of older versions, which could not set it, are those without kwargs."""
    kwargs = ("--chat-template-kwargs", '{"enable_thinking": false}')
    assert command() == 0
    file = command.out / "five.responses/settings.json"
    settings = json.loads(file.read_text())
    for name in ("chat_template_kwargs", "dtype"):
        del settings[name]
    file.write_text(json.dumps(settings))
    capsys.readouterr()
    assert command(engine=FakeEngine(fail_after=0)) == 0
    assert command(*kwargs) == 2
    assert "another chat_template_kwargs ({}, now {'enable_thinking'" in capsys.readouterr().err
    assert command(*kwargs, "--again") == 0
    assert "[settings] by flags: samples 4, chat_template_kwargs {" in capsys.readouterr().out
    record = json.loads((command.out / "five.json").read_text())["settings"]
    assert record["chat_template_kwargs"] == {"enable_thinking": False}
    assert command() == 2
    assert "another chat_template_kwargs" in capsys.readouterr().err


def test_a_run_is_evaluated_as_it_was_trained(command, capsys):
    run = command.model.parent / "run"
    folder = run / "global_step_2/actor/huggingface"
    folder.parent.mkdir(parents=True)
    command.model.rename(folder)
    (run / "metrics").mkdir()
    config = {"data": {"max_response_length": 24, "apply_chat_template_kwargs": {"a": 1}}}
    judge = {"path": "pkg://recipe.judge", "reward_kwargs": {"boxed_only": True}}
    config["reward"] = {"custom_reward_function": judge}
    (run / "metrics/000.yaml").write_text(json.dumps({"config": config}))
    assert command(checkpoint=folder) == 0
    record = json.loads((folder / "evaluation/five.json").read_text())
    settings = record["settings"]
    assert (settings["max_response_length"], settings["chat_template_kwargs"]) == (24, {"a": 1})
    assert settings["boxed_only"] and record["figures"]["avg@4"]["mean"] == 0  # no box
    # what recipe.compare asks is the same, read from the same record
    asked = evaluate.settings(evaluate.parse([str(folder), str(command.data), "--samples", "4"]))
    assert {key: settings[key] for key in asked} == asked
    (run / "metrics/001.yaml").write_text("[")
    assert command(checkpoint=folder) == 2
    assert "001.yaml, the run's record, has no config" in capsys.readouterr().err


def test_the_settings_of_an_evaluation_are_those_that_it_records(command):
    """`recipe.compare` tells by them whether an evaluation is of these flags."""
    assert command("--k", "2", "--top-p", "0.9") == 0
    record = json.loads((command.out / "five.json").read_text())["settings"]
    flags = ["x", str(command.data), "--samples", "4", "--top-p", "0.9", "--workers", "1"]
    settings = evaluate.settings(evaluate.parse(flags))
    assert {key: record[key] for key in settings} == settings
    assert record.keys() - settings.keys() == {"model"}
    assert record["model"] == fingerprint(command.model)


@pytest.mark.parametrize(
    ("flags", "key"),
    [
        (("--samples", "2"), "samples"),
        (("--temperature", "0.5"), "temperature"),
        (("--top-p", "0.5"), "top_p"),
        (("--top-k", "5"), "top_k"),
        (("--max-prompt-length", "5"), "max_prompt_length"),
        (("--max-response-length", "5"), "max_response_length"),
        (("--seed", "5"), "seed"),
        (("--chat-template-kwargs", '{"a": 1}'), "chat_template_kwargs"),
        (("--engine", "transformers"), "engine"),
        (("--dtype", "float16"), "dtype"),
        (("--boxed-only",), "boxed_only"),
        (("--max-prompts", "5"), "max_prompts"),
    ],
)
def test_each_flag_that_decides_the_figures_is_in_the_settings(flags, key):
    before = evaluate.settings(evaluate.parse(["m", "d"]))
    after = evaluate.settings(evaluate.parse(["m", "d", *flags]))
    assert [name for name in after if before[name] != after[name]] == [key]


def test_a_reward_function_is_recorded_by_its_name_and_its_content(tmp_path):
    def settings(reward):
        recorded = evaluate.settings(evaluate.parse(["m", "d", "--reward", reward]))
        return recorded["reward"], recorded["reward_content"]

    file = tmp_path / "mine.py"
    file.write_text("compute_score = None")
    first = settings(f"{file}:f")
    assert first[0] == f"{file}:f" and first[1] == settings(f"file://{file}:f")[1]
    file.write_text("compute_score = 3")
    assert settings(f"{file}:f")[0] == first[0] and settings(f"{file}:f")[1] != first[1]
    packaged = settings("pkg://recipe.cpu.tasks.target_sums:compute_score")[1]
    assert packaged == fingerprint(target_sums.__file__)
    assert settings("pkg://no.such.module:f") == ("pkg://no.such.module:f", "pkg:/no.such.module")
    assert settings("pkg://recipe.judge") == (None, None)


@pytest.mark.parametrize("truth_of", [int, lambda i: {"value": int(i)}])
def test_a_run_s_own_reward_function_gets_the_truth_as_the_data_has_it(command, tmp_path, truth_of):
    """As verl hands it on: a number, or a mapping, which recipe.judge would refuse."""
    reward = tmp_path / "own.py"
    reward.write_text(
        "def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n"
        "    if isinstance(ground_truth, dict):\n"
        "        ground_truth = ground_truth['value']\n"
        "    return int(solution_str.removeprefix('#### ')) == ground_truth\n"
    )
    write_data(command.data, [truth_of(i) for i in "01234"])
    assert command("--reward", str(reward)) == 0
    assert read_values(command.out, "five").sum(1).tolist() == [0, 1, 2, 3, 4]


def test_a_run_s_own_reward_function_judges_what_it_was_rewarded_for(command, tmp_path):
    """Target sums, of which recipe.judge would call every response incorrect."""
    run = tmp_path / "run"
    checkpoint = run / "global_step_1/actor/huggingface"
    checkpoint.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (checkpoint / name).write_bytes((command.model / name).read_bytes())
    (run / "metrics").mkdir()
    own = {"path": "pkg://recipe.cpu.tasks.target_sums", "name": "compute_score"}
    config = {"reward": {"custom_reward_function": own}}
    (run / "metrics/000.yaml").write_text(yaml.safe_dump({"config": config}))
    data = tmp_path / "sums.parquet"
    write_data(data, ["3729:3", "12:1"])

    class Sums(FakeEngine):
        texts = (["9-7+3-2", "7+3+2-9", "9+7+3+2", "3"], ["1+2", "1+2", "2-1", "2+1"])

        def __call__(self, chunks, sampling, hardware, longest_prompt):
            for chunk in chunks:
                texts = [list(self.texts[ids[0]]) for ids in chunk.prompts]
                numbers = [[5] * 4 for _ in texts]
                yield chunk.number, Responses(texts, None, numbers, [[False] * 4 for _ in texts])

    assert command(engine=Sums(), checkpoint=checkpoint, data=data) == 0
    out = checkpoint / "evaluation"
    assert read_values(out, "sums").tolist() == [
        [True, True, False, False],
        [False] * 2 + [True, False],
    ]
    table = pd.read_parquet(out / "sums.parquet")
    # 1+2, 1+2 and 2+1 are 3, the value of most, which is not the target
    assert table["answer"].tolist() == ["3", "3", "21", "", "3", "3", "1", "3"]
    assert table["majority_correct"].tolist() == [True] * 4 + [False] * 4
    record = json.loads((out / "sums.json").read_text())
    assert record["settings"]["reward"] == "pkg://recipe.cpu.tasks.target_sums:compute_score"
    assert record["figures"]["avg@4"]["mean"] == 3 / 8
    # judged again by recipe.judge, on demand
    assert (
        command("--judge-only", "--reward", "pkg://recipe.judge", checkpoint=checkpoint, data=data)
        == 0
    )
    assert not read_values(out, "sums").any()
