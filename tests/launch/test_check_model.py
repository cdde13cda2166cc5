"""What the dry run finds in a model's files, and in how a run is split, before Ray starts."""

import json
from pathlib import Path

import pytest
import ray

pytest.importorskip("verl")

from builders import gpu_config, run_overrides, write_model
from omegaconf import DictConfig, OmegaConf

from recipe.cpu.model import make_tokenizer
from recipe.launch import __main__ as launch
from recipe.launch import check_model, check_sizes, check_values

CONFIGS = Path(__file__).parent / "configs"
NODES = "actor_rollout_ref"
FSDP = f"{NODES}.actor.fsdp_config"
SDPA = {check_sizes.ATTENTION: "sdpa"}
PADDED = {"trainer.v1.recipe_sync.allow_padded_vocab": True}


@pytest.fixture(scope="module")
def gpu() -> DictConfig:
    """The config of a run on 8 GPUs; its model is a name on the hub."""
    return gpu_config("Qwen/Qwen2.5-7B")


def changed(config: DictConfig, changes: dict) -> DictConfig:
    """A copy of a config with some values changed, or added."""
    config = OmegaConf.create(OmegaConf.to_container(config))
    for key, value in changes.items():
        OmegaConf.update(config, key, value, force_add=True)
    return config


def model_folder(folder: Path, name: str) -> dict[str, str]:
    """A published model's config.json in a folder; returns the change that chooses it."""
    (folder / "config.json").write_text((CONFIGS / f"{name}.json").read_text())
    return {f"{NODES}.model.path": str(folder)}


def refused(capsys, arguments: list[str]) -> str:
    assert launch.main(arguments) == 2
    assert not ray.is_initialized()
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    return error


# ---- the model's files ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Qwen2_5_VLConfig", "Qwen3VLConfig", "Gemma3Config"])
def test_a_model_whose_vocabulary_is_that_of_its_text_part(gpu, tmp_path, name):
    import transformers

    hf_config = getattr(transformers, name)(architectures=["AnyModel"])
    assert not hasattr(hf_config, "vocab_size")
    hf_config.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    path = {f"{NODES}.model.path": str(tmp_path)}
    vocabulary = hf_config.get_text_config().vocab_size
    with pytest.raises(ValueError, match=f"has vocab_size {vocabulary}, more than the"):
        check_model.model(changed(gpu, path))
    config = changed(gpu, path | PADDED)
    check_model.model(config)
    heads = hf_config.get_text_config().num_attention_heads
    with pytest.raises(ValueError, match=f"does not divide the model's {heads} attention heads"):
        size = {f"{NODES}.rollout.tensor_model_parallel_size": 3, "trainer.n_gpus_per_node": 3}
        check_sizes.parallel_sizes(changed(config, size))


def test_a_model_that_states_no_vocabulary_or_context_is_not_checked(gpu, tmp_path, capsys):
    from transformers import ViTConfig

    ViTConfig(architectures=["AnyModel"]).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    config = changed(gpu, {f"{NODES}.model.path": str(tmp_path)})
    check_model.model(config)
    check_sizes.lengths(config)
    out = capsys.readouterr().out
    assert "states no vocab_size: its vocabulary is not checked" in out
    assert "states no max_position_embeddings: its context is not checked" in out


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{broken", "has a config.json that transformers cannot read ("),
        ('{"model_type": "nonesuch"}', "cannot read (The checkpoint you are trying to load has"),
        ("[]", "has a config.json that transformers cannot read ("),
    ],
)
def test_a_config_that_cannot_be_read_is_one_sentence(tmp_path, capsys, text, sentence):
    overrides = run_overrides(tmp_path)
    (tmp_path / "model/config.json").write_text(text)
    error = refused(capsys, ["asymgrpo", *overrides, "--dry-run"])
    assert sentence in error
    assert "set MODEL_PATH to a complete checkpoint folder" in error


