"""The controllers: closed forms, what each reduces to, and their parts on steps of the trainer."""

import dataclasses
import math

import pytest
import torch
from builders import actor_config, nested, queue_of, random_tokens, step_of
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.workers.utils.losses import ppo_loss

from recipe.core import actor_loss
from recipe.core.actor_loss import ENTROPY_COEFF, EXTRA_INFO
from recipe.core.clip import Bounds, Line, clipped_objective
from recipe.core.step import policy_entropy
from recipe.entropy_control import controllers as C
from recipe.entropy_control.checks import check
from recipe.entropy_control.config import CONTROLLERS, PRESETS, EntropyControlSettings
from recipe.entropy_control.part import EntropyControlPart

# ---- the formulas --------------------------------------------------------------------------------


def test_annealing_goes_from_start_to_end_and_stays_there():
    linear = [C.annealed(0.6, 0.2, k, 4, "linear") for k in range(6)]
    assert linear == pytest.approx([0.6, 0.5, 0.4, 0.3, 0.2, 0.2])
    cosine = [C.annealed(0.6, 0.2, k, 4, "cosine") for k in range(6)]
    # (1 - cos(pi/4)) / 2 = 0.1464
    assert cosine == pytest.approx([0.6, 0.6 - 0.4 * 0.14645, 0.4, 0.2586, 0.2, 0.2], abs=1e-4)
    for shape in ("linear", "cosine"):  # a curve that goes nowhere is a constant, to the bit
        assert {C.annealed(0.5, 0.5, k, 7, shape) for k in range(9)} == {0.5}


def test_the_target_controller_moves_by_delta_within_its_bounds_and_gives_nothing_above():
    value, realized = 0.0, []
    for entropy in (0.1, 0.1, 0.1, 0.1, 0.3, 0.2, 0.1):
        value, given = C.follow_target(value, entropy, 0.2, 0.1, 0.0, 0.3)
        realized.append((round(value, 6), round(given, 6)))
    # up to 0.3 and no further; at the target and above down, and no bonus
    assert realized == [
        (0.1, 0.1),
        (0.2, 0.2),
        (0.3, 0.3),
        (0.3, 0.3),
        (0.2, 0),
        (0.1, 0),
        (0.2,) * 2,
    ]


def test_a_target_that_is_never_reached_from_below_gives_no_bonus():
    value = 0.0
    for entropy in (0.5, 0.4, 0.3, 0.2):
        value, given = C.follow_target(value, entropy, 0.2, 1e-4, 0.0, 0.005)
        assert value == given == 0.0


def test_the_range_drops_the_side_that_would_move_the_entropy_further_out():
    A = torch.tensor([1.0, -2.0, 0.0])
    assert C.drop_by_range(A, 0.39, 0.4, 0.5).tolist() == [0.0, -2.0, 0.0]
    assert C.drop_by_range(A, 0.51, 0.4, 0.5).tolist() == [1.0, 0.0, 0.0]
    for inside in (0.4, 0.45, 0.5):
        assert C.drop_by_range(A, inside, 0.4, 0.5) is A


def test_the_mean_is_over_the_accepted_rollouts():
    mask = torch.tensor([True, True, True, True, False])
    A = torch.tensor([0.0, -2.0, 0.0, -1.0, -5.0])  # 0 and 2 were positive, of 4 tokens
    accepted = torch.tensor([False, True, False, True, True])
    scaled = C.over_accepted(A, accepted, mask)
    assert scaled.tolist() == [0.0, -4.0, 0.0, -2.0, -10.0]
    assert scaled[mask].mean() == A[accepted & mask].mean()
    assert C.over_accepted(A, ~mask, mask) is C.over_accepted(A, mask, mask) is A


def test_pi_control_by_hand():
    total, alphas = 0.0, []
    for entropy in (0.4, 0.5, 0.7, 3.0):
        total, alpha = C.pi_weight(total, entropy, 0.5, 1.0, 0.1, 1.0)
        alphas.append(alpha)
    # -0.1; 0 + 0.1 (-0.1); 0.2 + 0.1 (-0.1); 2.5 + ... is cut off at 1
    assert alphas == pytest.approx([-0.1, -0.01, 0.19, 1.0])
    # each of a step's four updates counts
    assert C.pi_weight(0.5, 0.7, 0.5, 1.0, 0.1, 1.0, 4) == pytest.approx((1.3, 0.25))


