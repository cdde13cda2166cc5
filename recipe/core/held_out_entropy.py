"""The policy's entropy on the held-out prompts, at each of verl's validations.

Training batches differ between two runs: a curriculum's last ones are its hard prompts. The
validation prompts are the same, and verl has just sampled responses to them.

`recipe.core.replay_buffer.observed` gives it the batches.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from transfer_queue import KVBatchMeta

from recipe.core.step import Step

METRIC = "diagnostics/held_out_entropy"  # nats per token, mean over all tokens of the responses


class HeldOutEntropy:
    """Sums entropies over the batches of a validation.

    Args:
        make_step: makes a `Step` of a batch, for its forward pass.
    """

    def __init__(self, make_step: Callable[[KVBatchMeta], Step]):
        self._make_step = make_step
        self._nats, self._tokens = 0.0, 0

    def add(self, batch: KVBatchMeta) -> None:
        """Runs the actor over a batch's responses and adds their entropies.

        The entropy is of the policy at the temperature of training. Up to one response per rank
        less one is left out, so that every rank gets as many.
        """
        step = self._make_step(batch)
        count = len(batch.keys) // step.ranks * step.ranks
        if not count:
            return
        step.batch = KVBatchMeta(
            partition_id=batch.partition_id, keys=batch.keys[:count], tags=batch.tags[:count]
        )
        step.forward(calculate_entropy=True, compute_loss=False, use_dynamic_bsz=True)
        entropy_N, mask_N = step.response_values("entropy"), step.mask_N
        self._nats += torch.where(mask_N, entropy_N.double(), 0.0).sum().item()
        self._tokens += int(mask_N.sum())

    def metrics(self) -> dict[str, float]:
        """Returns METRIC; nothing where no batch had a response."""
        return {METRIC: self._nats / self._tokens} if self._tokens else {}