@pytest.mark.parametrize("names", [None, [], ["Qwen2ForCausalLM", "Qwen2Model"]])
def test_a_config_without_its_one_architecture_is_one_sentence(tmp_path, capsys, names):
    overrides = run_overrides(tmp_path)
    file = tmp_path / "model/config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"architectures": names}))
    error = refused(capsys, ["asymgrpo", *overrides, "--dry-run"])
    assert f"has architectures={names} in its config.json" in error


def test_a_tokenizer_that_cannot_be_read_is_one_sentence(tmp_path, capsys):
    overrides = run_overrides(tmp_path)
    (tmp_path / "model/tokenizer.json").write_text("{broken")
    error = refused(capsys, ["asymgrpo", *overrides, "--dry-run"])
    assert "has a tokenizer that transformers cannot read (" in error


def test_a_model_s_own_code_runs_only_if_it_is_trusted(gpu, tmp_path, monkeypatch):
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "model"
    folder.mkdir()
    auto_map = {"AutoConfig": "configuration_odd.OddConfig"}
    (folder / "config.json").write_text(json.dumps({"model_type": "odd", "auto_map": auto_map}))
    (folder / "configuration_odd.py").write_text(
        "from transformers import PreTrainedConfig\n"
        "class OddConfig(PreTrainedConfig):\n"
        "    model_type = 'odd'\n"
        "    vocab_size = 7\n"
    )
    config = changed(gpu, {f"{NODES}.model.path": str(folder)})
    with pytest.raises(ValueError, match="if you trust its code"):
        check_model.model_config(config)
    assert not (tmp_path / "modules").exists()
    config.actor_rollout_ref.model.trust_remote_code = True
    assert check_model.model_config(config).vocab_size == 7


# ---- the end of a turn ---------------------------------------------------------------------------


@pytest.fixture
def base_model(gpu, tmp_path) -> DictConfig:
    """A config whose model ends a turn of its chat template with a token that is not its end, as
    Qwen2.5's base models do."""
    write_model(tmp_path / "base")
    tokenizer = make_tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.save_pretrained(tmp_path / "base")
    return changed(gpu, {f"{NODES}.model.path": f"{tmp_path}/base"})


END, TURN = make_tokenizer().convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])


def test_a_turn_that_ends_with_a_token_that_ends_no_response_is_said(base_model, capsys):
    generation = Path(base_model.actor_rollout_ref.model.path) / "generation_config.json"
    generation.write_text(json.dumps({"eos_token_id": END}))
    check_model.model(base_model)
    out = capsys.readouterr().out
    assert "ends a chat turn with '<|im_end|>', at which vLLM does not end a response" in out
    assert f"(eos_token_id [{END}])" in out
    assert f"generation_config.json has eos_token_id [{END}, {TURN}]" in out
    generation.write_text(json.dumps({"eos_token_id": [END, TURN]}))  # the cure
    check_model.model(base_model)
    assert "ends a chat turn" not in capsys.readouterr().out


def test_without_generation_config_the_end_is_that_of_the_config(base_model, capsys):
    file = Path(base_model.actor_rollout_ref.model.path) / "config.json"
    check_model.model(base_model)
    assert "ends a chat turn" in capsys.readouterr().out
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": TURN}))
    check_model.model(base_model)
    assert "ends a chat turn" not in capsys.readouterr().out


def test_a_template_that_refuses_an_assistant_s_turn_is_not_checked(base_model, capsys):
    file = Path(base_model.actor_rollout_ref.model.path) / "chat_template.jinja"
    assert file.is_file()
    file.write_text("{{ raise_exception('no assistant here') }}")
    check_model.model(base_model)
    assert "its end of turn is not checked (no assistant here)" in capsys.readouterr().out


