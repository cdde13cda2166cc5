"""What can be known to be wrong with AsymGRPO's settings before Ray starts, and their summary."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from recipe.asymgrpo.config import NAME, NODE, AsymGRPOConfig, check_group_size


def check(config: DictConfig) -> None:
    """Raises ValueError, in one sentence, for settings that cannot work."""
    node = config.algorithm.get(NAME)
    if node is None:
        if config.algorithm.adv_estimator == NAME:
            raise ValueError(
                f"algorithm.adv_estimator={NAME} needs its settings under {NODE}: start from "
                "recipe/common.yaml, as recipe/asymgrpo/asymgrpo.yaml does."
            )
        return
    settings = AsymGRPOConfig.from_mapping(OmegaConf.to_container(node, resolve=True))
    check_group_size(settings, config.actor_rollout_ref.rollout.n)


def summary(config: DictConfig) -> dict[str, str]:
    """Returns what the summary of a run says of these settings."""
    if config.algorithm.adv_estimator != NAME:
        return {}
    given = {key: value for key, value in config.algorithm[NAME].items() if value is not None}
    return {"estimator": str(given)}
