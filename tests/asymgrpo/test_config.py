"""Settings and presets of `algorithm.asymgrpo`: the paper's values, what is refused. No verl."""

import dataclasses

import pytest

from recipe.asymgrpo.config import PRESETS, WITHOUT_GROUPS, AsymGRPOConfig, check_group_size
from recipe.core.recipe import preset_value

OUTSIDE = (  # what a preset sets outside the estimator
    "adv_estimator",
    "norm_adv_by_std_in_grpo",
    "clip_ratio_low",
    "clip_ratio_high",
    "entropy_coeff",
)

# arXiv 2604.04894, sec. 3 and App. E: betas, clip_ratio_high, entropy_coeff, adv_estimator
PAPER = {
    "reinforce": ((0.0, 0.0), 0.2, 0.0, "asymgrpo"),
    "grpo": ((0.5, 0.5), 0.2, 0.0, "asymgrpo"),
    "pos_only": ((0.5, 0.0), 0.2, 0.0, "asymgrpo"),
    "neg_only": ((0.0, 0.5), 0.2, 0.0, "asymgrpo"),
    "symmetric": ((0.7, 0.7), 0.2, 0.0, "asymgrpo"),
    "asymgrpo": ((0.9, 0.4), 0.2, 0.0, "asymgrpo"),
    "asymgrpo_clip_higher": ((0.9, 0.3), 0.28, 0.0, "asymgrpo"),
    "ent_increase": (None, 0.2, 0.0, "asymgrpo"),
    "ent_decrease": (None, 0.2, 0.0, "asymgrpo"),
    "dr_grpo": (None, 0.2, 0.0, "grpo"),
    "grpo_entropy_bonus": ((0.5, 0.5), 0.2, 0.001, "asymgrpo"),
    "grpo_clip_higher": ((0.5, 0.5), 0.28, 0.0, "asymgrpo"),
    "grpo_entropy_adv": ((0.5, 0.5), 0.2, 0.0, "asymgrpo"),
    "pass_at_k": (None, 0.2, 0.0, "asymgrpo"),
}
# other papers': betas, clip_ratio_high, entropy_coeff, adv_estimator
OTHERS = {
    **{name: (None, 0.2, 0.0, "asymgrpo") for name in ("psr", "nsr", "w_reinforce")},
    **{name: (None, 0.2, 0.0, "asymgrpo") for name in ("qae", "max_rl")},
    **{
        name: (None, 0.2, 0.0, name)
        for name in ("rloo", "reinforce_plus_plus", "reinforce_plus_plus_baseline")
    },
}
every_preset = pytest.mark.parametrize("preset", PRESETS)


def test_presets_are_the_rows_of_the_papers_table_and_those_of_other_papers():
    assert set(PRESETS) == set(PAPER) | set(OTHERS)


@every_preset
def test_a_preset_sets_the_papers_values_and_states_every_coefficient(preset):
    betas, clip_high, entropy_coeff, estimator = (PAPER | OTHERS)[preset]
    assert AsymGRPOConfig(preset=preset).betas == betas
    assert {key: preset_value("asymgrpo", preset, key) for key in OUTSIDE} == {
        "adv_estimator": estimator,
        "norm_adv_by_std_in_grpo": preset != "dr_grpo",
        "clip_ratio_low": 0.2,
        "clip_ratio_high": clip_high,
        "entropy_coeff": entropy_coeff,
    }


def test_defaults_are_the_papers():
    config = AsymGRPOConfig()
    assert config.preset == "asymgrpo" and config.betas == (0.9, 0.4)
    assert (config.std, config.eps) == ("population", 0.0)
    assert (config.correct_weight, config.quantile) == (None, 0.4)
    assert (config.pass_k, config.entropy_kappa, config.entropy_alpha) == (5, 2.0, 0.4)
    assert config.correct_threshold is None and config.correct_field is None


@every_preset
def test_every_setting_written_out_at_its_default_is_valid_for_every_preset(preset):
    written = dataclasses.asdict(AsymGRPOConfig()) | {"preset": preset}
    assert AsymGRPOConfig.from_mapping(written) == AsymGRPOConfig(preset=preset)


def test_only_the_entropy_shaped_baseline_asks_the_trainer_to_shape():
    shaped = [name for name in PRESETS if AsymGRPOConfig(preset=name).entropy_shaped]
    assert shaped == ["grpo_entropy_adv"]


def test_a_beta_overrides_the_presets_and_null_leaves_it():
    config = AsymGRPOConfig.from_mapping({"beta_pos": 0, "beta_neg": None})
    assert config.betas == (0, 0.4)


