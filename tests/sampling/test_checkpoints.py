"""Which model a checkpoint is: found, merged anew, or refused.

verl's merger is a stand-in here; real shards of a real run are in tests/e2e.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from recipe.cpu.model import ModelShape, make_model, make_tokenizer
from recipe.sampling import checkpoints
from recipe.sampling.checkpoints import main, model_of

INDEX = "model.safetensors.index.json"
WEIGHT = {"weight": torch.zeros(1)}


def write_shards(actor, size, ranks=None, state=WEIGHT):
    for rank in range(size) if ranks is None else ranks:
        torch.save(state, actor / f"model_world_size_{size}_rank_{rank}.pt")
    (actor / "fsdp_config.json").write_text(json.dumps({"world_size": size}))


@pytest.fixture
def actor(tmp_path):
    """actor/ of step 7 of a run, with the config and tokenizer that verl writes, and no weights."""
    folder = tmp_path / "run/global_step_7/actor"
    (folder / "huggingface").mkdir(parents=True)
    (folder / "huggingface/config.json").write_text("{}")
    (tmp_path / "run/latest_checkpointed_iteration.txt").write_text("7")
    return folder


@pytest.fixture
def merged(monkeypatch):
    """What was merged, by a merger that writes a weight."""
    calls = []

    def merge(actor, model):
        calls.append(actor)
        save_file(WEIGHT, model / "model.safetensors")

    monkeypatch.setattr(checkpoints, "merge", merge)
    return calls


def test_checkpoints_are_found_and_merged_once(actor, merged):
    run, model = actor.parents[1], str(actor / "huggingface")
    with pytest.raises(ValueError, match="holds no trained model"):
        model_of(str(run))
    write_shards(actor, 1)
    for folder in (run, actor.parent, actor):
        assert model_of(str(folder)) == (model, actor.parent)
    assert merged == [actor]
    assert model_of(model) == (model, actor / "huggingface")
    assert model_of("Qwen/Qwen3-4B") == ("Qwen/Qwen3-4B", None)


def test_weights_that_are_cut_off_are_merged_again(actor, merged):
    write_shards(actor, 1)
    model = actor / "huggingface"
    save_file(WEIGHT, model / "model-00001-of-00002.safetensors")  # a merge that was killed
    model_of(str(actor))
    assert len(merged) == 1
    whole = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(whole[:-1])
    model_of(str(actor))
    (model / "model.safetensors").unlink()
    files = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (model / INDEX).write_text(json.dumps({"weight_map": files}))
    model_of(str(actor))
    assert len(merged) == 3
    (model / "model.safetensors").unlink()
    save_file(WEIGHT, model / "model-00002-of-00002.safetensors")
    model_of(str(actor))
    assert len(merged) == 3


def test_weights_older_than_the_shards_are_merged_again(actor, merged):
    """A run that was started from an earlier step writes its shards into the same folder."""
    write_shards(actor, 1)
    model_of(str(actor))
    later = (actor / "huggingface/model.safetensors").stat().st_mtime_ns + 1
    os.utime(actor / "model_world_size_1_rank_0.pt", ns=(later, later))
    model_of(str(actor / "huggingface"))
    assert len(merged) == 2


def test_shards_of_another_world_size_are_not_counted(actor, merged):
    write_shards(actor, 4)
    write_shards(actor, 2)  # the last save's
    model_of(str(actor))
    (actor / "model_world_size_2_rank_1.pt").unlink()
    with pytest.raises(ValueError, match=r"lacks 1 of its 2 FSDP shards \(model_world_size_2_rank"):
        model_of(str(actor))
    (actor / "fsdp_config.json").unlink()
    with pytest.raises(ValueError, match=r"no readable fsdp_config\.json"):
        model_of(str(actor))


def test_a_checkpoint_whose_save_was_cut_off_is_refused(actor, merged):
    cut = actor.parents[1] / "global_step_8/actor"
    (cut / "huggingface").mkdir(parents=True)
    write_shards(cut, 1)
    with pytest.raises(ValueError, match="last complete checkpoint, which is of step 7"):
        model_of(str(cut.parent))
    (actor.parents[1] / "latest_checkpointed_iteration.txt").write_text("8")
    assert model_of(str(cut.parent))[0] == str(cut / "huggingface")


def test_merged_weights_appear_last_and_no_old_ones_stay(actor, monkeypatch):
    model = actor / "huggingface"
    save_file(WEIGHT, model / "model.safetensors")

    def fake_merger(command, **_):
        target = Path(command[command.index("--target_dir") + 1])
        target.mkdir()
        save_file(WEIGHT, target / "model-1-of-1.safetensors")
        (target / "config.json").write_text("{}")
        (target / INDEX).write_text(
            json.dumps({"weight_map": {"weight": "model-1-of-1.safetensors"}})
        )
        return subprocess.CompletedProcess(command, 0, "", "")

    moved = []
    replace = Path.replace
    monkeypatch.setattr(checkpoints.subprocess, "run", fake_merger)
    monkeypatch.setattr(Path, "replace", lambda a, b: moved.append(b.name) or replace(a, b))
    checkpoints.merge(actor, model)
    assert moved[-1] == INDEX and len(moved) == 3
    assert [path.name for path in actor.iterdir()] == ["huggingface"]
    assert not (model / "model.safetensors").exists()


# ---- LoRA ----------------------------------------------------------------------------------------


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def policy(request, actor):
    """A model with a trained adapter, as verl saves it on one rank."""
    tokenizer = make_tokenizer()
    shape = ModelShape(layers=2, hidden_size=32, heads=2, mlp_size=32)
    model = make_model(shape, tokenizer, seed=0)
    if request.param:
        model.config.tie_word_embeddings = True
        model.tie_weights()
    model.config.save_pretrained(actor / "huggingface")
    tokenizer.save_pretrained(actor / "huggingface")
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=12, target_modules="all-linear"))
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    write_shards(actor, 1, state=model.state_dict())
    (actor / "lora_train_meta.json").write_text(json.dumps({"r": 4, "lora_alpha": 12}))
    return model.eval()


def log_probs(model):
    with torch.no_grad():
        return torch.log_softmax(model(input_ids=torch.arange(3, 15)[None]).logits, -1)


def loaded(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def test_a_lora_checkpoint_is_its_base_with_the_adapter(actor, policy, capsys):
    """Log-probs within 1e-5: x (W + s B A) and x W + s x B A round differently in float32."""
    assert main([str(actor.parents[1])]) == 0
    folder = capsys.readouterr().out.strip()
    assert folder == str(actor / "lora_merged")
    torch.testing.assert_close(log_probs(loaded(folder)), log_probs(policy), atol=1e-5, rtol=0)
    with policy.disable_adapter():
        assert (log_probs(loaded(folder)) - log_probs(policy)).abs().max() > 0.1
    assert (actor / "lora_merged/tokenizer.json").is_file()
    assert not list(actor.glob(".*"))


def test_verl_s_exports_beside_the_shards_are_not_taken_for_the_policy(actor, policy):
    """hf_model has PEFT's names; the merger's folder has the base's weights and the adapter."""
    model = actor / "huggingface"
    save_file(
        {name: w.clone() for name, w in policy.state_dict().items()}, model / "model.safetensors"
    )
    for asked in (actor.parent, model):
        assert model_of(str(asked))[0] == str(actor / "lora_merged")
    policy.unload().save_pretrained(model)
    (model / "lora_adapter").mkdir()
    assert model_of(str(model))[0] == str(actor / "lora_merged")
    elsewhere = actor.parents[2] / "copied"
    model.rename(elsewhere)
    with pytest.raises(ValueError, match=r"copied is of a LoRA run and its weights are not the tr"):
        model_of(str(elsewhere))


