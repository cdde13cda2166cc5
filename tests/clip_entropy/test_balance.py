"""BAPO's bounds: the sums and the search by hand, and the schedule in a step of the trainer."""

import math

import pytest
import torch
from builders import nested, queue_of, run_overrides, step_of
from omegaconf import OmegaConf

from recipe.clip_entropy import balance
from recipe.clip_entropy.checks import check
from recipe.clip_entropy.config import ClipSettings
from recipe.clip_entropy.part import ClipSchedulePart
from recipe.clip_entropy.regions import PREFIX
from recipe.clip_entropy.schedules import Balanced, ClipLines, Static
from recipe.core.actor_loss import EXTRA_INFO, MicroBatch
from recipe.core.clip import Line, clipped_objective
from recipe.core.clipped_term import CLIPPED, ClippedRecord
from recipe.launch.compose import compose

LINES = ClipLines(base_upper=Line(0.0, 0.2), base_lower=Line(0.0, 0.4))
#                 r:   0.5  1.1  1.5  4.0   0.5   0.7   1.0   2.0
RATIOS = torch.tensor([[0.5, 1.1, 1.5, 4.0, 0.5, 0.7, 1.0, 2.0]], dtype=torch.float64)
ADVANTAGES = torch.tensor([[1.0, 1.0, 2.0, 1.0, -1.0, -2.0, -1.0, -1.0]], dtype=torch.float64)
Q = torch.tensor([[0.8, 0.2, 0.5, 0.1, 0.4, 1.0, 0.25, 0.5]], dtype=torch.float64)  # pi_old
ALL = torch.ones(1, 8, dtype=torch.bool)


def sums(mask_BT=ALL, uppers=(1.2, 3.0), lowers=(0.6, 0.9)):
    found = balance.contributions(RATIOS, Q.log(), ADVANTAGES, mask_BT, uppers, lowers)
    return [[value.item() for value in values] for values in found]


def test_the_sums_of_either_sign_by_hand():
    positive, negative = sums()
    # q min(r, 1.2) A: 0.4, 0.22, 1.2, 0.12;  q min(r, 3) A: 0.4, 0.22, 1.5, 0.3
    assert positive == pytest.approx([1.94, 2.42])
    # q max(r, 0.6) |A|: 0.24, 1.4, 0.25, 1;  q max(r, 0.9) |A|: 0.36, 1.8, 0.25, 1
    assert negative == pytest.approx([2.89, 3.41])


def test_what_is_outside_the_mask_does_not_count():
    mask = ALL.clone()
    mask[0, 3] = mask[0, 5] = False
    positive, negative = sums(mask)
    assert positive == pytest.approx([1.82, 2.12]) and negative == pytest.approx([1.49, 1.61])


def test_they_are_the_clipped_objective_s_own_terms():
    """Of either sign, weighted with q, at the bounds r <= 1.2 and r >= 0.6; without the dual
    clip."""
    bounds = LINES.bounds(LINES.base_upper, LINES.base_lower)
    old = Q.log()
    loss = Q * clipped_objective(old + RATIOS.log(), old, ADVANTAGES, bounds, 1e9).loss
    (positive, _), (negative, _) = sums()
    assert -loss[ADVANTAGES > 0].sum().item() == pytest.approx(positive)
    assert loss[ADVANTAGES < 0].sum().item() == pytest.approx(negative)


def test_no_single_ratio_decides():
    """q r is the current probability: a ratio of e^20 counts as one token's at most."""
    q, all_ = torch.tensor([[math.exp(-20)]]).double(), torch.ones(1, 1, dtype=torch.bool)
    sums = balance.contributions(1 / q, q.log(), -torch.ones(1, 1), all_, [3.0], [0.9])
    assert sums[1][0].item() == pytest.approx(1.0) and sums[0][0] == 0


def test_sums_do_not_depend_on_the_split():
    parts = [
        balance.contributions(
            *(x[:, half] for x in (RATIOS, Q.log(), ADVANTAGES, ALL)), [1.2], [0.6]
        )
        for half in (slice(0, 3), slice(3, 8))
    ]
    together = [sum(values) for values in zip(*[[p[0], n[0]] for p, n in parts], strict=True)]
    assert [x.item() for x in together] == pytest.approx([1.94, 2.89])


@pytest.mark.parametrize(
    ("positive", "negative", "target", "chosen"),
    [
        ([4.0, 5.0, 6.0], [6.0, 7.0], 0.4, (0, 0)),  # 0.4 at once
        ([3.0, 4.0, 6.0], [6.0, 7.0], 0.4, (1, 0)),  # 4 / 10
        ([3.0, 3.5, 4.0], [6.0, 7.0], 0.4, (2, 0)),
        ([1.0, 2.0, 3.0], [6.0, 7.0, 8.0], 0.4, (2, 2)),  # 3 / 9: both go to their ends
        ([1.0, 2.0, 3.0], [6.0, 7.0], 1 / 3, (2, 0)),
        ([0.0], [6.0, 7.0], 0.4, (0, 1)),
        ([0.1], [0.0], 0.4, (0, 0)),  # no token with A < 0
    ],
)
def test_the_upper_bound_is_raised_before_the_lower_one(positive, negative, target, chosen):
    assert balance.search(positive, negative, target) == chosen


