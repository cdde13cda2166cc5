"""The one change to verl's own losses: Clip-Cov's importance ratio stays finite.

verl 0.9.1's `clip_cov` takes exp(ln pi_theta - ln pi_old) of whatever the log-probs are, where its
other clipped losses clamp the difference to [-20, 20] first: one token with a log-ratio above 88 is
inf in float32, and with it the loss and the update. verl has no hook for it, so its function is
handed log-probs within 20 of the old ones. On all others nothing changes, to the bit
(`tests/core/test_bounded_ratio.py`, which also fails once verl clamps by itself).

`kl_cov` has no clamp either, and is left as it is: its KL term must still pull such a token back.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recipe.core.clip import MAX_LOG_RATIO

UNBOUNDED = "clip_cov"  # verl's loss without the clamp


def bounded(loss: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a policy loss that is called with log-probs within MAX_LOG_RATIO of the old ones."""

    @functools.wraps(loss)
    def with_bounded_ratio(old_log_prob: Tensor, log_prob: Tensor, **arguments: Any) -> Any:
        low, high = old_log_prob - MAX_LOG_RATIO, old_log_prob + MAX_LOG_RATIO
        within = torch.clamp(log_prob, low, high).to(log_prob.dtype)
        return loss(old_log_prob=old_log_prob, log_prob=within, **arguments)

    return with_bounded_ratio


def install() -> None:
    """Puts the bounded loss in the place of verl's; a second call changes nothing."""
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY

    loss = POLICY_LOSS_REGISTRY[UNBOUNDED]
    if not hasattr(loss, "__wrapped__"):
        POLICY_LOSS_REGISTRY[UNBOUNDED] = bounded(loss)
