"""The estimate of memory and disk: by hand for a small model, the review's figures for the run
scripts' models, and the table of docs/gpu_runs.md."""

import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

pytest.importorskip("verl")

from builders import gpu_config, run_overrides
from omegaconf import DictConfig, OmegaConf
from scripts import load_script
from transformers import AutoConfig

from recipe.launch import __main__ as launch
from recipe.launch import memory
from recipe.launch.model_sizes import Model, model_sizes
from recipe.semantic_curriculum.config import PRESETS, CurriculumConfig
from recipe.semantic_curriculum.curriculum import plan_of, steps_of_plan

ROOT = Path(__file__).parents[2]
CONFIGS = Path(__file__).parent / "configs"
NODES = "actor_rollout_ref"
FSDP = f"{NODES}.actor.fsdp_config"
GB = memory.GB


def hf_config(name: str):
    return AutoConfig.for_model(**json.loads((CONFIGS / f"{name}.json").read_text()))


@pytest.fixture(scope="module")
def gpu() -> DictConfig:
    """4 GPUs, 1,000 tokens to a micro-batch."""
    return gpu_config(
        "some/model",
        f"{NODES}.actor.ppo_max_token_len_per_gpu=1000",
        f"{NODES}.rollout.gpu_memory_utilization=0.5",
        "trainer.n_gpus_per_node=4",
    )


def changed(config: DictConfig, changes: dict) -> DictConfig:
    config = OmegaConf.create(OmegaConf.to_container(config))
    for key, value in changes.items():
        OmegaConf.update(config, key, value, force_add=True)
    return config


# ---- parameters ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "billions", "without_embeddings"),
    [  # of the models' cards
        ("Qwen2.5-7B", 7.61, 6.53),
        ("Qwen2.5-Math-7B", 7.61, 6.53),
        ("Qwen2.5-Math-1.5B", 1.54, 1.31),
        ("DeepSeek-R1-Distill-Qwen-1.5B", 1.78, 1.31),
        ("Qwen3-4B", 4.02, 3.63),
        ("Qwen3-14B", 14.8, 13.2),
    ],
)
def test_parameters_are_those_of_the_model_s_card(name, billions, without_embeddings):
    model = model_sizes(hf_config(name))
    assert model.parameters / 1e9 == pytest.approx(billions, rel=5e-3)
    assert (model.parameters - model.root) / 1e9 == pytest.approx(without_embeddings, rel=5e-3)
    assert model.layer * model.layers + model.root == model.parameters


def small_config():
    return AutoConfig.for_model(
        "qwen2",
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=100,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        architectures=["Qwen2ForCausalLM"],
    )


def test_parameters_of_a_small_model_by_hand():
    model = model_sizes(small_config())
    # q 8x8+8, k and v 8x4+4 each, o 8x8, gate, up, down 8x16 each, two norms of 8
    layer = 72 + 2 * 36 + 64 + 3 * 128 + 16
    assert model.layer == layer == 608
    assert model.root == 2 * 800 + 8  # embedding, head, the last norm
    assert model.parameters == model.trainable == 2 * 608 + 1608
    assert (model.heads, model.kv_heads, model.head) == (2, 1, 4)


def test_an_adapter_is_all_that_is_trained():
    model = model_sizes(small_config(), lora_rank=3)
    # q and o 8+8, k and v 8+4, gate, up and down 8+16, of two layers
    assert model.trainable == 3 * 2 * (2 * 16 + 2 * 12 + 3 * 24)
    assert model.parameters == 2824 + model.trainable


# ---- phases --------------------------------------------------------------------------------------

P, CARD = 4_000_000_000, 80 * GB
MODEL = Model(
    parameters=P,
    trainable=P,
    layer=100_000_000,
    root=800_000_000,
    layers=32,
    hidden=2000,
    intermediate=8000,
    vocabulary=100_000,
    context=4096,
    heads=20,
    kv_heads=5,
    head=100,
)
PARAMETERS, ADAM, GRADIENTS = 4e9, 8e9, 4e9  # bytes on each of 4 GPUs
VLLM, RESERVE = 40 * GB, memory.RESERVE
LOGITS = 1000 * 100_000 * 2
GATHERED = 2 * 800_000_000
INSIDE = 1000 * 2 * (6 * 2000 + 2 * (20 + 2 * 5) * 100 + 5 * 8000)  # of a layer
CHECKPOINTS = 32 * 1000 * 2000 * 2


