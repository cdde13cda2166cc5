"""The warm start: tokenizer, model, sampling, the cached folder. Tiny models, a few steps."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data_prep import arithmetic, rows
from recipe.cpu import build_cache, solving, warm_start
from recipe.cpu import model as small_model
from recipe.cpu.sampling import Samples, sample
from recipe.cpu.tasks import signed_sums
from recipe.cpu.tasks.signed_sums import SIGNED_SUMS

TINY = replace(
    warm_start.Settings(),
    steps=3,
    batch_size=4,
    check_from=2,
    check_every=1,
    check_problems=1,
    check_samples=1,
    hidden_size=64,
    layers=1,
    heads=2,
    mlp_size=64,
)


def write_data(folder: Path, train_size: int = 48) -> Path:
    train, test = SIGNED_SUMS.splits(0, train_size, 12)
    problems = {"train": train, "test": test}
    splits = {name: arithmetic.build(SIGNED_SUMS, drawn, name) for name, drawn in problems.items()}
    rows.write(folder, splits, arithmetic.COLUMNS, {})
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def built(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    report, new = warm_start.warm_start(folder, SIGNED_SUMS, data, TINY)
    assert new
    return folder, report


@pytest.fixture
def tokenizer():
    return small_model.make_tokenizer()


@pytest.fixture
def model(tokenizer):
    return small_model.make_model(TINY, tokenizer, TINY.seed).eval()


def test_every_character_is_one_token_and_comes_back(tokenizer):
    ids = tokenizer.encode(SIGNED_SUMS.alphabet)
    assert len(ids) == len(set(ids)) == len(SIGNED_SUMS.alphabet)
    assert max(ids) == len(tokenizer) - 1
    assert tokenizer.decode(ids) == SIGNED_SUMS.alphabet
    assert len(tokenizer.encode("\n")) == 1
    assert tokenizer.encode("9x+") == tokenizer.encode("9+")


def test_the_end_token_is_not_shown_as_text(tokenizer):
    ids = tokenizer.encode("9+7=16" + small_model.END)
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == "9+7=16"


def test_the_saved_folder_loads_by_the_auto_classes(built):
    folder, report = built
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.model_type == "qwen2"
    assert model.config.vocab_size == len(tokenizer) == model.get_input_embeddings().num_embeddings
    assert model.dtype == torch.float32
    assert report["parameters"] == model.num_parameters()
    assert tokenizer.encode(SIGNED_SUMS.alphabet) == small_model.make_tokenizer().encode(
        SIGNED_SUMS.alphabet
    )
    ids = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert len(set(ids)) == 3
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "7+2"}], add_generation_prompt=True, tokenize=False
    )
    assert text == "<|im_start|>user\n7+2<|im_end|>\n<|im_start|>assistant\n"
    # roles and special tokens are one token each
    assert len(tokenizer.encode(text)) == 11


def test_verls_message_builder_takes_the_tokenizer(built):
    continuous_token = pytest.importorskip("verl.utils.tokenizer.continuous_token")
    tokenizer = AutoTokenizer.from_pretrained(built[0])
    continuous_token.QwenContinuousTokenBuilder(tokenizer)


def test_the_default_model_has_about_a_million_parameters(tokenizer):
    settings = warm_start.Settings()
    model = small_model.make_model(settings, tokenizer, settings.seed)
    assert 0.9e6 < model.num_parameters() < 1.2e6
    assert settings.hidden_size // settings.heads in (32, 64)  # sizes that vLLM has on CPUs
    assert settings.heads % 2 == 0  # can be split over two ranks


def test_only_the_solution_and_its_end_are_trained(tokenizer):
    problems = SIGNED_SUMS.splits(0, 12, 6)[0]
    ids, labels = next(warm_start.batches(problems, tokenizer, TINY))
    assert ids.shape == labels.shape
    for row, target in zip(ids, labels, strict=True):
        trained = target != -100
        assert torch.equal(row[trained], target[trained])
        text = tokenizer.decode(row)
        prompt, _, _ = text.partition("<|im_start|>assistant\n")
        terms = signed_sums.parse(
            prompt.removeprefix("<|im_start|>user\n").removesuffix("<|im_end|>\n")
        )
        solution = tokenizer.decode(target[trained])
        assert solution.endswith("<|im_end|>")
        assert "<|im_start|>" not in solution
        assert signed_sums.final_answer(solution.removesuffix("<|im_end|>")) == str(sum(terms))


def test_sampling_with_the_cache_has_the_entropies_of_one_plain_pass(model, tokenizer):
    problems = [signed_sums.draw(level, random.Random(level)) for level in signed_sums.LEVELS]
    prompts = [small_model.prompt_ids(tokenizer, problem) for problem in problems]
    end = tokenizer.eos_token_id
    out = sample(model, prompts, 6, end, torch.Generator().manual_seed(0))
    assert out.tokens_BT.shape == out.entropies_BT.shape == out.mask_BT.shape
    for prompt, tokens, entropies, mask in zip(prompts, *out, strict=True):
        tokens = tokens[mask]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + tokens.tolist()])).logits[0, len(prompt) - 1 : -1]
        plain = torch.distributions.Categorical(logits=logits).entropy()
        torch.testing.assert_close(entropies[mask], plain, atol=1e-5, rtol=0)
        # the mask ends with the end token, or with the last token allowed
        assert (tokens[:-1] != end).all()
        assert tokens[-1] == end or len(tokens) == 6


def test_measure_on_a_model_that_knows_the_answers(monkeypatch, tokenizer, model):
    """Level 1 is always solved, level 2 in every other sample, level 3 never: rate 0.5."""
    problems = [signed_sums.Problem(level, (level, 4)) for level in (1, 2, 3)]

    def fake(model, prompts, max_tokens, end, generator):
        answers = ["5", "5", "6", "0", "1", "1"]  # correct: 5, 6, 7
        tokens = torch.tensor([[*tokenizer.encode(answer), end] for answer in answers])
        return Samples(tokens, torch.full(tokens.shape, 0.25), torch.ones_like(tokens).bool())

    monkeypatch.setattr(solving, "sample", fake)
    report = solving.measure(model, tokenizer, problems, samples=2, seed=0, max_tokens=9)
    assert report["pass_rate"] == 0.5
    assert report["pass_rate_by_level"] == {"1": 1.0, "2": 0.5, "3": 0.0}
    assert report["never_solved"] == report["always_solved"] == pytest.approx(1 / 3)
    assert report["entropy"] == 0.25
    assert report["response_length"] == 2


def test_training_stops_at_the_target_and_holds_problems_back(monkeypatch, tokenizer, model):
    rates = iter([0.1, 0.4])
    asked = []

    def fake(model, tokenizer, problems, samples, seed, max_tokens):
        asked.append(problems)
        return {"pass_rate": next(rates)}

    monkeypatch.setattr(warm_start, "measure", fake)
    problems = SIGNED_SUMS.splits(0, 24, 6)[0]
    settings = replace(TINY, steps=10, target=0.35)
    # looked at after steps 2 and 3, reached at 3
    assert warm_start.train(model, tokenizer, SIGNED_SUMS, problems, settings) == 3
    rest, held_out = warm_start.hold_out(problems, TINY.check_problems)
    assert asked[0] == held_out == problems[:6]
    assert rest == problems[6:]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(data, built, tmp_path):
    folder, report = built
    again, _ = warm_start.warm_start(tmp_path / "again", SIGNED_SUMS, data, TINY)
    assert again == report
    assert build_cache.hashes(tmp_path / "again") == build_cache.hashes(folder)
    warm_start.warm_start(tmp_path / "other", SIGNED_SUMS, data, replace(TINY, seed=1))
    weights = [build_cache.sha256(f / "model.safetensors") for f in (folder, tmp_path / "other")]
    assert weights[0] != weights[1]


def never(*_):
    raise AssertionError("built, although a sound folder was there")


def test_a_finished_folder_is_used_again(built, data, monkeypatch):
    folder, report = built
    monkeypatch.setattr(warm_start, "make", never)
    assert warm_start.warm_start(folder, SIGNED_SUMS, data, TINY) == (report, False)


@pytest.mark.parametrize("change", ["settings", "data", "force"])
def test_other_settings_other_data_or_force_build_again(built, data, tmp_path, monkeypatch, change):
    folder, _ = built
    settings = replace(TINY, steps=4) if change == "settings" else TINY
    source = write_data(tmp_path / "data", train_size=54) if change == "data" else data
    monkeypatch.setattr(warm_start, "make", never)
    with pytest.raises(AssertionError, match="although"):
        warm_start.warm_start(folder, SIGNED_SUMS, source, settings, force=change == "force")
    # the failed build left the sound folder and nothing else
    assert build_cache.read(folder, {}) is None
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    monkeypatch.undo()
    assert warm_start.warm_start(folder, SIGNED_SUMS, data, TINY)[1] is False


@pytest.mark.parametrize("damage", ["cut", "deleted", "manifest"])
def test_a_damaged_folder_is_built_again(data, tmp_path, damage):
    folder = tmp_path / "tiny"
    report, _ = warm_start.warm_start(folder, SIGNED_SUMS, data, TINY)
    sound = build_cache.hashes(folder)
    weights = folder / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "deleted":
        (folder / "tokenizer.json").unlink()
    else:
        (folder / build_cache.MANIFEST).write_text('{"key":')
    assert warm_start.warm_start(folder, SIGNED_SUMS, data, TINY) == (report, True)
    assert build_cache.hashes(folder) == sound


def test_a_folder_of_somebody_else_is_never_replaced(data, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="was not written by this command: choose another"):
        warm_start.warm_start(tmp_path, SIGNED_SUMS, data, TINY, force=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "1.5"], "target=1.5 must lie between 0 and 1"),
        (["--steps", "0"], "steps=0 must be at least 1"),
        (["--data", "nowhere"], "write it with `python data_prep/arithmetic.py"),
    ],
)
def test_a_wrong_setting_ends_in_one_sentence(
    data, tmp_path, capsys, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert warm_start.main(["--out", "model", "--data", str(data), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_too_few_problems_are_an_error(tmp_path):
    data = write_data(tmp_path / "data", train_size=6)
    with pytest.raises(ValueError, match="too few to keep 1 of each level back"):
        warm_start.warm_start(tmp_path / "model", SIGNED_SUMS, data, TINY)
    assert not (tmp_path / "model").exists()


def test_the_summary_warns_of_a_start_that_is_too_strong_or_too_weak(built):
    _, report = built
    assert "warning: the pass rate is not between 0.2 and 0.5" in warm_start.summary(
        report | {"pass_rate": 0.1}, SIGNED_SUMS
    )
    assert "warning" not in warm_start.summary(report | {"pass_rate": 0.3}, SIGNED_SUMS)
