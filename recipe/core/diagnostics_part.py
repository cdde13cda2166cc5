"""The diagnostics (`recipe.core.diagnostics`) in the trainer, for every recipe."""

from __future__ import annotations

from recipe.core import diagnostics
from recipe.core.part import Part
from recipe.core.step import Step
from recipe.core.trainer_settings import TrainerSettings


class DiagnosticsPart(Part):
    """Logs the diagnostics of each step with verl's own metrics, below `diagnostics/`.

    `log_prob_gain_freq`: steps between two measurements of the log-prob gain, the one quantity that
    costs a forward pass (0 = never).
    """

    name = "diagnostics"

    def __init__(self, settings: TrainerSettings):
        self.settings = settings

    def after_update(self, step: Step) -> None:
        measured: dict[str, float] = {}
        frequency = self.settings.log_prob_gain_freq
        if step.correct_B is not None and frequency > 0 and step.number % frequency == 0:
            step.forward(compute_loss=False)
            measured |= diagnostics.log_prob_gain(
                new_log_prob_N=step.response_values("log_probs"),
                old_log_prob_N=step.values("old_log_probs"),
                mask_N=step.mask_N,
                length_B=step.length_B,
                correct_B=step.correct_B,
            )
        if self.settings.diagnostics:
            real_B = step.real_B
            measured |= diagnostics.response_lengths(
                step.length_B[real_B],
                None if step.correct_B is None else step.correct_B[real_B],
                step.config.data.max_response_length,
            )
        if self.settings.diagnostics and step.has("entropy"):  # none in verl's bypass mode
            measured |= diagnostics.rollout_diagnostics(
                entropy_N=step.values("entropy"),
                log_prob_N=step.values("old_log_probs"),
                advantages_N=step.values("advantages"),
                mask_N=step.mask_N,
                length_B=step.length_B,
                correct_B=step.correct_B,
                group_B=step.group_B,
                real_B=step.real_B,
            )
        step.metrics.update({f"diagnostics/{name}": value for name, value in measured.items()})