def test_probable_tokens_are_weighed_by_their_share():
    A, ones = torch.tensor([2.0, -2.0, 2.0, -2.0, 5.0]), torch.tensor([True] * 4 + [False])
    log_prob = torch.tensor([0.96, 0.99, 0.95, 0.2, 0.99]).log()  # 0.95 itself is not above it
    weighed = C.weigh_probable(A, log_prob, ones, -0.1, 0.95)
    # two of four: twice the weight, -0.2 |A|; what is no response token stays
    assert weighed.tolist() == pytest.approx([1.6, -2.4, 2.0, -2.0, 5.0])
    everywhere = C.weigh_probable(A, log_prob, ones, -0.1, 0.0)  # 1 + alpha, 1 - alpha
    assert everywhere.tolist() == pytest.approx([1.8, -2.2, 1.8, -2.2, 5.0])
    assert torch.equal(C.weigh_probable(A, log_prob - 1, ones, -0.1, 0.95), A)  # no such token
    assert not C.weigh_probable(A, log_prob, torch.zeros(5).bool(), -0.1, 0.95).isnan().any()


@pytest.mark.parametrize("alpha", [-0.6, 0.3, 1.0])
def test_the_weighed_advantages_have_the_gradient_of_the_authors_loss(alpha):
    """PPO's clipped term, and beside it alpha times the mean of -r |A| over the probable tokens."""
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(400, generator=generator) ** 0.05  # half of them above 0.95
    old = p.log()
    new = (old + 0.1 * torch.randn(400, generator=generator)).clamp(max=0)
    new = torch.where(p > 0.95, new.clamp(min=old - 0.2), old + 3 * (new - old))  # r >= 0.82
    A = torch.randn(400, generator=generator)
    everywhere = torch.ones(400, dtype=torch.bool)
    bounds = Bounds(Line(0.0, 0.2), Line(0.0, 0.2))

    def gradient(advantages, more):
        leaf = new.clone().requires_grad_()
        loss = clipped_objective(leaf, old, advantages, bounds, 3.0).loss.mean()
        (loss + more((leaf - old).exp())).backward()
        return leaf.grad

    theirs = gradient(A, lambda r: alpha * (-r * A.abs())[p > 0.95].mean())
    weighed = C.weigh_probable(A, old, everywhere, alpha, 0.95)
    ours = gradient(weighed, lambda r: 0.0)
    torch.testing.assert_close(ours, theirs)
    assert (gradient(A, lambda r: 0.0) != theirs).sum() == (p > 0.95).sum() > 100
    assert (theirs == 0).sum() > 20  # clipped ones


def test_pi_control_at_the_target_changes_nothing():
    total, alpha = C.pi_weight(0.0, 0.5, 0.5, 1.0, 0.01, 1.0)
    A = torch.randn(50)
    assert (total, alpha) == (0.0, 0.0)
    assert torch.equal(C.weigh_probable(A, -A.abs() / 9, A < 9, alpha, 0.95), A)


# ---- the coefficient in the loss -----------------------------------------------------------------


def loss_and_gradients(config, told, outputs=("log_probs", "entropy")):
    """verl's loss of a micro-batch, or ours with what a part told it."""
    data = random_tokens()
    data["response_mask"][:, 0] = True
    lengths = data["response_mask"].sum(1)
    fields = {
        "old_log_probs": nested(data["old_log_prob"], lengths),
        "advantages": nested(data["advantages"], lengths),
        "response_mask": nested(data["response_mask"].long(), lengths),
        "prompts": nested(torch.ones(len(lengths), 1).long(), torch.ones_like(lengths)),
        "responses": nested(data["response_mask"].long(), lengths),
    }
    batch = TensorDict(fields, batch_size=len(lengths))
    tu.assign_non_tensor(
        batch, dp_size=1, batch_num_tokens=lengths.sum(), global_batch_size=len(lengths)
    )
    leaves = [
        data["log_prob"].clone().requires_grad_(),
        data["old_log_prob"].abs().requires_grad_(),
    ]
    output = {}
    for name, leaf in zip(outputs, leaves, strict=False):
        rows = [torch.cat([leaf[i, :n], leaf.new_zeros(1)]) for i, n in enumerate(lengths)]
        output[name] = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
    if told is None:
        loss, _ = ppo_loss(config, output, batch)
    else:
        tu.assign_non_tensor(batch, **{EXTRA_INFO: told})
        loss, _ = actor_loss.actor_loss(config, output, batch)
    loss.backward()
    return loss.detach(), [leaf.grad for leaf in leaves]


