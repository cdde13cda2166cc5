"""What a step of the trainer hands to the workers."""

import torch
from builders import nested, queue_of, step_of
from omegaconf import OmegaConf

from recipe.core.actor_loss import EXTRA_INFO


def test_what_the_loss_was_told_stays_when_a_field_is_written():
    """verl returns a new description of the batch, without it."""
    step = step_of(["a"])
    with queue_of({"response_mask": nested(torch.ones(1, 2).long(), torch.tensor([2]))}):
        step.tell_loss(bounds=1)
        step.write(more=torch.zeros(2))
        step.tell_loss(rate=2)
    assert step.batch.extra_info == {EXTRA_INFO: {"bounds": 1, "rate": 2}}


def test_a_forward_pass_is_at_the_rollouts_temperature_and_leaves_the_batch_as_it_is():
    config = {"actor_rollout_ref": {"rollout": {"temperature": 0.6}}}
    step, requests = step_of(["a", "b"], config=OmegaConf.create(config)), []
    step.tell_loss(bounds=1)
    step._forward = requests.append
    step.forward(compute_loss=False)
    (request,) = requests
    expected = {"calculate_entropy": False, "temperature": 0.6, "compute_loss": False}
    assert request.extra_info == expected
    assert (request.keys, request.tags) == (step.batch.keys, step.batch.tags)
    assert step.batch.extra_info == {EXTRA_INFO: {"bounds": 1}}
