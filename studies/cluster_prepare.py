"""Makes what a comparison on GPUs still lacks: `python studies/cluster_prepare.py MATRIX.yaml`.

The training data and the benchmarks, by the scripts of data_prep/, and the semantic entropy of the
training prompts, measured once with the initial model for all arms and seeds. Files, model and
lengths are those of the config of the matrix's baseline. What is there is kept; a measurement that
was stopped is resumed.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from recipe.compare.plan import ROOT, plan_run
from recipe.core import cli
from recipe.experiment.matrix import Matrix, read_matrix


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
    run samples them; None where it is measured."""
    data, rollout = config["data"], config["actor_rollout_ref"]["rollout"]
    scores = Path(data["curriculum"]["scores"]).expanduser()
    if scores.is_file():
        return None
    flags = {
        "model": config["actor_rollout_ref"]["model"]["path"],
        "data": data["train_files"],
        "out": scores,
        "samples": rollout["n"],
        "temperature": rollout["temperature"],
        "top-p": rollout["top_p"],
        "max-prompt-length": data["max_prompt_length"],
        "max-response-length": data["max_response_length"],
    }
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    return ["-m", "recipe.semantic_curriculum.measure", *words]


def commands_of(matrix: Matrix) -> list[list[str]]:
    """Returns the arguments of Python, in order, that make what a matrix lacks."""
    baseline = plan_run(matrix, matrix.baseline_first()[0], matrix.seeds[0])
    config = baseline.record["config"]
    files = [config["data"]["train_files"], config["data"]["val_files"]]
    files += matrix.evaluate.get("benchmarks", [])
    commands = data_commands([Path(file).expanduser() for file in files])
    measure = measure_command(config)
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
