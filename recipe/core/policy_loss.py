"""The base of the recipes' settings in verl's node `actor_rollout_ref.actor.policy_loss`.

verl has one such node. Each recipe brings a mixin dataclass for it, and the node's class
(`recipe.policy_loss`) is made of all of them. This module does without verl: verl's plugin reads
the settings while verl is being imported.
"""

from __future__ import annotations

from recipe.core.clip import Bounds, Line
from recipe.core.recipe import POLICY_LOSS as NODE

__all__ = ["NODE", "PolicyLossSettings"]


class PolicyLossSettings:
    """Base of the recipes' mixins of the node `policy_loss`. A mixin calls super() in each method,
    so that the recipes combine."""

    loss_mode: str  # verl's setting: the name of the loss that runs

    @property
    def takes_clip_bounds(self) -> bool:
        """Whether the loss that runs has a clipped term whose bounds may move."""
        return False

    def constant_bounds(self, clip_ratio_low: float, clip_ratio_high: float) -> Bounds:
        """Returns the bounds of an update for which the trainer has sent none; raises ValueError
        where they move with the step, which only the trainer knows."""
        return Bounds(upper=Line(0.0, clip_ratio_high), lower=Line(0.0, clip_ratio_low))
