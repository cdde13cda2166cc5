"""AsymGRPO's part of the trainer: when a run has it, and the advantages that it shapes."""

import pytest
import torch
from builders import nested, queue_of, step_of
from omegaconf import OmegaConf

from recipe.asymgrpo.config import AsymGRPOConfig
from recipe.asymgrpo.part import AsymGRPOPart


@pytest.mark.parametrize(
    ("estimator", "settings", "required"),
    [
        ("asymgrpo", {}, True),
        ("grpo", {"preset": "grpo"}, None),  # verl's own estimator, and nothing asked for
        ("grpo", {"preset": "grpo", "correct_threshold": 0.5}, True),
        ("grpo", {"preset": "grpo", "correct_field": "acc"}, True),
        ("grpo", {"preset": "grpo_entropy_adv"}, False),
    ],
)
def test_a_run_has_the_part_if_something_of_it_is_asked_for(estimator, settings, required):
    """And must know what is correct if the estimator, or a setting, says so."""
    config = {"algorithm": {"adv_estimator": estimator, "asymgrpo": settings}}
    part = AsymGRPOPart.from_config(OmegaConf.create(config))
    assert (part and part.correctness.required) is required


def test_the_entropy_term_has_the_kappa_and_alpha_of_the_settings():
    """A + min(0.1 H, |A| / 4): 1 + 0.2; -1 + 0.25, not 2; and nothing where A is 0."""
    lengths = torch.tensor([2, 1])
    fields = {
        "advantages": nested(torch.tensor([[1.0, -1.0], [0.0, 0.0]]), lengths),
        "entropy": nested(torch.tensor([[2.0, 20.0], [5.0, 0.0]]), lengths),
        "response_mask": nested(torch.tensor([[1, 1], [1, 0]]), lengths),
    }
    settings = {"preset": "grpo_entropy_adv", "entropy_kappa": 4.0, "entropy_alpha": 0.1}
    with queue_of(fields):
        AsymGRPOPart(AsymGRPOConfig(**settings), True).after_advantage(step_of(["a", "a"]))
    assert fields["advantages"].values().tolist() == pytest.approx([1.2, -0.75, 0.0])