# ---- parallel sizes and lengths ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "changes", "sentence"),
    [
        (
            "Qwen2.5-7B",
            {f"{NODES}.rollout.tensor_model_parallel_size": 8},
            "tensor_model_parallel_size=8 does not divide the model's 28 attention heads",
        ),
        (
            "Qwen2.5-7B",
            {f"{NODES}.rollout.tensor_model_parallel_size": 3},
            "tensor_model_parallel_size=3 .times data_parallel_size. does not divide the 8 ranks",
        ),
        (
            "Qwen3-14B",
            {f"{NODES}.rollout.tensor_model_parallel_size": 5, "trainer.n_gpus_per_node": 5},
            "tensor_model_parallel_size=5 and the model's 8 key-value heads do not divide",
        ),
        (
            "DeepSeek-R1-Distill-Qwen-1.5B",
            {f"{NODES}.rollout.tensor_model_parallel_size": 12, "trainer.n_gpus_per_node": 12},
            "tensor_model_parallel_size=12 does not divide the model's intermediate size 8960",
        ),
        (
            "Qwen2.5-7B",
            {f"{FSDP}.ulysses_sequence_parallel_size": 8},
            "ulysses_sequence_parallel_size=8 does not divide the model's 28 attention heads",
        ),
        (
            "Qwen2.5-7B",
            {f"{NODES}.actor.ulysses_sequence_parallel_size": 8},
            "ulysses_sequence_parallel_size=8 does not divide the model's 28 attention heads",
        ),
        (
            "Qwen3-14B",
            {f"{NODES}.ref.fsdp_config.ulysses_sequence_parallel_size": 5},
            "ref.fsdp_config.ulysses_sequence_parallel_size=5 does not divide the 8 ranks",
        ),
        (
            "Qwen3-14B",
            {f"{FSDP}.ulysses_sequence_parallel_size": 5, "trainer.n_gpus_per_node": 10},
            "ulysses_sequence_parallel_size=5 and the model's 8 key-value heads do not divide",
        ),
        ("Qwen3-4B", {f"{FSDP}.fsdp_size": 3}, "fsdp_size=3 does not divide the 8 ranks"),
    ],
)
def test_a_size_that_the_ranks_or_heads_do_not_allow(gpu, tmp_path, model, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_sizes.parallel_sizes(changed(gpu, model_folder(tmp_path, model) | changes))


@pytest.mark.parametrize(
    ("model", "tensor", "sequence", "ranks"),
    [
        ("Qwen2.5-7B", 4, 4, 8),
        ("DeepSeek-R1-Distill-Qwen-1.5B", 4, 4, 4),  # 2 key-value heads are repeated
        ("Qwen3-14B", 8, 8, 8),
        ("Qwen3-4B", 2, 4, 4),  # the two sizes are independent: 2 x 4 > 4 ranks
    ],
)
def test_sizes_that_are_allowed(gpu, tmp_path, model, tensor, sequence, ranks):
    changes = model_folder(tmp_path, model) | {
        f"{NODES}.rollout.tensor_model_parallel_size": tensor,
        f"{FSDP}.ulysses_sequence_parallel_size": sequence,
        "trainer.n_gpus_per_node": ranks,
    }
    check_sizes.parallel_sizes(changed(gpu, changes))


LONG = {
    "data.max_prompt_length": 1024,
    "data.max_response_length": 3072,
    f"{NODES}.rollout.max_model_len": 4096,
}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {f"{NODES}.actor.ppo_max_token_len_per_gpu": 2048},
            "actor.ppo_max_token_len_per_gpu=2048, times the sequence parallel size 1, is less",
        ),
        (
            {f"{NODES}.rollout.log_prob_max_token_len_per_gpu": 4095},
            "rollout.log_prob_max_token_len_per_gpu=4095, times",
        ),
        (
            {
                f"{NODES}.ref.log_prob_max_token_len_per_gpu": 4095,
                f"{NODES}.actor.use_kl_loss": True,
            },
            "ref.log_prob_max_token_len_per_gpu=4095, times",
        ),
        (
            {
                f"{NODES}.actor.use_dynamic_bsz": False,
                f"{NODES}.rollout.log_prob_use_dynamic_bsz": False,
                f"{NODES}.rollout.log_prob_max_token_len_per_gpu": 4095,
                "trainer.v1.recipe_sync.held_out_entropy": True,  # its passes are dynamic
            },
            "rollout.log_prob_max_token_len_per_gpu=4095, times",
        ),
        (
            {"data.max_response_length": 3073, f"{NODES}.rollout.max_model_len": 4097},
            "make sequences of 4097 tokens, more than the model's context .*, 4096",
        ),
        (
            {f"{NODES}.rollout.max_model_len": 4000},
            "make sequences of 4096 tokens, more than rollout.max_model_len=4000",
        ),
        (
            {f"{NODES}.rollout.max_model_len": 8192},
            "max_model_len=8192 is more than the model's max_position_embeddings .4096.",
        ),
        (
            {
                f"{NODES}.rollout.enable_chunked_prefill": False,
                f"{NODES}.rollout.max_num_batched_tokens": 2048,
            },
            "max_num_batched_tokens=2048 is less than rollout.max_model_len=4096 with",
        ),
    ],
)
def test_a_length_that_does_not_fit(gpu, tmp_path, changes, sentence):
    changes = model_folder(tmp_path, "Qwen2.5-Math-7B") | LONG | changes
    with pytest.raises(ValueError, match=sentence):
        check_sizes.lengths(changed(gpu, changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},  # exactly the context
        {
            f"{NODES}.actor.ppo_max_token_len_per_gpu": 1024,
            f"{FSDP}.ulysses_sequence_parallel_size": 4,
        },
        {f"{NODES}.ref.log_prob_max_token_len_per_gpu": 5},  # without a reference
        {
            f"{NODES}.actor.use_dynamic_bsz": False,
            f"{NODES}.rollout.log_prob_use_dynamic_bsz": False,
            f"{NODES}.rollout.log_prob_max_token_len_per_gpu": 5,
        },
        {f"{NODES}.rollout.enable_chunked_prefill": False},  # 8192 batched tokens
        # a longer context that the user gives the model, in verl's way
        {
            "data.max_response_length": 7168,
            f"{NODES}.rollout.max_model_len": 8192,
            f"{NODES}.model.override_config.max_position_embeddings": 8192,
        },
    ],
)
def test_lengths_that_fit(gpu, tmp_path, changes):
    changes = model_folder(tmp_path, "Qwen2.5-Math-7B") | LONG | changes
    config = changed(gpu, changes)
    for key in ("rollout", "ref"):  # as the actor's, unless a case changes it
        node = f"{NODES}.{key}.log_prob_max_token_len_per_gpu"
        if node not in changes:
            OmegaConf.update(config, node, 16384)
    check_sizes.lengths(config)