def test_candidates_end_at_the_end():
    assert balance.candidates(1.2, 1.3, 0.05) == pytest.approx([1.2, 1.25, 1.3])
    assert balance.candidates(0.6, 0.65, 0.02) == pytest.approx([0.6, 0.62, 0.64, 0.65])
    assert balance.candidates(0.6, 0.6, 0.02) == [0.6]
    papers = balance.candidates(1.2, 3.0, 0.05), balance.candidates(0.6, 0.9, 0.02)
    assert [len(x) for x in papers] == [37, 16]
    assert [x[-1] for x in papers] == pytest.approx([3.0, 0.9])


def small() -> Balanced:
    """1.2, 1.25, 1.3 above; 0.6, 0.62, 0.64 below."""
    return Balanced(LINES, target=0.4, upper_end=1.3, lower_end=0.64, lower_step=0.02)


def ratio_bounds(schedule: Static, k: int = 0) -> tuple[float, float]:
    upper, lower = schedule.advance(k, None).epsilons(torch.ones(()))
    return 1 + upper, 1 - lower


def means(positive, negative):
    pairs = {"positive": positive, "negative": negative}
    return {f"{sign}/{i}": x for sign, values in pairs.items() for i, x in enumerate(values)}


def test_a_step_has_the_bounds_that_the_step_before_asks_for():
    schedule = small()
    assert ratio_bounds(schedule) == pytest.approx((1.2, 0.6))
    schedule.learn(means([3.0, 4.0, 5.0], [6.0, 6.5, 7.0]))
    assert ratio_bounds(schedule, 1) == pytest.approx((1.25, 0.6))
    assert schedule.metrics()["positive_share"] == pytest.approx(0.4)
    schedule.learn(means([1.0, 1.5, 2.0], [6.0, 6.5, 7.0]))
    assert ratio_bounds(schedule, 2) == pytest.approx((1.3, 0.64))
    assert schedule.metrics()["positive_share"] == pytest.approx(2 / 9)
    # the search begins at the start again, not at the bounds of the step before
    schedule.learn(means([5.0, 6.0, 7.0], [6.0, 6.5, 7.0]))
    assert ratio_bounds(schedule, 3) == pytest.approx((1.2, 0.6))


@pytest.mark.parametrize("nothing", [{}, means([0.0, 0.0, 0.0], [0.0, 0.0, 0.0])])
def test_bounds_stay_where_no_token_has_an_advantage(nothing):
    schedule = small()
    schedule.learn(means([3.0, 4.0, 5.0], [6.0, 6.5, 7.0]))
    schedule.learn(nothing)
    assert ratio_bounds(schedule, 1) == pytest.approx((1.25, 0.6))


def test_a_bound_of_3_is_not_cut_off():
    schedule = Balanced(LINES)
    schedule.learn(means([0.0] * 37, [1.0] * 16))
    assert ratio_bounds(schedule) == pytest.approx((3.0, 0.9))


def test_a_target_that_is_reached_at_once_is_ppo_with_the_bounds_of_the_start():
    """Its reduction: the bounds never move."""
    constant = LINES.bounds(LINES.base_upper, LINES.base_lower).epsilons(torch.ones(()))
    schedule = Balanced(LINES, target=0.01)
    for k in range(3):
        schedule.learn(means(*sums(uppers=schedule.uppers, lowers=schedule.lowers)))
        assert schedule.advance(k, None).epsilons(torch.ones(())) == pytest.approx(constant)


def settings_of(schedule: str = "bapo", **values) -> ClipSettings:
    settings = ClipSettings(schedule=schedule, **values)
    settings.loss_mode = "dynamic_clip"
    return settings


def observed(settings: ClipSettings, **told) -> MicroBatch:
    part = ClipSchedulePart(settings, settings.make_schedule(LINES, None))
    micro_batch = MicroBatch(settings={**part.schedule.asks(), **told})
    old = Q.log()
    log_prob, bounds = old + RATIOS.log(), LINES.bounds(LINES.base_upper, LINES.base_lower)
    clipped = clipped_objective(log_prob, old, ADVANTAGES, bounds, 3.0)
    micro_batch.records[CLIPPED] = ClippedRecord(clipped, bounds, log_prob, old, ADVANTAGES, ALL)
    for observer in part.loss_observers:
        observer(micro_batch)
    return micro_batch


