"""The configs that the suites run the registries' entries with."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from builders import Method, methods, run_overrides
from omegaconf import DictConfig, OmegaConf

from recipe.launch.compose import unresolved


@pytest.fixture(scope="session")
def config_of(tmp_path_factory) -> Callable[[Method], DictConfig]:
    """The resolved config of a method, on small files of its own; made once."""
    overrides = run_overrides(tmp_path_factory.mktemp("run"))
    read: dict[str, DictConfig] = {}
    made: dict[str, DictConfig] = {}

    def config(method: Method) -> DictConfig:
        name = method.recipe.name
        if name not in read:
            read[name] = unresolved(name, overrides)
        if str(method) not in made:
            made[str(method)] = method.config(read[name])
        return made[str(method)]

    return config


@pytest.fixture(scope="session")
def users_of(config_of) -> Callable[[str, str], dict[str, DictConfig]]:
    """users_of(key, name): the configs, by method, in which `key` is `name`.

    A name without any would never be tested: that fails.
    """

    def users(key: str, name: str) -> dict[str, DictConfig]:
        configs = {str(method): config_of(method) for method in methods()}
        using = {
            m: config for m, config in configs.items() if OmegaConf.select(config, key) == name
        }
        assert using, f"{name} is registered, but no recipe's yaml or preset sets {key} to it"
        return using

    return users