def test_what_each_phase_holds_by_hand(gpu):
    phases = memory.phases(gpu, MODEL, CARD)
    assert phases["init"] == PARAMETERS + VLLM + RESERVE
    assert phases["rollout"] == PARAMETERS + ADAM + VLLM + RESERVE
    one_layer = 4 * 100_000_000 + INSIDE  # it and the next are gathered in bfloat16
    assert one_layer > LOGITS
    assert phases["log-prob"] == PARAMETERS + ADAM + GATHERED + one_layer + RESERVE
    scattered = GATHERED + 6 * 800_000_000  # of the largest unit
    assert scattered > GATHERED + CHECKPOINTS + max(LOGITS, INSIDE + 10 * 100_000_000)
    assert phases["update"] == PARAMETERS + ADAM + GRADIENTS + scattered + RESERVE


ENTROPY = {f"{NODES}.actor.calculate_entropy": True}
TOKENS = {f"{NODES}.actor.ppo_max_token_len_per_gpu": 10_000}


@pytest.mark.parametrize(
    ("changes", "copies"),
    [
        ({}, 1),  # the cross-entropy writes its gradient over the logits
        (ENTROPY, 3),  # two gradients beside them
        ({f"{NODES}.actor.entropy_coeff": 0.01}, 3),
        ({f"{NODES}.rollout.temperature": 0.7}, 2),
        # and softmax and product in float32, kept and differentiated
        (ENTROPY | {f"{FSDP}.use_torch_compile": False}, 9),
        (ENTROPY | {f"{NODES}.model.use_remove_padding": False}, 9),  # verl compiles packed ones
        (ENTROPY | {f"{NODES}.actor.use_torch_compile": False}, 3),  # verl does not read it
        ({f"{NODES}.model.use_fused_kernels": True}, 0),
    ],
)
def test_the_logits_of_an_update(gpu, changes, copies):
    config = changed(gpu, TOKENS | changes)
    assert memory.logits_bytes(config, MODEL, update=True) == copies * 10 * LOGITS
    head = GATHERED + 10 * CHECKPOINTS + copies * 10 * LOGITS
    layer = GATHERED + 10 * CHECKPOINTS + 10 * INSIDE + 10 * 100_000_000
    scattered = GATHERED + 6 * 800_000_000
    expected = PARAMETERS + ADAM + GRADIENTS + max(head, layer, scattered) + RESERVE
    assert memory.phases(config, MODEL, CARD)["update"] == expected


@pytest.mark.parametrize(
    ("changes", "phase", "less"),
    [
        ({f"{FSDP}.param_offload": True}, "init", PARAMETERS),
        ({f"{FSDP}.param_offload": True}, "rollout", PARAMETERS),
        ({f"{FSDP}.optimizer_offload": True}, "rollout", ADAM),
        ({f"{FSDP}.optimizer_offload": True}, "log-prob", ADAM),
        ({f"{FSDP}.optimizer_offload": True}, "update", 0),  # it comes back for the update
        ({f"{FSDP}.param_offload": True}, "update", 0),
        ({f"{FSDP}.strategy": "fsdp2", f"{FSDP}.offload_policy": True}, "update", 16e9),
        ({f"{NODES}.rollout.gpu_memory_utilization": 0.4}, "rollout", 8 * GB),
        ({"trainer.n_gpus_per_node": 8}, "rollout", (PARAMETERS + ADAM) / 2),
        ({"trainer.nnodes": 2}, "rollout", (PARAMETERS + ADAM) / 2),
        ({"trainer.n_gpus_per_node": 8, f"{FSDP}.fsdp_size": 4}, "rollout", 0),
        ({f"{FSDP}.model_dtype": "bf16"}, "rollout", (PARAMETERS + ADAM) / 2),
        # unsharded gradients in bfloat16 on top
        ({f"{FSDP}.use_no_sync_for_gradient_accumulation": True}, "update", -2 * P),
        # vLLM stays awake
        ({f"{NODES}.rollout.free_cache_engine": False}, "update", -VLLM),
        # the reference is on the CPU, whatever its own setting is
        ({f"{NODES}.actor.use_kl_loss": True}, "rollout", 0),
    ],
)
def test_what_a_setting_saves(gpu, changes, phase, less):
    before = memory.phases(gpu, MODEL, CARD)[phase]
    after = memory.phases(changed(gpu, changes), MODEL, CARD)[phase]
    assert before - after == pytest.approx(less)


