"""A preset whose every setting was overridden is the baseline under another name."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from recipe.core.recipe import Recipe, recipes

BASELINE = "grpo"
# what a method needs and is none by itself: entropies of the update, the reference's log-probs
NEEDS = {"calculate_entropy", "use_kl_loss", "kl_loss_coef"}


def presets(config: DictConfig) -> None:
    """A preset differs from the recipe's baseline in one setting at least.

    Raises:
        ValueError: Each setting in which it would was set to the baseline's value. Names the preset
            and the settings.
    """
    for recipe in recipes():
        if recipe.presets is None or recipe.preset_key is None:
            continue
        name = OmegaConf.select(config, recipe.preset_key)
        if name is not None and (keys := keys_set_back(recipe, name, config)):
            values = ", ".join(f"{key}={OmegaConf.select(config, key)}" for key in keys)
            raise ValueError(
                f"{recipe.preset_key}={name} has no effect with {values}, which is preset="
                f"{BASELINE}: leave {'it' if len(keys) == 1 else 'one of them'} at the preset's "
                f"value, or set {recipe.preset_key}={BASELINE}."
            )


def keys_set_back(recipe: Recipe, name: str, config: DictConfig) -> list[str]:
    """Returns the keys in which a preset differs from the baseline, if all of them have the
    baseline's value in this config; else none.

    A preset that also sets what no key of the config takes from it, which its loss or estimator
    reads by the preset's name, differs in that.
    """
    assert recipe.presets is not None
    all_presets = recipe.load(recipe.presets)
    if BASELINE not in all_presets or name not in all_presets:
        return []
    chosen, baseline = vars(all_presets[name]), vars(all_presets[BASELINE])
    differing = {key for key in chosen if chosen[key] != baseline[key]} - NEEDS
    key_of = {field: key for key, field in recipe.taken_from_preset().items()}
    if not differing <= key_of.keys():
        return []
    keys = sorted(key_of[field] for field in differing)
    back = [OmegaConf.select(config, key_of[field]) == baseline[field] for field in differing]
    return keys if all(back) else []