def test_a_run_s_sequences_end_at_its_prompts_and_responses():
    """Where nothing else is said: verl would take the context, for which vLLM may lack the room."""
    lengths = ["data.max_prompt_length=1024", "data.max_response_length=3072"]
    rollout = gpu_config("some/model", *lengths).actor_rollout_ref.rollout
    assert rollout.max_model_len == rollout.prompt_length + rollout.response_length == 4096
    own = gpu_config("some/model", *lengths, f"{NODES}.rollout.max_model_len=5000")
    assert own.actor_rollout_ref.rollout.max_model_len == 5000


def test_a_model_of_the_hub_is_checked_without_its_files(gpu):
    check_sizes.parallel_sizes(gpu)
    check_sizes.lengths(gpu)


# ---- batches -------------------------------------------------------------------------------------

# 64 prompts x 8 rollouts in mini-batches of 32 x 8, on 8 GPUs
BATCHES = {
    "data.train_batch_size": 64,
    f"{NODES}.actor.ppo_mini_batch_size": 32,
    f"{NODES}.rollout.n": 8,
    f"{NODES}.actor.use_dynamic_bsz": False,
    f"{NODES}.rollout.log_prob_use_dynamic_bsz": False,
    f"{NODES}.ref.log_prob_use_dynamic_bsz": False,
    f"{NODES}.actor.ppo_micro_batch_size_per_gpu": 32,  # of 256 / 8 rows
    f"{NODES}.rollout.log_prob_micro_batch_size_per_gpu": 64,  # of 512 / 8
    f"{NODES}.ref.log_prob_micro_batch_size_per_gpu": 3,  # without a reference it is not read
}
REFERENCE = {f"{NODES}.actor.use_kl_loss": True}
SP = {f"{FSDP}.ulysses_sequence_parallel_size": 4}  # 2 ranks have rows of their own


