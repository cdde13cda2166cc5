"""What each run of a comparison will be: `make_plan` asks each run script for its command and
composes its config."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from tqdm import tqdm

from recipe.core.recipe import FOLDER, recipe_named, recipes
from recipe.core.settings import check_choice, check_number
from recipe.experiment import provenance
from recipe.experiment.matrix import Arm, Matrix
from recipe.experiment.run import RunFolder, run_folder
from recipe.launch.compose import compose

ROOT = FOLDER.parent
COUNT = ("a whole number above 0", lambda x: x > 0, int)


@dataclass(frozen=True)
class PlannedRun:
    """One run of a comparison, as its script would start it."""

    arm: Arm
    seed: int
    folder: RunFolder
    command: list[str]
    record: dict[str, Any]  # the provenance record that it will have
    steps: int

    @property
    def name(self) -> str:
        return f"{self.arm.name}, seed {self.seed}"

    @property
    def finished(self) -> bool:
        return self.folder.is_complete(self.steps)

    @property
    def config(self) -> dict[str, Any]:
        return self.record["config"]

    @property
    def shape(self) -> tuple[int, int]:
        """Its nodes, and its devices on each."""
        trainer = self.config["trainer"]
        return trainer["nnodes"], trainer["n_gpus_per_node"]

    @property
    def devices(self) -> int:
        """Devices on all of its nodes."""
        return self.shape[0] * self.shape[1]


@dataclass(frozen=True)
class Plan:
    """The runs to start, seed by seed, and the baseline's run of each seed, started or not."""

    matrix: Matrix
    runs: tuple[PlannedRun, ...]
    baselines: tuple[PlannedRun, ...]


def script_of(arm: Arm) -> Path:
    """Returns the arm's run script: in its recipe's folder, or anywhere by an absolute path."""
    return recipe_named(arm.recipe).folder / Path(arm.script).expanduser()


def run_environment(matrix: Matrix, arm: Arm, seed: int, folder: RunFolder) -> dict[str, str]:
    """Returns the environment of a run's script: with it, the run can be repeated by hand."""
    return {
        "PYTHON": sys.executable,
        "SAVE_FREQ": "10",
        **os.environ,
        **matrix.environment,
        "PRESET": arm.preset,
        "SEED": str(seed),
        "PROJECT_NAME": matrix.out.name,
        "EXPERIMENT_NAME": f"{arm.name}-seed{seed}",
        "CKPTS_DIR": str(folder.path),
    }


def make_plan(
    matrix: Matrix,
    arms: Collection[str] = (),
    seeds: Collection[int] = (),
    prepares: bool = True,
) -> Plan:
    """Plans the runs of a comparison.

    Args:
        matrix: the comparison.
        arms: names of the arms to run; default: all.
        seeds: those to run; default: all.
        prepares: the run scripts make data and models that are missing.

    Raises:
        ValueError: an arm has no run script, or its config has no end or cannot be composed.
        RuntimeError: a run script failed.
    """
    for name in arms:
        check_choice(f"--arms {name}", name, [arm.name for arm in matrix.arms])
    for arm in matrix.arms:
        check_script(arm)
    for seed in seeds:
        if seed not in matrix.seeds:
            raise ValueError(
                f"--seeds {seed} is not of the matrix, whose seeds are "
                f"{', '.join(map(str, matrix.seeds))}, so that no report would show it: add it to "
                "`seeds` there."
            )
    chosen = [arm for arm in matrix.arms if not arms or arm.name in arms]
    seeds = list(dict.fromkeys(seeds or matrix.seeds))
    # the baseline first, chosen or not: its script may prepare data that the others need
    first = matrix.baseline_first()[0]
    baselines = {seed: plan_run(matrix, first, seed, prepares) for seed in seeds}
    pairs = [(arm, seed) for seed in seeds for arm in chosen]
    runs = tuple(
        baselines[seed] if arm == first else plan_run(matrix, arm, seed, prepares)
        for arm, seed in tqdm(pairs, desc="planning", unit="run", leave=False)
    )
    return Plan(matrix, runs, tuple(baselines.values()))


