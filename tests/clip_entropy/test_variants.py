"""What other papers make of PPO's clipped term: closed forms, and what each reduces to."""

import dataclasses
import math

import pytest
import torch
from builders import actor_config, nested, queue_of, run_overrides, step_of
from omegaconf import OmegaConf
from verl.trainer.ppo.core_algos import kl_penalty

from recipe.clip_entropy import variants as V
from recipe.clip_entropy.checks import check, check_updates, check_variant
from recipe.clip_entropy.config import PRESETS, VARIANTS, ClipSettings
from recipe.clip_entropy.part import ClipSchedulePart
from recipe.clip_entropy.regions import PREFIX, region_metrics
from recipe.clip_entropy.schedules import ClipLines, Static
from recipe.clip_entropy.variant_term import LOW_SHARE, STEER_RATE, TERMS, variant_term
from recipe.core import actor_loss
from recipe.core.actor_loss import EXTRA_INFO, MicroBatch
from recipe.core.clip import Bounds, Line, TokenBounds, clipped_objective
from recipe.core.clipped_term import clipped_term
from recipe.launch.compose import compose

EPS = 0.2
BOUNDS = Bounds(Line(0.0, EPS), Line(0.0, EPS))


def tokens(ratios, advantages, old=0.5):
    """One row of tokens of probability `old` under the old policy."""
    old_BT = torch.full((1, len(ratios)), math.log(old), dtype=torch.float64)
    log_prob_BT = (old_BT + torch.tensor([ratios], dtype=torch.float64).log()).requires_grad_()
    return log_prob_BT, old_BT, torch.tensor([advantages], dtype=torch.float64)


def ppo(log_prob_BT, old_BT, advantages_BT, bounds=BOUNDS):
    return clipped_objective(log_prob_BT, old_BT, advantages_BT, bounds, 3.0)


def gradient(clipped, log_prob_BT):
    """d loss / d ln p of each token."""
    return torch.autograd.grad(clipped.loss.sum(), log_prob_BT)[0][0].tolist()


def weights_are_the_gradients(clipped, log_prob_BT, advantages_BT):
    """What a variant says of its gradient is what it is: -A weight."""
    got = gradient(clipped, log_prob_BT)
    assert got == pytest.approx((-advantages_BT * clipped.weight())[0].tolist())
    return got


# ---- UP ------------------------------------------------------------------------------------------


def test_up_gives_a_positive_token_the_gradient_of_log_pi_whatever_its_ratio():
    x, old, A = tokens([1.0, 1.5, 0.3, 1.5, 0.5, 0.9], [2.0, 2.0, 2.0, -1.0, -1.0, -1.0])
    up = V.unbounded_positive(ppo(x, old, A), x, A)
    # A > 0: -A; A < 0: r inside the bounds, 0 below 1 - eps
    assert weights_are_the_gradients(up, x, A) == pytest.approx([-2, -2, -2, 1.5, 0, 0.9])
    assert up.loss[0, :3].tolist() == [-2.0] * 3


def test_up_is_ppo_where_no_advantage_is_positive():
    x, old, A = tokens([1.5, 0.5, 4.0], [-1.0, -2.0, 0.0])
    plain = ppo(x, old, A)
    up = V.unbounded_positive(plain, x, A)
    assert torch.equal(up.loss, plain.loss) and gradient(up, x) == gradient(ppo(x, old, A), x)


# ---- no upper bound, the control -----------------------------------------------------------------


def test_without_the_upper_bound_a_positive_token_keeps_its_gradient_at_any_ratio():
    x, old, A = tokens([1.0, 1.5, 40.0, 0.3, 1.5, 0.5, 4.0], [2, 2, 2, 2, -1, -1, -1])
    free = V.without_upper_bound(ppo(x, old, A), x, old, A)
    # A > 0: -r A; A < 0: r inside the bounds, 0 below 1 - eps, 0 beyond the dual clip at 3
    assert weights_are_the_gradients(free, x, A) == pytest.approx([-2, -3, -80, -0.6, 1.5, 0, 0])
    assert free.loss[0, :4].tolist() == pytest.approx([-2, -3, -80, -0.6])


