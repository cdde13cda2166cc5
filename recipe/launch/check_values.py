"""What can be known to be wrong with verl's own settings before Ray starts."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from recipe.core.recipe import POLICY_LOSS
from recipe.core.settings import check_choice, check_number

WHOLE_NUMBERS = (  # of verl's settings, those that the checks calculate with
    "data.train_batch_size",
    "actor_rollout_ref.rollout.n",
    "trainer.nnodes",
    "trainer.n_gpus_per_node",
    "actor_rollout_ref.actor.ppo_mini_batch_size",
    "actor_rollout_ref.actor.ppo_epochs",
)


def numbers(config: DictConfig) -> None:
    """verl's settings with which the other checks calculate."""
    for key in WHOLE_NUMBERS:
        value = OmegaConf.select(config, key)
        check_number(key, value, "a whole number above 0", lambda x: x > 0, int)


def estimator_and_loss(config: DictConfig) -> None:
    """verl looks for both only in the first step, after a whole batch of rollouts."""
    from verl.trainer.ppo import core_algos

    for key, registry in (
        ("algorithm.adv_estimator", core_algos.ADV_ESTIMATOR_REGISTRY),
        (f"{POLICY_LOSS}.loss_mode", core_algos.POLICY_LOSS_REGISTRY),
    ):
        name = OmegaConf.select(config, key)
        check_choice(f"{key}={name}", name, registry)


def batches(config: DictConfig) -> None:
    """verl finds out in the first step, on the workers, that a batch cannot be split."""
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    ranks = config.trainer.nnodes * config.trainer.n_gpus_per_node
    prompts = config.data.train_batch_size
    if prompts % actor.ppo_mini_batch_size:
        raise ValueError(
            f"data.train_batch_size={prompts} is not a multiple of actor_rollout_ref.actor."
            f"ppo_mini_batch_size={actor.ppo_mini_batch_size} (both in prompts): change one."
        )
    if actor.ppo_mini_batch_size * rollout.n % ranks:
        raise ValueError(
            f"actor_rollout_ref.actor.ppo_mini_batch_size={actor.ppo_mini_batch_size} times "
            f"rollout.n={rollout.n} is not a multiple of the {ranks} ranks: change one of them."
        )
    micro = rollout.log_prob_micro_batch_size_per_gpu
    if not actor.use_dynamic_bsz and micro and prompts * rollout.n // ranks % micro:
        raise ValueError(
            f"actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu={micro} does not divide "
            f"the {prompts * rollout.n // ranks} rollouts of a rank: change it, or set "
            "actor_rollout_ref.actor.use_dynamic_bsz=true."
        )
