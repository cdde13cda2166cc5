"""`trainer.v1.trainer_mode=recipe_sync`: verl's synchronous trainer with the recipes' additions.

A run has one trainer, so each addition is a mixin that overrides one or two hooks and calls super;
`RecipeTrainerSync` is the one registered class in which they combine. Everything here runs once, on
the driver; workers hold no state of ours.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import torch
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf, open_dict
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.utils.padding import response_from_nested

from recipe.asymgrpo.advantages import entropy_shaped_advantage, right_or_wrong
from recipe.asymgrpo.config import AsymGRPOConfig
from recipe.asymgrpo.register import correctness, group_index
from recipe.clip_entropy.config import DynamicClipConfig
from recipe.clip_entropy.register import (
    BASELINE,
    exact_baseline,
    exact_contributions,
    pack,
    region_metrics,
)
from recipe.core import actor_loss, diagnostics
from recipe.core.files import whole
from recipe.semantic_curriculum.trainer import CurriculumMixin, TokenRuleMixin


def read_correctness(batch: KVBatchMeta, config: AsymGRPOConfig) -> torch.Tensor:
    """(B,) bool: which rollouts are right, by `correct_field` if set, else by the reward."""
    if config.correct_field is None:
        scores = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=["rm_scores"]
        )["rm_scores"]
        reward_B = scores.to_padded_tensor(0.0).sum(-1)
        valid_B = torch.tensor([not tag.get("is_padding", False) for tag in batch.tags])
        return right_or_wrong(reward_B, config.correct_threshold, valid_B)
    rows = tq.kv_batch_get(
        keys=batch.keys, partition_id=batch.partition_id, select_fields=["extra_fields"]
    )["extra_fields"].tolist()
    values = [(row.get("reward_extra_info") or {}).get(config.correct_field) for row in rows]
    # verl pads a short batch with copies that carry the source row's fields: nothing is missing
    missing = [i for i, value in enumerate(values) if value is None]
    if missing:
        raise ValueError(
            f"algorithm.asymgrpo.correct_field={config.correct_field!r} is not among what the "
            f"reward function returned for {len(missing)} of {len(values)} rollouts: return it "
            "from the reward function, or set correct_field=null."
        )
    return right_or_wrong(torch.tensor([float(value) for value in values]))


class AsymGRPOMixin:
    """Correctness by a named field, and the entropy-shaped advantage of a baseline."""

    def __init__(self, config: DictConfig):
        super().__init__(config)
        node = config.algorithm.get("asymgrpo")
        self.asymgrpo = AsymGRPOConfig.from_mapping(
            OmegaConf.to_container(node, resolve=True) if node is not None else {}
        )

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        self.correct_B = self._read_correctness(batch)  # the diagnostics read it too
        with correctness(self.correct_B):
            batch = super()._compute_advantage(batch, metrics)
        if self.asymgrpo.entropy_shaped:
            self._shape_advantages(batch)
        return batch

    def _read_correctness(self, batch: KVBatchMeta) -> torch.Tensor | None:
        try:
            return read_correctness(batch, self.asymgrpo)
        except ValueError:
            asked = self.asymgrpo.correct_field or self.asymgrpo.correct_threshold is not None
            if asked or self.config.algorithm.adv_estimator == "asymgrpo":
                raise
            return None  # another estimator takes any reward; diagnostics by outcome are left out

    def _shape_advantages(self, batch: KVBatchMeta) -> None:
        data = tq.kv_batch_get(
            keys=batch.keys,
            partition_id=batch.partition_id,
            select_fields=["advantages", "entropy"],
        )
        nested = data["advantages"]
        shaped = entropy_shaped_advantage(
            nested.values(),
            data["entropy"].values(),
            kappa=self.asymgrpo.entropy_kappa,
            alpha=self.asymgrpo.entropy_alpha,
        )
        fields = {"advantages": torch.nested.nested_tensor_from_jagged(shaped, nested.offsets())}
        tq.kv_batch_put(
            keys=batch.keys,
            partition_id=batch.partition_id,
            fields=TensorDict(fields, batch_size=len(batch)),
        )


class ActorMixin:
    """What the additions share of the actor: `recipe.core.actor_loss` in the place of verl's loss
    function where one of them sets `self.loss_reads_step`, and forward passes."""

    def __init__(self, config: DictConfig):
        super().__init__(config)
        self.loss_reads_step = False

    def on_init_end(self) -> None:
        super().on_init_end()
        if self.loss_reads_step:
            config = omega_conf_to_dataclass(self.config.actor_rollout_ref.actor)
            loss = partial(actor_loss.actor_loss, config=config, per_token=exact_baseline)
            self.actor_rollout_wg.set_loss_fn(loss)

    def _forward(self, batch: KVBatchMeta, **extra_info) -> None:
        """A pass over a batch, as verl runs one for its old log-probs, which leaves the model's
        output in the batch's fields; `batch.extra_info` stays as it is."""
        request = KVBatchMeta(
            partition_id=batch.partition_id,
            keys=list(batch.keys),
            tags=list(batch.tags),
            extra_info={
                "calculate_entropy": False,
                "temperature": self.config.actor_rollout_ref.rollout.temperature,
                **extra_info,
            },
        )
        self.actor_rollout_wg.compute_log_prob(request)