def test_the_loss_s_observer_measures_the_candidates_beside_the_regions():
    settings = settings_of(bapo_upper_end=1.25, bapo_lower_end=0.62)
    measured = observed(settings).sums
    got = {name: x.item() for name, x in measured.items() if name.startswith(balance.PREFIX)}
    positive, negative = sums(uppers=(1.2, 1.25), lowers=(0.6, 0.62))
    expected = means(positive, negative)
    assert got == pytest.approx({f"{balance.PREFIX}{k}": x for k, x in expected.items()})
    assert f"{PREFIX}bound_upper" in measured
    alone = observed(settings_of(region_diagnostics=False)).sums
    assert len(alone) == 37 + 16


def test_another_schedule_measures_none_of_it():
    settings = settings_of("static")
    assert not any(name.startswith(balance.PREFIX) for name in observed(settings).sums)
    part = ClipSchedulePart(settings_of("static", region_diagnostics=False), Static(LINES))
    assert not part.loss_observers


def test_the_part_takes_what_the_update_measured_and_logs_the_share():
    settings = settings_of(bapo_target=0.4, bapo_upper_end=1.25, bapo_lower_end=0.6)
    part = ClipSchedulePart(settings, settings.make_schedule(LINES, None))
    ones = nested(torch.ones(2, 3), torch.tensor([3, 1]))
    steps = [step_of(["a", "b"], config=OmegaConf.create({})) for _ in range(2)]
    with queue_of(dict.fromkeys(("old_log_probs", "advantages", "entropy", "response_mask"), ones)):
        part.before_update(steps[0])
        update = means([3.0, 4.0], [6.0])
        steps[0].metrics.update({f"{balance.PREFIX}{name}": x for name, x in update.items()})
        part.after_update(steps[0])
        part.before_update(steps[1])
    told = [step.batch.extra_info[EXTRA_INFO] for step in steps]
    assert told[0][balance.CANDIDATES] == [pytest.approx([1.2, 1.25]), [0.6]]
    uppers, lowers = ([x["clip_bounds"][side][1] for x in told] for side in (0, 1))
    assert uppers == pytest.approx([0.2, 0.25]) and lowers == pytest.approx([0.4, 0.4])
    assert not any("balance" in name for name in steps[0].metrics)
    assert steps[1].metrics["clip_entropy/positive_share"] == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bapo_upper_end": 1.1}, "bapo_upper_end=1.1 is not allowed: use a number from 1.2 up"),
        ({"bapo_lower_end": 0.5}, "bapo_lower_end=0.5 is not allowed: use a number from 0.6 up"),
        (
            {"bapo_upper_end": 1.2, "bapo_lower_end": 0.6},
            "leave both bounds where they start: raise one of them",
        ),
    ],
)
def test_ends_before_the_start_are_refused(settings, message):
    chosen = ClipSettings(schedule="bapo", **settings)
    with pytest.raises(ValueError, match=message):
        chosen.make_schedule(LINES, None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "static", "bapo_target": 0.5}, "bapo_target=0.5 has no effect with schedule"),
        ({"schedule": "bapo", "bound_max": 0.5}, "bound_max=0.5 has no effect with schedule=bapo"),
        ({"schedule": "bapo", "phase_split": 0.3}, "phase_split=0.3 has no effect with schedule"),
        ({"schedule": "bapo", "variant": "dcpo"}, "schedule=bapo has no effect with variant=dcpo"),
        ({"schedule": "bapo", "variant": "up"}, "schedule=bapo has no effect with variant=up"),
        ({"schedule": "bapo", "total_steps": 9}, "total_steps=9 has no effect with schedule=bapo"),
    ],
)
def test_settings_that_nothing_reads_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ClipSettings(**settings)


def test_the_preset_is_the_schedule_on_the_paper_s_start(tmp_path):
    node = "actor_rollout_ref.actor.policy_loss"
    config = compose("clip_entropy", [*run_overrides(tmp_path), f"{node}.preset=bapo"])
    actor = config.actor_rollout_ref.actor
    assert (actor.policy_loss.schedule, actor.clip_ratio_low, actor.clip_ratio_high) == (
        "bapo", 0.4, 0.2,
    )  # fmt: skip
    check(config)
    OmegaConf.set_struct(config, False)
    actor.policy_loss.schedule = "id"
    with pytest.raises(ValueError, match="preset=bapo has no effect with schedule=id, which is"):
        check(config)
    actor.policy_loss.schedule = "bapo"
    part = ClipSchedulePart.from_config(config)
    assert part is not None and isinstance(part.schedule, Balanced)
    assert part.schedule.total_steps is None and ratio_bounds(part.schedule) == (1.2, 0.6)
    actor.ppo_mini_batch_size = config.data.train_batch_size
    with pytest.raises(ValueError, match="schedule=bapo can clip nothing"):
        check(config)
