"""A part of the trainer: what one recipe adds to a training step.

The trainer holds a list of parts and calls each hook of every part in the order of the list
(`recipe.trainer`). Every hook does nothing by default. All of them run on the driver; workers hold
no state of a part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from tensordict import TensorDict
    from torch import Tensor

    from recipe.core.actor_loss import MicroBatch
    from recipe.core.rollouts import CorrectnessRule
    from recipe.core.step import Step


DATASET_ROW = "dataset_row"  # in the batch of a step, where a part orders the prompts
START_ANEW = (
    "start anew in another folder (trainer.default_local_dir, with trainer.resume_mode=disable)"
)


def changed(setting: str, old: object, new: object) -> str:
    """Returns the sentence that refuses to resume with another value of a setting."""
    return (
        f"{setting} is {new}, but the checkpoint was written with {old}, so the run would not "
        f"continue as it was: set it to {old}, or {START_ANEW}."
    )


class PromptOrder(NamedTuple):
    """The order of the training prompts, in place of verl's sampler."""

    prompt_D: Iterable[int]  # index into the training data, draw after draw
    steps: int | None  # training steps of the run; None: verl's number
    reads_ahead: bool = True  # False: a draw depends on the steps before it


class Part:
    """Base of all parts.

    Attributes:
        name: Names the part and its state in a checkpoint; no two parts share one.
        reads_step_in_loss: Whether the policy loss needs what the trainer knows of a step
            (`recipe.core.actor_loss`).
        needs_entropy: Whether it needs the old policy's entropies, which verl does not compute in
            bypass mode.
        correctness: Which rollouts are correct, where this part's settings say so; parts that say
            so must agree.
        logit_hook: A function of the logits (1, tokens, V) that returns fields (1, tokens), for
            `Step.forward(distillation_use_topk=True)`; it runs on the workers.
        loss_observers: Functions of the micro-batch that run on the workers after the policy
            loss, to leave sums in `MicroBatch.sums`.
    """

    name: ClassVar[str] = ""
    reads_step_in_loss: bool = False
    needs_entropy: bool = False
    correctness: CorrectnessRule | None = None
    logit_hook: Callable[[Tensor], dict[str, Tensor]] | None = None
    loss_observers: Sequence[Callable[[MicroBatch], None]] = ()

    @classmethod
    def from_config(cls, config: DictConfig) -> Part | None:
        """Makes the part of a run's resolved config; None where the run does not use it."""
        raise NotImplementedError

    def prompt_order(self, prompts: Sequence[Any]) -> PromptOrder | None:
        """Returns the order of the training prompts, or None to leave verl's.

        Args:
            prompts: The messages of each row of the training data, as verl has filtered them.
        """
        return None

    def on_prompts(self, batch: TensorDict) -> None:
        """Called with the prompts of a step before their rollouts.

        Args:
            batch: `uid` and `raw_prompt`, the messages as verl's dataset rewrites them (images for
                their places in the text); where a part orders the prompts also DATASET_ROW, each
                prompt's position in what `prompt_order` was given.
        """

    def after_advantage(self, step: Step) -> None:
        """Called when the step's advantages are there."""

    def before_update(self, step: Step) -> None:
        """Called before the actor's update: `step.tell_loss` and `step.write` reach the loss."""

    def after_update(self, step: Step) -> None:
        """Called after the actor's update; `step.metrics` holds verl's metrics of it."""

    def resume_settings(self) -> Mapping[str, Any]:
        """Returns {config key: value} of the settings without which the state has no meaning.

        The trainer keeps them beside the state, and a resume with another value is refused, before
        Ray starts where `recipe.launch` starts it. Left out: what a resumed run may change.
        """
        return {}

    def state_dict(self) -> Mapping[str, Any] | None:
        """Returns the state for a checkpoint as plain numbers and strings; None where there is
        none at this step, and nothing is to be restored."""
        return None

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the state; raises ValueError if it belongs to other settings."""
