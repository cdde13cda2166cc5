"""What can be known to be wrong before Ray starts: each check raises one sentence with its cure.

`check(config)` runs them all on a resolved config; `recipe.launch` calls it for every run, and
stops there with `--dry-run`.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable

from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recipe.core import cli, transfer_queue
from recipe.core import config as run_config
from recipe.core.recipe import POLICY_LOSS, TRAINER, recipes
from recipe.core.settings import build, plain
from recipe.launch.check_data import data
from recipe.launch.check_lengths import prompt_lengths
from recipe.launch.check_model import model
from recipe.launch.check_names import names
from recipe.launch.check_presets import presets
from recipe.launch.check_resume import resume, writable_folder
from recipe.launch.check_reward import reward
from recipe.launch.check_sizes import attention, lengths, parallel_sizes
from recipe.launch.check_types import nodes, values
from recipe.launch.check_values import batches, covariance_window, numbers, unread
from recipe.launch.memory import memory

TRAINER_MODE = TRAINER.rpartition(".")[2]


def distillation(config: DictConfig) -> None:
    """A loss that reads the step takes the place of verl's loss function, distillation with it."""
    from recipe.trainer import make_parts

    if not (config.get("distillation") or {}).get("enabled", False):
        return
    parts = make_parts(config, run_config.trainer_settings(config))
    if any(part.reads_step_in_loss for part in parts):
        loss_mode = config.actor_rollout_ref.actor.policy_loss.loss_mode
        raise ValueError(
            f"{POLICY_LOSS}.loss_mode={loss_mode} takes the place of verl's distillation loss: "
            "set distillation.enabled=false."
        )


def entropies(config: DictConfig) -> None:
    """verl measures the policy's entropy with the old log-probs, which bypass mode leaves out."""
    from recipe.trainer import make_parts

    if not run_config.bypasses_old_log_probs(config):
        return
    for part in make_parts(config, run_config.trainer_settings(config)):
        if part.needs_entropy:
            run_config.check_entropies(config, f"the trainer part {part.name}")


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
    if not config.trainer.use_v1:
        raise ValueError(
            "trainer.use_v1=false has no effect, since the recipes' trainer is one of verl's v1: "
            "set it to true."
        )
    steps = OmegaConf.select(config, "trainer.v1.sync.parameter_sync_step") or 1
    if steps != 1:
        raise ValueError(
            f"trainer.v1.sync.parameter_sync_step={steps} is not allowed: schedules and curricula "
            "count one update of the weights per step, so leave it at 1."
        )
    settings = run_config.trainer_settings(config)
    if (
        settings.held_out_entropy
        and config.trainer.test_freq <= 0
        and not config.trainer.get("val_before_train", True)
    ):
        raise ValueError(
            f"{TRAINER}.held_out_entropy=true has no effect with trainer.test_freq="
            f"{config.trainer.test_freq} and trainer.val_before_train=false, since it is measured "
            "when verl validates: set trainer.test_freq to a number of steps, or it to false."
        )
    try:
        get_object(settings.task_runner)
    except Exception as error:
        raise ValueError(
            f"{TRAINER}.task_runner={settings.task_runner} cannot be imported ({error}): name a "
            "Ray actor class such as verl.trainer.main_ppo.TaskRunnerV1."
        ) from error


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
    from hydra.errors import InstantiationException
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    try:
        omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
        validate_config(
            config=config,
            use_reference_policy=need_reference_policy(config),
            use_critic=(has_critic := need_critic(config)),
        )
    except InstantiationException as error:
        cause = error.__cause__ or error
        node = str(error).rpartition("full_key: ")[2].strip()
        line = traceback.extract_tb(cause.__traceback__)[-1].line  # of an assert without a message
        raise ValueError(f"verl refuses the node {node}: {str(cause) or line}") from error
    if config.trainer.critic_warmup > 0 and not has_critic:
        raise ValueError(
            f"trainer.critic_warmup={config.trainer.critic_warmup} would leave the policy as it is "
            "in the first steps, and there is no critic to warm up: set it to 0, or use one "
            "(algorithm.adv_estimator=gae)."
        )


CHECKS: tuple[Callable[[DictConfig], None], ...] = (
    registrations,
    nodes,
    values,
    numbers,
    unread,
    covariance_window,
    names,
    trainer,
    recipe_settings,
    presets,
    reward,
    data,
    recipe_checks,
    model,
    parallel_sizes,
    lengths,
    attention,
    prompt_lengths,
    cluster,
    batches,
    entropies,
    distillation,
    verl_itself,
    memory,
    writable_folder,
    resume,
)


def check(config: DictConfig) -> None:
    """Runs every check on a resolved config.

    Raises:
        ValueError, AssertionError, RuntimeError, OSError: the first that fails, in one sentence.
    """
    for check_one in CHECKS:
        try:
            check_one(config)
        except (*cli.ERRORS, HydraException, OmegaConfBaseException):
            raise
        except Exception as error:  # of a library: what it cannot read is still the config's fault
            raise RuntimeError(
                f"The check `{check_one.__name__}` cannot read this config "
                f"({type(error).__name__}: {error}): compare it with --print-config of a run that "
                "is valid."
            ) from error