class CheckpointMixin:
    """State of ours in verl's checkpoints, which have no slot for it: one JSON file beside
    `data.pt`, written before verl marks the checkpoint as complete.

    `self.stateful`: name -> object with `state_dict` (plain numbers and strings) and
    `load_state_dict`; to be filled in `__init__`.
    """

    STATE_FILE = "recipe_state.json"

    def __init__(self, config: DictConfig):
        super().__init__(config)
        self.stateful = {}

    def _save_checkpoint(self) -> None:
        folder = Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"
        states = {name: thing.state_dict() for name, thing in self.stateful.items()}
        with whole(folder / self.STATE_FILE) as file:
            file.write_text(json.dumps(states, indent=1))
        super()._save_checkpoint()

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        if self.global_steps == 0 or not self.stateful:
            return
        trainer = self.config.trainer
        if trainer.resume_mode == "resume_path":
            folder = Path(trainer.resume_from_path)
        else:
            folder = Path(trainer.default_local_dir) / f"global_step_{self.global_steps}"
        file = folder / self.STATE_FILE
        states = json.loads(file.read_text()) if file.is_file() else {}
        for name, thing in self.stateful.items():
            if name not in states:
                raise ValueError(
                    f"{file} holds no state of {name}: that checkpoint was written without it, so "
                    "start in another folder (trainer.default_local_dir)."
                )
            thing.load_state_dict(states[name])


class ClipScheduleMixin:
    """Moves the clip bounds of `loss_mode=dynamic_clip` once a training step, and tells the actor.

    Metrics below `clip_entropy/`: the schedule's own, the mean bounds, and the four regions.
    """

    def __init__(self, config: DictConfig):
        super().__init__(config)
        self.clip_schedule = None
        actor = config.actor_rollout_ref.actor
        settings = omega_conf_to_dataclass(actor.policy_loss)
        if not isinstance(settings, DynamicClipConfig) or not settings.scheduled:
            return  # another loss, or verl's own settings: constant bounds, which the loss finds
        self.clip_settings = settings
        self.clip_schedule = settings.make_schedule(
            settings.levels(actor.clip_ratio_low, actor.clip_ratio_high),
            config.trainer.total_training_steps,
        )
        self.stateful["clip_schedule"] = self.clip_schedule
        self.loss_reads_step = True

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self.clip_schedule is None:
            return super()._update_actor(batch, metrics)
        frequency = self.clip_settings.exact_contribution_freq
        exact = {}
        if frequency > 0 and (self.global_steps - 1) % frequency == 0:
            exact = self._exact_contributions(batch)
        entropy = self._policy_entropy(batch, metrics)
        bounds = self.clip_schedule.advance(self.global_steps - 1, entropy)
        batch.extra_info.setdefault(actor_loss.EXTRA_INFO, {})["clip_bounds"] = pack(bounds)
        batch = super()._update_actor(batch, metrics)
        metrics.update({f"clip_entropy/{k}": v for k, v in self.clip_schedule.metrics().items()})
        metrics.update({f"clip_entropy/exact/{k}": v for k, v in exact.items()})
        metrics.update(region_metrics(metrics))
        return batch

    def _policy_entropy(self, batch: KVBatchMeta, metrics: dict) -> float | None:
        """Nats a token, of the policy that sampled, which is the policy before this update."""
        if self.config.actor_rollout_ref.actor.loss_agg_mode == "token-mean":
            return metrics.get("actor/entropy")
        fields = ["entropy", "response_mask"]  # verl's metric is not a mean over tokens here
        data = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=fields
        )
        if "entropy" not in data:
            return None
        padded = data.to_padded_tensor()
        return diagnostics.token_mean(padded["entropy"], padded["response_mask"]).item()

    def _exact_contributions(self, batch: KVBatchMeta) -> dict[str, float]:
        """Eq 5 with its baseline, by a forward pass that verl runs over the batch."""
        # verl hands its loss, ours, the logits only if told to compute it
        ours = {actor_loss.EXTRA_INFO: {"forward_only": True}}
        self._forward(batch, compute_loss=True, distillation_use_topk=True, **ours)
        fields = [BASELINE, "response_mask", "entropy", "old_log_probs", "advantages"]
        data = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=fields
        )
        data[BASELINE] = response_from_nested(data[BASELINE], data["response_mask"])
        padded = data.to_padded_tensor()
        return exact_contributions(
            log_prob_BT=padded["old_log_probs"],
            entropy_BT=padded["entropy"],
            advantages_BT=padded["advantages"],
            baseline_BT=padded[BASELINE],
            mask_BT=padded["response_mask"].bool(),
        )