@pytest.mark.parametrize(
    "changes",
    [
        {},
        SP
        | {
            f"{NODES}.actor.ppo_micro_batch_size_per_gpu": 128,
            f"{NODES}.rollout.log_prob_micro_batch_size_per_gpu": 256,
        },
        REFERENCE | {f"{NODES}.ref.log_prob_micro_batch_size_per_gpu": 64},
        REFERENCE
        | {
            f"{NODES}.ref.fsdp_config.ulysses_sequence_parallel_size": 4,
            f"{NODES}.ref.log_prob_micro_batch_size_per_gpu": 256,
        },
        REFERENCE | {f"{NODES}.model.lora_rank": 8},  # it is the actor without its adapter
        # 3 x 4 rollouts on 2 ranks, which 8 do not divide
        SP
        | {"data.train_batch_size": 3, f"{NODES}.actor.ppo_mini_batch_size": 3}
        | {f"{NODES}.rollout.n": 4, f"{NODES}.actor.use_dynamic_bsz": True}
        | {f"{NODES}.rollout.log_prob_use_dynamic_bsz": True},
    ],
)
def test_batches_that_can_be_split(gpu, changes):
    check_values.batches(changed(gpu, BATCHES | changes))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {f"{NODES}.actor.ppo_micro_batch_size_per_gpu": 3},
            "actor.ppo_micro_batch_size_per_gpu=3 does not divide the 32 rollouts of a rank in a",
        ),
        (
            {f"{NODES}.rollout.log_prob_micro_batch_size_per_gpu": 128},
            "rollout.log_prob_micro_batch_size_per_gpu=128 does not divide the 64 rollouts of a ra",
        ),
        (
            SP | {f"{NODES}.rollout.log_prob_micro_batch_size_per_gpu": 512},
            "=512 does not divide the 256 rollouts of a rank: change it, or set",
        ),
        (
            REFERENCE,
            "ref.log_prob_micro_batch_size_per_gpu=3 does not divide the 64 rollouts of a rank",
        ),
        (
            {f"{NODES}.actor.ppo_micro_batch_size_per_gpu": None},
            "ppo_micro_batch_size_per_gpu=null is not allowed without dynamic batches",
        ),
        (
            {f"{NODES}.rollout.log_prob_use_dynamic_bsz": True},
            "log_prob_use_dynamic_bsz=True is not .*use_dynamic_bsz=False, which verl refuses",
        ),
        (
            {"data.train_batch_size": 3, f"{NODES}.actor.ppo_mini_batch_size": 3}
            | {f"{NODES}.rollout.n": 5},
            "ppo_mini_batch_size=3 times rollout.n=5 is not a multiple of the 8 ranks",
        ),
    ],
)
def test_a_batch_that_cannot_be_split_is_refused(gpu, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_values.batches(changed(gpu, BATCHES | changes))


# ---- attention -----------------------------------------------------------------------------------


@pytest.mark.parametrize("worker", ["actor", "ref"])
def test_another_attention_with_sequence_parallelism_is_refused(gpu, worker):
    sp = {f"{NODES}.{worker}.fsdp_config.ulysses_sequence_parallel_size": 4}
    fused = {f"{NODES}.model.use_fused_kernels": True}
    with pytest.raises(ValueError, match="=4 would attend to a part of each sequence only"):
        check_sizes.attention(changed(gpu, SDPA | sp | fused))
    check_sizes.attention(changed(gpu, sp))


def test_another_attention_in_bfloat16_wants_fused_kernels(gpu, monkeypatch):
    monkeypatch.setattr(check_sizes, "installed", lambda name: False)
    with pytest.raises(ValueError, match="use_fused_kernels=true"):
        check_sizes.attention(changed(gpu, SDPA))
    check_sizes.attention(changed(gpu, SDPA | {f"{NODES}.model.use_fused_kernels": True}))
    check_sizes.attention(changed(gpu, SDPA | {f"{FSDP}.mixed_precision": {"param_dtype": "fp32"}}))
    monkeypatch.setattr(check_sizes, "installed", lambda name: True)
    check_sizes.attention(changed(gpu, SDPA))  # log-probs by flash-attn's cross-entropy


def test_verl_still_computes_another_attention_as_the_check_says():
    """Sequence parallelism patches flash-attn alone, and log-probs fall back without it."""
    import inspect

    from verl.models.transformers import monkey_patch
    from verl.utils import torch_functional
    from verl.workers.config import HFModelConfig

    source = inspect.getsource(monkey_patch.apply_monkey_patch)
    assert "flash_attention._flash_attention_forward = _ulysses_flash_attention_forward" in source
    assert "sdpa_attention" not in source
    fallback = inspect.getsource(torch_functional.logprobs_from_logits)
    assert "logprobs_from_logits_v2(logits, labels)" in fallback
    assert '"attn_implementation", "flash_attention_2"' in inspect.getsource(HFModelConfig)


@pytest.fixture
def gpu_command(tmp_path) -> list[str]:
    """The command line of a run on a GPU, with all its files."""
    overrides = [word for word in run_overrides(tmp_path) if word != "machine=cpu"]
    more = ["trainer.n_gpus_per_node=1", f"{NODES}.rollout.tensor_model_parallel_size=1"]
    return ["asymgrpo", *overrides, *more, f"{NODES}.actor.use_dynamic_bsz=true"]


@pytest.fixture
def without_flash_attention(monkeypatch):
    """A machine without flash-attn and without a GPU, as this one is."""
    import transformers.utils

    monkeypatch.setattr(check_sizes, "installed", lambda name: False)
    monkeypatch.setattr(transformers.utils, "is_kernels_available", lambda: False)
    monkeypatch.setattr(launch.machine, "torch_device", lambda: "cpu")
    # a run that is not refused would start Ray
    started = "verl.trainer.main_ppo.run_ppo"
    monkeypatch.setattr(started, lambda *_, **__: pytest.fail("the run was started"))
    return monkeypatch


def test_a_dry_run_without_flash_attention_says_so_beside_its_verdict(
    gpu_command, without_flash_attention, capsys
):
    assert launch.main([*gpu_command, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "the config is valid, but it cannot run here: flash_attn is not installed" in out
    assert f"+{check_sizes.ATTENTION}=sdpa" in out


def test_a_run_without_flash_attention_is_refused(gpu_command, without_flash_attention, capsys):
    assert "flash_attn is not installed in this environment" in refused(capsys, gpu_command)


def test_a_dry_run_where_a_gpu_is_without_flash_attention_is_refused(
    gpu_command, without_flash_attention, capsys
):
    without_flash_attention.setattr(launch.machine, "torch_device", lambda: "cuda")
    assert "flash_attn is not installed" in refused(capsys, [*gpu_command, "--dry-run"])


def test_kernels_in_place_of_flash_attention_want_fused_kernels(
    gpu_command, without_flash_attention, capsys
):
    import transformers.utils

    without_flash_attention.setattr(transformers.utils, "is_kernels_available", lambda: True)
    assert "use_fused_kernels=true" in refused(capsys, gpu_command)
    assert launch.main([*gpu_command, f"{NODES}.model.use_fused_kernels=true", "--dry-run"]) == 0
    assert "dry run: the config is valid; nothing was started" in capsys.readouterr().out


def test_the_cure_that_the_sentence_names_is_valid(gpu_command, without_flash_attention, capsys):
    cure = [f"+{check_sizes.ATTENTION}=sdpa", f"{NODES}.model.use_fused_kernels=true"]
    assert launch.main([*gpu_command, *cure, "--dry-run"]) == 0
    assert "dry run: the config is valid; nothing was started" in capsys.readouterr().out


def test_a_cpu_run_needs_no_flash_attention(tmp_path, without_flash_attention, capsys):
    assert launch.main(["asymgrpo", *run_overrides(tmp_path), "--dry-run"]) == 0
    assert "dry run: the config is valid; nothing was started" in capsys.readouterr().out