def test_without_the_upper_bound_is_ppo_where_no_token_is_above_it():
    x, old, A = tokens([1.19, 0.5, 1.5, 4.0], [2.0, 2.0, -1.0, -1.0])
    plain = ppo(x, old, A)
    free = V.without_upper_bound(plain, x, old, A)
    assert torch.equal(free.loss, plain.loss) and torch.equal(free.clipped, plain.clipped)
    assert gradient(free, x) == gradient(ppo(x, old, A), x)


# ---- CE-GPPO -------------------------------------------------------------------------------------


def ce_gppo(x, old, A, low, high):
    return V.preserved_gradient(ppo(x, old, A), x, A, (EPS, EPS), low, high)


def test_ce_gppo_keeps_a_bounded_gradient_of_clipped_tokens():
    x, old, A = tokens([1.5, 0.5, 1.1, 0.5, 1.5], [2.0, -2.0, 2.0, 2.0, -2.0])
    got = weights_are_the_gradients(ce_gppo(x, old, A, 0.75, 0.5), x, A)
    # -A beta_2 (1 + eps), -A beta_1 (1 - eps), and -A r of those that no bound clips
    assert got == pytest.approx([-2 * 0.5 * 1.2, 2 * 0.75 * 0.8, -2.2, -1.0, 3.0])


def test_ce_gppo_at_0_is_ppo_and_at_1_is_gppo():
    x, old, A = tokens([1.5, 0.5, 1.1, 3.5], [2.0, -2.0, -1.0, -1.0])
    plain, zero = ppo(x, old, A), ce_gppo(x, old, A, 0.0, 0.0)
    assert torch.equal(zero.loss, plain.loss)
    assert gradient(zero, x) == gradient(ppo(x, old, A), x)
    assert torch.equal(zero.clipped, plain.clipped)
    # GPPO: the gradient of the bound's own value; the dual clip stays
    assert gradient(ce_gppo(x, old, A, 1.0, 1.0), x) == pytest.approx([-2.4, 1.6, 1.1, 0.0])


# ---- DCPO ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("q", "low_p", "high_p"),
    [
        (0.9, 0.6919, 1.0685),
        (0.01, 0.005, 0.05),
    ],  # the table of the authors' README, with more digits
)
def test_dcpo_bounds_of_the_authors_table(q, low_p, high_p):
    bounds = V.old_probability_bounds(torch.tensor([math.log(q)]), 0.16, 0.2, 10.0)
    assert (q * (1 - bounds.lower)).item() == pytest.approx(low_p, abs=1e-4)
    assert (q * (1 + bounds.upper)).item() == pytest.approx(high_p, abs=1e-4)


def test_dcpo_bounds_solve_their_inequality_and_have_limits():
    q = torch.linspace(0.02, 1, 50)
    bounds = V.old_probability_bounds(q.log(), 0.004, 0.2, 100.0)
    high, low = 1 + bounds.upper, 1 - bounds.lower
    torch.testing.assert_close((high - 1) * high * q, torch.full_like(q, 0.2))
    torch.testing.assert_close((1 - low) * low * q, torch.full_like(q, 0.004))
    rare = V.old_probability_bounds(torch.tensor([-1000.0]), 0.16, 0.2, 10.0)
    assert (rare.upper.item(), rare.lower.item()) == (9.0, 0.5)
    closed = V.old_probability_bounds(torch.tensor([-1000.0, -0.1]), 0.0, 0.0, 10.0)
    assert not closed.upper.any() and not closed.lower.any()


