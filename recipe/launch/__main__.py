"""Start a recipe on verl's PPO trainer: compose its config, check it, then hand over to verl.

    python -m recipe.launch RECIPE [--dry-run] [--print-config] [--settings] [--verbose]
        [key=value ...]

RECIPE names a folder of recipe/, or a recipe of another installed package; the rest are Hydra
overrides (`machine=cpu` chooses recipe/machine/cpu.yaml). Without this module, and so unchecked,
the same config runs as
    python -m verl.trainer.main_ppo --config-path=$PWD/recipe --config-name=asymgrpo/asymgrpo
"""

from __future__ import annotations

import argparse
import io
import os
import sys

from omegaconf import DictConfig, OmegaConf

from recipe import machine
from recipe.console import screen
from recipe.core import cli
from recipe.core import config as run_config
from recipe.core.recipe import TRAINER, recipe_named, recipes
from recipe.core.settings import markdown_table
from recipe.core.trainer_settings import TrainerSettings
from recipe.experiment.run import RunFolder
from recipe.launch import check_sizes, memory
from recipe.launch.compose import compose


def summary(config: DictConfig) -> str:
    """Returns the resolved settings in a few lines: what to look at before a long run."""
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    lines = {
        "estimator": str(config.algorithm.adv_estimator),
        "loss": str(actor.policy_loss.loss_mode),
        "actor": f"clip {actor.clip_ratio_low}/{actor.clip_ratio_high}, entropy coefficient "
        f"{actor.entropy_coeff}, aggregation {actor.loss_agg_mode}, KL loss {actor.use_kl_loss}, "
        f"lr {actor.optim.lr}",
        "batch": f"{config.data.train_batch_size} prompts x {rollout.n} rollouts, mini-batches of "
        f"{actor.ppo_mini_batch_size} prompts, responses up to {config.data.max_response_length}",
    }
    for recipe in recipes():
        if recipe.summary is not None:
            for name, text in recipe.load(recipe.summary)(config).items():
                lines[name] = f"{lines[name]} {text}" if name in lines else text
    lines |= {
        "model": config.actor_rollout_ref.model.path,
        "data": f"{config.data.train_files} / {config.data.val_files}",
        "machine": f"{config.trainer.nnodes} x {config.trainer.n_gpus_per_node} "
        f"({config.trainer.device})",
        "run folder": config.trainer.default_local_dir,
    }
    lines |= memory.summary(config)
    return "\n".join(f"[recipe] {name:<10} {text}" for name, text in lines.items())


def settings_tables(name: str) -> str:
    """Returns the settings of a recipe, and of the trainer, as Markdown tables."""
    nodes = recipe_named(name).settings_nodes() | {TRAINER: TrainerSettings}
    return "\n".join(f"`{node}`\n\n{markdown_table(cls)}" for node, cls in nodes.items())


def header(name: str, config: DictConfig) -> str:
    """Returns what a run is and where, in a few lines: what stands above its steps."""
    record, trainer = recipe_named(name), config.trainer
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    preset = OmegaConf.select(config, record.preset_key) if record.preset_key else None
    updates = run_config.updates_per_rollout(config)
    steps, folder = memory.training_steps(config), RunFolder.from_config(config)
    done = folder.checkpoint_step() if trainer.resume_mode == "auto" else 0
    lines = {
        "method": f"{name}{f', preset {preset}' if preset else ''}: estimator "
        f"{config.algorithm.adv_estimator}, loss {actor.policy_loss.loss_mode}",
        "model": config.actor_rollout_ref.model.path,
        "data": config.data.train_files,
        "a step": f"{config.data.train_batch_size} prompts x {rollout.n} rollouts, {updates} "
        f"update{'s' if updates > 1 else ''}, on {trainer.nnodes} x {trainer.n_gpus_per_node} "
        f"({trainer.device})",
        "steps": f"{steps or 'not known yet'}{f', resumed after step {done}' if done else ''}; the "
        "time that is left is estimated from the first on",
        "run": folder.path,
        "log": f"{folder.log}   (all else that is printed; --verbose shows it here)",
    }
    return "\n".join(f"[recipe] {key:<8} {text}" for key, text in lines.items())


