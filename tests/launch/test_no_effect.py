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