def test_bounds_per_token_that_are_all_equal_are_constant_bounds():
    x, old, A = tokens([1.5, 0.5, 1.1, 0.9], [2.0, -2.0, 2.0, -1.0])
    same = TokenBounds(torch.full_like(A, EPS), torch.full_like(A, EPS))
    assert torch.equal(ppo(x, old, A, same).loss, ppo(x, old, A).loss)
    assert gradient(ppo(x, old, A, same), x) == gradient(ppo(x, old, A), x)
    assert torch.equal(ppo(x, old, A, same).clipped, ppo(x, old, A).clipped)


# ---- ERC -----------------------------------------------------------------------------------------


def test_erc_drops_the_tokens_whose_entropy_left_the_band():
    x, old, A = tokens([1.1, 1.1, 1.1, 1.5], [1.0] * 4)
    new, before = torch.tensor([[1.0, 0.9, 1.1, 1.0]]), torch.ones(1, 4)
    erc = V.within_entropy_ratio(ppo(x, old, A), new, before, 0.95, 1.05)
    # inside; below; above; inside and clipped by PPO
    assert weights_are_the_gradients(erc, x, A) == pytest.approx([-1.1, 0, 0, 0])
    assert torch.equal(erc.loss, ppo(x, old, A).loss)
    # two certain positions have the ratio 1
    certain = V.within_entropy_ratio(ppo(x, old, A), new * 0, before * 0, 0.95, 1.05)
    assert gradient(certain, x)[0] == pytest.approx(-1.1)


def test_erc_with_a_band_that_holds_everything_is_ppo():
    x, old, A = tokens([1.1, 0.5, 1.5], [1.0, -1.0, -1.0])
    entropy = torch.rand(1, 3) + 0.1
    erc = V.within_entropy_ratio(ppo(x, old, A), entropy, torch.rand(1, 3), 0.0, math.inf)
    assert gradient(erc, x) == gradient(ppo(x, old, A), x)


# ---- STEER ---------------------------------------------------------------------------------------


def test_steer_weighs_a_token_by_what_it_does_to_the_entropy():
    x, old, A = tokens([1.1, 1.1, 0.9], [1.0, -2.0, 0.0])
    entropy = torch.tensor([[0.2, 1.5, 0.4]], dtype=torch.float64)
    change = V.entropy_change(x, old, A, entropy)
    p = 0.55
    first = 1.1 * (1 - p) * abs(math.log(p) + 0.2)
    second = 2 * 1.1 * (1 - p) * abs(math.log(p) + 1.5)
    assert change[0].tolist() == pytest.approx([first, second, 0.0])
    rate = V.steer_rate(second, 0.8)
    got = V.reweighted(ppo(x, old, A), change, rate, 0.8)
    # the largest change has the smallest weight, no change has weight 1
    expected = [-1.1 * math.exp(-rate * first), 2.2 * 0.8, 0.0]
    assert weights_are_the_gradients(got, x, A) == pytest.approx(expected)
    assert V.steer_rate(0.0, 0.8) == pytest.approx(-math.log(0.8) / 0.02)


def test_steer_with_a_smallest_weight_of_1_is_ppo():
    x, old, A = tokens([1.1, 1.5, 0.5], [1.0, 1.0, -1.0])
    change = V.entropy_change(x, old, A, torch.ones_like(A))
    steer = V.reweighted(ppo(x, old, A), change, V.steer_rate(1.0, 1.0), 1.0)
    assert torch.equal(steer.loss, ppo(x, old, A).loss)


# ---- Archer --------------------------------------------------------------------------------------


def test_archer_takes_the_quantile_of_each_response_by_itself():
    entropy = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 99.0], [5.0, 5.0, 99.0, 99.0, 99.0, 99.0]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0]]).bool()
    high = V.high_entropy(entropy, mask, 0.8)
    # the 0.8-quantile of 1..5 is 4.2; none of two equal ones is above it
    assert high.tolist() == [[False] * 4 + [True, False], [False] * 6]
    assert not V.high_entropy(entropy, torch.zeros_like(mask), 0.8).any()
    bounds = V.dual_bounds(high, (0.28, 0.2), 0.5)
    assert bounds.upper[0].tolist() == pytest.approx([0.28] * 4 + [0.5, 0.28])
    assert bounds.lower[0].tolist() == pytest.approx([0.2] * 4 + [0.5, 0.2])