def test_std_and_eps_are_open_to_the_presets_of_grpo_and_a_beta_makes_them_the_odds_rule():
    assert AsymGRPOConfig(preset="grpo_clip_higher", std="sample", eps=1e-6).rule == "grpo"
    assert AsymGRPOConfig(preset="grpo", beta_pos=0.5).rule == "odds"
    with pytest.raises(ValueError, match=r"std=sample has no effect .* use preset=grpo"):
        AsymGRPOConfig(preset="asymgrpo", beta_pos=0.5, beta_neg=0.5, std="sample")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"beta_positive": 0.9},
            r"asymgrpo\.beta_positive does not exist: did you mean beta_pos\?",
        ),
        ({"xyz": 1}, r"asymgrpo\.xyz does not exist: It is one of preset, beta_pos"),
        ({"preset": "asymgpro"}, r"preset=asymgpro does not exist: did you mean asymgrpo\?"),
        ({"beta_pos": -0.1}, r"beta_pos=-0\.1 is not allowed: use a number from 0 up"),
        ({"beta_neg": float("nan")}, "beta_neg=nan is not allowed"),
        ({"beta_pos": float("inf")}, "beta_pos=inf is not allowed"),
        ({"beta_pos": "0.9"}, r"beta_pos=0\.9 is not allowed"),
        ({"beta_pos": True}, "beta_pos=True is not allowed"),
        (
            {"preset": "pass_at_k", "beta_pos": 0.9},
            "beta_pos=0.9 has no meaning for preset=pass_at",
        ),
        ({"preset": "dr_grpo", "beta_neg": 0.5}, "beta_neg=0.5 has no meaning .* set it to null"),
        ({"preset": "ent_increase", "beta_neg": 0.5}, "has no meaning for preset=ent_increase"),
        (
            {"preset": "grpo", "std": "popul"},
            r"std=popul does not exist: did you mean population\?",
        ),
        ({"preset": "grpo", "eps": -1e-6}, "eps=-1e-06 is not allowed"),
        (
            {"std": "sample"},
            r"std=sample has no effect with preset=asymgrpo and betas \(0.9, 0.4\)",
        ),
        ({"eps": 1e-6}, "eps=1e-06 has no effect .* leave it at 0.0, or use preset=grpo"),
        ({"preset": "grpo", "beta_pos": 0.9, "std": "sample"}, "std=sample has no effect"),
        ({"correct_weight": 0.2}, "correct_weight=0.2 has no effect .* use preset=w_reinforce"),
        ({"preset": "w_reinforce", "correct_weight": 0}, "correct_weight=0 is not allowed"),
        ({"quantile": 0.5}, "quantile=0.5 has no effect .* leave it at 0.4, or use preset=qae"),
        ({"preset": "qae", "quantile": 1}, "quantile=1 is not allowed: use a number above 0"),
        ({"pass_k": 3}, "pass_k=3 has no effect .* leave it at 5, or use preset=pass_at_k"),
        ({"preset": "pass_at_k", "pass_k": 0}, "pass_k=0 is not allowed: use a whole number"),
        ({"preset": "pass_at_k", "pass_k": 2.5}, "pass_k=2.5 is not allowed"),
        ({"entropy_alpha": 0.1}, "entropy_alpha=0.1 has no effect .* preset=grpo_entropy_adv"),
        ({"preset": "grpo_entropy_adv", "entropy_kappa": 1}, "entropy_kappa=1 is not allowed"),
        ({"preset": "grpo_entropy_adv", "entropy_alpha": 0}, "entropy_alpha=0 is not allowed"),
        ({"correct_threshold": "half"}, "correct_threshold=half is not allowed"),
        ({"correct_field": ""}, "correct_field= is not allowed: use a text"),
        ({"correct_field": "acc", "correct_threshold": 0.5}, "acc competes with correct_threshold"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused_with_its_name_and_a_cure(settings, message):
    with pytest.raises(ValueError, match=message):
        AsymGRPOConfig.from_mapping(settings)


def test_an_unknown_preset_or_key_of_the_resolver_is_refused():
    with pytest.raises(ValueError, match=r"did you mean pos_only\?"):
        preset_value("asymgrpo", "pos_onyl", "clip_ratio_high")
    with pytest.raises(ValueError, match=r"did you mean clip_ratio_high\?"):
        preset_value("asymgrpo", "grpo", "clip_ratio_hi")


@every_preset
def test_the_papers_group_size_serves_every_preset(preset):
    check_group_size(AsymGRPOConfig(preset=preset), 8)


@pytest.mark.parametrize("preset", sorted(set(PRESETS) - WITHOUT_GROUPS - {"reinforce"}))
def test_one_rollout_a_prompt_is_refused_where_rollouts_are_compared(preset):
    with pytest.raises(ValueError, match=r"rollout.n=1 .*use n >= "):
        check_group_size(AsymGRPOConfig(preset=preset), 1)


def test_one_rollout_a_prompt_serves_reinforce():
    for preset in WITHOUT_GROUPS:
        check_group_size(AsymGRPOConfig(preset=preset), 1)
    check_group_size(AsymGRPOConfig(preset="reinforce"), 1)
    check_group_size(AsymGRPOConfig(beta_pos=0, beta_neg=0), 1)


def test_pass_at_k_needs_more_than_k_rollouts():
    """At n = k a group with a correct rollout has at most k - 1 incorrect ones."""
    check_group_size(AsymGRPOConfig(preset="pass_at_k"), 6)
    for n in (4, 5):
        with pytest.raises(ValueError, match=rf"rollout.n={n} is not above .*pass_k=5.* n >= 6"):
            check_group_size(AsymGRPOConfig(preset="pass_at_k"), n)


def test_a_beta_whose_advantages_overflow_float32_is_refused():
    check_group_size(AsymGRPOConfig(beta_pos=9), 8)
    with pytest.raises(ValueError, match="float32 does not hold"):
        check_group_size(AsymGRPOConfig(beta_pos=90), 8)  # 7^90 = 1e76
