"""What docs/write_a_recipe.md leaves out of the example's own test: its loss in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from builders import actor_config, random_tokens
from torch import Tensor
from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla

from recipe.clip_entropy.register import dynamic_clip_loss
from recipe.core import actor_loss
from recipe.core.actor_loss import MicroBatch
from recipe.example.register import entropy_target_loss


def gradient_of(function, data: dict[str, Tensor], coef: float) -> tuple[Tensor, Tensor, dict]:
    leaf = data["log_prob"].clone().requires_grad_()
    with actor_loss.as_current(MicroBatch({"entropy_target_coef": coef})):
        loss, metrics = function(
            **{**data, "log_prob": leaf},
            loss_agg_mode="token-mean",
            config=actor_config("entropy_target"),
            rollout_is_weights=None,
        )
    loss.backward()
    return loss.detach(), leaf.grad, metrics


@pytest.mark.parametrize("other", [compute_policy_loss_vanilla, dynamic_clip_loss])
def test_without_a_coefficient_the_loss_is_the_clipped_one(other):
    data = random_tokens()
    loss, gradient, metrics = gradient_of(entropy_target_loss, data, 0.0)
    expected, its_gradient, its_metrics = gradient_of(other, data, 0.0)
    assert torch.equal(loss, expected) and torch.equal(gradient, its_gradient)
    assert metrics == pytest.approx(its_metrics, rel=1e-6)


def test_outside_the_recipes_trainer_it_is_the_clipped_loss_too():
    data = random_tokens()
    loss, _ = entropy_target_loss(
        **data,
        loss_agg_mode="token-mean",
        config=actor_config("entropy_target"),
        rollout_is_weights=None,
    )
    assert torch.equal(loss, gradient_of(compute_policy_loss_vanilla, data, 0.0)[0])


def test_a_token_s_entropy_gradient_in_closed_form():
    """A = 0 leaves the entropy term: d/d log p [coef r log p] / N with log p held is coef r log p
    / N, here over N = 2 tokens. Only in expectation would it be the same without holding it."""
    old = torch.tensor([[-1.0, -2.0]])
    data = {
        "old_log_prob": old,
        "log_prob": old + torch.tensor([[0.1, -0.2]]),
        "advantages": torch.zeros(1, 2),
        "response_mask": torch.ones(1, 2, dtype=torch.bool),
    }
    loss, gradient, _ = gradient_of(entropy_target_loss, data, 0.3)
    # 0.3 e^0.1 (-0.9) / 2 and 0.3 e^-0.2 (-2.2) / 2
    expected = torch.tensor([[0.3 * math.exp(0.1) * -0.9 / 2, 0.3 * math.exp(-0.2) * -2.2 / 2]])
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(loss, expected.sum())


def test_the_gradient_of_the_entropy_term_is_that_of_the_entropy():
    """Over every token of a small vocabulary, weighted by its probability, the term's gradient by
    the logits is that of -coef H: against central differences of H itself."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, generator=generator, dtype=torch.float64).requires_grad_()
    sampled = logits.detach().softmax(-1)  # the policy that sampled is the current one: ratio 1
    log_prob = logits.log_softmax(-1)
    # one row per token of the vocabulary; A = 0 leaves the entropy term alone
    data = {
        "old_log_prob": sampled.log()[:, None],
        "log_prob": log_prob[:, None],
        "advantages": torch.zeros(7, 1, dtype=torch.float64),
        "response_mask": torch.ones(7, 1, dtype=torch.bool),
    }
    coef = 0.3
    with actor_loss.as_current(MicroBatch({"entropy_target_coef": coef})):
        loss, _ = entropy_target_loss(
            **data,
            loss_agg_mode="token-sum",
            config=actor_config("entropy_target"),
            # E over the policy's own tokens
            rollout_is_weights=sampled[:, None],
        )
    loss.backward()

    def entropy(at: Tensor) -> Tensor:
        return torch.distributions.Categorical(logits=at).entropy()

    size = 1e-5
    differences = torch.stack(
        [
            (entropy(logits.detach() + step) - entropy(logits.detach() - step)) / (2 * size)
            for step in size * torch.eye(7, dtype=torch.float64)
        ]
    )
    torch.testing.assert_close(logits.grad, -coef * differences, rtol=1e-7, atol=1e-10)
