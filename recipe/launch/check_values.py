"""What can be known to be wrong with verl's own settings before Ray starts, beside their types
(`check_types`) and names (`check_names`): numbers out of range, keys that verl has and does not
read, batches that cannot be split."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from recipe.core.recipe import POLICY_LOSS
from recipe.core.settings import Setting, check_number
from recipe.experiment.provenance import flatten
from recipe.launch.check_sizes import needs_reference, sequence_parallel_size
from recipe.launch.check_types import defaults, engine_of, shown

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
REF, MODEL = "actor_rollout_ref.ref", "actor_rollout_ref.model"
# Keys that verl 0.9.1 has and does not read, and the key that it reads in their place, if any
UNREAD: dict[str, str | None] = {
    f"{ACTOR}.grad_clip": f"{ACTOR}.optim.clip_grad",
    f"{ACTOR}.use_torch_compile": f"{ACTOR}.fsdp_config.use_torch_compile",
    f"{REF}.use_torch_compile": f"{REF}.fsdp_config.use_torch_compile",
    f"{ACTOR}.use_remove_padding": f"{MODEL}.use_remove_padding",
    f"{ACTOR}.fsdp_config.strategy": f"{ACTOR}.strategy",
    f"{REF}.fsdp_config.strategy": f"{REF}.strategy",
    f"{ACTOR}.ppo_micro_batch_size": f"{ACTOR}.ppo_micro_batch_size_per_gpu",
    f"{ROLLOUT}.log_prob_micro_batch_size": f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu",
    f"{REF}.log_prob_micro_batch_size": f"{REF}.log_prob_micro_batch_size_per_gpu",
    f"{ROLLOUT}.do_sample": f"{ROLLOUT}.temperature",
    f"{ACTOR}.freeze_vision_tower": None,
    f"{ROLLOUT}.repetition_penalty": None,
    f"{ROLLOUT}.over_sample_rate": None,
    f"{ROLLOUT}.multi_turn.num_repeat_rollouts": None,
    "actor_rollout_ref.nccl_timeout": None,
}
# What verl does not check: the range of its numbers. One that may be null is not checked then.
NUMBERS: dict[Setting, tuple[str, ...]] = {
    Setting(kind=int, above=0): (
        "data.train_batch_size",
        "data.gen_batch_size",
        "data.val_batch_size",
        "data.max_prompt_length",
        "data.max_response_length",
        "trainer.nnodes",
        "trainer.n_gpus_per_node",
        "trainer.total_epochs",
        "trainer.total_training_steps",
        "trainer.max_actor_ckpt_to_keep",
        "trainer.max_critic_ckpt_to_keep",
        f"{ACTOR}.ppo_epochs",
        f"{ACTOR}.ppo_mini_batch_size",
        f"{ACTOR}.ppo_micro_batch_size_per_gpu",
        f"{ACTOR}.ppo_max_token_len_per_gpu",
        f"{ACTOR}.ulysses_sequence_parallel_size",
        f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size",
        f"{ACTOR}.loss_scale_factor",
        f"{ROLLOUT}.n",
        f"{ROLLOUT}.val_kwargs.n",
        f"{ROLLOUT}.tensor_model_parallel_size",
        f"{ROLLOUT}.data_parallel_size",
        f"{ROLLOUT}.pipeline_model_parallel_size",
        f"{ROLLOUT}.expert_parallel_size",
        f"{ROLLOUT}.max_model_len",
        f"{ROLLOUT}.max_num_batched_tokens",
        f"{ROLLOUT}.max_num_seqs",
        f"{ROLLOUT}.agent.num_workers",
        f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu",
        f"{ROLLOUT}.log_prob_max_token_len_per_gpu",
        f"{ROLLOUT}.checkpoint_engine.update_weights_bucket_megabytes",
        f"{REF}.log_prob_micro_batch_size_per_gpu",
        f"{REF}.log_prob_max_token_len_per_gpu",
        f"{REF}.ulysses_sequence_parallel_size",
        "trainer.ray_wait_register_center_timeout",
    ),
    Setting(kind=int, at_least=0): (
        "data.dataloader_num_workers",
        "trainer.critic_warmup",
        "trainer.log_val_generations",
        f"{MODEL}.lora_rank",
        "algorithm.filter_groups.max_num_gen_batches",
        "data.seed",
        f"{ACTOR}.data_loader_seed",
        f"{ROLLOUT}.seed",
        "reward.num_workers",
        "ray_kwargs.ray_init.num_gpus",
    ),
    Setting(kind=int, at_least=-1): (
        "data.train_max_samples",
        "data.val_max_samples",
        "trainer.save_freq",
        "trainer.test_freq",
        f"{ROLLOUT}.top_k",
        f"{ROLLOUT}.val_kwargs.top_k",
        f"{ACTOR}.optim.lr_warmup_steps",
        f"{ACTOR}.optim.total_training_steps",
        f"{ACTOR}.fsdp_config.fsdp_size",
    ),
    Setting(above=0): (
        f"{POLICY_LOSS}.clip_cov_ratio",
        f"{ROLLOUT}.temperature",
        f"{ACTOR}.optim.clip_grad",
        f"{ACTOR}.optim.num_cycles",
        f"{ACTOR}.tau_pos",
        f"{ACTOR}.tau_neg",
        f"{MODEL}.lora_alpha",
        "algorithm.kl_ctrl.horizon",
        "algorithm.kl_ctrl.target_kl",
        "ray_kwargs.ray_init.num_cpus",
    ),
    Setting(above=1): (f"{ACTOR}.clip_ratio_c",),
    Setting(at_least=0): (
        f"{ROLLOUT}.val_kwargs.temperature",
        f"{ACTOR}.optim.lr",
        f"{ACTOR}.optim.weight_decay",
        f"{ACTOR}.clip_ratio",
        f"{ACTOR}.clip_ratio_low",
        f"{ACTOR}.clip_ratio_high",
        f"{ACTOR}.kl_loss_coef",
        f"{POLICY_LOSS}.kl_cov_ratio",
        f"{POLICY_LOSS}.ppo_kl_coef",
        "algorithm.kl_ctrl.kl_coef",
        "trainer.esi_redundant_time",
    ),
    Setting(at_least=0, at_most=1): (
        f"{ACTOR}.optim.lr_warmup_steps_ratio",
        f"{ACTOR}.optim.min_lr_ratio",
        "algorithm.gamma",
        "algorithm.lam",
    ),
    Setting(above=0, at_most=1): (
        f"{ROLLOUT}.gpu_memory_utilization",
        f"{ROLLOUT}.top_p",
        f"{ROLLOUT}.val_kwargs.top_p",
    ),
}


def numbers(config: DictConfig) -> None:
    """The range of verl's numbers."""
    for allowed, keys in NUMBERS.items():
        for key in keys:
            value = OmegaConf.select(config, key)
            if value is not None:  # null where it is not allowed is of a wrong type
                words = allowed.allowed(optional=False)
                check_number(key, value, words, allowed.holds, allowed.kind)
    for i, beta in enumerate(OmegaConf.select(config, f"{ACTOR}.optim.betas") or ()):
        words = "numbers from 0, below 1"
        check_number(f"{ACTOR}.optim.betas[{i}]", beta, words, lambda x: 0 <= x < 1)


