"""recipe.diagnose: fixed cases, each told by its sentence and figures, and what cannot be told."""

import itertools
import re
from importlib import import_module

import pytest
from diagnose.cases import CALM, CONFIG, findings, sentences, with_settings

from recipe.core.recipe import recipes
from recipe.diagnose.findings import diagnose
from recipe.experiment.evidence import Evidence, Finding


def test_a_calm_run_gets_figures_and_no_advice():
    told = findings()
    assert told["clipping"] == ["5.0 % of the tokens were clipped."]
    assert told["signal"] == [
        "10 % of the groups were all correct and 20 % all incorrect at the end."
    ]
    assert told["truncation"] == ["No rollout reached the limit of 64 tokens (the longest had 60)."]
    assert told["advantages"][0].endswith("about as much.")
    assert told["off-policy"] == [
        "The policy was 0.001 nats per token from the one that had sampled, on average over a "
        "step's 4 updates (before each, so 0 at the first)."
    ]
    assert "length" not in told


@pytest.mark.parametrize(
    ("last", "sentence"),
    [
        # the ends are means over the first two and the last two of 20 steps
        (0.1, "The entropy collapsed from 0.489 to 0.111 nats per token (-77 %)."),
        (1.0, "The entropy exploded from 0.513 to 0.987 nats per token (+92 %)."),
        (0.4, "The entropy fell from 0.497 to 0.403 nats per token (-19 %)."),
        (0.6, "The entropy rose from 0.503 to 0.597 nats per token (+19 %)."),
    ],
)
def test_where_the_entropy_went(last, sentence):
    assert findings(actor__entropy=(0.5, last))["entropy"] == [sentence]


def of_regions(config=CONFIG, **changes):
    each = {"E1": -3e-3, "E2": 1e-3, "E3": 5e-4, "E4": -2e-4} | changes
    metrics = {f"clip_entropy/{name}/entropy_change": (x, x) for name, x in each.items()}
    shares = {f"clip_entropy/{name}/{kind}": (0.25, 0.25)
              for name in each for kind in ("token_share", "clipped_share")}  # fmt: skip
    changes = {k.replace("/", "__"): v for k, v in {**metrics, **shares}.items()}
    return findings(config=config, **changes)


@pytest.mark.parametrize(
    ("changes", "way", "region", "bound", "result"),
    [
        ({}, "lowered", "E1, likely tokens with positive", "upper bound", "more"),
        ({"E2": 9e-3}, "raised", "E2, unlikely tokens with positive", "upper bound", "less"),
        (
            {"E3": 9e-3},
            "raised",
            "E3, likely tokens with negative",
            "lower bound or the dual clip",
            "less",
        ),
        (
            {"E4": -9e-3},
            "lowered",
            "E4, unlikely tokens with negative",
            "lower bound or the dual clip",
            "more",
        ),
        # the largest of all goes the other way
        (
            {"E2": 2e-3, "E3": 2.5e-3},
            "raised",
            "E3, likely tokens with negative",
            "lower bound or the dual clip",
            "less",
        ),
    ],
)
def test_which_region_moved_it(changes, way, region, bound, result):
    moved, cut = of_regions(**changes)["regions"]
    assert f"updates {way} the entropy" in moved and f"the most came from {region}" in moved
    assert "25 % of the tokens" in moved
    assert cut.startswith(f"The {bound} clipped 25 % of {region[:2]}'s tokens")
    assert f"would leave {result} entropy" in cut


def test_regions_that_moved_nothing_are_said_to():
    (told,) = of_regions(E1=0.0, E2=0.0, E3=0.0, E4=0.0)["regions"]
    assert "left the entropy where it was" in told


def test_what_a_variant_cut_is_not_laid_to_a_bound():
    """ERC's band is no bound, and a schedule is refused beside DCPO's and Archer's."""
    told = of_regions(with_settings(loss_mode="dynamic_clip", variant="erc"))["regions"][1]
    assert told == "With variant=erc 25 % of E1's tokens had no gradient."


def test_few_clipped_tokens_are_said_to_be_few_and_many_to_have_no_gradient():
    told = findings(actor__pg_clipfrac=(0.003, 0.003))["clipping"]
    assert told == [
        "0.3 % of the tokens were clipped: so few that methods which move the bounds hardly act."
    ]
    (told,) = findings(actor__pg_clipfrac=(0.2, 0.2))["clipping"]
    assert "20 % of the tokens were clipped, which then have no gradient" in told


