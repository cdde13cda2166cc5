"""Which model a checkpoint is: found, merged from its shards, or refused.

The shards are torch's own, of tiny models; those of a real run are in tests/e2e.
"""

import json
import os
import threading
import time
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AutoModelForCausalLM

from recipe.cpu.model import ModelShape, make_model, make_tokenizer
from recipe.sampling import shards
from recipe.sampling.checkpoints import main, model_of

INDEX = "model.safetensors.index.json"
SHAPE = ModelShape(layers=2, hidden_size=32, heads=2, mlp_size=32)


def write_shards(actor, size, state, ranks=None):
    for rank in range(size) if ranks is None else ranks:
        torch.save(state, actor / f"model_world_size_{size}_rank_{rank}.pt")
    (actor / "fsdp_config.json").write_text(json.dumps({"world_size": size}))


@pytest.fixture
def actor(tmp_path):
    """actor/ of step 7 of a run, with the config and tokenizer that verl writes, and no weights."""
    folder = tmp_path / "run/global_step_7/actor"
    (folder / "huggingface").mkdir(parents=True)
    (tmp_path / "run/latest_checkpointed_iteration.txt").write_text("7")
    return folder


@pytest.fixture
def trained(actor):
    """A model in float32; its config and tokenizer are the checkpoint's."""
    tokenizer = make_tokenizer()
    model = make_model(SHAPE, tokenizer, seed=0)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(actor / "huggingface")
    tokenizer.save_pretrained(actor / "huggingface")
    return model.eval()


def weights_of(folder):
    return load_file(Path(folder) / "model.safetensors")


def test_a_checkpoint_is_found_and_is_its_shards_to_the_last_bit(actor, trained):
    """Beside them, once; verl's merger would round the weights to bfloat16."""
    run, merged = actor.parents[1], str(actor / "merged")
    with pytest.raises(ValueError, match="holds no trained model"):
        model_of(str(run))
    write_shards(actor, 1, trained.state_dict())
    for folder in (run, actor.parent, actor):
        assert model_of(str(folder)) == (merged, actor.parent)
    made = weights_of(merged)
    assert made.keys() == trained.state_dict().keys()
    assert all(torch.equal(made[name], weight) for name, weight in trained.state_dict().items())
    assert not torch.equal(made["lm_head.weight"], made["lm_head.weight"].bfloat16().float())
    torch.testing.assert_close(log_probs(loaded(merged)), log_probs(trained), atol=0, rtol=0)
    assert (actor / "merged/tokenizer.json").is_file() and not list(actor.glob(".merged*"))
    # whoever may read the checkpoint may read it
    assert Path(merged).stat().st_mode == (actor / "huggingface").stat().st_mode
    assert model_of(str(actor / "huggingface")) == (merged, actor / "huggingface")
    assert model_of("Qwen/Qwen3-4B") == ("Qwen/Qwen3-4B", None)


def test_shards_of_several_ranks_are_joined(actor, trained):
    """Split on the first axis as FSDP does; 1,111 rows are no multiple of the ranks."""
    state = trained.state_dict() | {"lm_head.weight": torch.randn_like(trained.lm_head.weight)}
    for rank in range(3):
        torch.distributed.init_process_group("fake", rank=rank, world_size=3, store=FakeStore())
        try:
            mesh = init_device_mesh("cpu", (3,), mesh_dim_names=("fsdp",))
            parts = {name: weight.chunk(3) for name, weight in state.items()}
            local = {
                name: DTensor.from_local(
                    (part[rank] if rank < len(part) else part[0][:0]).clone(),
                    mesh,
                    [Shard(0)],
                    shape=state[name].shape,
                    stride=state[name].stride(),
                )
                for name, part in parts.items()
            }
            write_shards(actor, 3, local, ranks=[rank])
        finally:
            torch.distributed.destroy_process_group()
    made = weights_of(model_of(str(actor))[0])
    assert all(torch.equal(made[name], weight) for name, weight in state.items())


def test_tied_weights_are_merged_tied(actor, trained):
    trained.config.tie_word_embeddings = True
    trained.tie_weights()
    trained.config.save_pretrained(actor / "huggingface")
    write_shards(actor, 1, trained.state_dict())
    merged = loaded(model_of(str(actor))[0])
    assert merged.lm_head.weight is merged.model.embed_tokens.weight
    torch.testing.assert_close(log_probs(merged), log_probs(trained), atol=0, rtol=0)