def unread(config: DictConfig) -> None:
    """A key that verl has and does not read is at verl's default, or says what the key says that
    verl reads in its place."""
    shipped = flatten(defaults(engine_of(config)).values)
    for key, read in UNREAD.items():
        value = OmegaConf.select(config, key)
        if value == shipped.get(key) or (read and value == OmegaConf.select(config, read)):
            continue
        what = f"{key}={shown(value)} has no effect, since verl 0.9.1 does not read it"
        raise ValueError(f"{what}: {f'set {read} in its place' if read else 'leave it out'}.")


def covariance_window(config: DictConfig) -> None:
    """Clip-Cov takes its tokens from a window of covariances, which must hold some."""
    loss = config.actor_rollout_ref.actor.policy_loss
    if loss.loss_mode == "clip_cov" and not loss.clip_cov_lb < loss.clip_cov_ub:
        raise ValueError(
            f"{POLICY_LOSS}.clip_cov_lb={loss.clip_cov_lb} is not below clip_cov_ub="
            f"{loss.clip_cov_ub}, so that loss_mode=clip_cov clips no token: use a lower one "
            "(verl: 1 and 5)."
        )


def batches(config: DictConfig) -> None:
    """verl finds out in the first step, on the workers, that a batch cannot be split: over the
    ranks that have rows of their own, those of one sequence parallel group sharing theirs, and on
    each into micro-batches."""
    nodes, prompts = config.actor_rollout_ref, config.data.train_batch_size
    actor, rollout = nodes.actor, nodes.rollout
    if prompts % actor.ppo_mini_batch_size:
        raise ValueError(
            f"data.train_batch_size={prompts} is not a multiple of {ACTOR}."
            f"ppo_mini_batch_size={actor.ppo_mini_batch_size} (both in prompts): change one."
        )
    ranks = data_parallel_ranks(config, "actor")
    if actor.ppo_mini_batch_size * rollout.n % ranks:
        raise ValueError(
            f"{ACTOR}.ppo_mini_batch_size={actor.ppo_mini_batch_size} times rollout.n={rollout.n} "
            f"is not a multiple of the {ranks} ranks that each get rows of their own: change one "
            "of them."
        )
    if rollout.log_prob_use_dynamic_bsz != actor.use_dynamic_bsz:
        raise ValueError(
            f"{ROLLOUT}.log_prob_use_dynamic_bsz={rollout.log_prob_use_dynamic_bsz} is not "
            f"{ACTOR}.use_dynamic_bsz={actor.use_dynamic_bsz}, which verl refuses: set the second "
            "alone."
        )
    of_rank = "rollouts of a rank"
    micro_batches = []
    if not actor.use_dynamic_bsz:
        mini_batch = actor.ppo_mini_batch_size * rollout.n // ranks
        micro_batches = [
            (f"{ACTOR}.ppo_micro_batch_size_per_gpu", mini_batch, f"{of_rank} in a mini-batch"),
            (f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu", prompts * rollout.n // ranks, of_rank),
        ]
    has_worker = needs_reference(config) and not (
        nodes.model.get("lora_rank") or nodes.model.get("lora_adapter_path")
    )  # else the reference is the actor without its adapter
    if has_worker and not nodes.ref.log_prob_use_dynamic_bsz:
        rows = prompts * rollout.n // data_parallel_ranks(config, "ref")
        micro_batches.append((f"{REF}.log_prob_micro_batch_size_per_gpu", rows, of_rank))
    for key, rows, what in micro_batches:
        size, dynamic = OmegaConf.select(config, key), f"{ACTOR}.use_dynamic_bsz=true"
        if size is None:
            raise ValueError(
                f"{key}=null is not allowed without dynamic batches: set it to a divisor of the "
                f"{rows} {what}, or set {dynamic}."
            )
        if rows % size:
            raise ValueError(
                f"{key}={size} does not divide the {rows} {what}: change it, or set {dynamic}."
            )


def data_parallel_ranks(config: DictConfig, worker: str) -> int:
    """Returns how many ranks of the actor or the reference get rows of their own."""
    node = config.actor_rollout_ref[worker]
    ranks = config.trainer.nnodes * config.trainer.n_gpus_per_node
    return ranks // (sequence_parallel_size(node) if "fsdp_config" in node else 1)
