"""AsymGRPO in the trainer: which rollouts are correct, and the entropy-shaped advantage of one of
its baselines."""

from __future__ import annotations

from omegaconf import DictConfig

from recipe.asymgrpo.advantages import entropy_shaped_advantage
from recipe.asymgrpo.config import NAME, AsymGRPOConfig
from recipe.core.part import Part
from recipe.core.settings import plain
from recipe.core.step import Step


class AsymGRPOPart(Part):
    """Brings `correct_threshold` and `correct_field`, and shapes the advantages of
    `preset=grpo_entropy_adv`."""

    name = "asymgrpo"

    def __init__(self, settings: AsymGRPOConfig, required: bool):
        self.settings = settings
        self.correctness = settings.correctness(required)

    @classmethod
    def from_config(cls, config: DictConfig) -> AsymGRPOPart | None:
        settings = AsymGRPOConfig.from_mapping(plain(config.algorithm.get(NAME) or {}))
        required = config.algorithm.adv_estimator == NAME
        used = required or settings.correctness(required).required or settings.entropy_shaped
        return cls(settings, required) if used else None

    def after_advantage(self, step: Step) -> None:
        if not self.settings.entropy_shaped:
            return
        step.fetch("advantages", "entropy", "response_mask")
        step.write(
            advantages=entropy_shaped_advantage(
                step.values("advantages"),
                step.values("entropy"),
                kappa=self.settings.entropy_kappa,
                alpha=self.settings.entropy_alpha,
            )
        )
