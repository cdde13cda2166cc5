"""verl's actor loss, with what it does not hand on to a policy loss within reach.

verl calls a registered policy loss with log-probs, advantages and the mask only. `actor_loss` takes
its loss function's place through verl's own `set_loss_fn`, calls it unchanged, and meanwhile
`current()` gives the policy loss the micro-batch (`MicroBatch`). It is current from the start of
one call of the loss to its end, in the worker that computes it.

Axes: B rows (rollouts), T response tokens, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from tensordict import TensorDict
from torch import Tensor

# verl is imported in the functions: its plugin hook imports the recipes' losses, and they this
# module, which must be complete by then whichever of them is imported first
if TYPE_CHECKING:
    from verl.workers.config import ActorConfig

EXTRA_INFO = "recipe"  # key of batch.extra_info
ENTROPY_COEFF = "entropy_coeff"  # in MicroBatch.settings: in the place of the actor's
FORWARD_ONLY = "forward_only"  # in EXTRA_INFO: a pass for the per-token quantities alone
# of the mini-batch's response tokens, that which verl's rollout correction has not rejected
KEPT_SHARE = "actor/kept_token_share"


@dataclass
class MicroBatch:
    """A micro-batch in the actor's update.

    Attributes:
        settings: What the trainer's parts told the loss for this update (`Step.tell_loss`).
        fields: Nested fields, B rows: all that the trainer has written.
        output: The model's, nested: log_probs, and entropy where verl computes it.
        sums: Sums over response tokens that a loss leaves; `take_prefixed` makes means of them.
        records: What a loss leaves for the parts' observers, by name.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    fields: TensorDict | Mapping[str, Tensor] = field(default_factory=dict)
    output: Mapping[str, Tensor] = field(default_factory=dict)
    sums: dict[str, Tensor] = field(default_factory=dict)
    records: dict[str, Any] = field(default_factory=dict)

    def padded(self, name: str) -> Tensor:
        """Returns (B, T) of a response field, 0 beyond a row's length; T is at least 1, as in
        verl."""
        padded = self.fields[name].to_padded_tensor(0)
        return padded if padded.shape[1] else padded.new_zeros(len(padded), 1)

    def entropy(self) -> Tensor | None:
        """Returns (B, T): the current policy's entropies in nats; None unless the actor's
        calculate_entropy is set."""
        from verl.workers.utils.padding import no_padding_2_padding

        nested = self.output.get("entropy")
        return None if nested is None else no_padding_2_padding(nested, self.fields)


_current: ContextVar[MicroBatch | None] = ContextVar("micro_batch", default=None)


def current() -> MicroBatch | None:
    """Returns the micro-batch whose loss this process is computing; None outside a loss."""
    return _current.get()


@contextmanager
def as_current(micro_batch: MicroBatch) -> Iterator[MicroBatch]:
    """Makes this the micro-batch that `current()` returns."""
    token = _current.set(micro_batch)
    try:
        yield micro_batch
    finally:
        _current.reset(token)


def to_floats(metrics: dict[str, Tensor]) -> dict[str, float]:
    """Returns the metrics as numbers, which verl wants, by one copy to the host."""
    values = torch.stack([value.double() for value in metrics.values()]).tolist()
    return dict(zip(metrics, values, strict=True))


def aggregate(
    loss_BT: Tensor,
    response_mask_BT: Tensor,
    mode: str,
    config: ActorConfig,
    weights_BT: Tensor | None = None,
) -> Tensor:
    """Returns the scalar that verl makes of a loss per token: the weights of its rollout
    correction, if any, then its `agg_loss` over the global mini-batch."""
    from verl.trainer.ppo.core_algos import agg_loss

    if weights_BT is not None:
        loss_BT = loss_BT * weights_BT
    return agg_loss(
        loss_mat=loss_BT,
        loss_mask=response_mask_BT,
        loss_agg_mode=mode,
        **config.global_batch_info,
    )


def _with_entropy_coeff(config: ActorConfig, coefficient: float) -> ActorConfig:
    """Returns a copy of the actor's config with another entropy_coeff; verl's is frozen."""
    changed = copy.copy(config)
    object.__setattr__(changed, ENTROPY_COEFF, coefficient)
    return changed


def take_prefixed(metrics: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Takes what `MicroBatch.sums` has left under this prefix out of an update's metrics.

    Returns:
        The means over the response tokens that the loss has, without the prefix.
    """
    names = [name for name in metrics if name.startswith(prefix)]
    kept = metrics.get(KEPT_SHARE) or 1.0
    return {name.removeprefix(prefix): metrics.pop(name) / kept for name in names}


def actor_loss(
    config: ActorConfig,
    model_output: dict | None = None,
    data: TensorDict | None = None,
    dp_group: Any = None,
    student_logits: Tensor | None = None,
    logit_hooks: Sequence[Callable[[Tensor], dict[str, Tensor]]] = (),
    observers: Sequence[Callable[[MicroBatch], None]] = (),
) -> Any:
    """verl's `ppo_loss`, with `current()` set while it runs.

    Whatever the policy loss, a part may move the coefficient of the entropy (ENTROPY_COEFF).

    Sums that the policy loss or an observer leaves are divided by the tokens of the global
    mini-batch, as the loss is, and summed over micro-batches and ranks: they do not depend on how
    the batch is split. verl counts rejected tokens among them, so KEPT_SHARE is left beside them.

    Args:
        config: The actor's config.
        model_output, data, dp_group: As verl hands them to its loss.
        student_logits: (1, tokens, V). verl also calls a loss with these where it is told to
            (`distillation_use_topk`), to add per-token fields to the model's output.
        logit_hooks: Make those fields of the logits.
        observers: Read the micro-batch after the policy loss and leave sums in it.

    Returns:
        (loss, metrics), or with `student_logits` the fields per token.
    """
    from verl.utils import tensordict_utils as tu
    from verl.utils.metric import AggregationType, Metric
    from verl.workers.utils.losses import ppo_loss

    if student_logits is not None:
        fields: dict[str, Tensor] = {}
        for hook in logit_hooks:
            fields |= hook(student_logits)
        return fields
    assert data is not None
    settings = tu.get_non_tensor_data(data, EXTRA_INFO, default={})
    if settings.get(FORWARD_ONLY):
        return torch.zeros(()), {}
    if ENTROPY_COEFF in settings:
        if settings[ENTROPY_COEFF] and (model_output or {}).get("entropy") is None:
            raise ValueError(
                f"tell_loss({ENTROPY_COEFF}={settings[ENTROPY_COEFF]}) needs the entropies of the "
                "update, without which verl leaves the term out: set "
                "actor_rollout_ref.actor.calculate_entropy=true."
            )
        config = _with_entropy_coeff(config, settings[ENTROPY_COEFF])
    with as_current(MicroBatch(settings, data, model_output or {})) as micro_batch:
        loss, metrics = ppo_loss(config, model_output, data, dp_group)
    with torch.no_grad():
        for observe in observers:
            observe(micro_batch)
    sums = micro_batch.sums
    if sums:
        sums[KEPT_SHARE] = data["response_mask"].values().sum()
        # without any token verl's loss is NaN, and it skips the update
        scale = data["dp_size"] / max(data["batch_num_tokens"], 1)
        values = (torch.stack([value.double() for value in sums.values()]) * scale).tolist()
        for name, value in zip(sums, values, strict=True):
            metrics[name] = Metric(AggregationType.SUM, value)
    return loss, metrics