def test_a_coefficient_that_verl_would_leave_out_is_refused():
    told = {ENTROPY_COEFF: 0.03}
    with pytest.raises(ValueError, match=r"entropy_coeff=0\.03\) needs .*calculate_entropy=true"):
        loss_and_gradients(actor_config("vanilla"), told, outputs=("log_probs",))
    loss_and_gradients(actor_config("vanilla"), {ENTROPY_COEFF: 0.0}, outputs=("log_probs",))


@pytest.mark.parametrize("loss_mode", ["vanilla", "cispo", "dynamic_clip"])
def test_the_coefficient_of_a_step_is_verls_entropy_coeff_whatever_the_loss(loss_mode):
    config, verls = actor_config(loss_mode), actor_config(loss_mode)
    object.__setattr__(verls, "entropy_coeff", 0.03)
    found, expected = (
        loss_and_gradients(config, {ENTROPY_COEFF: 0.03}),
        loss_and_gradients(verls, None),
    )
    assert torch.equal(found[0], expected[0]) and expected[1][1].any()
    assert all(torch.equal(*pair) for pair in zip(found[1], expected[1], strict=True))
    assert config.entropy_coeff == 0.0  # the next step may have another


def test_a_coefficient_of_0_is_no_bonus():
    plain, zero = (
        loss_and_gradients(actor_config("vanilla"), t) for t in ({}, {ENTROPY_COEFF: 0.0})
    )
    assert torch.equal(plain[0], zero[0]) and torch.equal(plain[1][0], zero[1][0])
    assert not zero[1][1].any()


# ---- the parts -----------------------------------------------------------------------------------

CONFIG = OmegaConf.create({"actor_rollout_ref": {"actor": {"loss_agg_mode": "token-mean"}}})
LENGTHS = torch.tensor([3, 1])
ADVANTAGES = torch.tensor([[1.0, -1.0, 2.0], [-3.0, 0.0, 0.0]])
PROBABILITIES = torch.tensor([[0.99, 0.5, 0.2], [0.96, 1.0, 1.0]])


def fields_of(entropy):
    return {
        "advantages": nested(ADVANTAGES, LENGTHS),
        "entropy": nested(torch.full((2, 3), entropy), LENGTHS),
        "old_log_probs": nested(PROBABILITIES.log(), LENGTHS),
        "response_mask": nested(torch.tensor([[1, 1, 1], [1, 0, 0]]), LENGTHS),
    }


def stepped(part, number, entropy):
    """Returns (the advantages after a step, what the loss was told, the metrics)."""
    fields = fields_of(entropy)
    step = step_of(["a", "b"], number=number, metrics={"actor/entropy": entropy}, config=CONFIG)
    with queue_of(fields):
        part.after_advantage(step)
        part.before_update(step)
    told = step.batch.extra_info.get(EXTRA_INFO, {})
    return fields["advantages"].values().tolist(), told, step.metrics


def part(steps=10, updates=1, **settings):
    return EntropyControlPart(EntropyControlSettings(**settings), steps, updates)


def test_a_schedule_tells_the_loss_the_coefficient_of_its_step_and_leaves_the_advantages():
    schedule = part(controller="schedule", coef_start=0.01)
    advantages, told, metrics = stepped(schedule, 5, 0.3)
    assert advantages == [1.0, -1.0, 2.0, -3.0]
    assert told == {ENTROPY_COEFF: pytest.approx(0.005)}
    assert metrics["entropy_control/coefficient"] == pytest.approx(0.005)
    assert schedule.reads_step_in_loss and not schedule.needs_entropy


def test_the_target_part_continues_from_its_state():
    settings = dict(controller="target", coef_delta=0.001)
    target, told = part(**settings), []
    for number, entropy in enumerate((0.1, 0.1, 0.3, 0.1)):
        resumed = part(**settings)
        resumed.load_state_dict(target.state_dict())
        target = resumed
        told.append(stepped(target, number, entropy)[1][ENTROPY_COEFF])
    assert told == pytest.approx([0.001, 0.002, 0.0, 0.002])


