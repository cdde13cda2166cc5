"""`trainer.v1.trainer_mode=recipe_sync`: verl's synchronous trainer with the recipes' parts.

The trainer runs a list of parts (`core.part.Part`) around verl's own steps: those of every recipe
that the config uses, in the order of `core.recipe.recipes()`, then the diagnostics. Everything here
runs once, on the driver; workers hold no state of a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, open_dict
from tensordict import TensorDict
from torch.utils.data import Dataset
from torchdata.stateful_dataloader import StatefulDataLoader
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.config import omega_conf_to_dataclass

from recipe.core import actor_loss, transfer_queue
from recipe.core import config as run_config
from recipe.core.diagnostics_part import DiagnosticsPart
from recipe.core.held_out_entropy import HeldOutEntropy
from recipe.core.part import DATASET_ROW, Part, PromptOrder
from recipe.core.recipe import recipes
from recipe.core.replay_buffer import keep_order, observed
from recipe.core.rollouts import CorrectnessRule
from recipe.core.states import STATE_FILE, load_states, save_states
from recipe.core.step import Step
from recipe.core.trainer_settings import TrainerSettings

T = TypeVar("T")

PLACES = 100_000  # prompts whose place is kept: those that are dropped are never asked for


def make_parts(config: DictConfig, settings: TrainerSettings) -> list[Part]:
    """Returns the parts that a run's config uses, in the order in which they run."""
    made = [
        record.load(reference).from_config(config)
        for record in recipes()
        for reference in record.parts
    ]
    parts: list[Part] = [part for part in made if part is not None]
    if settings.diagnostics or settings.log_prob_gain_freq:
        parts.append(DiagnosticsPart(settings))
    names = [part.name for part in parts]
    for name in names:
        if not name or names.count(name) > 1:
            raise ValueError(
                f"{names.count(name)} trainer parts are called {name!r}, and each one's state in a "
                "checkpoint goes by its name: give every part a name that no other has."
            )
    return parts


def the_one(values: Sequence[T], what: str, default: T) -> T:
    """Returns what one part says, or the default if none does; raises ValueError if they differ."""
    if any(value != values[0] for value in values):
        raise ValueError(f"Two recipes {what}, and differ ({values}): use one of them.")
    return values[0] if values else default