# ---- through the loss's settings -----------------------------------------------------------------


def micro_batch(count: int) -> MicroBatch:
    lengths = torch.tensor([count])
    values = torch.linspace(0.1, 2.0, count)[None]
    fields = {name: nested(values, lengths) for name in ("entropy", "ref_log_prob")}
    batch = MicroBatch({STEER_RATE: 0.5, LOW_SHARE: 0.8}, fields, {})
    batch.entropy = lambda: values * 1.02
    return batch


def run(x, old, A, batch, **settings):
    mask = torch.ones_like(A, dtype=torch.bool)
    actor = actor_config("dynamic_clip", **settings)
    with actor_loss.as_current(batch) if batch else torch.enable_grad():
        return variant_term(old, x, A, mask, actor, batch)


@pytest.mark.parametrize("variant", sorted(set(VARIANTS) - {"ppo"}))
def test_a_variant_changes_some_gradient_and_says_how_many(variant):
    x, old, A = tokens([1.1, 1.5, 0.5, 0.9, 1.45, 0.7], [1.0, 1.0, -1.0, -1.0, 2.0, -2.0], 0.1)
    batch = micro_batch(6)
    settings = {"erc_high": 1.01} if variant == "erc" else {}
    loss, metrics = run(x, old, A, batch, variant=variant, **settings)
    plain, _ = run(x, old, A, micro_batch(6))
    grads = [torch.autograd.grad(value.sum(), x)[0] for value in (loss, plain)]
    assert not torch.equal(*grads)
    assert 0 <= metrics["actor/pg_clipfrac"] <= 1
    if variant not in ("dcpo", "archer"):
        touched = (grads[0] != grads[1]).sum().item()
        assert batch.sums[f"{PREFIX}variant_share"] == touched
        logged = region_metrics({f"{PREFIX}variant_share": touched / 6})
        assert logged == {"clip_entropy/variant_share": touched / 6}


def loss_and_gradient(x, old, A, batch, **settings):
    loss, _ = run(x, old, A, batch, **settings)
    return loss.detach(), torch.autograd.grad(loss.sum(), x)[0]


RATIOS = [0.79, 0.81, 1.0, 1.19, 1.21, 1.35, 4.0]  # on both sides of bounds of 0.2
BOTH_SIGNS = [1.0] * 7 + [-2.0] * 7


@pytest.mark.parametrize("q", [0.02, 0.2])
def test_dcpo_is_ppo_where_all_tokens_have_one_old_probability(q):
    """r_high = (1 + sqrt(1 + 4 e (1 + e))) / 2 = 1 + e, and r_low = (1 + sqrt((1 - 2 e)^2)) / 2 =
    1 - e, at e = 0.2."""
    x, old, A = tokens(RATIOS * 2, BOTH_SIGNS, q)
    bounds = {"low": 0.2 * 0.8 * q, "high": 0.2 * 1.2 * q}
    loss, grad = loss_and_gradient(x, old, A, None, variant="dcpo", **bounds)
    ppo_loss, ppo_grad = loss_and_gradient(x, old, A, None, variant="ppo", low=0.2, high=0.2)
    torch.testing.assert_close(loss, ppo_loss, rtol=3e-7, atol=0)  # the bounds are float32
    assert torch.equal(grad, ppo_grad) and 0 < grad.count_nonzero() < grad.numel()


