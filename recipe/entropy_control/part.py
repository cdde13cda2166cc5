"""The controllers in the trainer: one entropy per step, one decision on the driver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig
from torch import Tensor

from recipe.core import config as run_config
from recipe.core.actor_loss import ENTROPY_COEFF
from recipe.core.part import Part
from recipe.core.settings import settings_of
from recipe.core.step import Step, policy_entropy
from recipe.entropy_control import controllers as C
from recipe.entropy_control.config import (
    COEFFICIENT,
    CONTROLLERS,
    NAME,
    NODE,
    EntropyControlSettings,
)


class EntropyControlPart(Part):
    """Moves the coefficient of the entropy (schedule, target) or the advantages (range, pi).

    Metrics below `entropy_control/`: the entropy that it read, and what it did.
    """

    name = NAME
    needs_entropy = True

    def __init__(self, settings: EntropyControlSettings, total_steps: int | None, updates: int = 1):
        """
        Args:
            total_steps: T, which a schedule or range needs.
            updates: Of the actor in a step.
        """
        self.settings, self.total_steps, self.updates = settings, total_steps, updates
        self.reads_step_in_loss = settings.controller in COEFFICIENT
        self.needs_entropy = settings.controller != "schedule"
        self.coefficient = settings.coef_init  # of target
        self.total = self._next_total = 0.0  # of pi, now and after this step's updates

    @classmethod
    def from_config(cls, config: DictConfig) -> EntropyControlPart | None:
        settings = EntropyControlSettings.from_config(config)
        if settings.controller == "none":
            return None
        total_steps = settings.total_steps or config.trainer.total_training_steps
        return cls(settings, total_steps, run_config.updates_per_rollout(config))

    def after_advantage(self, step: Step) -> None:
        if self.settings.controller in COEFFICIENT:
            return
        step.fetch("advantages", "entropy", "response_mask", "old_log_probs")
        entropy = self._entropy(step)
        before_N = step.values("advantages")
        if self.settings.controller == "range":
            lower, upper = self._lines(step.number)
            after_N = C.drop_by_range(before_N, entropy, lower, upper)
            changed_N = after_N != before_N
            if self.settings.mean_over == "accepted":
                after_N = C.over_accepted(after_N, ~changed_N, step.mask_N)
            measured = {"line_lower": lower, "line_upper": upper}
        else:
            s = self.settings
            self._next_total, alpha = C.pi_weight(
                self.total,
                entropy,
                s.target,
                s.proportional,
                s.integral,
                s.alpha_max,
                self.updates,
            )
            after_N = C.weigh_probable(
                before_N, step.values("old_log_probs"), step.mask_N, alpha, s.probable_above
            )
            changed_N = after_N != before_N
            measured = {"alpha": alpha}
        if after_N is not before_N:
            step.write(advantages=after_N)
        changed_share = _share(changed_N, step.mask_N)
        self._log(step, entropy=entropy, changed_share=changed_share, **measured)

    def before_update(self, step: Step) -> None:
        s = self.settings
        if s.controller == "schedule":
            assert self.total_steps is not None
            value = C.annealed(s.coef_start, s.coef_end, step.number, self.total_steps, s.shape)
        elif s.controller == "target":
            entropy = self._entropy(step)
            self.coefficient, value = C.follow_target(
                self.coefficient, entropy, s.target, s.coef_delta, s.coef_min, s.coef_max
            )
            self._log(step, entropy=entropy, coefficient_kept=self.coefficient)
        else:
            if s.controller == "pi":  # verl updates no actor while a critic warms up
                self.total = self._next_total
            return
        step.tell_loss(**{ENTROPY_COEFF: value})
        self._log(step, coefficient=value)

    def state_dict(self) -> Mapping[str, Any]:
        return {"coefficient": self.coefficient, "total": self.total}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.coefficient, self.total = state["coefficient"], state["total"]
        self._next_total = self.total

    def resume_settings(self) -> Mapping[str, Any]:
        names = [name for name in settings_of(EntropyControlSettings) if name in self._used()]
        values = {f"{NODE}.{name}": getattr(self.settings, name) for name in names}
        if "total_steps" in names:
            values[f"{NODE}.total_steps"] = self.total_steps
        return values

    def _used(self) -> set[str]:
        return {"controller", *CONTROLLERS[self.settings.controller]}

    def _lines(self, k: int) -> tuple[float, float]:
        """Returns the lower and the upper line at step k."""
        s, total = self.settings, self.total_steps
        assert total is not None
        return (
            C.annealed(s.lower_start, s.lower_end, k, total, s.shape),
            C.annealed(s.upper_start, s.upper_end, k, total, s.shape),
        )

    def _entropy(self, step: Step) -> float:
        """Returns the entropy before this update; raises ValueError where verl computes none."""
        entropy = policy_entropy(step)
        if entropy is None:
            raise ValueError(
                f"{NODE}.controller={self.settings.controller} needs the policy's entropy, which "
                "verl does not compute in its bypass mode: set algorithm.rollout_correction."
                "bypass_mode=false."
            )
        return entropy

    def _log(self, step: Step, **values: float) -> None:
        step.metrics.update({f"{NAME}/{name}": value for name, value in values.items()})


def _share(member_N: Tensor, mask_N: Tensor) -> float:
    return (member_N & mask_N).sum().item() / max(int(mask_N.sum()), 1)
