"""The clipped objective by hand and by a loop over tokens. Against verl's: tests/clip_entropy."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from recipe.core.clip import Bounds, Line, clipped_objective

FLAT = Bounds(upper=Line(0.0, 0.2), lower=Line(0.0, 0.2))
LINES = Bounds(upper=Line(-0.25, 0.5), lower=Line(-0.13, 0.3))
HALF = Bounds(upper=LINES.upper, lower=FLAT.lower)  # one of each


def batch(rows: int = 24, tokens: int = 64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probs, old ones, advantages; ratios from 1 to beyond exp(20) and below exp(-20)."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    old = -draw(rows, tokens).abs() * torch.linspace(2, 30, rows)[:, None]
    log_prob = old + draw(rows, tokens) * torch.logspace(-4, 1.5, rows)[:, None]
    return log_prob.clamp(max=0), old, draw(rows, 1).expand(rows, tokens).contiguous()


def test_lines_by_a_loop_over_tokens():
    log_prob, old, A = (x.double() for x in batch())
    log_prob.requires_grad_()
    got = clipped_objective(log_prob, old, A, LINES, 3.0)
    got.loss.sum().backward()
    cuts = set()
    for b in range(24):
        for t in range(0, 64, 7):
            p = log_prob[b, t].exp().item()
            r = (log_prob[b, t] - old[b, t]).clamp(-20, 20).exp().item()
            a = A[b, t].item()
            upper, lower = 0.5 - 0.25 * p, 0.3 - 0.13 * p
            loss = -min(r * a, min(max(r, 1 - lower), 1 + upper) * a)
            loss = min(loss, -3 * a) if a < 0 else loss
            assert got.loss[b, t].item() == pytest.approx(loss, rel=1e-9), (b, t)
            by_bound = (a > 0 and r > 1 + upper) or (a < 0 and r < 1 - lower)
            by_dual = a < 0 and r > 3
            assert (got.clipped[b, t], got.dual_clipped[b, t]) == (by_bound, by_dual), (b, t)
            inside = abs((log_prob - old)[b, t].item()) < 20
            expected = 0.0 if by_bound or by_dual or not inside else -a * r
            assert log_prob.grad[b, t].item() == pytest.approx(expected, rel=1e-9), (b, t)
            cuts |= {"dual"} if by_dual else {"above" if a > 0 else "below"} if by_bound else set()
    assert cuts == {"above", "below", "dual"}  # the batch has tokens beyond each bound


def test_no_gradient_flows_through_the_bounds():
    """A clipped token's loss depends on p by its bound, but must not push."""
    log_prob = torch.tensor([[0.5]]).log().requires_grad_()
    old = torch.tensor([[0.25]]).log()  # ratio 2, bound 1.375
    got = clipped_objective(log_prob, old, torch.ones(1, 1), LINES, 3.0)
    assert got.loss.item() == pytest.approx(-1.375)
    assert got.clipped.item()
    assert not got.ratio.requires_grad
    got.loss.sum().backward()
    assert log_prob.grad.item() == 0.0


@pytest.mark.parametrize("bounds", [FLAT, LINES, HALF])
def test_bf16_log_probs_with_float32_advantages_keep_whole_gradients(bounds):
    """-A ratio or 0 at every token, not a half of it or one and a half, which a bound and a ratio
    that are rounded differently would give; up to bf16 rounding that of float32."""
    log_prob, old, A = batch()
    log_prob, old = log_prob.bfloat16().requires_grad_(), old.bfloat16()
    got = clipped_objective(log_prob, old, A, bounds, 3.0)
    assert got.loss.dtype == torch.float32
    got.loss.sum().backward()
    whole = (-A * got.ratio).bfloat16()
    beyond = (log_prob - old).abs() > 20
    cut = got.clipped | got.dual_clipped | beyond
    torch.testing.assert_close(log_prob.grad, whole.masked_fill(cut, 0.0))
    exact_log_prob = log_prob.detach().float().requires_grad_()
    exact = clipped_objective(exact_log_prob, old.float(), A, bounds, 3.0)
    exact.loss.sum().backward()
    # rounding may carry a ratio over a bound, where the gradient ends; and that of a large ln r,
    # unlike that of one near 0, is a large part of r
    same = (got.clipped == exact.clipped) & (got.dual_clipped == exact.dual_clipped)
    assert same.float().mean() > 0.99
    same &= (log_prob - old).abs() < 1
    torch.testing.assert_close(
        log_prob.grad.float()[same], exact_log_prob.grad[same], rtol=2**-6, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bounds", [FLAT, LINES, HALF])
def test_nothing_is_copied_to_the_host(bounds, dtype):
    """Fake tensors have no data: a read that depends on a value raises."""
    with FakeTensorMode():
        log_prob = torch.randn(3, 5, dtype=dtype, requires_grad=True)
        got = clipped_objective(log_prob, torch.randn(3, 5), torch.randn(3, 5), bounds, 3.0)
        got.loss.sum().backward()
    assert got.loss.shape == got.clipped.shape == log_prob.grad.shape == (3, 5)


def test_a_flat_bound_stays_a_number():
    upper, lower = HALF.epsilons(torch.tensor([0.5]))
    assert torch.is_tensor(upper)
    assert lower == 0.2


def test_the_limits_cut_off_lines_and_constants():
    bounds = Bounds(Line(-0.25, 0.5), Line(0.0, 0.2), eps_min=0.25, eps_max=0.4)
    upper, lower = bounds.epsilons(torch.tensor([0.0, 0.5, 1.0]))
    assert upper.tolist() == pytest.approx([0.4, 0.375, 0.25])
    assert lower == 0.25


def test_lerp_is_exact_at_both_ends():
    a, b = Line(-0.13, 0.3), Line(0.0, 0.2)
    assert a.lerp(b, 0.0) == a and a.lerp(b, 1.0) == b
    assert a.lerp(b, 0.25) == pytest.approx((-0.0975, 0.275))