def test_the_range_part_follows_its_lines():
    lines = part(controller="range", lower_start=0.4, lower_end=0.2, upper_start=0.5, upper_end=0.3)
    below, _, metrics = stepped(lines, 0, 0.35)
    assert below == [0.0, -2.0, 0.0, -6.0]  # half of the tokens are accepted
    assert metrics["entropy_control/changed_share"] == 0.5
    inside, told, metrics = stepped(lines, 5, 0.35)  # the lines are at 0.3 and 0.4
    assert inside == [1.0, -1.0, 2.0, -3.0] and not told
    assert metrics["entropy_control/line_lower"] == pytest.approx(0.3)
    above, _, _ = stepped(lines, 10, 0.35)
    assert above == [2.0, 0.0, 4.0, 0.0]
    over_all = part(controller="range", lower_start=0.4, mean_over="all")
    assert stepped(over_all, 0, 0.35)[0] == [0.0, -1.0, 0.0, -3.0]


def test_the_pi_part_sums_the_errors():
    weights = part(updates=4, controller="pi", target=0.5, integral=0.1)
    stepped(weights, 0, 0.4)
    advantages, _, metrics = stepped(weights, 1, 0.5)
    assert metrics["entropy_control/alpha"] == pytest.approx(-0.04)
    # half of the tokens are probable: -0.08 |A|
    assert advantages == pytest.approx([0.92, -1.0, 2.0, -3.24])
    assert metrics["entropy_control/changed_share"] == 0.5


def test_the_pi_part_sums_no_error_of_a_step_without_an_update():
    """verl computes advantages while its critic warms up, and updates no actor."""
    weights = part(controller="pi", target=0.5, integral=0.1)
    step, fields = step_of(["a", "b"], number=0, config=CONFIG), fields_of(0.4)
    with queue_of(fields):
        weights.after_advantage(step)
    assert weights.state_dict()["total"] == 0
    with queue_of(fields):
        weights.before_update(step)
    assert weights.state_dict()["total"] == pytest.approx(-0.1)


@pytest.mark.parametrize("unknown", [math.nan, math.inf])
@pytest.mark.parametrize(
    "settings",
    [
        dict(controller="target", target=0.5, coef_delta=0.001, coef_init=0.002),
        dict(controller="pi", target=0.5, integral=0.1),
        dict(controller="range", lower_start=0.1, upper_start=0.6, upper_end=0.6),
        dict(controller="schedule", coef_start=0.01, coef_end=0.005),
    ],
    ids=lambda settings: settings["controller"],
)
def test_a_step_without_an_entropy_moves_no_controller(settings, unknown):
    """All of its tokens are rejected, or one of them is NaN."""
    through, without = part(**settings), part(**settings)
    stepped(through, 0, 0.4), stepped(without, 0, 0.4)
    advantages, told, _ = stepped(through, 1, unknown)
    assert advantages == [*ADVANTAGES[0].tolist(), -3.0]
    assert all(math.isfinite(value) for value in told.values())
    assert through.state_dict() == without.state_dict()
    assert stepped(through, 2, 0.4)[:2] == stepped(without, 2, 0.4)[:2]


# (1 - cos(pi / 4)) / 2: a quarter of the way, by the cosine
COSINE = 0.14644661


def test_every_setting_of_a_controller_reaches_it():
    """Each at another value than its default, by hand."""
    curve = dict(coef_start=0.02, coef_end=0.01, shape="cosine")
    told = stepped(part(steps=4, controller="schedule", **curve), 1, 0.3)[1][ENTROPY_COEFF]
    assert told == pytest.approx(0.02 - 0.01 * COSINE)

    lines = dict(lower_start=0.4, lower_end=0.2, upper_start=0.6, upper_end=0.3)
    metrics = stepped(part(steps=4, controller="range", shape="cosine", **lines), 1, 0.45)[2]
    assert metrics["entropy_control/line_lower"] == pytest.approx(0.4 - 0.2 * COSINE)
    assert metrics["entropy_control/line_upper"] == pytest.approx(0.6 - 0.3 * COSINE)

    bounds = dict(coef_init=0.002, coef_delta=0.001, coef_min=0.0015, coef_max=0.0025)
    target = part(controller="target", target=0.35, **bounds)
    # 0.002 + 0.001 is above coef_max; 0.0025 - 0.001 at 0.36; then 0.0005 is below coef_min
    kept = [
        stepped(target, k, entropy)[2]["entropy_control/coefficient_kept"]
        for k, entropy in enumerate((0.34, 0.36, 0.36))
    ]
    assert kept == pytest.approx([0.0025, 0.0015, 0.0015])

    pi = dict(target=0.3, proportional=2.0, integral=0.5, alpha_max=0.15, probable_above=0.4)
    weights = part(updates=2, controller="pi", **pi)
    # 2 x 0.1 is cut off at 0.15; p > 0.4 in three of the four tokens: 0.15 x 4 / 3 = 0.2
    advantages, _, metrics = stepped(weights, 0, 0.4)
    assert metrics["entropy_control/alpha"] == pytest.approx(0.15)
    assert advantages == pytest.approx([1.2, -0.8, 2.0, -2.4])
    # 2 x (-0.05) + 0.5 x (2 updates x 0.1)
    metrics = stepped(weights, 1, 0.25)[2]
    assert metrics["entropy_control/alpha"] == pytest.approx(0.0, abs=1e-6)
    metrics = stepped(weights, 2, 0.28)[2]  # the sum is 2 x 0.1 - 2 x 0.05
    assert metrics["entropy_control/alpha"] == pytest.approx(2 * -0.02 + 0.5 * 0.1, abs=1e-6)


