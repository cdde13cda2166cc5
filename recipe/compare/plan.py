"""What each run of a comparison will be, and whether the comparison would be a fair one.

`make_plan` asks each run script for its command and composes its config; `check_plan` raises one
sentence before anything starts.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from tqdm import tqdm

from recipe.core.recipe import FOLDER, default_settings, recipe_named, recipes
from recipe.core.settings import check_choice
from recipe.experiment import provenance
from recipe.experiment.matrix import Arm, Matrix
from recipe.experiment.provenance import config_identity, differences, flatten, is_below
from recipe.experiment.run import RunFolder, run_folder
from recipe.launch.compose import compose

ROOT = FOLDER.parent
# What makes a method: the config keys in which arms differ by design. In everything else that
# decides a run's results the arms of a seed must agree; files are compared by content.
METHOD_KEYS = (
    "algorithm",
    "actor_rollout_ref.actor.policy_loss",
    "actor_rollout_ref.actor.clip_ratio",
    "actor_rollout_ref.actor.clip_ratio_low",
    "actor_rollout_ref.actor.clip_ratio_high",
    "actor_rollout_ref.actor.clip_ratio_c",
    "actor_rollout_ref.actor.loss_agg_mode",
    "actor_rollout_ref.actor.entropy_coeff",
    "actor_rollout_ref.actor.calculate_entropy",
    "actor_rollout_ref.actor.use_kl_loss",
    "actor_rollout_ref.actor.kl_loss_coef",
    "actor_rollout_ref.actor.kl_loss_type",
)
PROMPT_LENGTHS = tuple(f"prompt_length/{name}" for name in ("mean", "min", "max"))


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
    def devices(self) -> int:
        """Devices on all of its nodes."""
        trainer = self.record["config"]["trainer"]
        return trainer["nnodes"] * trainer["n_gpus_per_node"]


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
        **os.environ,
        "SAVE_FREQ": "10",
        **matrix.environment,
        "PRESET": arm.preset,
        "SEED": str(seed),
        "PROJECT_NAME": matrix.out.name,
        "EXPERIMENT_NAME": f"{arm.name}-seed{seed}",
        "CKPTS_DIR": str(folder.path),
    }


def make_plan(matrix: Matrix, arms: Collection[str] = (), seeds: Collection[int] = ()) -> Plan:
    """Plans the runs of a comparison.

    Args:
        matrix: the comparison.
        arms: names of the arms to run; default: all.
        seeds: those to run; default: all.

    Raises:
        ValueError: an arm has no run script, or its config has no end or cannot be composed.
        RuntimeError: a run script failed.
    """
    for name in arms:
        check_choice(f"--arms {name}", name, [arm.name for arm in matrix.arms])
    for arm in matrix.arms:
        check_script(arm)
    chosen = [arm for arm in matrix.arms if not arms or arm.name in arms]
    seeds = list(dict.fromkeys(seeds or matrix.seeds))
    # the baseline first, chosen or not: its script may prepare data that the others need
    first = matrix.baseline_first()[0]
    baselines = {seed: plan_run(matrix, first, seed) for seed in seeds}
    pairs = [(arm, seed) for seed in seeds for arm in chosen]
    runs = tuple(
        baselines[seed] if arm == first else plan_run(matrix, arm, seed)
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


def plan_run(matrix: Matrix, arm: Arm, seed: int) -> PlannedRun:
    """Asks the run script for its command, and composes the config of it.

    The script prepares its data and model first where they are missing.

    Raises:
        ValueError, RuntimeError: see `make_plan`.
    """
    folder = run_folder(matrix.out, arm.name, seed)
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "command"
        done = subprocess.run(
            [
                "bash",
                str(script_of(arm)),
                *matrix.overrides,
                *arm.overrides,
                "actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]",
            ],
            env={**run_environment(matrix, arm, seed, folder), "COMMAND_FILE": str(file)},
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
    record = provenance.record(OmegaConf.to_container(config, resolve=True), command)
    return PlannedRun(arm, seed, folder, command, record, int(steps))


def check_plan(plan: Plan) -> None:
    """Checks every arm's config, folder and evaluation, and that the comparison is fair.

    Raises:
        ValueError, AssertionError, RuntimeError, OSError: in one sentence, what to correct.
        SystemExit: a setting of `evaluate` is no flag of recipe.evaluate.
    """
    from recipe.launch import preflight

    first_of_arm = {run.arm.name: run for run in reversed(plan.runs)}
    for run in plan.runs:
        if run is first_of_arm[run.arm.name]:
            preflight.check(OmegaConf.create(run.record["config"]))
        check_folder(run)
    check_fair([*plan.baselines, *plan.runs], plan.matrix.baseline)
    if plan.matrix.evaluate and plan.runs:
        from recipe.evaluate import __main__ as evaluate
        from recipe.sampling import prompts

        for settings in evaluations_of(plan.matrix.evaluate):
            # ends the program where a flag is not allowed
            args = evaluate.parse(evaluation_arguments(plan.runs[0], settings))
        for file in args.benchmarks:
            prompts.read_prompts([file], 0, "evaluate: ")


def check_fair(runs: Iterable[PlannedRun], baseline: str) -> None:
    """Raises ValueError unless the runs of each seed agree with the baseline's in everything but
    METHOD_KEYS and what either arm lists in `may_differ`."""
    runs = list(runs)
    for seed in dict.fromkeys(run.seed for run in runs):
        of_seed = [run for run in runs if run.seed == seed]
        first = next((run for run in of_seed if run.arm.name == baseline), of_seed[0])
        expected = config_identity(first.record)
        for run in of_seed:
            actual = config_identity(run.record)
            allowed = (*METHOD_KEYS, *first.arm.may_differ, *run.arm.may_differ)
            for key in differences(expected, actual):
                if not is_below(key, allowed):
                    raise ValueError(
                        f"arms {first.arm.name} and {run.arm.name} differ in {key} "
                        f"({expected.get(key)} and {actual.get(key)}), so that their difference "
                        f"would not be the method's: make them equal, or add {key} to the arm's "
                        "`may_differ`."
                    )


def check_folder(run: PlannedRun) -> None:
    """Raises ValueError if the folder holds a run of another config."""
    folder, last = run.folder, run.folder.last_record()
    if last is None and not folder.steps_done():
        return
    if not last or "config" not in last:
        raise ValueError(
            f"{folder.path} holds a run without a record of its config: give another --out."
        )
    old, new = config_identity(last), config_identity(run.record)
    forget_unused_settings(old, new)
    if keys := differences(old, new):
        key = keys[0]
        more = f", and {len(keys) - 1} more" if len(keys) > 1 else ""
        raise ValueError(
            f"{folder.path} holds a run of another config ({key}: {old.get(key)} there, "
            f"{new.get(key)} now{more}): remove it, or give another --out."
        )


def forget_unused_settings(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Drops, from both identities, the settings of recipes that only one of them knows and leaves
    at their defaults: a recipe that was installed since, or is gone, is not another config."""
    defaults = flatten(default_settings())
    for identity, other in ((old, new), (new, old)):
        for key in [key for key in identity if key not in other]:
            if key.endswith("._target_") or (key in defaults and identity[key] == defaults[key]):
                del identity[key]


def differing_prompts(runs: Iterable[PlannedRun]) -> list[str]:
    """Returns a sentence on each finished run that should have trained on the same prompts as
    another and did not, by the lengths of the prompts at each step."""
    first: dict[tuple, tuple[PlannedRun, dict]] = {}
    sentences = []
    for run in runs:
        data = {k: v for k, v in config_identity(run.record).items() if k.startswith("data.")}
        key = (run.seed, repr(sorted(data.items(), key=str)))
        lengths = {
            step: tuple(row.get(name) for name in PROMPT_LENGTHS)
            for step, row in run.folder.metrics().items()
            if step > 0
        }
        other, expected = first.setdefault(key, (run, lengths))
        common = sorted(set(lengths) & set(expected))
        if step := next((step for step in common if lengths[step] != expected[step]), None):
            sentences.append(
                f"{run.name} and {other.name} did not train on the same prompts at step {step}"
            )
    return sentences


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
    for key, value in settings.items():
        if key not in ("benchmarks", "out") and value is not False:
            words.append(f"--{key.replace('_', '-')}")
            if value is not True:
                words += map(str, value if isinstance(value, list) else [value])
    return words