class NumberedRows(Dataset):
    """A dataset whose items say which row they are: of a message with images, or of one that a
    dataset class rewrites, nothing else does."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {**self.dataset[row], DATASET_ROW: row}


@register_trainer("recipe_sync")
class RecipeTrainerSync(PPOTrainerSync):
    """verl's `PPOTrainerSync`, with the parts' hooks before and after its steps."""

    def __init__(self, config: DictConfig):
        self.settings = run_config.trainer_settings(config)
        with open_dict(config):
            # the registry key is also verl's switch: any value but "sync" means asynchronous
            config.trainer.v1.trainer_mode = "sync"
        super().__init__(config)
        # verl polls every 2 s, which rounds a small run's generation time up to the next 2 s
        self.replay_buffer.poll_interval = self.settings.poll_interval
        self.parts = make_parts(config, self.settings)
        self._drawn = 0  # prompts
        self._place: dict[str, int] = {}  # {uid: prompts drawn before it}, of the last PLACES
        self._order: dict[str, int] = {}  # {key: place} of the rollouts of an update
        keep_order(self.replay_buffer, lambda uid: self._place.get(uid, -1))
        self.correctness = the_one(
            [part.correctness for part in self.parts if part.correctness is not None],
            "say which rollouts are correct",
            CorrectnessRule(),
        )

    # ---- a training step ----

    def _submit_batch_to_rollout(self, batch: TensorDict) -> int:
        for uid in batch["uid"]:
            self._place[uid] = self._drawn
            self._drawn += 1
        while len(self._place) > PLACES:
            del self._place[next(iter(self._place))]
        return super()._submit_batch_to_rollout(batch)

    def _balance_batch(self, batch: KVBatchMeta, *args: Any, **options: Any) -> KVBatchMeta:
        """Rollouts in the order of their prompts in the dataloader, so that a seed fixes the
        mini-batches: verl takes them in the order of a set of random names."""

        def place(key: str) -> tuple[int, int, int]:
            uid, session, output = key.split("_")
            return self._place.get(uid, -1), int(session), int(output)

        keys = sorted(batch.keys, key=place)
        self._order = {key: number for number, key in enumerate(keys)}
        batch.reorder(sorted(range(len(batch)), key=lambda row: self._order[batch.keys[row]]))
        return super()._balance_batch(batch, *args, **options)

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        return super()._compute_old_log_prob(transfer_queue.for_workers(batch), metrics)

    def _compute_ref_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        return super()._compute_ref_log_prob(transfer_queue.for_workers(batch), metrics)

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        self.current_step = step = self._make_step(batch, metrics)
        if self.correctness.required:
            step.fetch_rows()
            _ = step.correct_B  # raises before anything is updated
        with step.as_current():
            step.moved_on(super()._compute_advantage(batch, metrics))
        for part in self.parts:
            part.after_advantage(step)
        return step.batch

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        step = self.current_step
        step.batch = batch
        if self.parts:
            step.fetch_all()
        for part in self.parts:
            part.before_update(step)
        step.batch = super()._update_actor(transfer_queue.for_workers(step.batch), metrics)
        for part in self.parts:
            part.after_update(step)
        step.moved_on(step.batch)  # its fields are not kept while the next rollouts are generated
        return step.batch

    def _make_step(self, batch: KVBatchMeta, metrics: dict) -> Step:
        return Step(
            batch,
            number=self.global_steps - 1,
            metrics=metrics,
            config=self.config,
            correctness=self.correctness,
            place_B=[self._order.get(key, len(self._order)) for key in batch.keys],
            forward=self.actor_rollout_wg.compute_log_prob,
            ranks=self._ranks(),
        )

    def _ranks(self) -> int:
        """Returns the data-parallel ranks of the actor, as verl counts them."""
        dispatch, role = self.actor_rollout_wg._dispatch_info, "actor"
        if role not in dispatch:
            dispatch[role] = self.actor_rollout_wg._query_dispatch_info(role)
        return max(dispatch[role]) + 1

    # ---- a validation ----

    def _validate(self) -> dict[str, float]:
        if not self.settings.held_out_entropy:
            return super()._validate()
        entropy = HeldOutEntropy(lambda batch: self._make_step(batch, {}))

        def measure(batch: KVBatchMeta) -> None:
            # as verl does for a reward model on the same GPUs
            self.checkpoint_manager.sleep_replicas()
            entropy.add(batch)
            self.checkpoint_manager.update_weights(self.global_steps)

        with observed(self.replay_buffer, measure):
            metrics = super()._validate()
        return metrics | entropy.metrics()

    # ---- before training ----

    def on_init_end(self) -> None:
        super().on_init_end()
        if any(part.reads_step_in_loss for part in self.parts):
            loss = partial(
                actor_loss.actor_loss,
                config=omega_conf_to_dataclass(self.config.actor_rollout_ref.actor),
                logit_hooks=[part.logit_hook for part in self.parts if part.logit_hook],
                observers=[observe for part in self.parts for observe in part.loss_observers],
            )
            self.actor_rollout_wg.set_loss_fn(loss)

    def _init_dataloader(self) -> None:
        super()._init_dataloader()
        ordering = [part for part in self.parts if type(part).prompt_order is not Part.prompt_order]
        if not ordering:
            self._check_length()
            return  # verl's sampler, of any dataset that verl takes
        dataset = self.train_dataset
        try:
            prompts = dataset.dataframe[dataset.prompt_key]
        except AttributeError:
            orders = " and ".join(run_config.prompt_orders(self.config))
            raise ValueError(
                f"data.custom_cls.name={type(dataset).__name__} has no table of its prompts "
                "(dataframe, prompt_key), by which the parts "
                f"{[part.name for part in ordering]} order them: derive it from verl's "
                f"RLHFDataset, or set {orders}=none."
            ) from None
        orders = [part.prompt_order(prompts) for part in ordering]
        order = the_one([order for order in orders if order is not None], "order the prompts", None)
        if order is not None:
            self._follow(order)
        if order is None or order.steps is None:
            self._check_length()

    def _check_length(self) -> None:
        """Raises ValueError where verl would end before the last planned step, with neither its
        checkpoint nor its validation: what `recipe.launch` cannot know of a model on a hub, whose
        tokens decide which prompts are too long."""
        trainer, batches = self.config.trainer, self.steps_per_epoch
        if self.total_training_steps > batches * trainer.total_epochs:
            raise ValueError(
                f"trainer.total_training_steps={self.total_training_steps} (STEPS) is more than "
                f"the {batches * trainer.total_epochs} steps of trainer.total_epochs="
                f"{trainer.total_epochs}, after which verl ends: {batches} batches are what the "
                f"{len(self.train_dataset)} prompts make that are not too long; raise trainer."
                "total_epochs, or set STEPS to at most as many."
            )

    def _follow(self, order: PromptOrder) -> None:
        """Gives verl's dataloader an order in place of its sampler, and the run its length.

        Workers of a dataloader draw ahead of the training, so an order that follows it has none.
        """
        loader = self.train_dataloader
        self.train_dataloader = StatefulDataLoader(
            dataset=NumberedRows(self.train_dataset),
            batch_size=loader.batch_size,
            num_workers=loader.num_workers if order.reads_ahead else 0,
            drop_last=True,
            collate_fn=loader.collate_fn,
            sampler=order.prompt_D,
        )
        if order.steps is None:
            return
        self.steps_per_epoch = self.total_training_steps = order.steps
        updates = order.steps * self.parameter_sync_step
        with open_dict(self.config):
            self.config.actor_rollout_ref.actor.optim.total_training_steps = updates
            self.config.critic.optim.total_training_steps = updates

    def _next_train_batch(self, num_prompts: int | None = None) -> TensorDict:
        batch = super()._next_train_batch(num_prompts)
        for part in self.parts:
            part.on_prompts(batch)
        return batch

    # ---- checkpoints ----

    def _save_checkpoint(self) -> None:
        """The parts' state is written before verl marks the checkpoint as complete."""
        folder = Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"
        save_states(self.parts, folder / STATE_FILE)
        super()._save_checkpoint()

    def _load_checkpoint(self) -> Any:
        super()._load_checkpoint()
        if self.global_steps == 0:
            return
        trainer = self.config.trainer
        if trainer.resume_mode == "resume_path":
            folder = Path(trainer.resume_from_path)
        else:
            folder = Path(trainer.default_local_dir) / f"global_step_{self.global_steps}"
        load_states(self.parts, folder / STATE_FILE)
