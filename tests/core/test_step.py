"""What a step of the trainer knows of its rows, and hands to the workers."""

import numpy as np
import pytest
import torch
from builders import nested, queue_of, step_of
from omegaconf import OmegaConf

from recipe.core.actor_loss import EXTRA_INFO


def test_a_rollout_with_several_outputs_is_refused():
    """Each would count as a rollout of its prompt; verl's padding may repeat any key."""
    step = step_of(["a", "a", "a"], padding=1)
    fields = {"uid": np.array(["a", "a", "pad"], dtype=object)}
    step.batch.keys = ["a_0_0", "a_10_0", "a_0_1"]
    with queue_of(fields):
        assert step.group_B.tolist() == [0, 0, 1]
    step = step_of(["a", "a", "a"])
    step.batch.keys = ["a_0_0", "a_1_0", "a_1_1"]
    with queue_of(fields), pytest.raises(ValueError, match=r"several outputs .* \(a_1_1\)"):
        _ = step.group_B


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
