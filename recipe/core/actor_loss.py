"""verl's actor loss, with what it does not hand on to a policy loss within reach.

verl calls a registered policy loss with log-probs, advantages and the mask only. `actor_loss` is
put in its loss function's place through verl's own `set_loss_fn`, calls it unchanged, and meanwhile
`current()` gives the policy loss

    settings    what the trainer put into `batch.extra_info["recipe"]` for this training step
    micro       the micro-batch (nested tensors), with every field that the trainer has written
    entropy()   the current policy's entropies, where verl computes them
    sums        where it leaves sums over tokens, to be logged as means over the global mini-batch
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.trainer.ppo.core_algos import agg_loss
from verl.utils import tensordict_utils as tu
from verl.utils.metric import AggregationType, Metric
from verl.workers.config import ActorConfig
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import no_padding_2_padding

EXTRA_INFO = "recipe"  # key of batch.extra_info


@dataclass
class Step:
    settings: dict[str, Any]
    micro: TensorDict
    output: dict = field(default_factory=dict)  # of the model: nested log_probs, entropy
    sums: dict[str, Tensor] = field(default_factory=dict)

    def padded(self, name: str) -> Tensor:
        """(B, T) of a response field, 0 beyond a row's length; T is at least 1, as in verl."""
        padded = self.micro[name].to_padded_tensor(0)
        return padded if padded.shape[1] else padded.new_zeros(len(padded), 1)

    def entropy(self) -> Tensor | None:
        """(B, T) of the current policy, nats; None unless the actor's calculate_entropy is set."""
        nested = self.output.get("entropy")
        return None if nested is None else no_padding_2_padding(nested, self.micro)


_current: ContextVar[Step | None] = ContextVar("actor_step", default=None)


def current() -> Step | None:
    """What the trainer says about the step that this process is computing; None outside one."""
    return _current.get()


def as_numbers(metrics: dict[str, Tensor]) -> dict[str, float]:
    """verl makes a number of each metric; this copies to the host once for all of them."""
    values = torch.stack([value.double() for value in metrics.values()]).tolist()
    return dict(zip(metrics, values, strict=True))


def aggregate(
    loss_BT: Tensor,
    response_mask_BT: Tensor,
    mode: str,
    config: ActorConfig,
    weights_BT: Tensor | None = None,
) -> Tensor:
    """The scalar that verl makes of a loss per token: its rollout correction's weights, if any,
    then its `agg_loss` over the whole mini-batch."""
    if weights_BT is not None:
        loss_BT = loss_BT * weights_BT
    return agg_loss(
        loss_mat=loss_BT,
        loss_mask=response_mask_BT,
        loss_agg_mode=mode,
        **config.global_batch_info,
    )


def take_prefixed(metrics: dict[str, float], prefix: str) -> dict[str, float]:
    """Takes the metrics of this prefix out of `metrics`, and gives them without it."""
    names = [name for name in metrics if name.startswith(prefix)]
    return {name.removeprefix(prefix): metrics.pop(name) for name in names}


def actor_loss(
    config: ActorConfig,
    model_output: dict | None = None,
    data: TensorDict | None = None,
    dp_group=None,
    student_logits: Tensor | None = None,
    per_token: Callable[[Tensor], dict[str, Tensor]] | None = None,
):
    """verl's `ppo_loss`, with `current()` set while it runs.

    Sums that the policy loss leaves are divided by the tokens of the whole mini-batch, as the loss
    is, and summed over micro-batches and ranks: they do not depend on how the batch is split.

    verl also calls a loss with `student_logits` (1, tokens, V) where it is told to
    (`distillation_use_topk`), to add per-token quantities to the model's output; `per_token` says
    which.
    """
    if student_logits is not None:
        return per_token(student_logits)
    settings = tu.get_non_tensor_data(data, EXTRA_INFO, default={})
    step = Step(settings, data, model_output or {})
    if step.settings.get("forward_only"):  # a pass for the per-token quantities alone
        return torch.zeros(()), {}
    token = _current.set(step)
    try:
        loss, metrics = ppo_loss(config, model_output, data, dp_group)
    finally:
        _current.reset(token)
    if step.sums:
        scale = data["dp_size"] / data["batch_num_tokens"]
        values = (torch.stack(list(step.sums.values())).double() * scale).tolist()
        for name, value in zip(step.sums, values, strict=True):
            metrics[name] = Metric(AggregationType.SUM, value)
    return loss, metrics
