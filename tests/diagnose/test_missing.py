"""What was not logged is told with the setting that keeps it from being logged, and no other."""

import pytest
from diagnose.cases import CALM, CONFIG, findings, sentences

LOSS = "actor_rollout_ref.actor.policy_loss"
BYPASS = "algorithm.rollout_correction.bypass_mode=false"
DIAGNOSTICS = "trainer.v1.recipe_sync.diagnostics=true"
LOG_PROBS = "actor_rollout_ref.rollout.calculate_log_probs=true"


def config(mini=8, bypass=True, diagnostics=True, log_probs=True, regions=True, loss="dynamic_clip",
           agg="token-mean"):  # fmt: skip
    """The record of a run in verl's bypass mode, in which the diagnostics are switched on."""
    return {
        "data": CONFIG["data"],
        "trainer": {"v1": {"recipe_sync": {"diagnostics": diagnostics}}},
        "algorithm": {"rollout_correction": {"bypass_mode": bypass}},
        "actor_rollout_ref": {
            "actor": {
                "ppo_mini_batch_size": mini,
                "loss_agg_mode": agg,
                "policy_loss": {"loss_mode": loss, "region_diagnostics": regions},
            },
            "rollout": {"calculate_log_probs": log_probs},
        },
    }


NOT_LOGGED = (
    *("actor/entropy", "training/rollout_probs_diff_mean"),
    *(name for name in CALM if name.startswith("diagnostics/")),
)


@pytest.mark.parametrize(
    ("settings", "topic", "end"),
    [
        ({}, "entropy", f"no entropy per token: {BYPASS} would log it."),
        ({}, "regions", f"was not logged: {BYPASS} would log it."),
        ({}, "signal", f"was not logged: {BYPASS} would log it."),
        ({}, "engine", f"was not logged: {BYPASS} would log it."),
        # verl's own metric is of this name only as a token mean
        ({"diagnostics": False}, "entropy", f"no entropy per token: {BYPASS} would log it."),
        (
            {"bypass": False, "diagnostics": False, "agg": "seq-mean-token-mean"},
            "entropy",
            f"no entropy per token: {DIAGNOSTICS} would log it.",
        ),
        (
            {"diagnostics": False},
            "signal",
            f"was not logged: {DIAGNOSTICS} and {BYPASS} would log it.",
        ),
        (
            {"bypass": False, "diagnostics": False},
            "signal",
            f"was not logged: {DIAGNOSTICS} would log it.",
        ),
        (
            {"log_probs": False, "bypass": False},
            "engine",
            f"was not logged: {LOG_PROBS} would log it.",
        ),
        (
            {"regions": False, "bypass": False},
            "regions",
            f"was not logged: {LOSS}.region_diagnostics=true would log it.",
        ),
        (
            {"loss": "vanilla", "bypass": False},
            "regions",
            f"was not logged: {LOSS}.loss_mode=dynamic_clip would log it. Preset grpo of "
            "clip_entropy is plain GRPO.",
        ),
    ],
)
def test_the_setting_that_is_named_is_the_one_that_the_run_lacks(settings, topic, end):
    (told,) = findings(config=config(**settings), without=NOT_LOGGED)[topic]
    assert told.endswith(end)


@pytest.mark.parametrize(
    ("topic", "ends"),
    [
        ("entropy", [BYPASS]),
        ("regions", ["region_diagnostics=true", "loss_mode=dynamic_clip", BYPASS]),
        ("signal", [DIAGNOSTICS, BYPASS]),
        ("engine", [LOG_PROBS, BYPASS]),
    ],
)
def test_without_a_record_every_setting_that_is_needed_is_named(topic, ends):
    (told,) = findings(config={}, without=NOT_LOGGED)[topic]
    assert all(setting in told for setting in ends)


def test_another_loss_that_takes_a_schedule_s_bounds_needs_no_other_loss():
    rows = {step: {"clip_entropy/entropy": 0.5} for step in (1, 2)}
    (told,) = sentences("regions", rows, config(bypass=False, regions=False, loss="sent"))
    assert told.endswith(f"was not logged: {LOSS}.region_diagnostics=true would log it.")


def test_rewards_that_do_not_say_which_rollouts_are_correct_are_named():
    """The diagnostics that need no correctness are logged, those that do are not."""
    of_groups = ("diagnostics/groups/all_correct", "diagnostics/groups/all_incorrect")
    (told,) = findings(config=config(bypass=False), without=of_groups)["signal"]
    assert told == (
        "Whether groups were all correct or all incorrect was not logged, as the rewards do not "
        "say which rollouts are correct: return 1 or 0 from the reward function, or set "
        "algorithm.asymgrpo.correct_threshold or correct_field."
    )


def test_in_bypass_mode_the_policy_is_compared_with_the_engine_s():
    """So it is not 0 at the first update, and tells something of one update too."""
    (told,) = findings(config=config())["off-policy"]
    assert told == (
        "The policy was 0.001 nats per token from the engine's, which had sampled, on average over "
        "a step's 4 updates (before each)."
    )
    (told,) = findings(config=config(mini=32))["off-policy"]
    assert told.endswith("from the engine's, which had sampled, on average before a step's update.")
    far = {"actor__ppo_kl": (0.05, 0.05)}
    (told,) = findings(config=config(), **far)["off-policy"]
    assert told.endswith("bring down what the updates add to it.")
    (told,) = findings(config=config(mini=32), **far)["off-policy"]
    assert told.endswith("no update adds to that, so find what the engine computes differently.")


def test_a_correction_that_is_set_is_not_advised():
    far = {"training__rollout_probs_diff_mean": (0.1, 0.1)}
    corrected = CONFIG | {"algorithm": {"rollout_correction": {"rollout_is": "token"}}}
    assert findings(config=corrected, **far)["engine"][0].endswith("ratios show too.")