@pytest.mark.parametrize(
    ("settings", "clipped", "sentence"),
    [
        # clipped tokens of CISPO have a gradient; GSPO clips whole responses
        ({"loss_mode": "cispo"}, 0.2, "20 % of the tokens were clipped."),
        ({"loss_mode": "gspo"}, 0.003, "0.3 % of the tokens were clipped."),
        ({"loss_mode": "dppo_tv"}, 0.003, "0.3 % of the tokens were clipped."),
        ({"loss_mode": "dynamic_clip", "variant": "erc"}, 0.0, "0.0 % of the tokens were clipped."),
        # by verl's default 2e-4 of the tokens
        (
            {"loss_mode": "clip_cov"},
            2e-4,
            "0.02 % of the tokens were held back for their covariance.",
        ),
        # 0.003 where A > 0, 0.2 where A < 0
        ({"loss_mode": "geo_mean"}, 0.003, "20 % of the tokens were outside the bounds."),
        # PPO's term under the engine's log-probs
        (
            {"loss_mode": "bypass_mode"},
            0.003,
            "0.3 % of the tokens were clipped: so few that methods which move the bounds hardly "
            "act.",
        ),
    ],
)  # fmt: skip
def test_what_another_loss_counts_as_clipped_is_not_laid_to_ppo_s_bounds(
    settings, clipped, sentence
):
    row = {"actor/pg_clipfrac": clipped, "actor/pg_clipfrac_lower": 0.2}
    assert sentences("clipping", {1: row, 2: row}, with_settings(**settings)) == [sentence]


def test_sapo_s_constant_0_is_not_told():
    row = {"actor/pg_clipfrac": 0.0}
    assert not sentences("clipping", {1: row, 2: row}, with_settings(loss_mode="sapo"))


@pytest.mark.parametrize(
    ("positive", "negative", "end"),
    [
        (0.41, -0.2, ": the positive side pushed 2.0 times as much."),  # 2.05
        (
            0.39,
            -0.2,
            ": the positive side pushed 1.9 times as much.",
        ),  # 1.95, in a float a bit less
        (0.1, -0.3, ": the negative side pushed 3.0 times as much."),
        (0.25, -0.2, ", about as much."),  # 1.25
        (0.0, 0.0, ": no token had an advantage."),
    ],
)
def test_which_side_pushed_more(positive, negative, end):
    (told,) = findings(
        diagnostics__advantage__positive_mass=(positive, positive),
        diagnostics__advantage__negative_mass=(negative, negative),
    )["advantages"]
    assert told == (
        f"Positive advantages added {positive:.3g} and negative ones {negative:.3g} to a "
        f"token-mean loss{end}"
    )


@pytest.mark.parametrize(
    ("positive", "negative", "pushed"),
    [
        (0.4, -0.04, "the positive side pushed 10.0 times as much. An estimator with a weight"),
        (0.0, -0.3, "the negative side pushed alone. An estimator with a weight"),
    ],
)
def test_a_side_that_pushed_nearly_alone_gets_the_estimators_that_change_it(
    positive, negative, pushed
):
    row = {
        "diagnostics/advantage/positive_mass": positive,
        "diagnostics/advantage/negative_mass": negative,
    }
    (told,) = sentences("advantages", {1: row, 2: row})
    assert pushed in told and "presets psr, nsr and w_reinforce" in told


@pytest.mark.parametrize(
    ("values", "end"),
    [
        # a step without a mixed group has none
        ({50: 0.05}, "of +0.05 on average, positive in 1 of 1 steps with mixed groups: to first "
                     "order that lowers the entropy. KL-Cov"),
        ({1: 0.01, 2: -0.05}, "of -0.02 on average, positive in 1 of 2 steps with mixed groups: "
                              "to first order that raises the entropy."),
        ({1: 0.0, 2: 0.0}, "of +0 on average, positive in 0 of 2 steps with mixed groups."),
    ],
)  # fmt: skip
def test_the_covariance_is_one_of_the_steps_with_mixed_groups(values, end):
    rows = {step: {"diagnostics/covariance/all": values.get(step)} for step in range(1, 101)}
    (told,) = sentences("covariance", rows)
    assert f"rollouts had a covariance {end}" in told
    assert ("KL-Cov" in told) == (sum(values.values()) > 0)


@pytest.mark.parametrize(
    ("kind", "cure"), [("correct", "harder prompts"), ("incorrect", "presets nsr and w_reinforce")]
)
def test_groups_without_signal(kind, cure):
    """What they teach is not said of the run: an estimator without a baseline learns from them."""
    (told,) = findings(**{f"diagnostics__groups__all_{kind}": (0.7, 0.7)})["signal"]
    assert "70 %" in told and cure in told and "preset dynamic_sampling" in told
    assert "teaches nothing to an estimator that compares a group's rollouts" in told


def test_truncation_is_told_only_at_the_limit():
    changes = {"response_length__clip_ratio": (0.2, 0.4)}
    at_limit = findings(**changes, response_length__max=(64, 64))["truncation"][0]
    assert "21 % of the rollouts at the beginning and 39 % at the end" in at_limit
    assert "raise data.max_response_length" in at_limit
    below = findings(**changes)["truncation"][0]
    assert below.startswith("No rollout reached the limit")
    unknown = findings(**changes, config={})["truncation"][0]
    assert "cannot be told without the run's record" in unknown


