"""A preset whose every value was set back to the baseline's is refused, before a run."""

import pytest
from builders import methods, run_overrides
from omegaconf import DictConfig, OmegaConf

from recipe.core.recipe import recipes
from recipe.launch.check_presets import BASELINE, keys_set_back, presets
from recipe.launch.compose import compose

# a few of those that are nothing but values of keys
BY_KEYS = {
    "asymgrpo": {"grpo_entropy_bonus", "grpo_clip_higher"},
    "clip_entropy": {"id", "clip_higher", "cispo", "erc", "bapo"},
    "entropy_control": {"constant", "target", "entropic"},
    "prompt_sampling": {"dapo", "variance"},
    "semantic_curriculum": {"curriculum", "clip_cov"},
}


def config_of(recipe, **values) -> DictConfig:
    """A config that has what the recipe's yaml takes from its preset, and nothing else."""
    config = OmegaConf.create()
    for key, name in recipe.taken_from_preset().items():
        OmegaConf.update(config, key, values[name])
    return config


@pytest.mark.parametrize("method", [m for m in methods() if m.preset], ids=str)
def test_a_preset_that_is_set_back_is_the_baseline(method):
    recipe, known = method.recipe, method.recipe.load(method.recipe.presets)
    chosen, baseline = vars(known[method.preset]), vars(known[BASELINE])
    assert not keys_set_back(recipe, method.preset, config_of(recipe, **chosen))
    back = keys_set_back(recipe, method.preset, config_of(recipe, **baseline))
    # others also say which loss or estimator there is by their name, or by a key that is set back
    differing = {name for name, value in chosen.items() if value != baseline[name]}
    by_keys = bool(differing) and differing <= set(recipe.taken_from_preset().values())
    assert bool(back) == by_keys
    assert by_keys or method.preset not in BY_KEYS.get(recipe.name, ())
    for key in back[:1]:  # all others back, but this one: it is the method still
        config = config_of(recipe, **baseline)
        OmegaConf.update(config, key, chosen[recipe.taken_from_preset()[key]])
        assert not keys_set_back(recipe, method.preset, config)


def test_every_recipe_with_presets_has_the_baseline():
    assert {recipe.name for recipe in recipes() if recipe.presets} >= BY_KEYS.keys()
    for recipe in recipes():
        if recipe.presets:
            assert BASELINE in recipe.load(recipe.presets)


LOSS, ACTOR = "actor_rollout_ref.actor.policy_loss", "actor_rollout_ref.actor"


@pytest.mark.parametrize(
    ("recipe", "overrides", "sentence"),
    [
        (
            "clip_entropy",
            [f"{LOSS}.preset=id", f"{LOSS}.schedule=static"],
            rf"^{LOSS}.preset=id has no effect with {LOSS}.schedule=static, which is preset=grpo: "
            rf"leave it at the preset's value, or set {LOSS}.preset=grpo.$",
        ),
        (
            "clip_entropy",
            [f"{LOSS}.preset=clip_higher", f"{ACTOR}.clip_ratio_high=0.2"],
            "preset=clip_higher has no effect with .*clip_ratio_high=0.2, which is preset=grpo",
        ),
        (
            "entropy_control",
            ["algorithm.entropy_control.preset=constant", f"{ACTOR}.entropy_coeff=0"],
            "preset=constant has no effect with .*entropy_coeff=0",
        ),
        (
            "asymgrpo",
            ["algorithm.asymgrpo.preset=grpo_entropy_bonus", f"{ACTOR}.entropy_coeff=0"],
            "preset=grpo_entropy_bonus has no effect",
        ),
    ],
)
def test_the_sentence_names_preset_and_settings(recipe, overrides, sentence, tmp_path):
    files = run_overrides(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        presets(compose(recipe, [*files, *overrides]))
    presets(compose(recipe, [*files, overrides[0]]))
