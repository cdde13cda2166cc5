"""What was logged on a part of a run's steps is told of that part; on one step, of that one."""

import pytest
from diagnose.cases import CALM, CONFIG, sentences

from recipe.diagnose.findings import diagnose
from recipe.experiment.evidence import Evidence, percent

DIAGNOSTICS = [name for name in CALM if name.startswith("diagnostics/")]
OFF = dict.fromkeys(DIAGNOSTICS)
ON_FROM_101 = {step: OFF if step <= 100 else {} for step in range(1, 201)}
OFF_FROM_101 = {step: {} if step <= 100 else OFF for step in range(1, 201)}


def entropy_of(step):
    """From 1 to 0.1 over 100 steps, then to 0.3 over 100."""
    return 1 - 0.009 * step if step <= 100 else 0.1 + 0.002 * (step - 100)


@pytest.mark.parametrize("switched", [ON_FROM_101, OFF_FROM_101])
def test_the_entropy_is_one_of_the_whole_run_whichever_metric_a_step_has(switched):
    """Means over steps 1 to 20 and 181 to 200: 1 - 0.009 * 10.5 and 0.1 + 0.002 * 90.5."""
    rows = {
        step: row
        | dict.fromkeys(("actor/entropy", "diagnostics/entropy/all"))
        | {"actor/entropy" if row else "diagnostics/entropy/all": entropy_of(step)}
        for step, row in switched.items()
    }
    steps = {step: CALM | row for step, row in rows.items()}
    entropy = next(f for f in diagnose(Evidence(steps, CONFIG)) if f.topic == "entropy")
    assert entropy.text == "The entropy collapsed from 0.905 to 0.281 nats per token (-69 %)."
    assert entropy.source == "diagnostics/entropy/all, actor/entropy"


def sums(controller="none"):
    """A config whose `actor/entropy` is no token mean."""
    actor = CONFIG["actor_rollout_ref"]["actor"] | {"loss_agg_mode": "seq-mean-token-sum-norm"}
    return CONFIG | {"actor_rollout_ref": {"actor": actor}}


def test_an_entropy_of_half_the_run_names_its_steps():
    rows = {
        step: {"diagnostics/entropy/all": entropy_of(step)} if step > 100 else {}
        for step in range(1, 201)
    }
    (told,) = sentences("entropy", rows, sums())
    assert told == (
        # means over steps 101 to 110 and 191 to 200
        "The entropy of steps 101 to 200 exploded from 0.111 to 0.291 nats per token (+162 %)."
    )
    (told,) = sentences("control", rows, sums())
    # 0.1 + 0.002 k < 0.2 for k < 50
    assert told.startswith("The entropy of steps 101 to 200 was below 0.2 nats on 49 % of the ")


@pytest.mark.parametrize(
    ("switched", "steps"), [(ON_FROM_101, "steps 101 to 200"), (OFF_FROM_101, "steps 1 to 100")]
)
def test_what_half_a_run_has_logged_names_its_steps(switched, steps):
    (told,) = sentences("signal", switched)
    assert told.startswith("10 % of the groups") and told.endswith(f" at the end of {steps}.")
    (told,) = sentences("advantages", switched)
    assert told.startswith(f"Positive advantages of {steps} added 0.4 ")
    (told,) = sentences("covariance", switched)
    assert f"rollouts of {steps} had" in told and "in 100 of 100 steps with mixed" in told


def test_regions_of_half_a_run_name_their_steps():
    name = "clip_entropy/E1/entropy_change"
    rows = {step: {name: -0.001} if step > 100 else {} for step in range(1, 201)}
    (told,) = sentences("regions", rows)
    assert "(E1 -0.001 nats per token of steps 101 to 200 in logit space)" in told


def test_truncation_is_one_of_the_whole_run_where_the_limit_is_known():
    """verl's share of rollouts as long as the longest is 0.01, and the longest are at the limit."""
    rows = {
        step: {"response_length/max": 64}
        | ({"diagnostics/length/truncated": 0.01} if step > 100 else {})
        for step in range(1, 201)
    }
    (told,) = sentences("truncation", rows)
    assert told.startswith("1.0 % of the rollouts at the beginning and 1.0 % at the end were")
    (told,) = sentences("truncation", rows, config={})
    assert "1.0 % at the end of steps 101 to 200 were as long" in told


def test_a_metric_that_misses_less_than_a_tenth_at_each_end_is_one_of_the_run():
    """Of 100 steps the first ten are the beginning and the last ten the end."""
    for first, last, span in (
        (10, 91, ""),
        (11, 91, " of steps 11 to 91"),
        (10, 90, " of steps 10 to 90"),
    ):
        run = Evidence({step: {} for step in range(101)}, {})
        assert run.span(range(first, last + 1)) == span
    assert run.span([50]) == " of step 50"


def test_a_run_of_one_step_is_told_by_that_step():
    (told,) = sentences("entropy", {1: {}})
    assert told == "The entropy was 0.5 nats per token."
    (told,) = sentences("signal", {1: {}})
    assert told == "10 % of the groups were all correct and 20 % all incorrect at the end."
    (told,) = sentences("truncation", {1: {}})
    assert told == "No rollout reached the limit of 64 tokens (the longest had 60)."


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0.0 %"),
        (2e-4, "0.02 %"),
        (0.001, "0.1 %"),
        (0.0994, "9.9 %"),
        (0.1, "10 %"),
        (1.0, "100 %"),
    ],
)
def test_a_share_that_is_not_0_does_not_read_as_0(share, text):
    assert percent(share) == text
