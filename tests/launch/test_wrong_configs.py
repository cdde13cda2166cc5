"""A list of wrong configs: each ends in one sentence that names its key, before Ray starts.

Composing a config takes most of a dry run's time, so each recipe's is composed once and the values
are set in a copy before its references are resolved; what Hydra's own grammar refuses goes through
`launch.main`. What the data files and the model's files decide is in tests of their own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import ray

pytest.importorskip("verl")

import torch
from builders import run_overrides
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict
from verl.trainer.ppo import core_algos

from recipe.clip_entropy.checks import check_exact_contributions
from recipe.clip_entropy.config import ClipSettings
from recipe.core import cli
from recipe.launch import __main__ as launch
from recipe.launch import check_names, check_values, preflight
from recipe.launch.check_types import defaults, known_keys, similar
from recipe.launch.compose import resolved, unresolved

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
MODEL, LOSS = "actor_rollout_ref.model", "actor_rollout_ref.actor.policy_loss"
TRAINER = "trainer.v1.recipe_sync"
BYPASS = "algorithm.rollout_correction.bypass_mode=true"

# the place of a node with another value
NODES = [
    f"{key}={value}"
    for key in (
        "actor_rollout_ref",
        "trainer",
        "trainer.v1",
        "trainer.v1.sampler",
        "reward",
        "reward.reward_model",
        "ray_kwargs",
        "ray_kwargs.ray_init",
        ACTOR,
        f"{ACTOR}.optim",
        f"{ACTOR}.fsdp_config",
        f"{ACTOR}.checkpoint",
        LOSS,
        ROLLOUT,
        f"{ROLLOUT}.val_kwargs",
        f"{ROLLOUT}.agent",
        f"{ROLLOUT}.engine_kwargs",
        MODEL,
        "data.apply_chat_template_kwargs",
        "algorithm.kl_ctrl",
        "algorithm.asymgrpo",
        "data.curriculum",
    )
    for value in ("null", "5")
]
# a type that verl does not take, null among them
TYPES = [
    f"{MODEL}.path=null",
    f"{MODEL}.path=5",
    f"{MODEL}.lora_rank=eight",
    f"{MODEL}.trust_remote_code=maybe",
    f"{MODEL}.use_remove_padding=1",
    "data.train_files=null",
    "data.val_files=null",
    "data.val_files=''",
    "data.val_files=3",
    "data.train_max_samples=null",
    "data.train_max_samples=many",
    "data.train_batch_size='8'",
    "data.train_batch_size=8.5",
    "data.train_batch_size=null",
    "data.max_prompt_length=null",
    "data.max_response_length=long",
    "data.shuffle=yes please",
    "data.filter_overlong_prompts=null",
    "data.seed=one",
    "data.prompt_key=null",
    f"{ROLLOUT}.n='8'",
    f"{ROLLOUT}.n=null",
    f"{ROLLOUT}.n=2.5",
    f"{ROLLOUT}.temperature=hot",
    f"{ROLLOUT}.enforce_eager=5",
    f"{ROLLOUT}.max_num_seqs=many",
    f"{ROLLOUT}.val_kwargs.do_sample=sometimes",
    f"{ROLLOUT}.val_kwargs.n='4'",
    f"{ACTOR}.optim.lr=null",
    f"{ACTOR}.optim.lr=1e-6e",
    f"{ACTOR}.optim.lr='1e-6'",
    f"{ACTOR}.optim.betas=0.9",
    f"{ACTOR}.optim.betas=[0.9]",
    f"{ACTOR}.ppo_mini_batch_size=[4]",
    f"{ACTOR}.ppo_epochs=1.5",
    f"{ACTOR}.use_kl_loss=0",
    f"{ACTOR}.clip_ratio_low=null",
    f"{ACTOR}.checkpoint.save_contents=model",
    f"{ACTOR}.fsdp_config.param_offload=on the host",
    f"{LOSS}.clip_cov_ratio=small",
    "algorithm.adv_estimator=null",
    "algorithm.use_kl_in_reward=null",
    "algorithm.gamma=one",
    "trainer.total_epochs=null",
    "trainer.total_epochs=ten",
    "trainer.total_epochs=1.5",
    "trainer.total_training_steps=ten",
    "trainer.save_freq=often",
    "trainer.save_freq=null",
    "trainer.test_freq=2.5",
    "trainer.nnodes=null",
    "trainer.n_gpus_per_node=all",
    "trainer.logger=null",
    "trainer.default_local_dir=null",
    "trainer.default_local_dir=5",
    "trainer.experiment_name=null",
    "trainer.val_before_train=maybe",
    "trainer.max_actor_ckpt_to_keep=few",
]
# numbers that are not finite: one rule, whatever the key
NOT_FINITE = [
    f"{key}={value}"
    for key, value in {
        f"{ACTOR}.optim.lr": "nan",
        f"{ACTOR}.optim.weight_decay": "nan",
        f"{ACTOR}.optim.clip_grad": "inf",
        f"{ACTOR}.optim.betas": "[0.9,nan]",
        f"{ACTOR}.clip_ratio": "nan",
        f"{ACTOR}.clip_ratio_c": "inf",
        f"{ACTOR}.entropy_coeff": "nan",
        f"{ACTOR}.kl_loss_coef": "-inf",
        f"{ACTOR}.tau_pos": "nan",
        f"{ROLLOUT}.temperature": "nan",
        f"{ROLLOUT}.top_p": "nan",
        f"{ROLLOUT}.gpu_memory_utilization": "nan",
        f"{ROLLOUT}.val_kwargs.temperature": "inf",
        "algorithm.kl_ctrl.kl_coef": "nan",
        "algorithm.gamma": "inf",
        "data.train_batch_size": "inf",
        "trainer.total_training_steps": "inf",
        "trainer.save_freq": "nan",
        "algorithm.asymgrpo.beta_pos": "inf",
        "trainer.v1.recipe_sync.poll_interval": "nan",
        f"{LOSS}.od_ratio": "nan",
    }.items()
]
# numbers out of range
RANGES = [
    "data.train_batch_size=0",
    "data.train_batch_size=-8",
    "data.max_prompt_length=0",
    "data.max_response_length=-1",
    "data.train_max_samples=-5",
    "data.dataloader_num_workers=-1",
    "data.seed=-1",
    f"{ROLLOUT}.n=0",
    f"{ROLLOUT}.temperature=0",
    f"{ROLLOUT}.temperature=-1",
    f"{ROLLOUT}.top_p=0",
    f"{ROLLOUT}.top_p=1.5",
    f"{ROLLOUT}.top_k=-2",
    f"{ROLLOUT}.gpu_memory_utilization=0",
    f"{ROLLOUT}.gpu_memory_utilization=1.5",
    f"{ROLLOUT}.tensor_model_parallel_size=0",
    f"{ROLLOUT}.max_num_seqs=0",
    f"{ROLLOUT}.max_num_batched_tokens=0",
    f"{ROLLOUT}.agent.num_workers=0",
    f"{ROLLOUT}.val_kwargs.temperature=-0.5",
    f"{ROLLOUT}.val_kwargs.top_p=2",
    f"{ROLLOUT}.val_kwargs.n=0",
    f"{ACTOR}.ppo_mini_batch_size=0",
    f"{ACTOR}.ppo_mini_batch_size=-4",
    f"{ACTOR}.ppo_epochs=0",
    f"{ACTOR}.ppo_max_token_len_per_gpu=0",
    f"{ACTOR}.clip_ratio=-0.2",
    f"{ACTOR}.clip_ratio_high=-0.2",
    f"{ACTOR}.clip_ratio_c=1",
    f"{ACTOR}.kl_loss_coef=-1",
    f"{ACTOR}.optim.lr=-1",
    f"{ACTOR}.optim.weight_decay=-0.1",
    f"{ACTOR}.optim.clip_grad=0",
    f"{ACTOR}.optim.lr_warmup_steps_ratio=2",
    f"{ACTOR}.optim.lr_warmup_steps=-5",
    f"{ACTOR}.optim.betas=[0.9,1.0]",
    f"{ACTOR}.ulysses_sequence_parallel_size=0",
    f"{LOSS}.ppo_kl_coef=-1",
    "algorithm.gamma=1.5",
    "algorithm.lam=-1",
    "algorithm.kl_ctrl.kl_coef=-0.1",
    "trainer.n_gpus_per_node=0",
    "trainer.nnodes=0",
    "trainer.nnodes=-1",
    "trainer.total_epochs=0",
    "trainer.total_training_steps=0",
    "trainer.total_training_steps=-10",
    "trainer.save_freq=-2",
    "trainer.max_actor_ckpt_to_keep=0",
    "trainer.critic_warmup=-1",
]
# names that verl does not have
NAMES = [
    "algorithm.adv_estimator=grpoo",
    "algorithm.kl_penalty=k4",
    "algorithm.kl_ctrl.type=adaptiv",
    "algorithm.rollout_correction.rollout_is=tokens",
    "algorithm.rollout_correction.rollout_rs=token_k4",
    "algorithm.rollout_correction.rollout_rs=token_k1",  # without a threshold
    "algorithm.rollout_correction.loss_type=ppo_clp",
    f"{LOSS}.loss_mode=vanila",
    f"{ACTOR}.loss_agg_mode=token-meann",
    f"{ACTOR}.kl_loss_type=low_var",
    f"{ACTOR}.strategy=fsdp3",
    f"{ACTOR}.checkpoint.save_contents=[model,optimiser]",
    f"{ACTOR}.fsdp_config.model_dtype=bf17",
    f"{ACTOR}.optim.optimizer=AdamWW",
    f"{ACTOR}.optim.optimizer_impl=torch.optimm",
    f"{ACTOR}.optim.lr_scheduler_type=cosin",
    f"{ROLLOUT}.name=vlm",
    f"{ROLLOUT}.name=sglang",  # not installed
    f"{ROLLOUT}.mode=sync",
    f"{ROLLOUT}.dtype=bf16x",
    "reward.reward_manager.name=naiv",
    "data.truncation=middel",
    "trainer.device=gpu",
    "trainer.logger=[wandbb]",
    "trainer.logger=consol",
    "trainer.resume_mode=atuo",
    "trainer.v1.trainer_mode=sync",
]
# keys that verl does not have; a key of Hydra's without + is refused by Hydra
KEYS = [
    f"+{ROLLOUT}.temprature=1",
    f"+{ROLLOUT}.anything=1",
    f"+{ACTOR}.optim.weight_decy=0.1",
    f"+{ACTOR}.clip_ratio_hgh=0.3",
    f"+{MODEL}.lora_rnak=8",
    "+trainer.total_epoch=3",
    "+trainer.save_frq=3",
    "+data.max_respons_length=3",
    "+algorithm.use_kl_in_rewards=true",
]
# what has no meaning, or would fail later
MEANING = [
    "trainer.use_v1=false",
    (f"{TRAINER}.held_out_entropy=true", "trainer.test_freq=-1", "trainer.val_before_train=false"),
    (f"{TRAINER}.held_out_entropy=true", "trainer.test_freq=0", "trainer.val_before_train=false"),
    "+trainer.v1.sync.parameter_sync_step=2",
    f"{ACTOR}.ppo_mini_batch_size=3",
    "algorithm.use_kl_in_reward=true",
    ("algorithm.filter_groups.metric=null", "algorithm.filter_groups.enable=true"),
    (
        "algorithm.filter_groups.enable=true",
        "reward.reward_model.enable=true",
        "reward.reward_model.rollout.name=vllm",
    ),
    (
        "algorithm.asymgrpo.correct_field=acc",
        "reward.reward_model.enable=true",
        "reward.reward_model.rollout.name=vllm",
    ),
    ("trainer.resume_from_path=/nowhere/global_step_5", "trainer.resume_mode=resume_path"),
    ("trainer.resume_from_path=null", "trainer.resume_mode=resume_path"),
    (BYPASS, "algorithm.asymgrpo.preset=grpo_entropy_adv"),
    "trainer.critic_warmup=5",  # there is no critic
]
# keys that verl has and does not read
UNREAD = [
    f"{ACTOR}.grad_clip=0.5",
    f"{ACTOR}.use_torch_compile=false",
    "actor_rollout_ref.ref.use_torch_compile=false",
    (f"{ACTOR}.use_remove_padding=false", f"{MODEL}.use_remove_padding=true"),
    f"{ACTOR}.fsdp_config.strategy=fsdp_turbo",
    f"{ACTOR}.ppo_micro_batch_size=4",
    f"{ROLLOUT}.log_prob_micro_batch_size=4",
    "actor_rollout_ref.ref.log_prob_micro_batch_size=4",
    f"{ROLLOUT}.do_sample=false",
    f"{ACTOR}.freeze_vision_tower=true",
    f"+{ROLLOUT}.repetition_penalty=1.1",
    f"{ROLLOUT}.over_sample_rate=0.1",
    f"{ROLLOUT}.multi_turn.num_repeat_rollouts=2",
    "actor_rollout_ref.nccl_timeout=1200",
]
CLIP = [
    f"{LOSS}.total_steps=5",
    (BYPASS, f"{LOSS}.exact_contribution_freq=2"),
    (f"{LOSS}.exact_contribution_freq=2", f"{MODEL}.use_fused_kernels=true"),
    (f"{LOSS}.exact_contribution_freq=2", f"{ACTOR}.pad_to_length=true"),
    (f"{LOSS}.exact_contribution_freq=2", f"{ACTOR}.fsdp_config.pad_to_length=true"),
    (BYPASS, f"{LOSS}.schedule=od"),
    f"{LOSS}.phase_split=1",
    f"{LOSS}.upper_intercept=nan",
]
SENT = [
    (BYPASS, f"{LOSS}.token_rule.preset=sent"),
    ("distillation.enabled=true", f"{LOSS}.token_rule.preset=as_released"),
    ("distillation.enabled=true", f"{LOSS}.token_rule.preset=kl_cov"),
    "data.curriculum.thresholds=5",
    "data.curriculum.replay=nan",
    "data.curriculum.thresholds=[nan]",
    "data.curriculum.stages=two",
    "+data.curriculum.stage=1",
]
EXAMPLE = [BYPASS, f"{LOSS}.target_entropy=inf", "distillation.enabled=true"]

CONFIGS = [
    *(
        ("asymgrpo", wrong)
        for group in (NODES, TYPES, NOT_FINITE, RANGES, NAMES, KEYS, MEANING, UNREAD)
        for wrong in group
    ),
    *(("clip_entropy", wrong) for wrong in CLIP),
    *(("semantic_curriculum", wrong) for wrong in SENT),
    *(("example", wrong) for wrong in EXAMPLE),
]
# what Hydra itself refuses, or reads in another way than was meant
GRAMMAR = {
    "data=null": "data=null is not allowed",
    "algorithm=null": "algorithm=null is not allowed",
    "data=5": "data=5 is not allowed",
    "no.such.key=1": "no.such.key does not exist",
    f"{ACTOR}.optim.lrr=1e-6": f"did you mean {ACTOR}.optim.lr?",
    f"{ROLLOUT}.temprature=1": f"did you mean {ROLLOUT}.temperature?",
    "trainer.total_epoch=3": "did you mean trainer.total_epochs?",
    "~trainer.nodes": "trainer.nodes does not exist: did you mean trainer.nnodes?",
    "+trainer.nnodes=1": "trainer.nnodes': leave out the +",
    "trainer.nnodes": "trainer.nnodes",
    "machine=tpu": "machine/tpu': it is one of cpu, gpu",
    "model_engine=megatrn": "model_engine",
    "data.train_files=/a,b/train.parquet": "data.train_files=/a,b/train.parquet': write key=value",
    "data.train_files=/a=b/train.parquet": "override data.train_files=/a=b/train.parquet cannot",
    "data.train_files=/a(b/train.parquet": "with quotes around a value",
    "data.train_files='/a/b": "override data.train_files='/a/b cannot be read",
    "algorithm.asymgrpo.preset=asymgrp": "error: algorithm.asymgrpo.preset=asymgrp does not exist",
    "trainer.default_local_dir='/a/${x}'": "trainer.default_local_dir cannot be resolved",
    "trainer.default_local_dir='/a/${x'": "names another key of the config",
    f"{ROLLOUT}._target_=nowhere.Rollout": "_target_=nowhere.Rollout cannot be imported",
}


def key_of(wrong: str | tuple[str, ...]) -> str:
    """The key that the sentence has to name: of the first override."""
    first = wrong if isinstance(wrong, str) else wrong[0]
    return first.partition("=")[0].lstrip("+~")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    return run_overrides(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def config_of(files) -> Callable[[str, tuple[str, ...]], DictConfig]:
    """Makes a recipe's config with overrides, not resolved."""
    composed: dict[str, DictConfig] = {}

    def make(recipe: str, overrides: tuple[str, ...]) -> DictConfig:
        if recipe not in composed:
            composed[recipe] = unresolved(recipe, files)
        config = copy.deepcopy(composed[recipe])
        with open_dict(config):
            for override in OverridesParser.create().parse_overrides(list(overrides)):
                value = override.value()
                OmegaConf.update(config, override.key_or_group, value, merge=False, force_add=True)
        return config

    return make


