"""What can be known to be wrong with a controller before Ray starts, and the summary."""

from __future__ import annotations

from omegaconf import DictConfig

from recipe.core.settings import settings_of
from recipe.entropy_control.config import (
    COEFFICIENT,
    CONTROLLERS,
    NODE,
    PRESETS,
    EntropyControlSettings,
)


def check(config: DictConfig) -> None:
    """Raises ValueError, in one sentence, for settings that cannot work."""
    settings = EntropyControlSettings.from_config(config)
    check_used(settings)
    actor, controller = config.actor_rollout_ref.actor, settings.controller
    if controller in COEFFICIENT and actor.entropy_coeff != 0:
        raise ValueError(
            f"actor_rollout_ref.actor.entropy_coeff={actor.entropy_coeff} has no effect with "
            f"{NODE}.controller={controller}, which moves it: set it to 0, or controller=none."
        )
    if controller in COEFFICIENT and not actor.calculate_entropy:
        raise ValueError(
            f"{NODE}.controller={controller} needs the entropies of the update: set "
            "actor_rollout_ref.actor.calculate_entropy=true."
        )
    if "total_steps" not in CONTROLLERS[controller]:
        return
    steps, total = config.trainer.total_training_steps, settings.total_steps
    if not (total or steps):
        raise ValueError(
            f"{NODE}.controller={controller} moves over training, whose length T is not set: set "
            f"trainer.total_training_steps or {NODE}.total_steps."
        )
    if total and steps and total < steps:
        raise ValueError(
            f"{NODE}.total_steps={total} is less than the run's trainer.total_training_steps="
            f"{steps}, so that the controller would stand still at its end: use at least {steps}, "
            "or null."
        )


def check_used(settings: EntropyControlSettings) -> None:
    """Raises ValueError for a value that the controller does not read, where neither the default
    nor the preset has set it."""
    used, preset = CONTROLLERS[settings.controller], PRESETS[settings.preset]
    readers = {name: key for key, names in CONTROLLERS.items() for name in names}
    for name, field in settings_of(EntropyControlSettings).items():
        value = getattr(settings, name)
        usual = (field.default, getattr(preset, name, field.default))
        if name in readers and name not in used and value not in usual:
            raise ValueError(
                f"{NODE}.{name}={value} has no effect with controller={settings.controller}: leave "
                f"it at {field.default}, or use a preset with controller={readers[name]}."
            )


def summary(config: DictConfig) -> dict[str, str]:
    """Returns what the summary of a run says of these settings."""
    settings = EntropyControlSettings.from_config(config)
    if settings.controller == "none":
        return {}
    used = {name: getattr(settings, name) for name in CONTROLLERS[settings.controller]}
    return {"entropy": f"{settings.controller} {used}"}
