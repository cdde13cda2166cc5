"""What the recipe adds to verl's node actor_rollout_ref.actor.policy_loss."""

from dataclasses import dataclass

from recipe.core.policy_loss import NODE, PolicyLossSettings
from recipe.core.settings import check_settings, setting


@dataclass
class EntropyTargetSettings(PolicyLossSettings):
    target_entropy: float = setting(0.3, "ours, nats per token", above=0)
    target_rate: float = setting(0.01, "ours, change of the coefficient per nat", above=0)

    def __post_init__(self) -> None:
        check_settings(self, NODE, EntropyTargetSettings)