def test_archer_with_the_bounds_of_all_tokens_and_without_its_kl_is_ppo():
    x, old, A = tokens(RATIOS * 2, BOTH_SIGNS)
    batch, settings = micro_batch(14), {"variant": "archer", "archer_quantile": 0.3}
    loss, grad = loss_and_gradient(x, old, A, batch, **settings, archer_clip=0.2, archer_kl=0.0)
    ppo_loss, ppo_grad = loss_and_gradient(x, old, A, batch, variant="ppo", low=0.2, high=0.2)
    torch.testing.assert_close(loss, ppo_loss, rtol=3e-7, atol=0)  # as in DCPO
    assert torch.equal(grad, ppo_grad)
    for other in ({"archer_clip": 0.5, "archer_kl": 0.0}, {"archer_clip": 0.2, "archer_kl": 0.1}):
        assert not torch.equal(loss_and_gradient(x, old, A, batch, **settings, **other)[1], grad)


def with_entropies(old, ratio=None) -> MicroBatch:
    """A micro-batch of one row with these entropies of the old policy, and the ratios to them of
    the current one's."""
    old_BT = torch.tensor([old])
    batch = MicroBatch({STEER_RATE: 0.7}, {"entropy": nested(old_BT, torch.tensor([len(old)]))}, {})
    batch.entropy = lambda: old_BT * torch.tensor([ratio])
    return batch


# r_high and r_low of DCPO at q = 1/2 and eps 0.3 above, 0.1 below: 1.42195 and 0.72361
DCPO = [1.4, 1.45, 0.75, 0.7]
STEER_1 = 1.1 * 0.45 * abs(math.log(0.55) + 0.2)  # |A| r (1 - p) |ln p + H|, at p = 0.55


@pytest.mark.parametrize(
    ("variant", "settings", "batch", "ratios", "advantages", "expected"),
    [
        ("up", {}, None, [1.5, 0.85, 0.95], [2, -1, -1], [-2, 0, 0.95]),
        ("no_upper_bound", {}, None, [1.5, 0.85, 0.95], [2, -1, -1], [-3, 0, 0.95]),
        (
            "ce_gppo", {"ce_low": 0.3, "ce_high": 0.6}, None,
            [1.5, 0.5, 1.2, 0.95], [2, -2, 2, -1],
            [-2 * 0.6 * 1.3, 2 * 0.3 * 0.9, -2.4, 0.95],
        ),
        ("dcpo", {"dcpo_ratio_max": 9.0}, None, DCPO, [1, 1, -1, -1], [-1.4, 0, 0.75, 0]),
        ("dcpo", {"dcpo_ratio_max": 1.42}, None, [1.41, 1.42001], [1, 1], [-1.41, 0]),
        (
            "erc", {"erc_low": 0.9, "erc_high": 1.1},
            with_entropies([1.0, 0.5, 1.0, 2.0], [0.85, 0.92, 1.08, 1.15]),
            [1.1] * 4, [1] * 4, [0, -1.1, -1.1, 0],
        ),
        (
            "steer", {"steer_weight_min": 0.5}, with_entropies([0.2, 2.5]),
            [1.1, 1.1], [1, 3], [-1.1 * math.exp(-0.7 * STEER_1), -3.3 * 0.5],
        ),
        (  # above the median of 1..5: the last two, with 0.4 on both sides
            "archer", {"archer_quantile": 0.5, "archer_clip": 0.4, "archer_kl": 0.0},
            with_entropies([1.0, 2.0, 3.0, 4.0, 5.0]),
            [1.35, 0.85, 1.25, 0.65, 1.35], [1, -1, 1, -1, 1], [0, 0, -1.25, 0.65, -1.35],
        ),
    ],
    ids=["up", "no_upper_bound", "ce_gppo", "dcpo", "dcpo-max", "erc", "steer", "archer"],
)  # fmt: skip
def test_every_setting_of_a_variant_reaches_its_gradient(
    variant, settings, batch, ratios, advantages, expected
):
    """By hand, each at another value than its default, with 0.3 above and 0.1 below."""
    x, old, A = tokens(ratios, advantages)
    loss, _ = run(x, old, A, batch, variant=variant, low=0.1, high=0.3, **settings)
    got = torch.autograd.grad(loss.sum(), x)[0][0].tolist()
    assert got == pytest.approx(expected, rel=1e-5)


