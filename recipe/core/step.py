"""What the trainer knows about one update of the actor: each fact is read or computed once.

Parts, estimators and diagnostics read the same `Step`. Its lifetime, on the driver: made before
verl computes the advantages, current while verl calls the estimator, gone after the update.

Axes: B rows (rollouts), N response tokens of all rows, one row after another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor
from transfer_queue import KVBatchMeta

from recipe.core import transfer_queue
from recipe.core.actor_loss import EXTRA_INFO
from recipe.core.diagnostics import token_mean
from recipe.core.rollouts import CorrectnessRule, group_index, scalar_rewards

OF_ROWS = ("uid", "rm_scores", "extra_fields")  # verl writes them once, before a step begins
OF_TOKENS = ("response_mask", "entropy", "old_log_probs", "advantages")
# verl's key of a row is <uid>_<session>_<output>
LATER_OUTPUT = re.compile(r"_\d+_0*[1-9]\d*$")

_current: ContextVar[Step | None] = ContextVar("training_step", default=None)


def current() -> Step | None:
    """Returns the step whose advantages are being computed; None outside the recipes' trainer."""
    return _current.get()


class Step:
    """One update of the actor.

    Attributes:
        batch: verl's description of the rollouts; replaced by verl as it adds fields.
        number: k, 0 at the first training step.
        metrics: verl's metrics of this update so far; parts add theirs.
        config: The run's config.
    """

    def __init__(
        self,
        batch: KVBatchMeta,
        *,
        number: int,
        metrics: dict[str, Any],
        config: DictConfig,
        correctness: CorrectnessRule,
        place_B: Sequence[int] = (),
        forward: Callable[[KVBatchMeta], Any] | None = None,
        ranks: int = 1,
    ):
        """
        Args:
            correctness: Which rollouts are correct.
            place_B: The place of each row in the order of the prompts in the dataloader; the order
                of the rows, if empty.
            forward: Runs a forward pass of the actor over a batch, as verl does for log-probs.
            ranks: Data-parallel ranks of the actor.
        """
        self.number, self.metrics, self.config, self.ranks = number, metrics, config, ranks
        self._correctness, self._forward = correctness, forward
        self._place_B = place_B or range(len(batch))
        self._fields: dict[str, Any] = {}  # None: verl has not written it
        self._mask_N: Tensor | None = None
        self.batch = batch

    def moved_on(self, batch: KVBatchMeta) -> None:
        """Takes the batch that verl returns after it has written fields, and forgets what it held
        of the old ones: verl's rollout correction, for one, writes a new mask."""
        self.batch = batch
        self._fields = {name: self._fields[name] for name in OF_ROWS if name in self._fields}
        self._mask_N = None

    @contextmanager
    def as_current(self) -> Iterator[None]:
        """Makes this the step that `current()` returns."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    # ---- facts about the rows ----

    @cached_property
    def real_B(self) -> Tensor:
        """(B,) bool: rows that are rollouts, not verl's padding of a short batch."""
        return torch.tensor([not tag.get("is_padding", False) for tag in self.batch.tags])

    @cached_property
    def order_B(self) -> Tensor:
        """(B,) long: the rows in the order of their prompts in the dataloader, padding last. A seed
        fixes it, and no split of the batch over ranks changes it; verl's names are random."""
        return torch.tensor(self._place_B).argsort(stable=True)

    @cached_property
    def uid_B(self) -> list[str]:
        """Of each row the uid of its prompt; verl gives padding rows uids of their own."""
        return [str(uid) for uid in self.nested("uid").tolist()]

    @cached_property
    def group_B(self) -> Tensor:
        """(B,) long: the row's prompt, 0..P-1; padding rows have groups of their own.

        Raises:
            ValueError: Where a rollout has several rows, of which each would count as a rollout.
        """
        for key, real in zip(self.batch.keys, self.real_B.tolist(), strict=True):
            if real and LATER_OUTPUT.search(key):
                raise ValueError(
                    f"The agent loop has returned several outputs for one rollout ({key}), and the "
                    "recipes would count each as a rollout of its prompt: use an agent loop with "
                    "one output a rollout (actor_rollout_ref.rollout.agent.default_agent_loop)."
                )
        return group_index(self.uid_B)

    @cached_property
    def correct_B(self) -> Tensor | None:
        """(B,) bool: which rollouts are correct, by verl's score before any penalty is taken from
        it; None where the rewards do not say and nothing requires them to.

        Raises:
            ValueError: Where they do not say and a setting or the estimator requires it.
        """
        rule = self._correctness
        try:
            if rule.field is None:
                reward_B = scalar_rewards(self.nested("rm_scores").to_padded_tensor(0.0))
                return rule.from_rewards(reward_B, self.real_B)
            return rule.from_fields(self.nested("extra_fields").tolist())
        except ValueError:
            if rule.required:
                raise
            return None

    # ---- fields of the response tokens ----

    def fetch(self, *names: str) -> None:
        """Reads several fields in one request, for the calls that follow: a request costs more than
        a field."""
        missing = [name for name in names if name not in self._fields]
        if missing:
            data = transfer_queue.read(self.batch, *missing)
            # `data[name]` would unpack what is no tensor
            self._fields.update({name: data.get(name, None) for name in missing})

    def fetch_rows(self, *more: str) -> None:
        """Reads in one request what correctness and groups are made of, and more fields."""
        self.fetch("uid", "rm_scores" if self._correctness.field is None else "extra_fields", *more)

    def fetch_all(self) -> None:
        """Reads in one request what the parts of a step usually read."""
        self.fetch_rows(*OF_TOKENS)

    def has(self, name: str) -> bool:
        """Returns whether verl has computed a field (in its bypass mode there is no entropy)."""
        self.fetch(name)
        return self._fields[name] is not None

    def nested(self, name: str) -> Any:
        """Returns a field as a nested tensor of B rows, jagged."""
        self.fetch(name)
        return self._fields[name]

    def values(self, name: str) -> Tensor:
        """Returns (N,): a field's values, one row after another, without padding."""
        return self.nested(name).values()

    @property
    def mask_N(self) -> Tensor:
        """(N,) bool: response tokens that count."""
        if self._mask_N is None:
            self._mask_N = self.values("response_mask").bool()
        return self._mask_N

    @property
    def length_B(self) -> Tensor:
        """(B,) long: tokens of each row; sums to N."""
        return self.nested("response_mask").offsets().diff()

    def write(self, **fields_N: Tensor) -> None:
        """Writes fields of the response tokens, (N,) each, so that the workers see them."""
        offsets, longest = self.nested("response_mask").offsets(), int(self.length_B.max())
        nested = {  # without max_seqlen torch would pad a row to N columns
            name: torch.nested.nested_tensor_from_jagged(values_N, offsets, max_seqlen=longest)
            for name, values_N in fields_N.items()
        }
        batch = transfer_queue.write(self.batch, **nested)
        batch.extra_info.update(self.batch.extra_info)
        self.batch = batch
        self._fields.update(nested)

    # ---- the workers ----

    def tell_loss(self, **settings: Any) -> None:
        """Hands plain values to the policy loss of this update (`core.actor_loss.MicroBatch`)."""
        self.batch.extra_info.setdefault(EXTRA_INFO, {}).update(settings)

    def forward(self, **extra_info: Any) -> None:
        """Runs the actor over the batch, as verl does for its old log-probs; the model's output is
        left in the batch's fields. The batch's own `extra_info` stays as it is."""
        assert self._forward is not None
        request = KVBatchMeta(
            partition_id=self.batch.partition_id,
            keys=list(self.batch.keys),
            tags=list(self.batch.tags),
            extra_info={
                "calculate_entropy": False,
                "temperature": self.config.actor_rollout_ref.rollout.temperature,
                **extra_info,
            },
        )
        self._forward(request)

    def response_values(self, name: str) -> Tensor:
        """Returns (N,): what a forward pass left for the response tokens in a field that also
        covers the prompt."""
        from verl.workers.utils.padding import response_from_nested

        data = transfer_queue.read(self.batch, name)
        return response_from_nested(data[name], self.nested("response_mask")).values()


def policy_entropy(step: Step) -> float | None:
    """Returns the mean entropy in nats per token of the policy that sampled, which is the policy
    before this update; None where verl computes none (its bypass mode).

    verl's metric `actor/entropy` is not read: it is another mean where `loss_agg_mode` is another,
    and with fused kernels, whose entropies are in bfloat16, it is rounded to bfloat16 itself, in
    steps of 0.016 nats from 2 nats on.
    """
    return token_mean(step.values("entropy"), step.mask_N).item() if step.has("entropy") else None
