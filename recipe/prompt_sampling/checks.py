"""What can be known to be wrong with the sampling of prompts before Ray starts, and the summary."""

from __future__ import annotations

import pyarrow.parquet as pq
from omegaconf import DictConfig, OmegaConf

from recipe.core.config import (
    filters_groups,
    local_parquet_files,
    prompt_orders,
    steps_of_epochs,
)
from recipe.prompt_sampling.config import NODE, PRESETS, PromptSamplingSettings


def check(config: DictConfig) -> None:
    """Raises ValueError, in one sentence, for settings that cannot work."""
    settings = PromptSamplingSettings.from_config(config)
    filters = filters_groups(config)
    if PRESETS[settings.preset].filter_groups and not filters:
        raise ValueError(
            f"{NODE}.preset={settings.preset} has no effect with algorithm.filter_groups.enable="
            "false: set it to true, or use another preset."
        )
    if settings.order == "none":
        return
    what = f"{NODE}.order={settings.order}"
    if filters:
        raise ValueError(
            f"{what} follows pass rates, and algorithm.filter_groups.enable=true drops the groups "
            "whose pass rate is 0 or 1 before they are seen: set one of them back."
        )
    for key, order in prompt_orders(config).items():
        if key != f"{NODE}.order":
            raise ValueError(
                f"{what} and {key}={order} both order the prompts: set one of them to none."
            )
    buffer = "reward.reward_kwargs.overlong_buffer_cfg.enable"
    if config.reward.reward_manager.name == "dapo" and OmegaConf.select(config, buffer):
        raise ValueError(
            f"{buffer}=true takes a part of the reward of long responses, so that the rewards do "
            f"not say which are correct, as {what} needs: set it to false, or order=none."
        )
    if not config.data.shuffle:
        raise ValueError(
            f"data.shuffle=false has no effect with {what}, which shuffles: set it to true, or "
            "order=none."
        )
    check_second_epoch(what, config)


def check_second_epoch(what: str, config: DictConfig) -> None:
    """Raises ValueError where no prompt comes twice, so that none has a pass rate when its turn
    comes. Prompts that verl will leave out as too long are counted; of data that is not here, or is
    read by a dataset of its own, the number is not known."""
    files = local_parquet_files(config, "train_files")
    if files is None or (config.data.get("custom_cls") or {}).get("path") is not None:
        return
    prompts = sum(pq.read_metadata(file).num_rows for file in files)
    limit = config.data.get("train_max_samples", -1)
    prompts = min(prompts, limit) if limit > 0 else prompts
    given, batch = config.trainer.total_training_steps, config.data.train_batch_size
    steps = given or steps_of_epochs(config, prompts)
    if steps * batch <= prompts:
        longer = (
            f"set trainer.total_training_steps (STEPS) to at least {prompts // batch + 1}"
            if given
            else "set trainer.total_epochs to at least 2"
        )
        raise ValueError(
            f"{what} has no effect within the first epoch, where no prompt has a pass rate yet, "
            f"and {steps} steps of {batch} (data.train_batch_size) take none of the {prompts} "
            f"training prompts twice: {longer}, use fewer prompts (data.train_max_samples), or "
            "order=none."
        )


def summary(config: DictConfig) -> dict[str, str]:
    """Returns what the summary of a run says of these settings."""
    settings = PromptSamplingSettings.from_config(config)
    lines = {}
    if settings.order != "none":
        lines["prompts"] = f"by {settings.order}, floor {settings.floor}"
    if filters_groups(config):
        lines["groups"] = f"replaced where {config.algorithm.filter_groups.metric} is all the same"
    return lines