def test_the_trainer_part_tells_steer_the_rate_of_the_whole_step():
    """k = -ln(0.6) / the largest |A| (1 - q) |ln q + H|, which is the second token's; the last one
    is no response token."""
    lengths = torch.tensor([3, 1])
    q = torch.tensor([[0.5, 0.25, 0.8], [0.1, 1.0, 1.0]])
    fields = {
        "old_log_probs": nested(q.log(), lengths),
        "advantages": nested(torch.tensor([[1.0, -2.0, 0.5], [5.0, 0, 0]]), lengths),
        "entropy": nested(torch.tensor([[1.0, 0.5, 0.3], [9.0, 0, 0]]), lengths),
        "response_mask": nested(torch.tensor([[1, 1, 1], [0, 0, 0]]), lengths),
    }
    settings = ClipSettings(variant="steer", steer_weight_min=0.6)
    settings.loss_mode = "dynamic_clip"
    part = ClipSchedulePart(settings, Static(ClipLines()))
    step = step_of(["a", "b"], config=OmegaConf.create({}))
    with queue_of(fields):
        part.before_update(step)
    largest = 2 * 0.75 * abs(math.log(0.25) + 0.5)
    rate = -math.log(0.6) / largest
    assert step.batch.extra_info[EXTRA_INFO][STEER_RATE] == pytest.approx(rate, rel=1e-5)
    assert step.metrics["clip_entropy/steer_rate"] == pytest.approx(rate, rel=1e-5)


def test_the_share_of_tokens_up_to_the_quantile_is_that_of_high_entropy():
    # of 5, 2, 1 and 0 tokens 4, 1, 1 and 0 are at the 0.8-quantile or below it
    assert V.low_entropy_share(torch.tensor([5, 2, 1, 0]), 0.8) == 6 / 8
    assert V.low_entropy_share(torch.zeros(3), 0.8) == 1
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 40, (50,), generator=generator)
    mask = torch.arange(40)[None] < lengths[:, None]
    for quantile in (0.3, 0.5, 0.8):
        high = V.high_entropy(torch.rand(50, 40, generator=generator), mask, quantile)
        share = V.low_entropy_share(lengths, quantile)
        assert share == pytest.approx(((mask & ~high).sum() / mask.sum()).item())


def test_the_trainer_part_tells_archer_the_share_of_the_whole_step():
    lengths, mask = torch.tensor([3, 1]), torch.tensor([[1, 1, 1], [0, 0, 0]])
    fields = {
        "entropy": nested(torch.rand(2, 3), lengths),
        "response_mask": nested(mask, lengths),
    }
    settings = ClipSettings(variant="archer", archer_quantile=0.4)
    settings.loss_mode = "dynamic_clip"
    step = step_of(["a", "b"], config=OmegaConf.create({}))
    with queue_of(fields):
        ClipSchedulePart(settings, Static(ClipLines())).before_update(step)
    # of three response tokens one, floor(0.8) + 1
    assert step.batch.extra_info[EXTRA_INFO][LOW_SHARE] == pytest.approx(1 / 3)


def test_archer_holds_the_tokens_of_low_entropy_to_the_reference():
    x, old, A = tokens([1.0] * 5, [0.0] * 5)
    loss, _ = run(x, old, A, micro_batch(5), variant="archer", archer_kl=0.5)
    gradient_BT = torch.autograd.grad(loss.sum(), x)[0][0]
    assert gradient_BT[:4].ne(0).all() and gradient_BT[4] == 0
    # the KL's mean is over these four
    kl_BT = kl_penalty(x, micro_batch(5).padded("ref_log_prob"), "low_var_kl")
    torch.testing.assert_close(loss.mean(), 0.5 * kl_BT[0, :4].mean())
    loss, _ = run(x, old, A, micro_batch(5), variant="archer", archer_kl=0.0)
    assert not torch.autograd.grad(loss.sum(), x)[0].any()


def test_every_variant_has_a_row_and_a_class():
    assert list(TERMS) == list(VARIANTS)