def test_the_longest_of_a_batch_are_cut_off_only_at_the_limit():
    """Nine batches of 10 tokens throughout, all of them their batch's longest, and one at 64."""
    short = {"response_length/clip_ratio": 1.0, "response_length/max": 10}
    long = {"response_length/clip_ratio": 0.05, "response_length/max": 64}
    steps = dict(enumerate([short] * 9 + [long], 1))
    (told,) = sentences("truncation", steps)
    assert told == (
        "0.0 % of the rollouts at the beginning and 5.0 % at the end were as long as the limit of "
        "64 tokens."
    )
    steps = dict(enumerate([long] + [short] * 9, 1))
    (told,) = sentences("truncation", steps)
    assert told.startswith("5.0 % of the rollouts at the beginning and 0.0 % at the end")


def test_the_trainer_s_own_share_of_truncated_rollouts_comes_first():
    rows = {
        step: {"diagnostics/length/truncated": share, "response_length/max": 64}
        for step, share in enumerate((0, 0.4), 1)
    }
    (told,) = sentences("truncation", rows, config={})
    assert told.startswith("0.0 % of the rollouts at the beginning and 40 % at the end")
    assert "raise data.max_response_length" in told


def test_drift():
    (told,) = findings(actor__ppo_kl=(0.05, 0.05))["off-policy"]
    assert "0.05 nats" in told and "fewer updates" in told
    (told,) = findings(actor__ppo_kl=(0.3, -0.3))["off-policy"]  # no cancelling
    assert told.startswith("The policy was 0.16 nats per token")
    once = {"data": {"train_batch_size": 32}}
    once |= {"actor_rollout_ref": {"actor": {"ppo_mini_batch_size": 32, "ppo_epochs": 1}}}
    assert "off-policy" not in findings(config=once)  # it would be 0, whatever the update did
    (told,) = findings(training__rollout_probs_diff_mean=(0.1, 0.1))["engine"]
    assert "0.1 on average" in told and "rollout_correction" in told
    told = findings(response_length__mean=(20, 60))["length"][0]
    assert told.startswith("Responses went from 21 to 59 tokens")


def test_an_entropy_that_did_not_move_or_began_at_0():
    assert findings()["entropy"] == ["The entropy stayed at 0.5 nats per token."]
    steps = {k: {"actor/entropy": value} for k, value in enumerate((0.0, 0.3), 1)}
    assert diagnose(Evidence(steps, {}))[0].text == (
        "The entropy exploded from 0 to 0.3 nats per token."
    )


def test_the_entropy_per_token_is_read_and_no_other_mean():
    """verl aggregates actor/entropy as the loss: under a sum over the limit it is no token mean."""
    sums = CONFIG | {"actor_rollout_ref": {"actor": {"loss_agg_mode": "seq-mean-token-sum-norm"}}}
    assert "logged no entropy per token" in findings(config=sums)["entropy"][0]
    assert not [text for text in findings(config=sums).get("control", [])]
    told = findings(config=sums, diagnostics__entropy__all=(0.8, 0.4))["entropy"]
    assert told == ["The entropy fell from 0.789 to 0.411 nats per token (-48 %)."]


def test_every_preset_that_is_advised_is_one():
    told = findings(
        actor__pg_clipfrac=(0.2, 0.2),
        diagnostics__groups__all_incorrect=(0.7, 0.7),
        diagnostics__advantage__negative_mass=(-0.04, -0.04),
        actor__entropy=(0.1, 0.1),
    )
    text = " ".join(itertools.chain.from_iterable(told.values()))
    names = r"((?:[a-z_]+(?:, | and ))*[a-z_]+)"
    advised = re.findall(rf"{names} of ({'|'.join(record.name for record in recipes())})\b", text)
    assert len(advised) >= 5
    for presets, recipe in advised:
        known = import_module(f"recipe.{recipe}.config").PRESETS
        assert set(re.split(", | and ", presets)) & set(known), (presets, recipe)
        unknown = set(re.split(", | and ", presets)) - set(known) - {"presets", "schedules"}
        assert not unknown, (unknown, recipe)


def test_values_that_are_no_numbers_are_left_out():
    steps = {1: CALM, 2: {**CALM, "actor/entropy": None}, 3: {**CALM, "actor/entropy": 0.4}}
    entropy = diagnose(Evidence({0: {"val-core/x": 1.0}, **steps}, {}))[0]
    assert entropy == Finding(
        "entropy", "The entropy fell from 0.5 to 0.4 nats per token (-20 %).", "actor/entropy"
    )
