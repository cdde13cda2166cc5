"""Overrides that leave a preset nothing to do are refused, before a run, with that reason: what
`check_presets` cannot see, since no value of the preset's was set back to the baseline's."""

import pytest
from builders import run_overrides

from recipe.launch import preflight
from recipe.launch.compose import compose

ACTOR, LOSS = "actor_rollout_ref.actor", "actor_rollout_ref.actor.policy_loss"
ONE_BOUND = [f"{LOSS}.bound_min=0.2", f"{LOSS}.bound_max=0.2"]
CONSTANT_LINES = [
    *(f"{LOSS}.{bound}_slope=0" for bound in ("upper", "lower")),
    *(f"{LOSS}.{bound}_intercept=0.2" for bound in ("upper", "lower")),
]


def check(recipe: str, folder, *overrides: str) -> None:
    preflight.check(compose(recipe, [*run_overrides(folder), *overrides]))


# ---- clip_entropy --------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["id", "did", "od"])
@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (ONE_BOUND, "bound_min=0.2, bound_max=0.2"),
        (CONSTANT_LINES, "upper_slope=0, upper_intercept=0.2, lower_slope=0, lower_intercept=0.2"),
    ],
)
def test_a_schedule_whose_bounds_are_constant_is_refused(preset, overrides, named, tmp_path):
    sentence = (
        rf"^{LOSS}.schedule={preset} has no effect with {named}, as its bounds are the constant "
        "ones of clip_ratio_low=0.2 and clip_ratio_high=0.2 at every step: set one of them back, "
        r"or use schedule=static\.$"
    )
    with pytest.raises(ValueError, match=sentence):
        check("clip_entropy", tmp_path, f"{LOSS}.preset={preset}", *overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["bound_min=0.2", "bound_max=0.21"],  # the lines are cut to 0.21
        ["upper_slope=0", "upper_intercept=0.2"],  # the lower bound moves
        ["lower_slope=0", "lower_intercept=0.2"],  # the upper one
        ["bound_max=0.2"],  # M(p) is below 0.2 where p is above 0.77
    ],
)
@pytest.mark.parametrize("preset", ["id", "did", "od"])
def test_a_schedule_that_moves_a_little_is_not_refused(preset, overrides, tmp_path):
    overrides = [f"{LOSS}.{override}" for override in overrides]
    check("clip_entropy", tmp_path, f"{LOSS}.preset={preset}", *overrides)


def test_two_constant_bounds_that_the_limits_make_one_are_refused(tmp_path):
    high = f"{LOSS}.preset=clip_higher"
    sentence = (
        rf"^{ACTOR}.clip_ratio_low=0.2 and clip_ratio_high=0.28 are both 0.2 within "
        rf"{LOSS}.bound_min=0.0, bound_max=0.2, so that their difference has no effect: "
    )
    files = run_overrides(tmp_path)

    def clip(*overrides: str) -> None:
        preflight.check(compose("clip_entropy", [*files, *overrides]))

    with pytest.raises(ValueError, match=sentence):
        clip(high, f"{LOSS}.bound_max=0.2")
    with pytest.raises(ValueError, match=r"clip_ratio_low=0.28 and .*=0.2 are both 0.2 within"):
        clip(f"{LOSS}.preset=clip_lower", f"{LOSS}.bound_max=0.2")
    clip(high, f"{LOSS}.bound_max=0.25")
    clip(f"{LOSS}.preset=grpo", f"{LOSS}.bound_max=0.2")


def test_dppo_whose_bounds_no_probability_can_leave_is_refused(tmp_path):
    files = [*run_overrides(tmp_path), f"{LOSS}.preset=dppo_tv"]
    low, high = (f"{ACTOR}.clip_ratio_{name}=1" for name in ("low", "high"))
    sentence = (
        rf"^{LOSS}.loss_mode=dppo_tv leaves no token out with {ACTOR}.clip_ratio_low=1 and "
        "clip_ratio_high=1, as no probability moves by more than 1: use numbers below 1"
    )
    with pytest.raises(ValueError, match=sentence):
        preflight.check(compose("clip_entropy", [*files, low, high]))
    preflight.check(compose("clip_entropy", [*files, low]))


# ---- semantic_curriculum -------------------------------------------------------------------------

RULE = f"{LOSS}.token_rule"


def rule(preset: str, **values: object) -> list[str]:
    return [
        f"{RULE}.preset={preset}",
        *(f"{RULE}.{name}={value}" for name, value in values.items()),
    ]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            rule("as_described", coef=0, high_cov_coef=0),
            rf"^{RULE}.preset=as_described with {LOSS}.loss_mode=sent has a token rule without "
            "effect, as coef=0, high_cov_coef=0, low_cov_coef=0.0, policy_tokens=all hold no token "
            "to an anchor and take no token's policy gradient away: leave them at null, or use "
            r"preset=grpo or curriculum, which have no token rule\.$",
        ),
        (rule("kl_cov", high_cov_coef=0), "has a token rule without effect, as coef=0.0, high_cov"),
        # a coefficient of tokens that there are none of
        (rule("kl_cov", high_cov_fraction=0), "policy_tokens=all, high_cov_fraction=0 hold no"),
        (
            rule("as_released", high_cov_coef=0, low_cov_fraction=0),
            "policy_tokens=all, low_cov_fraction=0 hold no",
        ),
        (rule("high_entropy_mask", policy_tokens="all"), "policy_tokens=all hold no token"),
        (
            rule("high_entropy_mask", side="low", low_fraction=1),
            "policy_tokens=selected, low_fraction=1 hold no token",
        ),
        (
            [f"{RULE}.preset=grpo", f"{LOSS}.loss_mode=sent"],
            rf"use a preset with a token rule \(as_described\), or set {LOSS}.loss_mode=dynamic_c",
        ),
        (
            [*rule("kl_cov"), f"{LOSS}.kl_cov_ratio=0.01"],
            rf"^{LOSS}.kl_cov_ratio=0.01 has no effect with loss_mode=sent, which reads "
            rf"{RULE}.high_cov_fraction: set that, or {LOSS}.loss_mode=kl_cov\.$",
        ),
        (
            [*rule("sent"), f"{LOSS}.ppo_kl_coef=1"],
            f"ppo_kl_coef=1 has no effect with loss_mode=sent, which reads {RULE}.high_cov_coef",
        ),
    ],
)
def test_a_token_rule_that_does_nothing_is_refused(overrides, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        check("semantic_curriculum", tmp_path, *overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        rule("as_described", coef=0),  # C is held alone
        rule("as_described", high_cov_coef=0),  # the rest of L alone
        rule("as_released", high_cov_coef=0),  # the lowest covariances alone
        rule("high_entropy_mask", coef=0.01, policy_tokens="all"),
        [f"{RULE}.preset=grpo", f"{LOSS}.loss_mode=kl_cov", f"{LOSS}.kl_cov_ratio=0.01"],
    ],
)
def test_a_token_rule_that_still_acts_is_not_refused(overrides, tmp_path):
    check("semantic_curriculum", tmp_path, *overrides)
