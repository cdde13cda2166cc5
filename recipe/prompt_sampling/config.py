"""Settings of `data.prompt_sampling`, and the presets.

`prompt_sampling.yaml` reads a preset's values with the resolver `${preset:prompt_sampling,<preset>,
<key>}`, and a command-line override still wins.
"""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig

from recipe.core import settings
from recipe.core.settings import check_settings, setting
from recipe.prompt_sampling.sampler import ORDERS

NAME = "prompt_sampling"
NODE = "data.prompt_sampling"


@dataclass(frozen=True)
class Preset:
    """What a method sets."""

    order: str = "none"
    filter_groups: bool = False  # verl's dynamic sampling
    clip_ratio_high: float = 0.2
    clip_ratio_c: float = 3.0  # verl


PRESETS: dict[str, Preset] = {
    "grpo": Preset(),  # verl's sampler
    "dynamic_sampling": Preset(filter_groups=True),  # arXiv 2503.14476
    # arXiv 2503.14476 without its overlong penalty; c: its script
    "dapo": Preset(filter_groups=True, clip_ratio_high=0.28, clip_ratio_c=10.0),
    "failure": Preset("failure"),  # arXiv 2501.12599
    "variance": Preset("variance"),  # arXiv 2601.02648
}


@dataclass(frozen=True)
class PromptSamplingSettings:
    """Which prompts are drawn."""

    preset: str = setting(
        "grpo", "ours: verl's sampler; the recipe's yaml: variance", choices=PRESETS
    )
    order: str = setting("none", "the preset's; none: verl's sampler", choices=ORDERS)
    floor: float = setting(
        0.1, "ours: smallest chance of a prompt when its turn comes", above=0, below=1
    )

    @classmethod
    def from_config(cls, config: DictConfig) -> PromptSamplingSettings:
        """Makes the settings of a run's config."""
        return settings.build(cls, settings.plain(config.data.get(NAME) or {}), NODE)

    def __post_init__(self) -> None:
        check_settings(self, NODE)
        chosen = PRESETS[self.preset].order
        if chosen not in ("none", self.order):
            raise ValueError(
                f"{NODE}.preset={self.preset} has no effect with order={self.order}: set "
                f"{NODE}.order={chosen}, or another preset."
            )
        if self.order == "none" and self.floor != PromptSamplingSettings.floor:
            raise ValueError(
                f"{NODE}.floor={self.floor} has no effect with order=none: leave it at "
                f"{PromptSamplingSettings.floor}, or use order=variance or failure."
            )