def train(config: DictConfig) -> None:
    """Runs verl's trainer in this run's folder, then draws its curve."""
    from hydra.utils import get_object
    from omegaconf import open_dict
    from verl.trainer.main_ppo import run_ppo
    from verl.utils.device import auto_set_device

    from recipe import plot
    from recipe.experiment import provenance
    from recipe.launch import nodes

    auto_set_device(config)
    folder = RunFolder.from_config(config)
    run_dir = folder.path
    if config.trainer.resume_mode == "auto" and (repaired := folder.repair_marker()):
        print(f"[recipe] {repaired}")
    metrics_file = folder.next_metrics_file()
    provenance.write_yaml(
        metrics_file.with_suffix(".yaml"),
        provenance.record(OmegaConf.to_container(config, resolve=True)),
    )
    with open_dict(config):
        config.trainer.default_local_dir = str(run_dir)
        nodes.make_absolute(config)
        ray_init = config.ray_kwargs.ray_init
        if os.environ.get("RAY_ADDRESS"):  # that cluster's resources are not a run's to set
            ray_init.num_cpus = ray_init.num_gpus = None
        else:
            ray_init.num_cpus = nodes.own_cpus(config)
        runtime_env = ray_init.runtime_env
        runtime_env.env_vars = {
            "VERL_FILE_LOGGER_PATH": str(metrics_file),
            "TENSORBOARD_DIR": str(run_dir / "tensorboard"),
            **machine.worker_environment(config.trainer.n_gpus_per_node),
            **(runtime_env.get("env_vars") or {}),  # the user's win
        }
    try:
        run_ppo(config, task_runner_class=get_object(config.trainer.v1.recipe_sync.task_runner))
    finally:
        if metrics_file.is_file() and metrics_file.stat().st_size:
            try:
                print(f"[recipe] curve: {plot.draw(run_dir)}")
            except Exception as error:  # it must not take the place of what ended the training
                print(f"[recipe] the curve could not be drawn: {error!r}", file=sys.stderr)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m recipe.launch", description=__doc__.splitlines()[0]
    )
    parser.add_argument("recipe", help=f"one of: {', '.join(recipe.name for recipe in recipes())}")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, key=value")
    parser.add_argument("--dry-run", action="store_true", help="check the config and stop")
    parser.add_argument("--print-config", action="store_true", help="print the whole config")
    parser.add_argument(
        "--settings", action="store_true", help="list the recipe's settings and stop"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="print all that the run's log.txt gets, as it comes"
    )
    return parser.parse_intermixed_args(arguments)


def check(config: DictConfig, dry_run: bool) -> str | None:
    """Checks the config.

    Returns:
        A sentence on what a dry run does not need and is missing here, None if nothing is.
    """
    from recipe.launch import nodes, preflight

    preflight.check(config)
    missing = check_sizes.missing_flash_attention(config)
    if missing and (not dry_run or machine.has_own_memory(machine.torch_device())):
        raise ValueError(missing)
    if not dry_run:
        nodes.check(config)
    return missing


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    args = parse(arguments)
    aside = io.BytesIO()  # what libraries print while they are imported and checked
    try:
        if args.settings:
            print(settings_tables(args.recipe))
            return 0
        with screen.set_aside(aside, "reading the config"):
            config = compose(args.recipe, args.overrides)
        if args.print_config:
            print(OmegaConf.to_yaml(config))
        with screen.set_aside(aside, "checking the config, the data and the model"):
            missing = check(config, args.dry_run)
    except (*cli.ERRORS, HydraException, OmegaConfBaseException) as error:
        if args.verbose:
            sys.stderr.write(aside.getvalue().decode(errors="replace"))
        return cli.fail(error)
    sys.stdout.write(screen.notes(aside.getvalue()))
    if args.dry_run:
        print(summary(config))
        verdict = f", but it cannot run here: {missing.rstrip('.')}" if missing else ""
        print(f"[recipe] dry run: the config is valid{verdict}; nothing was started")
        return 0
    try:
        lock = RunFolder.from_config(config).hold()
    except (ValueError, OSError) as error:  # also a folder that cannot be written
        return cli.fail(error)
    print(header(args.recipe, config), flush=True)
    verbose = args.verbose or "file" not in config.trainer.logger  # without it no step is seen
    with screen.followed(RunFolder.from_config(config), verbose, aside.getvalue()):
        print(summary(config))
        train(config)
    if lock:
        lock.close()
    return 0


if __name__ == "__main__":
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    sys.exit(main())
