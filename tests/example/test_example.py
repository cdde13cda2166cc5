"""The example's estimator by hand; its part over three steps, resumed before each."""

import torch
from omegaconf import OmegaConf
from transfer_queue import KVBatchMeta

from recipe.core.actor_loss import EXTRA_INFO
from recipe.core.rollouts import CorrectnessRule
from recipe.core.step import Step
from recipe.example.part import EntropyTargetPart
from recipe.example.register import leave_one_out


def test_a_rollout_is_compared_with_the_other_rollouts_of_its_prompt():
    rewards_BT = torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    mask_BT = torch.tensor([[1, 1], [1, 0], [1, 1], [1, 1]])
    advantages_BT, _ = leave_one_out(rewards_BT, mask_BT, ["a", "a", "a", "b"], config=None)
    # 1 - (0 + 0)/2; 0 - (1 + 0)/2, twice; alone in its group: 0; nothing outside the mask
    assert advantages_BT.tolist() == [[1, 1], [-0.5, 0], [-0.5, -0.5], [0, 0]]


def test_the_coefficient_follows_the_entropy_and_survives_a_resume():
    settings = OmegaConf.create({"target_entropy": 0.3, "target_rate": 0.01})
    part, coefficients = EntropyTargetPart(settings), []
    for entropy in (0.1, 0.2, 0.9):
        resumed = EntropyTargetPart(settings)
        resumed.load_state_dict(part.state_dict())
        part = resumed
        batch, metrics = KVBatchMeta(keys=[], tags=[]), {"actor/entropy": entropy}
        step = Step(batch, number=0, metrics=metrics, config=None, correctness=CorrectnessRule())
        part.before_update(step)
        coefficients.append(step.batch.extra_info[EXTRA_INFO]["entropy_target_coef"])
    # 0.01 x 0.2; + 0.01 x 0.1; then 0.003 - 0.006 is cut off at 0
    expected = torch.tensor([0.002, 0.003, 0.0])
    torch.testing.assert_close(torch.tensor(coefficients), expected, atol=1e-9, rtol=0)
