"""The coefficient of the entropy: state that the trainer moves once a step."""

from __future__ import annotations

from collections.abc import Mapping

from omegaconf import DictConfig

from recipe.core.part import Part
from recipe.core.step import Step


class EntropyTargetPart(Part):
    name = "entropy_target"
    reads_step_in_loss = needs_entropy = True

    def __init__(self, settings: DictConfig):
        self.settings, self.coef = settings, 0.0

    @classmethod
    def from_config(cls, config: DictConfig) -> EntropyTargetPart | None:
        settings = config.actor_rollout_ref.actor.policy_loss
        return cls(settings) if settings.loss_mode == "entropy_target" else None

    def before_update(self, step: Step) -> None:
        """coef <- max(0, coef + rate (target - H)): more entropy only while it is below."""
        gap = self.settings.target_entropy - step.metrics["actor/entropy"]
        self.coef = max(0.0, self.coef + self.settings.target_rate * gap)
        step.tell_loss(entropy_target_coef=self.coef)
        step.metrics["example/coef"] = self.coef

    def state_dict(self) -> dict[str, float]:
        return {"coef": self.coef}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self.coef = state["coef"]