def assert_one_sentence(error: str, part: str) -> None:
    assert error.startswith("error: ") and len(error.strip().splitlines()) == 1
    assert part in error
    assert not ray.is_initialized()


@pytest.mark.parametrize(
    ("recipe", "wrong"), CONFIGS, ids=lambda x: x if isinstance(x, str) else "+".join(x)
)
def test_a_wrong_config_is_one_sentence_that_names_its_key(recipe, wrong, config_of, capsys):
    overrides = (wrong,) if isinstance(wrong, str) else wrong

    def check(_: None) -> None:
        preflight.check(resolved(config_of(recipe, overrides)))

    assert cli.run(check) == 2, "accepted"
    assert_one_sentence(capsys.readouterr().err, key_of(wrong))


@pytest.mark.parametrize("override", GRAMMAR)
def test_an_override_that_hydra_refuses_is_one_sentence(override, files, capsys):
    assert launch.main(["asymgrpo", *files, override, "--dry-run"]) == 2
    assert_one_sentence(capsys.readouterr().err, GRAMMAR[override])


def test_the_list_is_long_enough_and_says_nothing_twice():
    assert len(CONFIGS) + len(GRAMMAR) >= 138
    assert len(set(CONFIGS)) == len(CONFIGS)


@pytest.mark.parametrize(
    "overrides",
    [
        ("algorithm.filter_groups=null",),
        ("algorithm.rollout_correction=null",),
        ("algorithm.filter_groups.enable=true", "algorithm.filter_groups.metric=acc"),
        ("algorithm.rollout_correction.rollout_is=token",),
        (
            "algorithm.rollout_correction.rollout_rs='token_k1,seq_mean_k3'",
            "algorithm.rollout_correction.rollout_rs_threshold='0.5_2,0.1'",
        ),
        (f"{ACTOR}.optim.lr=1", f"{ACTOR}.clip_ratio_c=3", f"{ACTOR}.entropy_coeff=0"),
        (f"{ACTOR}.optim.lr=0", f"{ACTOR}.entropy_coeff=-0.1"),
        (f"{ACTOR}.optim.betas=[0.9,0.95]", f"{ACTOR}.optim.lr_warmup_steps=null"),
        (
            f"{ACTOR}.kl_loss_type=k3+",
            f"{ACTOR}.fsdp_config.mixed_precision=null",  # bf16, which sdpa alone is refused with
            f"{MODEL}.use_fused_kernels=true",
        ),
        (f"{ACTOR}.clip_ratio_high=10",),
        (f"{ROLLOUT}.top_k=0", f"{ROLLOUT}.max_model_len=1024", f"{ROLLOUT}.profiler=null"),
        (f"+{ROLLOUT}.engine_kwargs.vllm.anything=1",),
        # a key that verl does not read, at its default, or with the value of the one that it reads
        (f"{ACTOR}.grad_clip=1.0", f"{ACTOR}.use_torch_compile=true"),
        (f"{ACTOR}.grad_clip=0.5", f"{ACTOR}.optim.clip_grad=0.5"),
        (f"{ACTOR}.entropy_checkpointing=true",),  # verl's fsdp_config refers to it
        ("data.seed=7", "data.val_batch_size=null", "data.train_max_samples=8"),
        ("+data.apply_chat_template_kwargs.enable_thinking=false",),
        ("+data.my_own_option=1", "+trainer.wandb_proxy=http://proxy", "+algorithm.my_own=1"),
        (f"+{MODEL}.override_config.rope_theta=1e6", f"{MODEL}.target_modules=[q_proj,v_proj]"),
        ("trainer.project_name=5", "trainer.experiment_name=7", "trainer.logger=console"),
        ("trainer.save_freq=0", "trainer.test_freq=-1", "trainer.max_actor_ckpt_to_keep=2"),
        (
            f"{TRAINER}.held_out_entropy=true",
            "trainer.test_freq=1",
            "trainer.val_before_train=false",
        ),
        (
            f"{TRAINER}.held_out_entropy=true",
            "trainer.test_freq=-1",
            "trainer.val_before_train=true",
        ),
        ("ray_kwargs.ray_init.num_cpus=null", "++ray_kwargs.ray_init.num_gpus=null"),
        ("+ray_kwargs.ray_init.runtime_env.env_vars.NCCL_DEBUG=INFO",),
    ],
    ids="+".join,
)
def test_what_verl_accepts_is_accepted(overrides, config_of):
    """An int for a float, null where verl takes it, options of a user's own."""
    preflight.check(resolved(config_of("asymgrpo", overrides)))