def test_vllm_must_hold_its_weights_and_one_sequence_of_its_longest(gpu):
    """Keys and values of 32 layers and, on each of 2 GPUs, 3 of 5 heads of 100, in bfloat16."""
    split = {f"{NODES}.rollout.tensor_model_parallel_size": 2}
    config = changed(gpu, split | {f"{NODES}.rollout.max_model_len": 131_072})
    assert memory.engine_bytes(config, MODEL) == 2 * (P / 2 + 2 * 32 * 3 * 100 * 131_072)
    # by default its prompts and responses, 512 tokens each
    assert memory.engine_bytes(changed(gpu, split), MODEL) == 2 * (P / 2 + 2 * 32 * 300 * 1024)


def test_a_cache_of_qwen_s_whole_context_takes_seven_gb():
    model = model_sizes(hf_config("Qwen2.5-7B"))
    context = {f"{NODES}.rollout.max_model_len": model.context}
    config = changed(gpu_config("some/model"), context)
    config.actor_rollout_ref.rollout.tensor_model_parallel_size = 1
    assert (memory.engine_bytes(config, model) - 2 * model.parameters) / GB == 7.0


def test_verl_still_keeps_a_reference_on_the_cpu(gpu):
    import inspect

    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngine

    engine = omega_conf_to_dataclass(gpu.actor_rollout_ref.ref.fsdp_config)
    assert engine.forward_only
    assert not engine.param_offload
    source = inspect.getsource(FSDPEngine._build_fsdp_module)
    assert (
        "if self.engine_config.forward_only:\n                cpu_offload = CPUOffload(" in source
    )
    assert "offload_policy or self.engine_config.forward_only" in source


# ---- the run scripts -----------------------------------------------------------------------------


GPU_RUNS = load_script("perf/gpu_runs.py")


@pytest.fixture(scope="module")
def scripts(tmp_path_factory) -> dict[str, DictConfig]:
    """The config of every GPU run script."""
    return {
        f"{path.parent.name}/{path.stem}": GPU_RUNS.config_of(
            path, "", tmp_path_factory.mktemp(path.stem)
        )
        for path in GPU_RUNS.SCRIPTS
    }


# 10^9 bytes in the rollout phase, found by the review of the config before it had an estimate, on
# a card of 84.9e9 bytes and without a reserve. The review held SENT's reference (4 P / N) on the
# GPU, where verl keeps it only if it is trained.
REVIEW = {
    "asymgrpo/run_qwen7b": (62.4, 0),
    "asymgrpo/run_qwen3_4b": (63.0, 0),
    "asymgrpo/run_qwen2_5_math_1_5b": (55.6, 0),
    "clip_entropy/run_qwen7b": (51.0, 0),
    "clip_entropy/run_qwen2_5_math_7b": (51.0, 0),
    "semantic_curriculum/run_qwen7b": (81.4, 7.6),
    "semantic_curriculum/run_qwen2_5_math_7b": (81.4, 7.6),
    "semantic_curriculum/run_qwen3_14b": (80.5, 7.4),
    "semantic_curriculum/run_r1_distill_qwen_1_5b": (58.1, 1.8),
}


def test_the_rollout_phase_of_each_script_is_the_review_s(scripts, monkeypatch):
    monkeypatch.setattr(memory, "RESERVE", 0)
    monkeypatch.setenv("GPU_GB", str(84.9e9 / GB))
    assert scripts.keys() == REVIEW.keys()
    for name, (total, reference) in REVIEW.items():
        rollout = memory.estimate(scripts[name]).phases["rollout"] / 1e9
        assert rollout == pytest.approx(total - reference, abs=0.15), name


def test_no_script_needs_more_than_75_of_80_gb(scripts, monkeypatch):
    monkeypatch.setenv("GPU_GB", "80")
    for name, config in scripts.items():
        assert max(memory.estimate(config).phases.values()) < 75 * GB, name


def test_no_script_keeps_more_than_two_checkpoints(scripts):
    for name, config in scripts.items():
        assert memory.estimate(config, rows=7500).checkpoints == 2, name