def test_shards_in_bfloat16_stay_so(actor, trained):
    write_shards(actor, 1, trained.bfloat16().state_dict())
    assert {w.dtype for w in weights_of(model_of(str(actor))[0]).values()} == {torch.bfloat16}


def test_shards_of_another_model_are_refused(actor, trained):
    state = trained.state_dict()
    write_shards(actor, 1, {name: w for name, w in state.items() if "layers.1" not in name})
    with pytest.raises(ValueError, match=r"not of the model of .*json, as model\.layers\.1"):
        model_of(str(actor))
    assert not list(actor.glob("*merged*"))


def test_shards_hold_no_code(actor, trained):
    """They may be anyone's: what is no tensor is not made."""
    torch.save(trained.state_dict() | {"x": Path("x")}, actor / "model_world_size_1_rank_0.pt")
    (actor / "fsdp_config.json").write_text('{"world_size": 1}')
    with pytest.raises(ValueError, match="hold more than tensors, which is not read"):
        model_of(str(actor))


def test_a_copy_that_differs_between_ranks_is_refused(actor, trained):
    state = trained.state_dict()
    write_shards(actor, 2, state)
    changed = state | {"lm_head.weight": state["lm_head.weight"] + 1}
    write_shards(actor, 2, changed, ranks=[1])
    with pytest.raises(ValueError, match=r"lm_head\.weight is whole .* differs between ranks"):
        model_of(str(actor))


def test_the_policy_stays_where_its_shards_are_removed(actor, trained):
    """As docs/cluster.md does once all runs are evaluated."""
    write_shards(actor, 1, trained.state_dict())
    merged = model_of(str(actor))[0]
    (actor / "model_world_size_1_rank_0.pt").unlink()
    for folder in (actor.parents[1], actor.parent, actor):
        assert model_of(str(folder))[0] == merged


def test_two_commands_merge_once(actor, trained, monkeypatch):
    """The second waits for the first, whose model it then takes."""
    write_shards(actor, 1, trained.state_dict())
    merge, calls, done = shards.merge, [], []

    def slow(*arguments):
        calls.append(arguments)
        time.sleep(0.3)
        merge(*arguments)

    monkeypatch.setattr(shards, "merge", slow)
    first = threading.Thread(target=lambda: done.append(model_of(str(actor))))
    first.start()
    done.append(model_of(str(actor)))
    first.join()
    assert len(calls) == 1 and done[0] == done[1]


def test_weights_that_are_cut_off_are_merged_again(actor, trained):
    write_shards(actor, 1, trained.state_dict())
    file = Path(model_of(str(actor))[0]) / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    model_of(str(actor))
    assert file.read_bytes() == whole
    file.unlink()
    files = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (file.parent / INDEX).write_text(json.dumps({"weight_map": files}))
    model_of(str(actor))
    assert file.read_bytes() == whole and not (file.parent / INDEX).exists()


def test_weights_older_than_the_shards_are_merged_again(actor, trained):
    """A run that was started from an earlier step writes its shards into the same folder. What
    verl has saved as a model (hf_model) is taken where it is not older."""
    write_shards(actor, 1, trained.state_dict())
    shard = actor / "model_world_size_1_rank_0.pt"
    saved, merged = actor / "huggingface", actor / "merged/model.safetensors"
    trained.save_pretrained(saved)
    assert model_of(str(actor))[0] == str(saved)
    for file in (saved / "model.safetensors", merged):
        later = file.stat().st_mtime_ns + 1
        os.utime(shard, ns=(later, later))
        first = merged.stat().st_ino if merged.exists() else 0
        assert model_of(str(saved))[0] == str(actor / "merged")
        assert merged.stat().st_ino != first
    first = merged.stat().st_ino
    model_of(str(saved))
    assert merged.stat().st_ino == first


def test_shards_of_another_world_size_are_not_counted(actor, trained):
    state = trained.state_dict()
    write_shards(actor, 4, state)
    write_shards(actor, 2, state)  # the last save's
    model_of(str(actor))
    (actor / "model_world_size_2_rank_1.pt").unlink()
    with pytest.raises(ValueError, match=r"lacks 1 of its 2 FSDP shards \(model_world_size_2_rank"):
        model_of(str(actor))
    (actor / "fsdp_config.json").unlink()
    with pytest.raises(ValueError, match=r"no readable fsdp_config\.json"):
        model_of(str(actor))


