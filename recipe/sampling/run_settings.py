"""What a run's record says of how its policy was prompted, sampled and judged in training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recipe.experiment.run import run_of
from recipe.judge.reward_function import NODE, RewardFunction

# what the commands that sample call a setting, and where it is in the config
KEYS = {
    "chat_template_kwargs": "data.apply_chat_template_kwargs",
    "max_prompt_length": "data.max_prompt_length",
    "max_response_length": "data.max_response_length",
    "dtype": "actor_rollout_ref.rollout.dtype",
}


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """Returns a config's value at a dotted key, None where it has none."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def run_settings(model: str) -> tuple[dict[str, Any], Path | None]:
    """Reads them for a model that is of a run's checkpoint, or for a run's folder.

    Args:
        model: a path, or a model's name.

    Returns:
        ({name: value} of KEYS, and of boxed_only or, where another function than `recipe.judge`
        was the run's reward, reward; the record's file); ({}, None) for any other model.

    Raises:
        ValueError: if the last record cannot be read.
    """
    folder = Path(model).expanduser()
    run = run_of(folder) if folder.is_dir() else None
    file = run.last_record_file() if run else None
    if run is None or file is None:
        return {}, None
    config = (run.last_record() or {}).get("config")
    if not isinstance(config, Mapping):
        raise ValueError(
            f"{file}, the run's record, has no config, so that its prompts' format is not known: "
            "restore it, or move it away and give the format by flags."
        )
    values = {name: value_at(config, key) for name, key in KEYS.items()}
    node = value_at(config, NODE) or {}
    values["reward"] = RewardFunction.of_run(node)
    if node.get("path") and not values["reward"]:
        values["boxed_only"] = (node.get("reward_kwargs") or {}).get("boxed_only")
    return {name: value for name, value in values.items() if value is not None}, file