def test_the_table_of_the_docs_is_what_the_estimate_gives():
    assert GPU_RUNS.table() in (ROOT / "docs/gpu_runs.md").read_text()


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_of_sent_s_scripts_trains_as_long_as_sent(tmp_path, preset):
    path = ROOT / "recipe/semantic_curriculum/run_qwen7b.sh"
    config = GPU_RUNS.config_of(path, preset, tmp_path)
    # 16,898 prompts are 66 batches of 256; five times, or two halves five times each
    assert memory.training_steps(config, GPU_RUNS.ROWS["dapo_math"]) == 330
    assert config.trainer.total_epochs == config.data.curriculum.epochs_per_stage == 5


def test_a_plan_s_epochs_share_the_batches_at_their_ends(tmp_path):
    """7,500 prompts are 29 batches of 256 and 76 prompts: five epochs 145 steps, a plan 146."""
    config = GPU_RUNS.config_of(ROOT / "recipe/semantic_curriculum/run_qwen7b.sh", "sent", tmp_path)
    assert memory.training_steps(config, 7500) == plan_s_steps(7500) == 146
    config.data.curriculum.order = "none"
    assert memory.training_steps(config, 7500) == 145


def test_one_stage_has_no_number_of_steps_before_its_plan(tmp_path):
    """Not the 66 x 5 of all prompts, nor those of run_cpu.sh's placeholder of 100,000 epochs."""
    path = ROOT / "recipe/semantic_curriculum/run_qwen7b.sh"
    config = GPU_RUNS.config_of(path, "sent", tmp_path)
    config.data.curriculum.only_stage = 1
    assert memory.training_steps(config, GPU_RUNS.ROWS["dapo_math"]) is None
    config.data.curriculum.only_stage, config.trainer.total_epochs = None, 100_000
    assert memory.training_steps(config, GPU_RUNS.ROWS["dapo_math"]) is None
    assert memory.estimate(config, GPU_RUNS.ROWS["dapo_math"]).checkpoints == 2
    config.data.curriculum.order = "none"
    assert memory.training_steps(config, GPU_RUNS.ROWS["dapo_math"]) == 6_600_000


def plan_s_steps(prompts: int) -> int:
    """Returns as many steps as the trainer makes of a curriculum of so many prompts."""
    settings = CurriculumConfig(order="semantic_entropy", scores="scores.parquet")
    plan = plan_of(pd.Series(range(prompts), dtype=float).to_numpy(), settings)
    return steps_of_plan(len(plan.prompt_D), 256, None)


def test_the_plan_of_sent_has_as_many_steps():
    assert plan_s_steps(GPU_RUNS.ROWS["dapo_math"]) == 330


def test_qwen3_does_not_think_beyond_its_response(scripts):
    for name in ("asymgrpo/run_qwen3_4b", "semantic_curriculum/run_qwen3_14b"):
        assert scripts[name].data.apply_chat_template_kwargs.enable_thinking is False


def test_math_runs_validate_on_math_500(scripts):
    for name in ("asymgrpo/run_qwen3_4b", "asymgrpo/run_qwen2_5_math_1_5b"):
        assert scripts[name].data.val_files.endswith("data/benchmarks/math500.parquet")


def test_the_released_reference_is_offloaded(scripts):
    for name, config in scripts.items():
        offloaded = config.actor_rollout_ref.ref.fsdp_config.param_offload
        assert offloaded == name.startswith("semantic_curriculum/"), name


# ---- disk ----------------------------------------------------------------------------------------


def test_a_checkpoint_is_parameters_and_adam_and_may_hold_the_model_again(gpu):
    assert memory.checkpoint_bytes(gpu, MODEL) == 12 * P
    contents = {f"{NODES}.actor.checkpoint.save_contents": ["model", "hf_model"]}
    assert memory.checkpoint_bytes(changed(gpu, contents), MODEL) == 8 * P


@pytest.mark.parametrize(
    ("trainer", "checkpoints"),
    [
        ({"total_training_steps": 290, "save_freq": 20}, 2),
        ({"total_training_steps": 290, "save_freq": 20, "max_actor_ckpt_to_keep": None}, 15),
        ({"total_training_steps": 300, "save_freq": 20, "max_actor_ckpt_to_keep": None}, 15),
        # the new one is written before the only old one goes
        ({"total_training_steps": 290, "save_freq": 20, "max_actor_ckpt_to_keep": 1}, 2),
        ({"total_training_steps": 20, "save_freq": 20}, 1),
        ({"total_training_steps": 20, "save_freq": -1}, 0),
        ({"save_freq": 20, "max_actor_ckpt_to_keep": None}, None),  # the data is not here
        ({"save_freq": 20}, 2),
    ],
)
def test_how_many_checkpoints_are_on_disk(scripts, trainer, checkpoints):
    config = scripts["asymgrpo/run_qwen7b"]
    changes = {f"trainer.{key}": value for key, value in trainer.items()}
    assert memory.estimate(changed(config, changes)).checkpoints == checkpoints


