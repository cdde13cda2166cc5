"""The KL term against verl's `kl_penalty`, in value and gradient."""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from recipe.semantic_curriculum.kl import anchored_kl

ESTIMATORS = ("abs", "k1", "k2", "k3")
# from no difference to beyond verl's clamps, which end the gradient, and to where exp() is infinite
DIFFERENCES = [0.0, 1e-4, -0.3, 0.7, 2.4, 2.8, -9.0, -11.5, 19.0, 21.0, -25.0, 200.0]


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_it_is_verls_with_its_gradient(estimator, dtype):
    kl_penalty = pytest.importorskip("verl.trainer.ppo.core_algos").kl_penalty
    d = torch.tensor(DIFFERENCES)
    log_prob = torch.full((1, len(d)), -1.5, dtype=dtype, requires_grad=True)
    anchor, beta = (log_prob.detach() + d).to(dtype), torch.linspace(0, 2, len(d)).view(1, -1)
    term, kl = anchored_kl(log_prob, anchor, beta, estimator)
    expected = kl_penalty(log_prob, anchor, estimator)
    torch.testing.assert_close(kl, expected.detach())
    torch.testing.assert_close(term, beta * expected)
    weights = torch.rand(1, len(d), generator=torch.Generator().manual_seed(0))
    (ours,) = torch.autograd.grad((term * weights).sum(), log_prob)
    (verls,) = torch.autograd.grad((beta * expected * weights).sum(), log_prob)
    torch.testing.assert_close(ours, verls)
    assert not kl.requires_grad


@pytest.mark.parametrize(
    ("estimator", "value", "gradient"),
    [  # at p = 1/4 and an anchor of 1/2: d = ln 2
        ("abs", math.log(2), -1.0),
        ("k1", -math.log(2), 1.0),
        ("k2", math.log(2) ** 2 / 2, -math.log(2)),
        ("k3", 1 - math.log(2), -1.0),
    ],
)
def test_by_hand(estimator, value, gradient):
    log_prob = torch.tensor([[0.25]]).log().requires_grad_()
    term, kl = anchored_kl(log_prob, torch.tensor([[0.5]]).log(), torch.tensor([[3.0]]), estimator)
    term.sum().backward()
    assert kl.item() == pytest.approx(value, rel=1e-6)
    assert term.item() == pytest.approx(3 * value, rel=1e-6)
    assert log_prob.grad.item() == pytest.approx(3 * gradient, rel=1e-6)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_nothing_is_copied_to_the_host(estimator):
    with FakeTensorMode():
        log_prob = torch.randn(3, 5, dtype=torch.bfloat16, requires_grad=True)
        term, kl = anchored_kl(log_prob, torch.randn(3, 5), torch.rand(3, 5), estimator)
        term.sum().backward()
    assert term.shape == kl.shape == log_prob.grad.shape == (3, 5)


def test_another_estimator_is_refused():
    with pytest.raises(ValueError, match="estimator=k4 is not known: use abs, k1, k2 or k3"):
        anchored_kl(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, 1), "k4")