def test_a_merged_adapter_is_kept_until_the_shards_are_newer(actor, policy):
    merged = Path(model_of(str(actor))[0])
    first = merged.stat().st_ino
    assert Path(model_of(str(actor))[0]).stat().st_ino == first
    state = {k: w + 0.1 if "lora_B" in k else w for k, w in policy.state_dict().items()}
    write_shards(actor, 1, state=state)
    assert Path(model_of(str(actor))[0]).stat().st_ino != first
    policy.load_state_dict(state)
    torch.testing.assert_close(log_probs(loaded(merged)), log_probs(policy), atol=1e-5, rtol=0)


def test_an_adapter_that_cannot_be_merged_is_refused_in_a_sentence(actor, policy):
    state = policy.state_dict()
    alone = {name: weight for name, weight in state.items() if ".lora_" in name}
    write_shards(actor, 1, state=alone)  # save_lora_only=true
    with pytest.raises(ValueError, match=r"save_lora_only=false"):
        model_of(str(actor))
    dora = state | {f"{min(alone)}.lora_magnitude_vector": torch.zeros(1)}
    write_shards(actor, 1, state=dora)
    with pytest.raises(ValueError, match="only plain LoRA can be merged"):
        model_of(str(actor))
    write_shards(actor, 1, state=state)
    save_file(
        {name: w.clone() for name, w in state.items()}, actor / "huggingface/model.safetensors"
    )
    (actor / "lora_train_meta.json").unlink()
    with pytest.raises(ValueError, match=r"no readable lora_train_meta\.json"):
        model_of(str(actor))
    (actor / "model_world_size_1_rank_0.pt").unlink()
    with pytest.raises(ValueError, match="holds no FSDP shards"):
        model_of(str(actor))
    assert not (actor / "lora_merged").exists() and not list(actor.glob(".*"))


def test_an_adapter_that_started_from_another_keeps_that_one_s_scale(actor, policy):
    """rslora scales by alpha / sqrt(r), which verl's own file beside the shards does not say."""
    config = policy.peft_config["default"]
    config.use_rslora = True
    config.save_pretrained(actor / "first")
    record = {
        "config": {"actor_rollout_ref": {"model": {"lora_adapter_path": str(actor / "first")}}}
    }
    metrics = actor.parents[1] / "metrics"
    metrics.mkdir()
    (metrics / "000.yaml").write_text(json.dumps(record))
    for layer in policy.modules():
        if isinstance(layer, LoraLayer):
            layer.scaling["default"] = 12 / 4**0.5
    torch.testing.assert_close(
        log_probs(loaded(model_of(str(actor))[0])), log_probs(policy), atol=1e-5, rtol=0
    )
    (actor / "first/adapter_config.json").unlink()
    write_shards(actor, 1, state=policy.state_dict())
    with pytest.raises(ValueError, match=r"lora_adapter_path=.*first, which has no adapter_config"):
        model_of(str(actor))