def test_a_checkpoint_whose_save_was_cut_off_is_refused(actor, trained):
    cut = actor.parents[1] / "global_step_8/actor"
    cut.parent.mkdir()
    actor.rename(cut)
    write_shards(cut, 1, trained.state_dict())
    with pytest.raises(ValueError, match="last complete checkpoint, which is of step 7"):
        model_of(str(cut.parent))
    (cut.parents[1] / "latest_checkpointed_iteration.txt").write_text("8")
    assert model_of(str(cut.parent))[0] == str(cut / "merged")


# ---- LoRA ----------------------------------------------------------------------------------------


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def policy(request, actor):
    """A model with a trained adapter, as verl saves it on one rank."""
    tokenizer = make_tokenizer()
    model = make_model(SHAPE, tokenizer, seed=0)
    model.config.architectures = [type(model).__name__]
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
    write_shards(actor, 1, model.state_dict())
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
    assert folder == str(actor / "merged")
    torch.testing.assert_close(log_probs(loaded(folder)), log_probs(policy), atol=1e-5, rtol=0)
    with policy.disable_adapter():
        assert (log_probs(loaded(folder)) - log_probs(policy)).abs().max() > 0.1
    assert (actor / "merged/tokenizer.json").is_file()
    assert not list(actor.glob(".merged.*"))


def test_verl_s_exports_beside_the_shards_are_not_taken_for_the_policy(actor, policy):
    """hf_model has PEFT's names; the merger's folder has the base's weights and the adapter."""
    model = actor / "huggingface"
    save_file(
        {name: w.clone() for name, w in policy.state_dict().items()}, model / "model.safetensors"
    )
    for asked in (actor.parent, model):
        assert model_of(str(asked))[0] == str(actor / "merged")
    policy.unload().save_pretrained(model)
    (model / "lora_adapter").mkdir()
    assert model_of(str(model))[0] == str(actor / "merged")
    elsewhere = actor.parents[2] / "copied"
    model.rename(elsewhere)
    with pytest.raises(ValueError, match=r"copied is of a LoRA run and its weights are not the tr"):
        model_of(str(elsewhere))


def test_a_merged_adapter_is_kept_until_the_shards_are_newer(actor, policy):
    merged = Path(model_of(str(actor))[0])
    first = merged.stat().st_ino
    assert Path(model_of(str(actor))[0]).stat().st_ino == first
    state = {k: w + 0.1 if "lora_B" in k else w for k, w in policy.state_dict().items()}
    write_shards(actor, 1, state)
    assert Path(model_of(str(actor))[0]).stat().st_ino != first
    policy.load_state_dict(state)
    torch.testing.assert_close(log_probs(loaded(merged)), log_probs(policy), atol=1e-5, rtol=0)


def test_an_adapter_that_cannot_be_merged_is_refused_in_a_sentence(actor, policy):
    state = policy.state_dict()
    alone = {name: weight for name, weight in state.items() if ".lora_" in name}
    write_shards(actor, 1, alone)  # save_lora_only=true
    with pytest.raises(ValueError, match=r"save_lora_only=false"):
        model_of(str(actor))
    dora = state | {f"{min(alone)}.lora_magnitude_vector": torch.zeros(1)}
    write_shards(actor, 1, dora)
    with pytest.raises(ValueError, match="only plain LoRA can be merged"):
        model_of(str(actor))
    write_shards(actor, 1, state)
    save_file(
        {name: w.clone() for name, w in state.items()}, actor / "huggingface/model.safetensors"
    )
    (actor / "lora_train_meta.json").unlink()
    with pytest.raises(ValueError, match=r"no readable lora_train_meta\.json"):
        model_of(str(actor))
    (actor / "model_world_size_1_rank_0.pt").unlink()
    with pytest.raises(ValueError, match="holds no FSDP shards"):
        model_of(str(actor))
    assert not (actor / "merged").exists() and not list(actor.glob(".merged.*"))


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
    write_shards(actor, 1, policy.state_dict())
    with pytest.raises(ValueError, match=r"lora_adapter_path=.*first, which has no adapter_config"):
        model_of(str(actor))
