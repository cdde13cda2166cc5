"""The order of prompts that follows their pass rates, in the trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from omegaconf import DictConfig
from tensordict import TensorDict

from recipe.core.part import START_ANEW, Part, PromptOrder
from recipe.core.prompts_in_flight import PromptsInFlight
from recipe.core.step import Step
from recipe.prompt_sampling.config import NAME, NODE, PromptSamplingSettings
from recipe.prompt_sampling.sampler import Draws, PassRateSampler, chance


class PromptSamplingPart(Part):
    """Draws prompts by `data.prompt_sampling.order`, and takes the pass rates of each update.

    A pass rate is over the rollouts that have not failed; a prompt whose rollouts have all failed
    keeps the one that it had.

    Metrics below `prompt_sampling/`: the epoch (0 …), the share of prompts with a pass rate, and
    the mean chance of a prompt when its turn comes.
    """

    name = NAME

    def __init__(self, settings: PromptSamplingSettings, seed: int):
        self.settings, self.seed = settings, seed
        self.sampler: PassRateSampler | None = None
        self.in_flight = PromptsInFlight()

    @classmethod
    def from_config(cls, config: DictConfig) -> PromptSamplingPart | None:
        settings = PromptSamplingSettings.from_config(config)
        if settings.order == "none":
            return None
        return cls(settings, config.data.get("seed") or 0)  # null: one fixed order, as verl's

    def prompt_order(self, prompts: Sequence[Any]) -> PromptOrder:
        s = self.settings
        self.sampler = PassRateSampler(len(prompts), s.order, s.floor, self.seed)
        return PromptOrder(Draws(self.sampler), steps=None, reads_ahead=False)

    def on_prompts(self, batch: TensorDict) -> None:
        self.in_flight.draw(batch)

    def before_update(self, step: Step) -> None:
        if step.correct_B is None:
            raise ValueError(
                f"{NODE}.order={self.settings.order} follows pass rates, and the rewards do not "
                "say which rollouts are correct: return 1 or 0 from the reward function, or set "
                "order=none."
            )

    def after_update(self, step: Step) -> None:
        assert self.sampler is not None and step.correct_B is not None
        correct_B = step.correct_B.numpy()[step.real_B.numpy()]
        self.sampler.observe(self.in_flight.rows_of_update(step), correct_B)
        rates_N = self.sampler.pass_rate_N
        chance_N = chance(self.settings.order, rates_N, self.settings.floor)
        measured = {
            "epoch": self.sampler.epoch,
            "seen": float(np.mean(~np.isnan(rates_N))),
            "chance": float(chance_N.mean()),
        }
        step.metrics.update({f"{NAME}/{name}": value for name, value in measured.items()})

    def resume_settings(self) -> Mapping[str, Any]:
        return {
            f"{NODE}.order": self.settings.order,
            f"{NODE}.floor": self.settings.floor,
            "data.seed": self.seed,
        }

    def state_dict(self) -> Mapping[str, Any]:
        assert self.sampler is not None
        return self.sampler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        assert self.sampler is not None
        here, saved = len(self.sampler.pass_rate_N), len(state["pass_rates"])
        if saved != here:
            raise ValueError(
                f"The checkpoint has pass rates of {saved} prompts, and the training data {here}, "
                f"so the run cannot resume: restore the data, or {START_ANEW}."
            )
        self.sampler.load_state_dict(state)