def check_script(arm: Arm) -> None:
    """Raises ValueError unless the arm's recipe and run script exist."""
    check_choice(f"arm {arm.name}: recipe {arm.recipe}", arm.recipe, [r.name for r in recipes()])
    if not script_of(arm).is_file():
        having = [recipe.name for recipe in recipes() if (recipe.folder / arm.script).is_file()]
        raise ValueError(
            f"arm {arm.name}: recipe {arm.recipe} has no script {arm.script}; "
            f"{', '.join(having) or 'no recipe'} has it."
        )


def plan_run(matrix: Matrix, arm: Arm, seed: int, prepares: bool = True) -> PlannedRun:
    """Asks the run script for its command, and composes the config of it.

    Args:
        prepares: as in `make_plan`.

    Raises:
        ValueError, RuntimeError: see `make_plan`.
    """
    folder = run_folder(matrix.out, arm.name, seed)
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "command"
        done = subprocess.run(
            ["bash", str(script_of(arm)), *matrix.overrides, *arm.overrides],
            env={
                **run_environment(matrix, arm, seed, folder),
                "COMMAND_FILE": str(file),
                "PREPARE": str(int(prepares)),
            },
            stdin=subprocess.DEVNULL,
        )
        if done.returncode or not file.is_file():
            raise RuntimeError(
                f"{arm.recipe}/{arm.script} failed for arm {arm.name}: what it printed says why."
            )
        command = file.read_bytes().decode().rstrip("\0").split("\0")
    name, *overrides = command[command.index("recipe.launch") + 1 :]
    config = compose(name, overrides)
    steps = config.trainer.total_training_steps
    if steps is None:
        raise ValueError(
            f"arm {arm.name}: trainer.total_training_steps=null has no end that a comparison could "
            "wait for: set STEPS."
        )
    if config.trainer.save_freq <= 0:
        raise ValueError(
            f"arm {arm.name}: trainer.save_freq={config.trainer.save_freq} (SAVE_FREQ) saves no "
            "checkpoint, by which a comparison knows that a run has finished: set it above 0."
        )
    record = provenance.record(OmegaConf.to_container(config, resolve=True), command)
    return PlannedRun(arm, seed, folder, command, record, int(steps))


def evaluation_replicas(run: PlannedRun, settings: Mapping[str, Any]) -> int:
    """Returns the engines of a run's evaluation: as many as the devices of its training hold, or
    as the matrix's `evaluate` says.

    Raises:
        ValueError: they would take more devices than the training does, which are not the run's.
    """
    given = {key.replace("-", "_"): value for key, value in settings.items()}
    parallel = given.get("tensor_parallel", 1)
    check_number("evaluate: tensor_parallel", parallel, *COUNT)
    fit = run.shape[0] * (run.shape[1] // parallel)
    replicas = given.get("replicas", max(fit, 1))
    check_number("evaluate: replicas", replicas, *COUNT)
    if replicas > fit:
        raise ValueError(
            f"evaluate: replicas={replicas} with tensor_parallel={parallel} takes more than the "
            f"{run.shape[0]} x {run.shape[1]} GPUs of {run.name}, which it is evaluated on: use "
            "fewer, or a smaller tensor_parallel."
        )
    return replicas


def evaluations_of(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the settings of each evaluation of a run: one, or one for each of the matrix's
    `presets`, whose results go to a folder of the preset's name."""
    shared = {key: value for key, value in settings.items() if key != "presets"}
    if not settings.get("presets"):
        return [shared]
    return [{**shared, "preset": preset, "out": preset} for preset in settings["presets"]]


def evaluation_arguments(run: PlannedRun, settings: Mapping[str, Any]) -> list[str]:
    """Returns the arguments of recipe.evaluate for a run's last checkpoint.

    Args:
        settings: of `evaluations_of`: benchmarks, and flags with their values. True stands for a
            flag without a value; False leaves it out; `out` is below the run's evaluation folder.
    """
    words = [str(run.folder.path), *map(str, settings["benchmarks"])]
    words += ["--out", str(run.folder.evaluation / settings.get("out", ""))]
    for key, value in {**settings, "replicas": evaluation_replicas(run, settings)}.items():
        if key not in ("benchmarks", "out") and value is not False:
            words.append(f"--{key.replace('_', '-')}")
            if value is not True:
                words += map(str, value if isinstance(value, list) else [value])
    return words
