"""What can be known to be wrong before Ray starts: each check raises one sentence with its cure.

`check(config)` runs them all on a resolved config; `recipe.launch` calls it for every run, and
stops there with `--dry-run`.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from recipe.core import config as run_config
from recipe.core import transfer_queue
from recipe.core.recipe import POLICY_LOSS, TRAINER, recipes
from recipe.core.settings import build, plain
from recipe.core.trainer_settings import TrainerSettings
from recipe.launch.check_data import data
from recipe.launch.check_model import model
from recipe.launch.check_sizes import attention, lengths, parallel_sizes
from recipe.launch.check_values import batches, estimator_and_loss, numbers
from recipe.launch.memory import memory

TRAINER_MODE = TRAINER.rpartition(".")[2]


def distillation(config: DictConfig) -> None:
    """A loss that reads the step takes the place of verl's loss function, distillation with it."""
    from recipe.trainer import make_parts

    if not (config.get("distillation") or {}).get("enabled", False):
        return
    if any(part.reads_step_in_loss for part in make_parts(config, trainer_settings(config))):
        loss_mode = config.actor_rollout_ref.actor.policy_loss.loss_mode
        raise ValueError(
            f"{POLICY_LOSS}.loss_mode={loss_mode} takes the place of verl's distillation loss: "
            "set distillation.enabled=false."
        )


def registrations(config: DictConfig | None = None) -> None:
    """verl hides a plugin that fails to load, so its registrations are looked for by name."""
    from verl.trainer.ppo import core_algos
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

    missing = []
    for recipe in recipes():
        for name in recipe.estimators:
            if name not in core_algos.ADV_ESTIMATOR_REGISTRY:
                missing.append(f"advantage estimator {name}")
        for name in recipe.losses:
            if name not in core_algos.POLICY_LOSS_REGISTRY:
                missing.append(f"policy loss {name}")
    if TRAINER_MODE not in TRAINER_REGISTRY:
        missing.append(f"trainer {TRAINER_MODE}")
    if not transfer_queue.installed():
        missing.append("a TransferQueue of each run's own")
    if missing:
        raise RuntimeError(
            f"The recipes are not registered with verl ({', '.join(missing)}): install this "
            "package in the environment that runs verl (`bash setup.sh cpu`, `bash setup.sh gpu`), "
            "check that VERL_USE_EXTERNAL_PLUGINS is unset or auto, and run `python -c 'import "
            "recipe.plugin'` to see why the plugin does not load."
        )


def trainer(config: DictConfig) -> None:
    """The recipes' trainer, and its settings."""
    if config.trainer.v1.trainer_mode != TRAINER_MODE:
        raise ValueError(
            f"trainer.v1.trainer_mode={config.trainer.v1.trainer_mode} would run without the "
            f"recipes' diagnostics and settings: use {TRAINER_MODE}."
        )
    settings = trainer_settings(config)
    try:
        get_object(settings.task_runner)
    except Exception as error:
        raise ValueError(
            f"{TRAINER}.task_runner={settings.task_runner} cannot be imported ({error}): name a "
            "Ray actor class such as verl.trainer.main_ppo.TaskRunnerV1."
        ) from error


def trainer_settings(config: DictConfig) -> TrainerSettings:
    """Returns the settings of the recipes' trainer; raises ValueError for a value that is
    not allowed."""
    return build(TrainerSettings, plain(config.trainer.v1[TRAINER_MODE]), TRAINER)


def recipe_settings(config: DictConfig) -> None:
    """Every recipe's settings, whichever recipe runs: their names and values."""
    run_config.policy_loss(config)
    for recipe in recipes():
        for place, reference in recipe.settings.items():
            node = OmegaConf.select(config, place)
            if node is not None:
                build(recipe.load(reference), plain(node), place)


def recipe_checks(config: DictConfig) -> None:
    """Each recipe's own checks of its settings against the rest of the config and the data."""
    for recipe in recipes():
        if recipe.checks is not None:
            recipe.load(recipe.checks)(config)


def cluster(config: DictConfig) -> None:
    if config.trainer.nnodes > 1 and not os.environ.get("RAY_ADDRESS"):
        raise ValueError(
            f"trainer.nnodes={config.trainer.nnodes} needs a running Ray cluster: start it with "
            "`ray start --head` and `ray start --address=HEAD:6379`, and set RAY_ADDRESS."
        )


def verl_itself(config: DictConfig) -> None:
    """verl's own checks (batch divisibility, micro-batches, LoRA rank …)."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    validate_config(
        config=config,
        use_reference_policy=need_reference_policy(config),
        use_critic=need_critic(config),
    )


CHECKS: tuple[Callable[[DictConfig], None], ...] = (
    registrations,
    numbers,
    estimator_and_loss,
    trainer,
    recipe_settings,
    data,
    recipe_checks,
    model,
    parallel_sizes,
    lengths,
    attention,
    cluster,
    batches,
    distillation,
    verl_itself,
    memory,
)


def check(config: DictConfig) -> None:
    """Runs every check on a resolved config; raises for the first that fails."""
    for check_one in CHECKS:
        check_one(config)