def test_the_part_counts_the_updates_of_a_step():
    settings = OmegaConf.create(
        {
            "algorithm": {"entropy_control": {"controller": "pi"}},
            "actor_rollout_ref": {"actor": {"ppo_mini_batch_size": 8, "ppo_epochs": 2}},
            "data": {"train_batch_size": 32},
            "trainer": {"total_training_steps": 3},
        }
    )
    assert EntropyControlPart.from_config(settings).updates == 8


@pytest.mark.parametrize(("given", "total_steps"), [({}, 10), ({"total_steps": 40}, 40)])
def test_the_length_of_a_schedule_is_the_run_s_unless_it_is_given(given, total_steps):
    """And a resumed run must have the same, whichever of the two it is."""
    actor = {"ppo_mini_batch_size": 8, "ppo_epochs": 1}
    run = {"data": {"train_batch_size": 8}, "actor_rollout_ref": {"actor": actor}}
    control = {"entropy_control": {"controller": "schedule", **given}}
    run |= {"algorithm": control, "trainer": {"total_training_steps": 10}}
    schedule = EntropyControlPart.from_config(OmegaConf.create(run))
    assert schedule.total_steps == total_steps
    assert schedule.resume_settings() == {
        "algorithm.entropy_control.controller": "schedule",
        "algorithm.entropy_control.shape": "linear",
        "algorithm.entropy_control.total_steps": total_steps,
        "algorithm.entropy_control.coef_start": 0.001,
        "algorithm.entropy_control.coef_end": 0.0,
    }


def test_the_changed_share_is_of_the_response_s_tokens():
    """Below the lower line the positive tokens are dropped: one of two, and two that verl has
    taken out of the response."""
    fields = {
        "advantages": nested(torch.tensor([[1.0, -1.0, 1.0, 1.0]]), torch.tensor([4])),
        "entropy": nested(torch.full((1, 4), 0.1), torch.tensor([4])),
        "old_log_probs": nested(-torch.ones(1, 4), torch.tensor([4])),
        "response_mask": nested(torch.tensor([[1, 1, 0, 0]]), torch.tensor([4])),
    }
    step = step_of(["a"], config=CONFIG)
    with queue_of(fields):
        part(controller="range").after_advantage(step)
    assert step.metrics["entropy_control/changed_share"] == 0.5


def test_without_an_entropy_it_says_why():
    step = step_of(["a"], config=CONFIG)
    with (
        queue_of({}),
        pytest.raises(
            ValueError, match=r"controller=target needs the policy's entropy.*bypass_mode"
        ),
    ):
        part(controller="target").before_update(step)


def test_an_entropy_in_bfloat16_is_averaged_exactly():
    """As verl's fused kernels leave it, whose metric is rounded to bfloat16 (seen on an H100:
    2.78125, 2.78125, 2.84375)."""
    fields = {
        "entropy": nested(torch.tensor([[3.0, 2.0, 3.0], [3.0, 0, 0]]).bfloat16(), LENGTHS),
        "response_mask": nested(torch.tensor([[1, 1, 1], [0, 0, 0]]), LENGTHS),
    }
    step = step_of(["a", "b"], metrics={"actor/entropy": 2.671875}, config=CONFIG)
    with queue_of(fields):
        assert policy_entropy(step) == pytest.approx(8 / 3, abs=1e-12)


# ---- settings ------------------------------------------------------------------------------------