def test_plain_ppo_is_the_clipped_term_itself():
    x, old, A = tokens([1.1, 1.5, 0.5], [1.0, 1.0, -1.0])
    mask = torch.ones_like(A, dtype=torch.bool)
    expected, _ = clipped_term(old, x, A, mask, actor_config("dynamic_clip"), None)
    assert torch.equal(run(x, old, A, None)[0], expected)


@pytest.mark.parametrize("variant", [name for name, row in VARIANTS.items() if row.needs_entropy])
def test_a_variant_that_reads_entropies_says_so_where_there_are_none(variant):
    with pytest.raises(ValueError, match=f"variant={variant} reads the old policy's entropies"):
        run(*tokens([1.0], [1.0]), None, variant=variant)


# ---- the presets ---------------------------------------------------------------------------------

GRPO = {
    "loss_mode": "dynamic_clip",
    "schedule": "static",
    "clip_ratio_low": 0.2,
    "clip_ratio_high": 0.2,
    "entropy_coeff": 0.0,
    "loss_agg_mode": "token-mean",
    "variant": "ppo",
    "clip_ratio_c": 3.0,
    "calculate_entropy": False,
    "use_kl_loss": False,
    "kl_loss_coef": 0.001,
    "norm_adv_by_std_in_grpo": True,
}
DPPO = {
    "clip_ratio_c": 10000.0,
    "loss_agg_mode": "seq-mean-token-sum-norm",
    "norm_adv_by_std_in_grpo": False,
}
BY_SEQUENCE = {"loss_agg_mode": "seq-mean-token-mean"}
FROM_GRPO = {  # what the papers and their scripts have otherwise
    "id": {"schedule": "id"},
    "did": {"schedule": "did"},
    "od": {"schedule": "od"},
    "grpo": {},
    "clip_higher": {"clip_ratio_high": 0.28},
    "clip_lower": {"clip_ratio_low": 0.28},
    "no_upper_bound": {"variant": "no_upper_bound"},
    "entropy_bonus": {"entropy_coeff": 0.001},
    "clip_cov": {"loss_mode": "clip_cov", "clip_ratio_low": 1.0, "clip_ratio_high": 1.0},
    "sapo": {"loss_mode": "sapo", **BY_SEQUENCE},
    "gspo": {
        "loss_mode": "gspo",
        "clip_ratio_low": 0.0003,
        "clip_ratio_high": 0.0004,
        **BY_SEQUENCE,
    },
    "cispo": {"loss_mode": "cispo", "clip_ratio_low": 10.0},
    "dppo_tv": {"loss_mode": "dppo_tv", "clip_ratio_low": 0.15, "clip_ratio_high": 0.15, **DPPO},
    "dppo_kl": {"loss_mode": "dppo_kl", "clip_ratio_low": 0.05, "clip_ratio_high": 0.05, **DPPO},
    "up": {"variant": "up"},
    "ce_gppo": {"variant": "ce_gppo", "clip_ratio_c": 10.0},
    "dcpo": {"variant": "dcpo", "clip_ratio_low": 0.16, "clip_ratio_c": 10.0, **BY_SEQUENCE},
    "erc": {
        "variant": "erc",
        "clip_ratio_high": 0.28,
        "clip_ratio_c": 10.0,
        "calculate_entropy": True,
    },
    "steer": {"variant": "steer", "clip_ratio_high": 0.28, "clip_ratio_c": 10.0},
    "bapo": {"schedule": "bapo", "clip_ratio_low": 0.4},
    "archer": {
        "variant": "archer",
        "clip_ratio_c": 10.0,
        "use_kl_loss": True,
        "kl_loss_coef": 0.0,
    },
}


