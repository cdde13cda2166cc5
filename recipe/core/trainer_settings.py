"""Settings of `trainer.v1.recipe_sync`, the trainer that the recipes share."""

from __future__ import annotations

from dataclasses import dataclass

from recipe.core.settings import check_settings, setting


@dataclass(frozen=True)
class TrainerSettings:
    """How the shared trainer waits, what it logs, and which model it accepts."""

    poll_interval: float = setting(
        2.0, "verl: seconds between two looks for rollouts; on CPUs 0.05, ours", above=0
    )
    diagnostics: bool = setting(True, "ours: log the papers' instruments, `diagnostics/`")
    log_prob_gain_freq: int = setting(
        20, "ours: steps between two, each a forward pass; 0: never", at_least=0
    )
    held_out_entropy: bool = setting(
        False, "ours: log the entropy on the validation prompts; each validation a forward pass"
    )
    allow_padded_vocab: bool = setting(
        False, "ours: true for models whose vocabulary is padded (Qwen)"
    )
    task_runner: str = setting(
        "verl.trainer.main_ppo.TaskRunnerV1", "verl: the Ray actor class that trains", kind=str
    )

    def __post_init__(self) -> None:
        check_settings(self, "trainer.v1.recipe_sync")