@pytest.mark.parametrize("engine", ["dp", "megatron", "torchtitan", "veomni"])
def test_verl_s_own_config_of_every_engine_is_of_the_right_types(engine):
    import hydra

    from recipe.launch import check_types

    with hydra.initialize_config_module("verl.trainer.config", version_base=None):
        config = hydra.compose("ppo_trainer", overrides=[f"model_engine={engine}"])
    check_types.values(resolved(config))


def test_a_number_s_key_is_one_of_verl_s():
    """A misspelt key in a table would check nothing."""
    known = {*known_keys(defaults().raw), f"{ROLLOUT}.repetition_penalty"}
    known.add("ray_kwargs.ray_init.num_gpus")
    for keys in check_values.NUMBERS.values():
        assert set(keys) <= known, set(keys) - known
    assert {*check_values.UNREAD, *filter(None, check_values.UNREAD.values())} <= known
    assert set(check_names.registries()) <= known


def test_the_names_that_are_listed_are_verl_s():
    """verl has no registry for these: each name is one that its function takes."""
    x = torch.zeros(1, 2)
    for name in check_names.KL_ESTIMATORS:
        core_algos.kl_penalty(x, x, name)
    for mode in check_names.AGGREGATIONS:
        core_algos.agg_loss(x, torch.ones(1, 2), mode)
    from verl.utils.torch_dtypes import PrecisionType

    for precision in check_names.PRECISIONS:
        PrecisionType.to_dtype(precision)