def test_the_presets_have_the_values_of_their_papers():
    expected = {name: GRPO | changed for name, changed in FROM_GRPO.items()}
    assert {name: dataclasses.asdict(preset) for name, preset in PRESETS.items()} == expected


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "ce_gpo"}, "variant=ce_gpo does not exist: did you mean ce_gppo"),
        ({"ce_low": 0.5}, "ce_low=0.5 has no effect with variant=ppo: .* use variant=ce_gppo"),
        ({"variant": "up", "erc_high": 2.0}, "erc_high=2.0 has no effect with variant=up"),
        ({"variant": "ce_gppo", "ce_low": 0, "ce_high": 0}, "as PPO's clip: use a number above 0"),
        ({"variant": "dcpo", "schedule": "id"}, "schedule=id has no effect with variant=dcpo"),
        ({"variant": "archer", "bound_max": 0.1}, "bound_max=0.1 has no effect with variant=arch"),
        ({"variant": "steer", "steer_weight_min": 1}, "steer_weight_min=1 is not allowed"),
        ({"variant": "erc", "erc_low": 1.0}, "erc_low=1.0 is not allowed"),
    ],
)
def test_settings_that_do_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ClipSettings(**settings)


def run_config(actor=(), mini=4, **settings):
    chosen = ClipSettings(**{k: v for k, v in settings.items() if k != "loss_mode"})
    chosen.loss_mode = settings.get("loss_mode", "dynamic_clip")
    node = {"calculate_entropy": False, "use_kl_loss": False, **dict(actor)}
    node |= {"ppo_mini_batch_size": mini, "ppo_epochs": 1}
    config = {"data": {"train_batch_size": 8}, "actor_rollout_ref": {"actor": node}}
    return chosen, OmegaConf.create(config)


EQUAL_BOUNDS = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "up", "loss_mode": "sent"}, "variant=up has no effect with loss_mode=sent"),
        ({"variant": "erc"}, "calculate_entropy=true"),
        ({"variant": "archer"}, "archer_kl=0.001 needs the reference's log-probs"),
        (
            {"variant": "archer", "archer_clip": 0.2, "archer_kl": 0.0, "actor": EQUAL_BOUNDS},
            "archer_clip=0.2 is the bound of all other tokens too",
        ),
        ({"preset": "up"}, "preset=up has no effect with variant=ppo"),
        ({"preset": "cispo"}, "preset=cispo has no effect with loss_mode=dynamic_clip"),
        (
            {"preset": "cispo", "loss_mode": "cispo", "mini": 8},
            "one update per rollout, .*loss_mode=cispo has the gradient of PPO",
        ),
    ],
)
def test_a_config_in_which_a_variant_cannot_act_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        check_variant(*run_config(**arguments))


@pytest.mark.parametrize(
    ("preset", "overrides", "sentence"),
    [
        ("steer", [], None),  # its weights act at every ratio, and so does Archer's KL
        ("archer", [], None),
        ("archer", ["archer_kl=0"], "variant=archer has the gradient of PPO"),
        ("up", [], "variant=up has the gradient of PPO"),
        ("clip_higher", [], "schedule=static can clip nothing"),
        ("cispo", ["exact_contribution_freq=2"], "exact_contribution_freq=2 has no effect with"),
    ],
)
def test_what_one_update_per_rollout_leaves_of_a_preset(preset, overrides, sentence, tmp_path):
    loss = "actor_rollout_ref.actor.policy_loss"
    once = "actor_rollout_ref.actor.ppo_mini_batch_size=4"
    updates = [once] if preset != "cispo" else []
    chosen = [f"{loss}.preset={preset}", *(f"{loss}.{word}" for word in overrides)]
    config = compose("clip_entropy", [*run_overrides(tmp_path), *updates, *chosen])
    if sentence is None:
        check(config)
        return
    with pytest.raises(ValueError, match=sentence):
        check(config)


def test_one_update_per_rollout_is_refused_for_what_bounds_the_ratio():
    check_updates("variant=up", run_config(mini=4)[1])
    with pytest.raises(ValueError, match="variant=up has the gradient of PPO"):
        check_updates("variant=up", run_config(mini=8)[1])
