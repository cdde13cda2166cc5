"""verl's Clip-Cov with a finite ratio: as verl's on all inputs that verl can compute."""

import pytest
import torch
from builders import actor_config, random_tokens
from verl.trainer.ppo import core_algos

from recipe.core import bounded_ratio
from recipe.core.clip import MAX_LOG_RATIO, importance_ratio

ACTOR = actor_config("clip_cov", clip_cov_ratio=0.05, clip_cov_lb=0.1)


def verls():
    """verl's own function, which the registry's is made of."""
    return core_algos.POLICY_LOSS_REGISTRY["clip_cov"].__wrapped__


def loss_and_gradient(function, data):
    torch.manual_seed(0)  # it draws the tokens that it takes
    log_prob = data["log_prob"].clone().requires_grad_()
    loss, metrics = function(
        **{**data, "log_prob": log_prob}, loss_agg_mode="token-mean", config=ACTOR
    )
    loss.backward()
    return loss.detach(), log_prob.grad, metrics


def extreme(log_ratio: float):
    data = random_tokens()
    data["log_prob"][0, 3] = data["old_log_prob"][0, 3] + log_ratio
    data["log_prob"][2, 0] = data["old_log_prob"][2, 0] - log_ratio
    data["response_mask"][2, 0] = True
    return data


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_it_is_verls_to_the_bit_where_no_log_ratio_is_beyond_the_bound(dtype):
    for seed in range(5):
        data = random_tokens(seed, spread=3.0)
        for name in ("old_log_prob", "log_prob"):
            data[name] = data[name].to(dtype)
        found = loss_and_gradient(core_algos.get_policy_loss_fn("clip_cov"), data)
        expected = loss_and_gradient(verls(), data)
        assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
        assert found[2] == expected[2] and found[2]["actor/pg_clipfrac"] > 0


@pytest.mark.parametrize("log_ratio", [89.0, 1000.0])
def test_a_log_ratio_of_1000_stays_finite_in_loss_and_gradient(log_ratio):
    data = extreme(log_ratio)
    loss, gradient, metrics = loss_and_gradient(core_algos.get_policy_loss_fn("clip_cov"), data)
    assert loss.isfinite() and gradient.isfinite().all()
    assert gradient[0, 3] == gradient[2, 0] == 0
    assert all(abs(value) < 100 for value in metrics.values())


def test_verl_still_needs_it():
    """Once this fails, verl clamps by itself, and the module can be removed."""
    loss, gradient, _ = loss_and_gradient(verls(), extreme(1000.0))
    assert not (loss.isfinite() and gradient.isfinite().all())


def test_a_second_install_wraps_nothing():
    once = core_algos.POLICY_LOSS_REGISTRY["clip_cov"]
    bounded_ratio.install()
    assert core_algos.POLICY_LOSS_REGISTRY["clip_cov"] is once
    assert once.__module__ == core_algos.__name__


def test_the_ratio_of_our_losses_is_bounded_too():
    log_prob = torch.tensor([1000.0, -1000.0, 0.5], requires_grad=True)
    ratio = importance_ratio(log_prob, torch.zeros(3))
    ratio.sum().backward()
    bound = torch.tensor(MAX_LOG_RATIO).exp()
    torch.testing.assert_close(ratio.detach(), torch.stack([bound, 1 / bound, ratio[2].detach()]))
    assert log_prob.grad.tolist() == [0.0, 0.0, pytest.approx(ratio[2].item())]