class DiagnosticsMixin:
    """Logs `recipe.core.diagnostics` with verl's own metrics, prefixed `diagnostics/`.

    `trainer.v1.recipe_sync.log_prob_gain_freq`: steps between two measurements of the log-prob
    gain, the one quantity that costs a forward pass (0 = never).
    """

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        batch = super()._update_actor(batch, metrics)
        fields = ["response_mask", "entropy", "old_log_probs", "advantages", "uid"]
        data = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=fields
        )
        group_B = group_index(data.pop("uid").tolist())
        correct_B = self.correct_B
        measured = {}
        frequency = self.recipe_settings.log_prob_gain_freq
        if correct_B is not None and frequency > 0 and (self.global_steps - 1) % frequency == 0:
            new_log_probs = self._log_probs_now(batch, data["response_mask"])
            measured = diagnostics.log_prob_gain(
                new_log_probs.to_padded_tensor(0.0),
                data["old_log_probs"].to_padded_tensor(0.0),
                data["response_mask"].to_padded_tensor(0).bool(),
                correct_B,
            )
        if "entropy" in data:  # verl's bypass mode computes none
            padded = data.to_padded_tensor()
            measured |= diagnostics.rollout_diagnostics(
                entropy_BT=padded["entropy"],
                log_prob_BT=padded["old_log_probs"],
                advantages_BT=padded["advantages"],
                mask_BT=padded["response_mask"].bool(),
                correct_B=correct_B,
                group_B=group_B,
            )
        metrics.update({f"diagnostics/{name}": value for name, value in measured.items()})
        return batch

    def _log_probs_now(self, batch: KVBatchMeta, response_mask: torch.Tensor) -> torch.Tensor:
        """Nested (B, t): the actor's log-probs of the batch's responses, after its update."""
        self._forward(batch, compute_loss=False)
        log_probs = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=["log_probs"]
        )["log_probs"]
        return response_from_nested(log_probs, response_mask)


@register_trainer("recipe_sync")
class RecipeTrainerSync(
    DiagnosticsMixin,
    TokenRuleMixin,
    ClipScheduleMixin,
    CurriculumMixin,
    AsymGRPOMixin,
    CheckpointMixin,
    ActorMixin,
    PPOTrainerSync,
):
    """verl's `PPOTrainerSync` and the mixins above."""

    def __init__(self, config: DictConfig):
        self.recipe_settings = config.trainer.v1.recipe_sync
        with open_dict(config):
            # the registry key is also verl's switch: any value but "sync" means asynchronous
            config.trainer.v1.trainer_mode = "sync"
        super().__init__(config)
        # verl polls every 2 s, which rounds a small run's generation time up to the next 2 s
        self.replay_buffer.poll_interval = self.recipe_settings.poll_interval
