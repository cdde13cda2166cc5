"""SENT's two halves in verl's trainer, as mixins of `recipe.trainer`."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf, open_dict
from tensordict import TensorDict
from torchdata.stateful_dataloader import StatefulDataLoader
from transfer_queue import KVBatchMeta
from verl.utils.config import omega_conf_to_dataclass

from recipe.semantic_curriculum import token_rule
from recipe.semantic_curriculum.config import LOSS_MODE, CurriculumConfig
from recipe.semantic_curriculum.curriculum import plan_of
from recipe.semantic_curriculum.register import CLASS_FIELD, class_metrics
from recipe.semantic_curriculum.scores import prompt_id, read_scores, rows_of, score_of
from recipe.semantic_curriculum.selection import classify_batch, mini_batch_of_rows


class TokenRuleMixin:
    """Chooses the tokens of `loss_mode=sent` once a step, before the update, from the entropies and
    log-probs that verl has computed for the old policy: no forward pass of its own.

    Metrics below `sent/`: of each class its share of tokens, mean entropy, mean covariance and
    summed KL (over the number of tokens).
    """

    def __init__(self, config: DictConfig):
        super().__init__(config)
        self.token_rule = None
        if config.actor_rollout_ref.actor.policy_loss.loss_mode != LOSS_MODE:
            return
        settings = omega_conf_to_dataclass(config.actor_rollout_ref.actor.policy_loss)
        self.token_rule = settings.token_rule
        self.loss_reads_step = True

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self.token_rule is None:
            return super()._update_actor(batch, metrics)
        measured = {}
        if self.token_rule.scope != "micro_batch":
            batch, measured = self._choose_tokens(batch)
        batch = super()._update_actor(batch, metrics)
        metrics.update(class_metrics(metrics))
        metrics.update(measured)
        return batch

    def _choose_tokens(self, batch: KVBatchMeta) -> tuple[KVBatchMeta, dict[str, float]]:
        actor = self.config.actor_rollout_ref.actor
        fields = ["entropy", "old_log_probs", "advantages", "response_mask"]
        data = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=fields
        )
        offsets = data["advantages"].offsets()
        entropy_N, log_prob_N, advantages_N, mask_N = (data[name].values() for name in fields)
        mask_N = mask_N.bool()
        class_N, cov_N = classify_batch(
            self.token_rule,
            entropy_N=entropy_N,
            log_prob_N=log_prob_N,
            advantages_N=advantages_N,
            mask_N=mask_N,
            length_B=offsets.diff(),
            mini_batch_B=mini_batch_of_rows(
                len(batch),
                max(self.actor_rollout_wg._dispatch_info["actor"]) + 1,  # as verl counts its ranks
                actor.ppo_mini_batch_size * self.config.actor_rollout_ref.rollout.n,
                actor.shuffle,
                actor.data_loader_seed,
            ),
            order_B=torch.from_numpy(np.argsort(np.array(batch.keys), kind="stable")),
        )
        classes = torch.nested.nested_tensor_from_jagged(class_N, offsets)
        chosen = tq.kv_batch_put(  # its answer names the new field, without which no worker gets it
            keys=batch.keys,
            partition_id=batch.partition_id,
            fields=TensorDict({CLASS_FIELD: classes}, batch_size=len(batch)),
        )
        chosen.extra_info.update(batch.extra_info)
        values = {"entropy": entropy_N, "covariance": cov_N}
        sums = token_rule.class_sums(class_N, mask_N, values, self.token_rule.classes)
        means = {}
        for name in self.token_rule.classes:
            tokens = sums[f"{name}/tokens"].item()
            means[f"sent/{name}/token_share"] = tokens / max(1, int(mask_N.sum()))
            if tokens:
                for value in values:
                    means[f"sent/{name}/{value}"] = sums[f"{name}/{value}"].item() / tokens
        return chosen, means


class SamePlan:
    """In a checkpoint: which plan its dataloader's state belongs to."""

    def __init__(self, prompt_D: np.ndarray):
        self.digest = hashlib.sha256(prompt_D.astype("<i8").tobytes()).hexdigest()

    def state_dict(self) -> dict[str, str]:
        return {"plan": self.digest}

    def load_state_dict(self, state: dict[str, str]) -> None:
        if state["plan"] != self.digest:
            raise ValueError(
                "data.curriculum, its scores or the training data are not those of the checkpoint, "
                "so the run cannot go on where it was: restore them, or start in another folder "
                "(trainer.default_local_dir)."
            )


