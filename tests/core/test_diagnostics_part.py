"""The diagnostics' part of the trainer: what it measures, when, and of which rows."""

import numpy as np
import pytest
import torch
from builders import nested, queue_of, step_of
from omegaconf import OmegaConf

from recipe.core.diagnostics_part import DiagnosticsPart
from recipe.core.trainer_settings import TrainerSettings

# a correct and an incorrect rollout of one prompt; a correct one of another, whose tokens verl has
# rejected; and verl's padding
UIDS, CORRECT = ["a", "a", "b", "padding"], [True, False, True, True]
LENGTHS = torch.tensor([2, 1, 2, 2])
FIELDS = {
    "old_log_probs": torch.tensor([[-1.0, -2.0], [-1.0, 0.0], [-1.0, -1.0], [-1.0, -1.0]]),
    "advantages": torch.tensor([[1.0, 1.0], [-1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]),
    "entropy": torch.tensor([[1.0, 3.0], [2.0, 0.0], [9.0, 9.0], [9.0, 9.0]]),
    "response_mask": torch.tensor([[1, 1], [1, 0], [0, 0], [0, 0]]),
}


def measured(number: int, *without: str, **settings) -> dict[str, float]:
    """The metrics of a step of these rows."""
    fields = {k: nested(x, LENGTHS) for k, x in FIELDS.items() if k not in without}
    data = {"data": {"max_response_length": 2}}
    step = step_of(UIDS, padding=1, number=number, config=OmegaConf.create(data))
    step.correct_B = torch.tensor(CORRECT)
    forwards = []
    step.forward = lambda **settings: forwards.append(settings)
    step.response_values = {"log_probs": torch.tensor([-0.5, -1.75, *[0.0] * 5])}.get
    with queue_of({**fields, "uid": np.array(UIDS, dtype=object)}):
        DiagnosticsPart(TrainerSettings(**settings)).after_update(step)
    assert forwards == [{"compute_loss": False}] * (
        "diagnostics/log_prob_gain/correct" in step.metrics
    )
    return step.metrics


def test_the_log_prob_gain_is_measured_every_so_many_steps():
    """0.5 + 0.25 of the one correct rollout, at steps 0, 2, 4."""
    gains = [
        measured(number, diagnostics=False, log_prob_gain_freq=2).get(
            "diagnostics/log_prob_gain/correct"
        )
        for number in range(5)
    ]
    assert gains == [0.75, None, 0.75, None, 0.75]
    assert measured(0, diagnostics=False, log_prob_gain_freq=0) == {}


def test_padding_is_no_response_and_no_group():
    found = measured(1, log_prob_gain_freq=2)
    expected = {
        "length/truncated": 2 / 3,
        "length/correct": 2.0,
        "length/incorrect": 1.0,
        "entropy/all": 2.0,  # (1 + 3 + 2) / 3 tokens
        "groups/all_correct": 0.5,  # b is one, though none of its tokens is trained
        "groups/all_incorrect": 0.0,
    }
    assert {name: found[f"diagnostics/{name}"] for name in expected} == pytest.approx(expected)


def test_without_entropies_the_lengths_are_still_measured():
    """As in verl's bypass mode."""
    assert set(measured(1, "entropy")) == {
        f"diagnostics/length/{name}" for name in ("truncated", "correct", "incorrect")
    }