GRPO = {
    "controller": "none",
    "shape": "linear",
    "entropy_coeff": 0.0,
    "calculate_entropy": False,
    "target": 0.2,
    "lower_end": 0.4,
    "upper_end": 0.5,
}
OF_ALL = {"coef_start": 0.001, "coef_end": 0.0, "lower_start": 0.6, "upper_start": 0.7}
FROM_GRPO = {  # what the papers and their scripts have otherwise
    "grpo": {},
    "constant": {"entropy_coeff": 0.001, "calculate_entropy": True},
    "linear": {"controller": "schedule", "calculate_entropy": True},
    "cosine": {"controller": "schedule", "shape": "cosine", "calculate_entropy": True},
    "target": {"controller": "target", "calculate_entropy": True},
    "entrocraft": {"controller": "range"},
    "entrocraft_cosine": {
        "controller": "range",
        "shape": "cosine",
        "lower_end": 0.1,
        "upper_end": 0.2,
    },
    "entropic": {"controller": "pi", "target": 0.1},
}


def test_the_presets_have_the_values_of_their_papers_and_these_are_allowed():
    expected = {name: GRPO | changed for name, changed in FROM_GRPO.items()}
    assert {name: dataclasses.asdict(preset) for name, preset in PRESETS.items()} == expected
    for name, preset in PRESETS.items():
        given = {
            k: v for k, v in vars(preset).items() if k in EntropyControlSettings.__annotations__
        }
        settings = EntropyControlSettings(preset=name, **given)
        assert {key: getattr(settings, key) for key in OF_ALL} == OF_ALL


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "target"}, "preset=target has no effect with controller=none: set .*=target"),
        (
            {"controller": "schedule", "coef_start": 0.0},
            "coef_start=0 and coef_end=0 give no bonus",
        ),
        (
            {"controller": "schedule", "coef_start": 0.01, "coef_end": 0.01},
            "coef_start=0.01 is coef_end too, so that nothing moves: use another coef_end",
        ),
        ({"controller": "target", "coef_init": 0.1}, "coef_init=0.1 is outside its bounds"),
        ({"controller": "range", "lower_end": 0.6}, "lower_end=0.6 is above upper_end=0.5"),
        ({"controller": "pi", "proportional": 0, "integral": 0}, "change no advantage"),
        ({"controller": "pid"}, r"controller=pid does not exist: did you mean pi\?"),
    ],
)
def test_settings_that_do_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        EntropyControlSettings(**settings)


def config(actor=(), steps=10, **settings):
    node = {"entropy_coeff": 0.0, "calculate_entropy": True, **dict(actor)}
    return OmegaConf.create(
        {
            "algorithm": {"entropy_control": settings},
            "actor_rollout_ref": {"actor": node},
            "trainer": {"total_training_steps": steps},
        }
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": 0.3}, "target=0.3 has no effect with controller=none"),
        ({"controller": "pi", "coef_max": 1.0}, "coef_max=1.0 has no effect with controller=pi"),
        (
            {"controller": "target", "actor": {"entropy_coeff": 0.01}},
            "entropy_coeff=0.01 has no effect with .*controller=target",
        ),
        (
            {"controller": "schedule", "actor": {"calculate_entropy": False}},
            "calculate_entropy=true",
        ),
        ({"controller": "range", "steps": None}, "length T is not set"),
        ({"controller": "schedule", "total_steps": 5}, "total_steps=5 is less than the run's"),
    ],
)
def test_a_config_in_which_a_controller_cannot_act_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        check(config(**arguments))


@pytest.mark.parametrize(
    ("controller", "preset", "differing"),
    [
        ("schedule", "linear", {}),
        ("target", "target", {}),
        ("range", "entrocraft", {}),
        ("pi", "entropic", {"target": 0.1}),
    ],
)
def test_without_its_preset_a_controller_has_the_values_that_the_readme_says(
    controller, preset, differing
):
    """As beside another recipe, whose config takes no values from this one's presets."""
    defaults, values = EntropyControlSettings(controller=controller), vars(PRESETS[preset])
    read = [name for name in CONTROLLERS[controller] if name in values]
    assert read
    other = {name: values[name] for name in read if values[name] != getattr(defaults, name)}
    assert other == differing
    EntropyControlSettings(controller=controller, preset=preset, **other)  # allowed together


def test_the_default_settings_of_other_recipes_use_no_controller():
    check(config(actor={"entropy_coeff": 0.001}))
    assert EntropyControlPart.from_config(config()) is None