class CurriculumMixin:
    """The order of the training prompts by `data.curriculum`.

    verl's dataloader gets the plan in place of its sampler, and with it the plan's length: a run
    ends with its plan. Metrics below `curriculum/`: the stage (1 …), the batch's mean semantic
    entropy and pass rate as measured beforehand, and the accuracy of each stage's prompts.
    """

    def __init__(self, config: DictConfig):
        super().__init__(config)
        node = config.data.get("curriculum")
        self.curriculum = CurriculumConfig.from_mapping(
            OmegaConf.to_container(node, resolve=True) if node is not None else {}
        )
        self.prompts = None  # of the training data, by prompt_id
        self.of_uid: dict[str, dict[str, Any]] = {}

    def _init_dataloader(self) -> None:
        super()._init_dataloader()
        settings = self.curriculum
        if settings.order == "none":
            return
        dataset, loader = self.train_dataset, self.train_dataloader
        ids = [prompt_id(prompt) for prompt in dataset.dataframe[dataset.prompt_key]]
        rows = rows_of(read_scores(settings.scores), ids, settings.scores)
        plan = plan_of(score_of(rows, settings.order), settings)
        rows["stage"] = plan.stage_N + 1
        self.prompts = rows[~rows.index.duplicated()]
        self.plan = plan
        self.stateful["curriculum"] = SamePlan(plan.prompt_D)
        self.train_dataloader = StatefulDataLoader(
            dataset=dataset,
            batch_size=loader.batch_size,
            num_workers=loader.num_workers,
            drop_last=True,
            collate_fn=loader.collate_fn,
            sampler=plan.prompt_D.tolist(),
        )
        steps = steps_of_plan(len(plan.prompt_D), self.config)
        self.steps_per_epoch = self.total_training_steps = steps
        with open_dict(self.config):
            self.config.actor_rollout_ref.actor.optim.total_training_steps = (
                steps * self.parameter_sync_step
            )
        first_S = np.unique(plan.stage_D, return_index=True)[1] // self.config.data.train_batch_size
        begins = ", ".join(f"{plan_stage + 1}" for plan_stage in first_S)
        print(f"[curriculum] {settings.order}: {steps} steps, stages begin at steps {begins}")

    def _next_train_batch(self, num_prompts: int | None = None) -> TensorDict:
        batch = super()._next_train_batch(num_prompts)
        if self.prompts is not None:
            for uid, prompt in zip(batch["uid"], batch["raw_prompt"], strict=True):
                self.of_uid[str(uid)] = self.prompts.loc[prompt_id(prompt)]
        return batch

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        batch = super()._update_actor(batch, metrics)
        if self.prompts is not None:
            metrics.update(self._curriculum_metrics(batch))
        return batch

    def _curriculum_metrics(self, batch: KVBatchMeta) -> dict[str, float]:
        fields = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=["uid"]
        )
        uids = fields.pop("uid").tolist()
        real_B = np.array([not tag.get("is_padding", False) for tag in batch.tags])
        rows = [self.of_uid[uid] for uid in uids]
        stage_B, entropy_B, pass_rate_B = (
            np.array([row[name] for row in rows], dtype=np.float64)[real_B]
            for name in ("stage", "semantic_entropy", "pass_rate")
        )
        first = (self.global_steps - 1) * self.config.data.train_batch_size
        measured = {
            "curriculum/stage": float(self.plan.stage_D[first] + 1),
            "curriculum/semantic_entropy": entropy_B.mean(),
            "curriculum/pass_rate": pass_rate_B.mean(),
        }
        if self.correct_B is not None:
            correct_B = self.correct_B.numpy()[real_B]
            for stage in np.unique(stage_B):
                name = f"curriculum/accuracy/stage_{int(stage)}"
                measured[name] = correct_B[stage_B == stage].mean()
        for uid in set(uids):
            self.of_uid.pop(uid, None)
        return measured


def steps_of_plan(draws: int, config: DictConfig) -> int:
    """How many steps a plan of so many draws is, at most trainer.total_training_steps.

    Raises ValueError if the plan is shorter than that. A last batch that is not full is left out,
    as verl leaves it out.
    """
    steps = draws // config.data.train_batch_size
    asked = config.trainer.total_training_steps
    if asked is None:
        return steps
    if asked > steps:
        raise ValueError(
            f"trainer.total_training_steps={asked} is more than the {steps} steps of the "
            f"curriculum ({draws} prompts in batches of {config.data.train_batch_size}): raise "
            "data.curriculum.epochs_per_stage, or leave it null to train for the whole curriculum."
        )
    return asked
