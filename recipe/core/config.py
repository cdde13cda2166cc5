"""What the checks of several recipes read of a run's resolved config."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from recipe.core.recipe import POLICY_LOSS, POLICY_LOSS_TARGET, TRAINER, recipes
from recipe.core.settings import build, plain
from recipe.core.trainer_settings import TrainerSettings


def policy_loss(config: DictConfig) -> Any:
    """Returns the settings of the node policy_loss, checked; None if it is verl's own node.

    Raises:
        ValueError: For a setting that is not allowed, or a recipe's loss without its settings.
    """
    node = config.actor_rollout_ref.actor.policy_loss
    if node.get("_target_") != POLICY_LOSS_TARGET:
        if node.loss_mode in (name for record in recipes() for name in record.losses):
            raise ValueError(
                f"{POLICY_LOSS}.loss_mode={node.loss_mode} needs its settings in the same node: "
                "start from recipe/common.yaml."
            )
        return None
    module, _, name = POLICY_LOSS_TARGET.rpartition(".")
    target = getattr(importlib.import_module(module), name)
    return build(target, plain(node), POLICY_LOSS)


def trainer_settings(config: DictConfig) -> TrainerSettings:
    """Returns the settings of the recipes' trainer; raises ValueError for a value that is not
    allowed."""
    return build(TrainerSettings, plain(OmegaConf.select(config, TRAINER)), TRAINER)


def updates_per_rollout(config: DictConfig) -> int:
    """Returns how many updates of the actor use each rollout batch."""
    actor = config.actor_rollout_ref.actor
    return config.data.train_batch_size // actor.ppo_mini_batch_size * actor.ppo_epochs


def steps_of_epochs(config: DictConfig, prompts: int) -> int:
    """Returns after how many steps `trainer.total_epochs` end: verl leaves a last batch out that is
    not full."""
    return prompts // config.data.train_batch_size * config.trainer.total_epochs


def has_curriculum(config: DictConfig) -> bool:
    """Returns whether a curriculum orders the prompts: its plan has the run's length then."""
    return "data.curriculum.order" in prompt_orders(config)


def prompt_orders(config: DictConfig) -> dict[str, str]:
    """Returns the settings `data.*.order` that order the prompts in place of verl's sampler."""
    orders = {
        f"data.{name}.order": str(node.get("order") or "none")
        for name, node in config.data.items()
        if isinstance(node, DictConfig)
    }
    return {key: order for key, order in orders.items() if order != "none"}


def check_several_updates(config: DictConfig, what: str, cure: str) -> None:
    """Raises ValueError for one update per rollout, where every ratio is 1.

    Args:
        what: What the ratio then does to a setting, which it names.
        cure: What else can be done, behind "use a smaller mini-batch".
    """
    if updates_per_rollout(config) <= 1:
        raise ValueError(
            f"data.train_batch_size={config.data.train_batch_size} with actor_rollout_ref.actor."
            f"ppo_mini_batch_size={config.actor_rollout_ref.actor.ppo_mini_batch_size} makes one "
            f"update per rollout, where the ratio is always 1 and {what}: use a smaller "
            f"mini-batch{cure}."
        )


def filters_groups(config: DictConfig) -> bool:
    """Returns whether verl drops groups of one outcome (DAPO's dynamic sampling)."""
    return bool((config.algorithm.get("filter_groups") or {}).get("enable", False))


def replaces_groups(config: DictConfig) -> bool:
    """Returns whether verl draws more prompts for a step than its batch has, in the place of groups
    without signal (DAPO's dynamic sampling) or of those whose rollouts have all failed."""
    refills = OmegaConf.select(config, "trainer.v1.sampler.sync_refill_failed_groups")
    return bool(filters_groups(config) or refills)


def bypasses_old_log_probs(config: DictConfig) -> bool:
    """Returns whether verl takes the rollout's log-probs for the old policy's, and so computes
    neither those nor the entropy."""
    return bool((config.algorithm.get("rollout_correction") or {}).get("bypass_mode", False))


def check_entropies(config: DictConfig, what: str, cure: str = "") -> None:
    """Raises ValueError where verl does not compute the old policy's entropies.

    Args:
        what: What needs them, the subject of a sentence.
        cure: What else can be done, behind "set it to false".
    """
    if bypasses_old_log_probs(config):
        raise ValueError(
            f"{what} needs the policy's entropy, which verl does not compute with "
            f"algorithm.rollout_correction.bypass_mode=true: set it to false{cure}."
        )


def data_files(config: DictConfig, key: str) -> list[str]:
    """Returns the files of `data.<key>` as the config names them."""
    value = config.data[key]
    return list(value) if isinstance(value, list | tuple | ListConfig) else [value]


def local_parquet_files(config: DictConfig, key: str) -> list[Path] | None:
    """Returns the files of `data.<key>` if all are parquet files on this machine, else None."""
    files = [Path(os.path.expanduser(path)) for path in data_files(config, key)]
    return files if all(file.suffix == ".parquet" and file.is_file() for file in files) else None
