"""Evaluation of a checkpoint with a stand-in for the engine; the real ones are in tests/e2e."""

import json

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("math_verify")

from recipe.evaluate import __main__ as evaluate
from recipe.sampling import responses
from recipe.sampling.engine import Responses


class FakeEngine:
    """Response j to question i is right for j < i; the others end at the limit of tokens."""

    def __init__(self, fail_after=99):
        self.left, self.sampled = fail_after, []

    def __call__(self, jobs, sampling, hardware, longest_prompt):
        n = sampling.samples
        for job in jobs:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            self.sampled.append(job.number)
            right = [[j < ids[0] for j in range(n)] for ids in job.prompts]
            texts = [
                [f"#### {ids[0]}" if r else "#### 99" for r in group]
                for ids, group in zip(job.prompts, right, strict=True)
            ]
            tokens = [list(range(10, 10 + n)) for _ in right]
            cut = [[not r for r in group] for group in right]
            yield job.number, Responses(texts, None, tokens, cut)


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
    """c = 0 1 2 3 4 right of n = 4. Majorities: 3, 4, and 2, whose tie the first answer wins."""
    assert command("--k", "1", "2", "3") == 0
    said = json.loads((command.out / "five.json").read_text())
    # pass@2 = 1 - C(4 - c, 2) / 6: 0, 3/6, 5/6, 1, 1; pass@3 = 1 - C(4 - c, 3) / 4
    assert {name: of["mean"] for name, of in said["figures"].items()} == pytest.approx(
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
    of = said["figures"]["avg@4"]
    assert of["low"] < 0.5 < of["high"]
    assert said["problems"] == 5 and said["settings"]["samples"] == 4
    assert "majority@4" in capsys.readouterr().out


def test_every_response_is_kept_in_the_benchmarks_order(command):
    assert command() == 0
    table = pd.read_parquet(command.out / "five.parquet")
    assert list(table.columns) == list(evaluate.COLUMNS)
    assert table["index"].tolist() == sorted(table["index"])
    right_PN = evaluate.read(command.out, "five")
    assert right_PN.dtype == bool
    assert np.array_equal(right_PN, np.arange(4)[None] < np.arange(5)[:, None])
    tokens_PN = evaluate.read(command.out, "five", "tokens")
    assert np.array_equal(tokens_PN, np.tile(np.arange(10, 14), (5, 1)))


def test_stopped_and_started_again_it_samples_only_the_rest(command):
    with pytest.raises(KeyboardInterrupt):
        command(engine=FakeEngine(fail_after=2))
    rest, none = FakeEngine(), FakeEngine()
    assert command(engine=rest) == 0 and command(engine=none) == 0
    assert (rest.sampled, none.sampled) == ([2], [])
    assert evaluate.read(command.out, "five").sum(1).tolist() == [0, 1, 2, 3, 4]


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
    assert fresh.sampled == [0, 1, 2]


def test_judging_alone_takes_the_new_truths_and_samples_nothing(command, capsys):
    assert command("--judge-only") == 2
    assert "does not hold all responses" in capsys.readouterr().err
    assert command() == 0
    write_data(command.data, ["99", "1", "2", "3", "4"])
    assert command("--judge-only", engine=FakeEngine(fail_after=0)) == 0
    assert evaluate.read(command.out, "five").sum(1).tolist() == [4, 1, 2, 3, 4]


def test_several_benchmarks_share_an_engine(command, tmp_path):
    other = tmp_path / "other.parquet"
    write_data(other, "012")
    engine = FakeEngine()
    assert command(also=[str(other)], engine=engine) == 0
    assert len(set(engine.sampled)) == 5  # 3 chunks and 2
    assert evaluate.read(command.out, "other").sum(1).tolist() == [0, 1, 2]
    assert evaluate.read(command.out, "five").sum(1).tolist() == [0, 1, 2, 3, 4]


def test_errors_are_one_sentence_and_come_before_the_engine(command, capsys):
    never = FakeEngine(fail_after=0)
    for wrong, said in (
        ({"checkpoint": "./no"}, "./no does not exist"),
        ({"data": "no.parquet"}, "no.parquet does not exist"),
        ({"checkpoint": "some/model"}, "set --out"),
    ):
        assert command(engine=never, **wrong) == 2
        errors = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error")]
        assert len(errors) == 1 and said in errors[0]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--k", "4"), "pass@k wants"),
        (("--temperature", "0"), "--samples 1"),
        (("--chunk", "0"), "use 1 or more"),
        (("--judge-only", "--again"), "give one of them"),
    ],
)
def test_wrong_options_are_refused(command, wrong, said, capsys):
    with pytest.raises(SystemExit):
        command(*wrong)
    assert said in capsys.readouterr().err


def test_two_benchmarks_of_one_name_are_refused(command, capsys):
    with pytest.raises(SystemExit):
        command(also=["other/five.parquet"])
    assert "same file name" in capsys.readouterr().err


def test_checkpoints_are_found(tmp_path, monkeypatch):
    run, actor = tmp_path / "run", tmp_path / "run/global_step_7/actor"
    (actor / "huggingface").mkdir(parents=True)
    (actor / "huggingface/config.json").write_text("{}")
    (run / "latest_checkpointed_iteration.txt").write_text("7")
    with pytest.raises(ValueError, match="is no checkpoint"):
        evaluate.model_of(str(run))
    (actor / "model_world_size_1_rank_0.pt").touch()
    merged = []
    monkeypatch.setattr(evaluate, "merge", lambda *folders: merged.append(folders))
    model = str(actor / "huggingface")
    for folder in (run, actor.parent, actor):
        assert evaluate.model_of(str(folder)) == (model, actor.parent)
    assert merged == [(actor, actor / "huggingface")] * 3
    (actor / "huggingface/model.safetensors").touch()
    assert evaluate.model_of(str(run)) == (model, actor.parent) and len(merged) == 3
    assert evaluate.model_of(model) == (model, actor / "huggingface")
    assert evaluate.model_of("Qwen/Qwen3-4B") == ("Qwen/Qwen3-4B", None)


def test_flags_override_a_papers_preset():
    known = evaluate.parse(["m", "d", "--preset", "clip_entropy", "--top-p", "1"])
    assert (known.temperature, known.top_p, known.top_k, known.samples) == (0.7, 1.0, 20, 8)
    plain = evaluate.parse(["m", "d"])
    assert (plain.temperature, plain.top_p, plain.top_k) == (1.0, 1.0, -1)
