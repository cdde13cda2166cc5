"""The resolved config of a recipe."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig

from recipe.core.recipe import FOLDER, recipe_named, register_with_hydra


def compose(name: str, overrides: Sequence[str]) -> DictConfig:
    """Returns the resolved config of a recipe with Hydra overrides on top.

    Args:
        name: A recipe of this repository, or of another package that is installed.
        overrides: Hydra's, key=value.

    Raises:
        ValueError: If there is no such recipe.
        hydra.errors.HydraException, omegaconf.errors.OmegaConfBaseException: For an override
            that Hydra refuses.
    """
    import hydra
    from omegaconf import OmegaConf

    recipe = recipe_named(name)
    register_with_hydra()
    places = ("pkg://verl.trainer.config", f"file://{FOLDER}")
    quoted = ",".join("'" + place.replace("'", "\\'") + "'" for place in places)
    with hydra.initialize_config_dir(str(recipe.folder), version_base=None):
        config = hydra.compose(name, overrides=[f"hydra.searchpath=[{quoted}]", *overrides])
    OmegaConf.resolve(config)
    return config
