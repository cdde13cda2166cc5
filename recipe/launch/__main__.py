"""Start a recipe on verl's PPO trainer: compose its config, check it, then hand over to verl.

    python -m recipe.launch asymgrpo [--dry-run] [--print-config] [key=value ...]

The first word names a folder of recipe/ with a yaml of the same name; the rest are Hydra overrides
(`machine=cpu` chooses recipe/machine/cpu.yaml). Without this module, and so unchecked, the same
config runs as
    python -m verl.trainer.main_ppo --config-path=$PWD/recipe --config-name=asymgrpo/asymgrpo
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

RECIPES = Path(__file__).resolve().parents[1]


def compose(name: str, overrides: list[str]):
    """The resolved config of recipe `name` with Hydra overrides on top."""
    import hydra
    from omegaconf import OmegaConf

    # the resolvers that the yaml files use
    import recipe.asymgrpo.register
    import recipe.clip_entropy.register
    import recipe.semantic_curriculum.register  # noqa: F401

    folder = RECIPES / name
    if not (folder / f"{name}.yaml").is_file():
        known = sorted(p.parent.name for p in RECIPES.glob("*/*.yaml") if p.stem == p.parent.name)
        raise ValueError(f"recipe {name!r} does not exist: use one of {', '.join(known)}.")
    with hydra.initialize_config_dir(str(RECIPES), version_base=None):
        config = hydra.compose(f"{name}/{name}", overrides=overrides)
    OmegaConf.resolve(config)
    return config


def next_metrics_file(run_dir: Path) -> Path:
    """verl's file logger truncates what it opens, so every start of a run gets its own file."""
    taken = [int(path.stem) for path in run_dir.glob("metrics/[0-9]*.jsonl")]
    return run_dir / "metrics" / f"{max(taken, default=-1) + 1:03d}.jsonl"


def summary(config) -> str:
    """The recipe's resolved settings in a few lines: what to look at before a long run."""
    from recipe.semantic_curriculum.config import SentConfig

    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    settings = {k: v for k, v in config.algorithm.get("asymgrpo", {}).items() if v is not None}
    estimator, loss = config.algorithm.adv_estimator, actor.policy_loss
    own = SentConfig.from_mapping(loss).summary() if "token_rule" in loss else ""
    curriculum = config.data.get("curriculum", {"order": "none"})
    lines = {
        "estimator": f"{estimator} {settings if estimator == 'asymgrpo' else ''}",
        "loss": f"{loss.loss_mode} {own}",
        "actor": f"clip {actor.clip_ratio_low}/{actor.clip_ratio_high}, entropy coefficient "
        f"{actor.entropy_coeff}, aggregation {actor.loss_agg_mode}, KL loss {actor.use_kl_loss}, "
        f"lr {actor.optim.lr}",
        "batch": f"{config.data.train_batch_size} prompts x {rollout.n} rollouts, mini-batches of "
        f"{actor.ppo_mini_batch_size} prompts, responses up to {config.data.max_response_length}",
        "curriculum": "none" if curriculum["order"] == "none" else str(dict(curriculum)),
        "model": config.actor_rollout_ref.model.path,
        "data": f"{config.data.train_files} / {config.data.val_files}",
        "machine": f"{config.trainer.nnodes} x {config.trainer.n_gpus_per_node} "
        f"({config.trainer.device})",
        "run folder": config.trainer.default_local_dir,
    }
    return "\n".join(f"[recipe] {name:<10} {text}" for name, text in lines.items())


def train(config) -> None:
    """Run verl's trainer in this run's folder, then draw its curve."""
    from omegaconf import OmegaConf, open_dict
    from verl.trainer.main_ppo import TaskRunnerV1, run_ppo
    from verl.utils.device import auto_set_device

    from recipe import plot
    from recipe.cpu import leftovers, platform
    from recipe.experiment import provenance

    auto_set_device(config)
    run_dir = Path(config.trainer.default_local_dir).expanduser().absolute()
    metrics_file = next_metrics_file(run_dir)
    provenance.write(
        metrics_file.with_suffix(".yaml"),
        provenance.record(OmegaConf.to_container(config, resolve=True)),
    )
    with open_dict(config):
        config.trainer.default_local_dir = str(run_dir)
        runtime_env = config.ray_kwargs.ray_init.runtime_env
        runtime_env.env_vars = {
            "VERL_FILE_LOGGER_PATH": str(metrics_file),
            "TENSORBOARD_DIR": str(run_dir / "tensorboard"),
            **(runtime_env.get("env_vars") or {}),  # the user's own win
        }
    task_runner = TaskRunnerV1
    if platform.active():
        from recipe.cpu.runner import LocalTaskRunner as task_runner

        leftovers.remove_orphaned_segments()
    try:
        run_ppo(config, task_runner_class=task_runner)
    finally:
        if metrics_file.is_file() and metrics_file.stat().st_size:
            print(f"[recipe] curve: {plot.draw(run_dir)}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m recipe.launch", description=__doc__.splitlines()[0]
    )
    parser.add_argument("recipe", help="folder of recipe/ that holds a yaml of the same name")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, key=value")
    parser.add_argument("--dry-run", action="store_true", help="check the config and stop")
    parser.add_argument("--print-config", action="store_true", help="print the whole config")
    known = parser.parse_intermixed_args(arguments)

    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        config = compose(known.recipe, known.overrides)
        if known.print_config:
            print(OmegaConf.to_yaml(config))
        from recipe.launch import preflight

        preflight.check(config)
    except (
        *(ValueError, AssertionError, RuntimeError, OSError),
        *(HydraException, OmegaConfBaseException),
    ) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(summary(config))
    if known.dry_run:
        print("[recipe] dry run: the config is valid; nothing was started")
        return 0
    train(config)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    sys.exit(main())