def test_more_disk_than_is_free_is_said(scripts, tmp_path, monkeypatch):
    place = {"trainer.default_local_dir": f"{tmp_path}/not/yet"}
    config = changed(scripts["asymgrpo/run_qwen7b"], place)
    asked = []

    def disk_usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=100 * GB)

    monkeypatch.setattr(memory.shutil, "disk_usage", disk_usage)
    assert memory.summary(config)["disk"].endswith(
        "2 x 85.1 GB of checkpoints, but only 100.0 GB are free"
    )
    assert asked == [tmp_path]


# ---- the command ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "card", "sentence"),
    [
        (
            {},
            "40",
            "rollout needs about 49 GB on each GPU, and a card of GPU_GB=40 has less: lower",
        ),
        ({f"{NODES}.rollout.gpu_memory_utilization": 0.75}, "80", "rollout needs about 85 GB"),
        ({f"{NODES}.actor.ppo_max_token_len_per_gpu": 160_000}, "80", "update needs about 1"),
        ({f"{NODES}.rollout.gpu_memory_utilization": 0.05}, "80", "gives vLLM 4.0 GB of GPU_GB=80"),
        (  # 7.1 GB of weights on each of 2, and 3.5 GB for the whole context
            {
                f"{NODES}.rollout.gpu_memory_utilization": 0.13,
                f"{NODES}.rollout.max_model_len": 131_072,
            },
            "80",
            "one sequence of rollout.max_model_len=131072 tokens need 10.6: raise it",
        ),
    ],
)
def test_what_cannot_fit_is_refused_with_a_cure(scripts, monkeypatch, changes, card, sentence):
    monkeypatch.setenv("GPU_GB", card)
    config = changed(scripts["semantic_curriculum/run_qwen7b"], changes)
    with pytest.raises(ValueError, match=sentence):
        memory.memory(config)


def test_the_cure_for_a_smaller_card_fits_it(scripts, monkeypatch):
    monkeypatch.setenv("GPU_GB", "40")
    offload = {f"{FSDP}.param_offload": True, f"{FSDP}.optimizer_offload": True}
    tokens = {f"{NODES}.actor.ppo_max_token_len_per_gpu": 8192}
    with pytest.raises(ValueError, match="update needs about 43"):
        memory.memory(changed(scripts["semantic_curriculum/run_qwen7b"], offload))
    eight = {"trainer.n_gpus_per_node": 8}
    memory.memory(changed(scripts["semantic_curriculum/run_qwen7b"], offload | tokens | eight))


@pytest.mark.parametrize("size", ["0", "-1", "much", "nan", "inf"])
def test_a_card_s_size_is_a_number_above_0(monkeypatch, size):
    monkeypatch.setenv("GPU_GB", size)
    with pytest.raises(ValueError, match=f"GPU_GB={size} is not allowed"):
        memory.gpu_bytes()


def test_the_dry_run_shows_memory_and_disk(tmp_path, capsys):
    overrides = [word for word in run_overrides(tmp_path) if word != "machine=cpu"]
    more = ["trainer.n_gpus_per_node=1", f"{NODES}.rollout.tensor_model_parallel_size=1"]
    command = ["asymgrpo", *overrides, *more, f"{NODES}.actor.use_dynamic_bsz=true"]
    assert launch.main([*command, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert (
        "[recipe] memory     about init 43.5, rollout 43.5, log-prob 3.5, update 3.5 of 80" in out
    )
    assert "[recipe] disk       0.0 GB for 0 x 0.0 GB of checkpoints" in out


def test_a_cpu_run_shows_disk_only(tmp_path, capsys):
    assert launch.main(["asymgrpo", *run_overrides(tmp_path), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "[recipe] disk " in out
    assert "[recipe] memory" not in out


def test_a_model_of_the_hub_is_not_estimated(gpu):
    assert "not estimated" in memory.summary(gpu)["memory"]
    memory.memory(gpu)
