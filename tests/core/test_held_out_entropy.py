"""The entropy on validation prompts: what is summed, and that verl samples as the patch has it."""

import pytest
import torch
from transfer_queue import KVBatchMeta

from recipe.core.held_out_entropy import METRIC, HeldOutEntropy


class TwoTokensARow:
    """Stands for `Step`: a forward pass leaves the entropies 0.1, 0.2, 0.3, … of two tokens a row,
    of which the mask leaves out each third."""

    def __init__(self, batch: KVBatchMeta, ranks: int):
        self.batch, self.ranks, self.asked = batch, ranks, []

    def forward(self, **extra_info: object) -> None:
        self.asked.append((list(self.batch.keys), extra_info))

    def response_values(self, name: str) -> torch.Tensor:
        assert name == "entropy" and self.asked
        return 0.1 * torch.arange(1, 2 * len(self.batch.keys) + 1)

    @property
    def mask_N(self) -> torch.Tensor:
        return torch.arange(1, 2 * len(self.batch.keys) + 1) % 3 != 0


def batch_of(rows: int) -> KVBatchMeta:
    return KVBatchMeta(
        partition_id="val", keys=[f"uid_{row}_0" for row in range(rows)], tags=[{}] * rows
    )


def test_the_mean_is_over_the_tokens_of_all_batches():
    steps = []

    def make_step(batch):
        steps.append(TwoTokensARow(batch, ranks=1))
        return steps[-1]

    entropy = HeldOutEntropy(make_step)
    assert entropy.metrics() == {}
    entropy.add(batch_of(1))  # 0.1 0.2
    entropy.add(batch_of(2))  # 0.1 0.2 (0.3) 0.4
    assert entropy.metrics() == {METRIC: pytest.approx((0.3 + 0.7) / 5)}
    ((keys, asked),) = steps[1].asked
    assert keys == ["uid_0_0", "uid_1_0"]
    assert asked == {"calculate_entropy": True, "compute_loss": False, "use_dynamic_bsz": True}


def test_every_rank_gets_as_many_responses():
    steps = []

    def make_step(batch):
        steps.append(TwoTokensARow(batch, ranks=2))
        return steps[-1]

    entropy = HeldOutEntropy(make_step)
    entropy.add(batch_of(1))  # fewer than ranks: nothing to measure
    assert not steps[0].asked and entropy.metrics() == {}
    entropy.add(batch_of(5))
    assert len(steps[1].asked[0][0]) == 4