def test_a_check_that_ends_in_another_error_is_one_sentence_too(config_of, monkeypatch, capsys):
    """A library that cannot read a value raises whatever it likes."""

    def check_of_a_library(config: DictConfig) -> None:
        raise KeyError("vocab_size")

    monkeypatch.setattr(preflight, "CHECKS", (check_of_a_library,))
    assert cli.run(lambda _: preflight.check(resolved(config_of("asymgrpo", ())))) == 2
    assert_one_sentence(
        capsys.readouterr().err, "`check_of_a_library` cannot read this config (Key"
    )


def test_the_token_rule_s_loss_without_its_settings_is_a_sentence():
    """verl's own command without recipe/common.yaml."""
    from verl.workers.config import FSDPActorConfig

    actor = FSDPActorConfig(strategy="fsdp2", rollout_n=8, use_dynamic_bsz=True)
    x = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="loss_mode=sent needs its settings in the same node"):
        core_algos.get_policy_loss_fn("sent")(x, x, x, x + 1, "token-mean", actor)


def test_exact_contributions_are_refused_where_the_vocabulary_is_split(config_of):
    """Megatron is not installed here, so that its name is refused before."""
    config = config_of("clip_entropy", (f"{ACTOR}.strategy=megatron",))
    settings = ClipSettings.__new__(ClipSettings)
    settings.exact_contribution_freq = 2
    with pytest.raises(ValueError, match="exact_contribution_freq=2 needs the logits of the whole"):
        check_exact_contributions(settings, config)


def test_a_similar_key_is_found():
    assert similar("lrr", {"lr", "clip_grad"}, 0.6) == "lr"
    assert similar("zzz", {"lr"}, 0.6) is None
