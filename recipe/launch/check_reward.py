"""What can be known to be wrong with the reward function before Ray starts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from omegaconf import DictConfig

from recipe.core.settings import check_choice, plain
from recipe.judge import compute_score
from recipe.judge.reward_function import NODE, is_judge, load

KWARGS = f"{NODE}.reward_kwargs"
BY_VERL = ("data_source", "solution_str", "ground_truth", "extra_info")  # in each call
FORMER = ("custom_reward_function", "reward_model", "sandbox_fusion")


def reward(config: DictConfig) -> None:
    """The reward function, its settings and the reward manager that calls it."""
    check_former_places(config)
    node, manager = config.reward.custom_reward_function, config.reward.reward_manager
    for key in node:
        check_choice(f"{NODE}.{key}", key, ("path", "name", "reward_kwargs"))
    if manager.source == "register":
        from verl.experimental.reward_loop.reward_manager.registry import REWARD_MANAGER

        check_choice(
            f"reward.reward_manager.name={manager.name}", manager.name, sorted(REWARD_MANAGER)
        )
    settings = plain(node.get("reward_kwargs", {}))
    if not isinstance(settings, Mapping):
        raise ValueError(f"{KWARGS}={settings} is not allowed: give its settings, as key: value.")
    if node.path:
        check_signature(load(node.path, node.name), f"{node.path}:{node.name}", settings)
    if judges(config):
        compute_score("preflight", "1", "1", **settings)  # raises for a value out of its range


def check_former_places(config: DictConfig) -> None:
    """verl still has the former places of the reward's settings, and its trainer ignores them."""
    for name in FORMER:
        for key, value in leaves(config.get(name) or {}, name):
            if value is not None:
                raise ValueError(
                    f"{key}={value} has no effect, since verl reads the reward's settings below "
                    "`reward` alone: set it there."
                )


def leaves(node: Mapping[str, Any], place: str) -> Iterator[tuple[str, Any]]:
    """Yields the settings below a node of the config, each with its place."""
    for name, value in node.items():
        if isinstance(value, Mapping | DictConfig):
            yield from leaves(value, f"{place}.{name}")
        else:
            yield f"{place}.{name}", value


def check_signature(function: Callable[..., Any], name: str, settings: Mapping[str, Any]) -> None:
    """Raises ValueError unless a function takes what verl calls it with, and its settings."""
    parameters = inspect.signature(function).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for key in settings:
            choices = [name for name in parameters if name not in BY_VERL]
            check_choice(f"{KWARGS}.{key}", key, choices)
    try:
        inspect.signature(function).bind(**{**dict.fromkeys(BY_VERL), **settings})
    except TypeError as error:
        raise ValueError(
            f"{NODE}: {name} cannot be called as verl calls it ({error}): it must take "
            f"{', '.join(BY_VERL)}, and what else it needs must be in {KWARGS}."
        ) from error


def judges(config: DictConfig) -> bool:
    """Returns whether `recipe.judge` is the reward function."""
    node = config.reward.custom_reward_function
    return is_judge(node.path or "", node.name)
