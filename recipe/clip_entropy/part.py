"""The clip schedule in the trainer: moves the bounds once per training step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig
from verl.utils.config import omega_conf_to_dataclass

from recipe.clip_entropy.balance import observe_balance
from recipe.clip_entropy.config import LOSS_MODE, VARIANTS, ClipSettings
from recipe.clip_entropy.regions import (
    BASELINE,
    exact_baseline,
    exact_contributions,
    observe_regions,
    region_metrics,
)
from recipe.clip_entropy.schedules import Static
from recipe.clip_entropy.variant_term import TERMS
from recipe.core.actor_loss import EXTRA_INFO, FORWARD_ONLY, take_prefixed
from recipe.core.clipped_term import CLIP_BOUNDS, pack_bounds
from recipe.core.part import Part
from recipe.core.policy_loss import NODE
from recipe.core.settings import settings_of
from recipe.core.step import Step, policy_entropy

# settings that move no bound: a preset only names values of the others
MEASURES = {"preset", "region_diagnostics", "exact_contribution_freq"}


class ClipSchedulePart(Part):
    """Moves the clip bounds of a loss that takes them (`dynamic_clip`, and others that say so).

    Metrics below `clip_entropy/`: the schedule's own, the mean bounds, and the four regions.
    """

    name = "clip_schedule"
    reads_step_in_loss = True
    logit_hook = staticmethod(exact_baseline)

    def __init__(self, settings: ClipSettings, schedule: Static):
        self.settings, self.schedule, row = settings, schedule, VARIANTS[settings.variant]
        self.needs_entropy = settings.loss_mode == LOSS_MODE and row.needs_entropy
        self.loss_observers = [observe_regions] if settings.region_diagnostics else []
        self.loss_observers += [observe_balance] if schedule.asks() else []

    @classmethod
    def from_config(cls, config: DictConfig) -> ClipSchedulePart | None:
        actor = config.actor_rollout_ref.actor
        settings = omega_conf_to_dataclass(actor.policy_loss)
        if not isinstance(settings, ClipSettings) or not settings.takes_clip_bounds:
            return None  # another loss, or verl's own settings: constant bounds
        lines = settings.lines(actor.clip_ratio_low, actor.clip_ratio_high)
        return cls(settings, settings.make_schedule(lines, config.trainer.total_training_steps))

    def before_update(self, step: Step) -> None:
        exact: dict[str, float] = {}
        frequency = self.settings.exact_contribution_freq
        if frequency > 0 and step.number % frequency == 0:
            exact = self._exact_contributions(step)
        bounds = self.schedule.advance(step.number, policy_entropy(step))
        step.tell_loss(**{CLIP_BOUNDS: pack_bounds(bounds)}, **self.schedule.asks())
        if self.settings.loss_mode == LOSS_MODE:
            told = TERMS[self.settings.variant].of_step(step, self.settings)
            step.tell_loss(**told)
            step.metrics.update({f"clip_entropy/{name}": value for name, value in told.items()})
        step.metrics.update({f"clip_entropy/{k}": v for k, v in self.schedule.metrics().items()})
        step.metrics.update({f"clip_entropy/exact/{name}": value for name, value in exact.items()})

    def after_update(self, step: Step) -> None:
        step.metrics.update(region_metrics(step.metrics))
        if self.schedule.measures_prefix:
            self.schedule.learn(take_prefixed(step.metrics, self.schedule.measures_prefix))

    def resume_settings(self) -> Mapping[str, Any]:
        lines, decides = self.schedule.lines, settings_of(ClipSettings).keys() - MEASURES
        return {
            f"{NODE}.schedule": self.settings.schedule,  # the first that a message should name
            **{f"{NODE}.{name}": getattr(self.settings, name) for name in sorted(decides)},
            f"{NODE}.total_steps": self.schedule.total_steps,  # T; none, where the run may grow
            "actor_rollout_ref.actor.clip_ratio_low": lines.base_lower.intercept,
            "actor_rollout_ref.actor.clip_ratio_high": lines.base_upper.intercept,
        }

    def state_dict(self) -> Mapping[str, Any]:
        return self.schedule.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.schedule.load_state_dict(dict(state))

    def _exact_contributions(self, step: Step) -> dict[str, float]:
        """Eq 5 with its baseline, by a forward pass that verl runs over the batch."""
        # verl hands its loss, ours, the logits only if told to compute it
        forward_only = {EXTRA_INFO: {FORWARD_ONLY: True}}
        step.forward(compute_loss=True, distillation_use_topk=True, **forward_only)
        return exact_contributions(
            log_prob_N=step.values("old_log_probs"),
            entropy_N=step.values("entropy"),
            advantages_N=step.values("advantages"),
            baseline_N=step.response_values(BASELINE),
            mask_N=step.mask_N,
        )
