"""Makes what a comparison on GPUs still lacks: `python studies/cluster_prepare.py MATRIX.yaml`.

The training data and the benchmarks, by the scripts of data_prep/, and the semantic entropy of the
training prompts, measured once with the initial model for all arms and seeds. Files, model, chat
template, sampling and reward function are those of the config of the matrix's baseline. What is
there is kept; a measurement that was stopped is resumed.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recipe.compare.plan import ROOT, plan_run
from recipe.core import cli
from recipe.experiment.matrix import Matrix, read_matrix
from recipe.judge.reward_function import DEFAULT_NAME, NODE, RewardFunction
from recipe.launch.check_data import files_of
from recipe.sampling.run_settings import KEYS, value_at

# flags of recipe.semantic_curriculum.measure, and where their values are in a run's config
FLAGS = {
    "model": "actor_rollout_ref.model.path",
    "out": "data.curriculum.scores",
    "samples": "actor_rollout_ref.rollout.n",
    **{name: f"actor_rollout_ref.rollout.{name}" for name in ("temperature", "top_p", "top_k")},
    **KEYS,
}


def data_commands(files: Sequence[Path]) -> list[list[str]]:
    """Returns the commands that write those of the files that are missing.

    Raises:
        ValueError: a missing file is in a folder that no script of data_prep/ is named after.
    """
    commands = []
    for folder in dict.fromkeys(file.parent for file in files if not file.is_file()):
        script = ROOT / "data_prep" / f"{folder.name}.py"
        if not script.is_file():
            raise ValueError(
                f"{folder} lacks a file and there is no data_prep/{folder.name}.py that writes it: "
                "name the folder after a script of data_prep/, or write the file yourself."
            )
        commands.append([str(script), "--local_save_dir", str(folder)])
    return commands


def measure_command(config: Mapping[str, Any]) -> list[str] | None:
    """Returns the command that measures the semantic entropy of a run's training prompts, as the
    run samples and judges them; None where it is measured.

    Raises:
        ValueError: the config lacks one of the settings.
    """
    values = {name: value_at(config, key) for name, key in FLAGS.items()}
    template = values["chat_template_kwargs"]
    values["chat_template_kwargs"] = json.dumps(template or {})
    if missing := [FLAGS[name] for name, value in values.items() if value is None]:
        raise ValueError(
            f"the config of the matrix's baseline has no {missing[0]}, which the measurement of "
            "the semantic entropy needs: set it in the matrix's overrides."
        )
    if Path(values["out"]).expanduser().is_file():
        return None
    words = [w for name, x in values.items() for w in (f"--{name.replace('_', '-')}", str(x))]
    words += ["--data", *files_of(OmegaConf.create(config), "train_files")]
    node = value_at(config, NODE) or {}
    if node.get("path"):
        words += ["--reward", f"{node['path']}:{node.get('name') or DEFAULT_NAME}"]
        settings = node.get("reward_kwargs") or {}
        if RewardFunction.of_run(node) is None:  # recipe.judge
            words.append("--boxed-only" if settings.get("boxed_only") else "--no-boxed-only")
        else:
            words += ["--reward-kwargs", json.dumps(settings)]
    return ["-m", "recipe.semantic_curriculum.measure", *words]


def commands_of(matrix: Matrix) -> list[list[str]]:
    """Returns the arguments of Python, in order, that make what a matrix lacks."""
    baseline = plan_run(matrix, matrix.baseline_first()[0], matrix.seeds[0])
    config = baseline.record["config"]
    measure = measure_command(config)
    keys = ("train_files", "val_files")
    files = [file for key in keys for file in files_of(OmegaConf.create(config), key)]
    files += matrix.evaluate.get("benchmarks", [])
    commands = data_commands([Path(file).expanduser() for file in files])
    return commands if measure is None else [*commands, measure]


def command(arguments: list[str] | None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("matrix", type=Path)
    parser.add_argument("--dry-run", action="store_true", help="print the commands and stop")
    args = parser.parse_args(arguments)
    for words in commands_of(read_matrix(args.matrix)):
        print(f"$ python {shlex.join(words)}", flush=True)
        if not args.dry_run and (code := subprocess.run([sys.executable, *words]).returncode):
            return code
    return 0


if __name__ == "__main__":
    errors = (*cli.ERRORS, HydraException, OmegaConfBaseException)
    sys.exit(cli.run(command, errors=errors))
