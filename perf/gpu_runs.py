"""The table of docs/gpu_runs.md: what each GPU run script needs, as its dry run estimates it.

    .venv/bin/python perf/gpu_runs.py             # prints the table; nothing is downloaded

Each script writes its command (COMMAND_FILE), and `recipe.launch` composes and checks the sizes of
that config with the model's published config.json (tests/launch/configs). Rows of the data, from
which the steps follow: GSM8K's and MATH's train splits, and the 17,398 prompts of DAPO-Math-17k
less the 500 that data_prep/dapo_math.py holds out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from omegaconf import DictConfig
from tqdm import tqdm

from recipe.launch import check_sizes, memory
from recipe.launch.check_model import model_config, text_config
from recipe.launch.compose import compose

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "tests/launch/configs"
SCRIPTS = sorted(path for path in (ROOT / "recipe").glob("*/run_*.sh") if "_cpu" not in path.name)
ROWS = {"gsm8k": 7473, "hendrycks_math": 7500, "dapo_math": 16898}
# beside each script's own preset: the released SENT, which needs the entropy's gradient
VARIANTS = [(path, "") for path in SCRIPTS] + [
    (path, "sent_released") for path in SCRIPTS if path.parent.name == "semantic_curriculum"
]
HEAD = (
    "| script | GPUs | heads | TP, SP | sequence | context | init | rollout | log-prob | update "
    "| checkpoint | kept | steps |\n" + "| --- " * 13 + "|"
)


def config_of(script: Path, preset: str, folder: Path) -> DictConfig:
    """Returns the config of a GPU run script.

    Args:
        script: Of a recipe's folder.
        preset: PRESET, or "" for the script's own.
        folder: An empty folder, to which the model's config.json is written.
    """
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHON": "python"}
    environment |= {"COMMAND_FILE": str(folder / "command"), "PWD": str(folder)}
    environment |= {"PRESET": preset} if preset else {}
    subprocess.run(["bash", str(script)], env=environment, cwd=folder, check=True)
    words = (folder / "command").read_bytes().decode().split("\0")[:-1]
    recipe, *overrides = words[words.index("recipe.launch") + 1 :]
    config = compose(recipe, overrides)
    name = config.actor_rollout_ref.model.path.rpartition("/")[2]
    (folder / name).mkdir()
    shutil.copy(CONFIGS / f"{name}.json", folder / name / "config.json")
    config.actor_rollout_ref.model.path = str(folder / name)
    return config


def row(config: DictConfig, label: str) -> str:
    """Returns a script's row, after the checks of its sizes; raises ValueError where one fails."""
    for check in (check_sizes.parallel_sizes, check_sizes.lengths, memory.memory):
        check(config)
    needs = memory.estimate(config, ROWS[Path(config.data.train_files).parent.name])
    assert needs is not None
    assert needs.checkpoints is not None
    text, nodes, trainer = (
        text_config(model_config(config)),
        config.actor_rollout_ref,
        config.trainer,
    )
    cells = [
        label,
        f"{trainer.nnodes * trainer.n_gpus_per_node}",
        f"{text.num_attention_heads}/{text.num_key_value_heads}",
        f"{nodes.rollout.tensor_model_parallel_size}, "
        f"{check_sizes.sequence_parallel_size(nodes.actor)}",
        f"{config.data.max_prompt_length + config.data.max_response_length}",
        f"{text.max_position_embeddings}",
        *(f"{size / memory.GB:.1f}" for size in needs.phases.values()),
        f"{needs.checkpoint / memory.GB:.0f}",
        f"{needs.checkpoints} = {needs.checkpoint * needs.checkpoints / memory.GB:.0f}",
        f"{needs.steps}",
    ]
    return f"| {' | '.join(cells)} |"


def table() -> str:
    """Returns the table as Markdown."""
    lines = [HEAD]
    for script, preset in tqdm(VARIANTS, unit="script", leave=False):
        label = f"`{script.parent.name}/{script.name}`" + (f", `{preset}`" if preset else "")
        with tempfile.TemporaryDirectory() as folder:
            lines.append(row(config_of(script, preset, Path(folder)), label))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print(table(), end="")
