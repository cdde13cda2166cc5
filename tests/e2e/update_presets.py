"""One training step of the actor per preset, in one process: `python update_presets.py MODEL DATA
OUT` writes OUT/<method>.pt.

Real are each preset's config, the model, rollouts sampled from it, verl's trainer with the recipes'
parts (dataloader, old and reference log-probs, advantages, update) and verl's worker: FSDP over
gloo, AdamW, the loss. Fakes stand where another process would be: `Queue` for TransferQueue,
`Group` for the Ray group of one worker, transformers' `generate` for vLLM; and the reward is a hash
by which a third of the rollouts are correct, since the small model solves next to nothing.
"""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import torch
import transfer_queue
from builders import Method, methods
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict
from torch import Tensor
from transfer_queue import KVBatchMeta
from transformers import AutoModelForCausalLM, AutoTokenizer
from verl.trainer.ppo.v1.trainer_base import get_trainer_cls
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.engine_workers import ActorRolloutRefWorker
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import response_from_nested

from recipe.core import transfer_queue as queue_of_recipes
from recipe.launch.compose import unresolved
from recipe.sampling.prompts import prompt_id

PROMPTS, ROLLOUTS, LENGTH = 4, 8, 24
ROWS = PROMPTS * ROLLOUTS
MINI = ROWS // 2  # rows of a mini-batch
BOUNDS = ("clip_ratio_low", "clip_ratio_high", "clip_ratio_c", "loss_agg_mode")
CLIP = ("schedule", "variant")
UPDATES = ("actor/pg_loss", "actor/pg_clipfrac", "grad_norm")  # verl's, of each mini-batch
RATE = 2e-3  # so that the second update begins with ratios beyond the clip bounds
FIRST = 3  # the trainer's number of the step, where schedules have moved
STEPS = 5
# where a method would not act in this step, or as another one: settings, and steps before it
# the entropy, 1.29 nats, is above this line where it is straight, and below where it is a cosine
LINE = {f"algorithm.entropy_control.{of}": x for of, x in (
    ("lower_start", 2.0), ("lower_end", 0.1), ("upper_start", 2.0), ("upper_end", 0.1)
)}  # fmt: skip
ACTING = {
    **dict.fromkeys(("entropy_control-entrocraft", "entropy_control-entrocraft_cosine"), LINE),
    "entropy_control-target": {"algorithm.entropy_control.target": 2.0},  # above the entropy
    "clip_entropy-bapo": {"actor_rollout_ref.actor.policy_loss.bapo_target": 0.9},
}
BEFORE = {"clip_entropy-bapo": 1, "prompt_sampling-failure": 1, "prompt_sampling-variance": 1}


def tensors(data: TensorDict, rows: slice = slice(None)) -> TensorDict:
    """Returns the tensors of some rows, as a worker gets them."""
    kept = data.select(*[name for name, value in data.items() if isinstance(value, Tensor)])
    return tu.index_select_tensor_dict(kept, list(range(len(data)))[rows])


def seeded_reward(text: str) -> float:
    return float(hashlib.sha256(text.encode()).digest()[0] % 3 == 0)


def sample(model: str, prompts: list) -> list[TensorDict]:
    """Samples the rollouts of each prompt; returns the fields that verl's agent loop writes."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(model)
    policy = AutoModelForCausalLM.from_pretrained(model)
    groups = []
    for messages in prompts:
        prompt = tokenizer.apply_chat_template(
            messages, tokenize=True, add_generation_prompt=True, return_dict=False
        )
        ids = torch.tensor([prompt] * ROLLOUTS)
        options = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0}
        generated = policy.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=LENGTH,
            pad_token_id=tokenizer.eos_token_id,
            return_dict_in_generate=True,
            output_logits=True,
            **options,
        )
        sampled = generated.sequences[:, len(prompt) :]
        log_probs = torch.stack(generated.logits, 1).log_softmax(-1)
        log_prob_BT = log_probs.gather(-1, sampled[..., None])[..., 0]
        rows: dict[str, list[Tensor]] = {}
        for response, log_prob in zip(sampled, log_prob_BT, strict=True):
            ends = (response == tokenizer.eos_token_id).nonzero().flatten().tolist()
            response = response[: ends[0] + 1] if ends else response
            reward = torch.zeros(len(response))
            reward[-1] = seeded_reward(f"{prompt}{response.tolist()}")
            ones, sequence = torch.ones_like(response), torch.cat([ids[0], response])
            for name, value in {
                "prompts": ids[0],
                "responses": response,
                "response_mask": ones,
                "loss_mask": ones,
                "input_ids": sequence,
                "position_ids": torch.arange(len(sequence)),
                "rollout_log_probs": log_prob[: len(response)],
                "rm_scores": reward,
            }.items():
                rows.setdefault(name, []).append(value)
        nested = {
            name: torch.nested.as_nested_tensor(values, layout=torch.jagged)
            for name, values in rows.items()
        }
        groups.append(TensorDict(nested, batch_size=ROLLOUTS))
    return groups


class Queue:
    """A fake of TransferQueue: the fields of one batch."""

    def __init__(self, fields: TensorDict, uids: list[str]):
        self.fields = fields
        self.keys = [f"{uid}_{row % ROLLOUTS}_0" for row, uid in enumerate(uids)]

    def get(self, keys: list[str], partition_id: str, select_fields: list[str]) -> TensorDict:
        assert keys == self.keys
        return self.fields.select(*[name for name in select_fields if name in self.fields])

    def put(self, keys: list[str], partition_id: str, fields: TensorDict) -> KVBatchMeta:
        self.fields.update(fields)
        return self.meta()

    def meta(self) -> KVBatchMeta:
        tags: list[dict] = [{} for _ in self.keys]
        return KVBatchMeta(partition_id="train", keys=self.keys, tags=tags)


class Group:
    """A fake of the Ray group of one worker.

    It has the worker take an update's two mini-batches in two calls, where verl makes one, to ask
    it for its log-probs before each.
    """

    def __init__(self, config: DictConfig):
        self._dispatch_info = {"actor": [0]}
        self.actor = ActorRolloutRefWorker(config, role="actor")
        self.ref = ActorRolloutRefWorker(config, role="ref")
        self.actor.init_model()
        self.ref.init_model()
        engine = self.actor.actor.engine
        self.parameters, self.optimizer = list(engine.module.parameters()), engine.optimizer
        self.initial = [p.detach().clone() for p in self.parameters]

    def start(self, queue: Queue) -> None:
        """Begins at the first weights, without moments."""
        self.queue, self.log_prob, self.metrics = queue, [], {}
        with torch.no_grad():
            for parameter, value in zip(self.parameters, self.initial, strict=True):
                parameter.copy_(value)
        self.optimizer.state.clear()

    def moved(self) -> float:
        """Returns the largest change of a parameter."""
        pairs = zip(self.parameters, self.initial, strict=True)
        return max(float((p.detach() - old).abs().max()) for p, old in pairs)

    def set_loss_fn(self, loss: Any) -> None:
        self.actor.set_loss_fn(loss)

    def compute_log_prob(self, batch: KVBatchMeta) -> KVBatchMeta:
        return self._forward(self.actor.compute_log_prob, batch)

    def compute_ref_log_prob(self, batch: KVBatchMeta) -> KVBatchMeta:
        return self._forward(self.ref.compute_ref_log_prob, batch)

    def _forward(self, method: Any, batch: KVBatchMeta) -> KVBatchMeta:
        output = method(with_info(tensors(self.queue.fields), batch.extra_info))
        self.queue.fields.update(tensors(output))
        return self.queue.meta()

    def update_actor(self, batch: KVBatchMeta) -> dict[str, dict[str, list]]:
        for begin in (0, MINI):
            rows = tensors(self.queue.fields, slice(begin, begin + MINI))
            asked = {"calculate_entropy": False, "compute_loss": False, "temperature": 1.0}
            before = self.actor.compute_log_prob(with_info(rows.copy(), asked))
            self.log_prob.append(response_from_nested(before["log_probs"], rows["response_mask"]))
            output = self.actor.update_actor(with_info(rows, batch.extra_info))
            for name, values in tu.get(output, "metrics").items():
                self.metrics.setdefault(name, []).extend(
                    values if isinstance(values, list) else [values]
                )
        return {"metrics": {name: list(values) for name, values in self.metrics.items()}}


def with_info(data: TensorDict, info: dict[str, Any]) -> TensorDict:
    for key, value in info.items():
        tu.assign_non_tensor_data(data, key, value)
    return data


def train_steps(
    config: DictConfig, group: Group, rollouts: dict[str, TensorDict], steps: int = 1
) -> dict[str, Any]:
    """Runs steps of verl's trainer, of this config, on the drawn prompts' rollouts, each from the
    first weights; returns what the last one has done."""
    trainer = get_trainer_cls(config.trainer.v1.trainer_mode)(config)
    trainer.global_steps, trainer.ref_in_actor = 0, False
    trainer.actor_rollout_wg = trainer.ref_policy_wg = group
    trainer.distillation_config = None
    trainer.checkpoint_manager = SimpleNamespace(update_weights=lambda step: None)
    trainer._init_tokenizer()
    trainer._init_dataloader()
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    group.set_loss_fn(functools.partial(ppo_loss, config=actor))  # as the worker's init_model does
    trainer.on_init_end()
    for trainer.global_steps in range(FIRST - steps + 1, FIRST + 1):
        step = train_step(trainer, group, rollouts)
    return {
        **step,
        "before": steps - 1,
        "actor": {name: getattr(actor, name) for name in BOUNDS},
        "loss": {name: getattr(actor.policy_loss, name) for name in ("loss_mode", *CLIP)},
    }


def train_step(trainer: Any, group: Group, rollouts: dict[str, TensorDict]) -> dict[str, Any]:
    drawn = trainer._next_train_batch()
    uids = [uid for uid in drawn["uid"] for _ in range(ROLLOUTS)]
    names = [prompt_id(messages) for messages in drawn["raw_prompt"]]
    fields = tu.concat_tensordict([rollouts[name] for name in names])
    queue = Queue(tu.get_tensordict({**dict(fields.items()), "uid": uids}), uids)
    group.start(queue)
    transfer_queue.kv_batch_get, transfer_queue.kv_batch_put = queue.get, queue.put
    metrics: dict[str, Any] = {}
    batch = trainer._compute_old_log_prob(queue.meta(), metrics)
    if trainer.use_reference_policy:
        batch = trainer._compute_ref_log_prob(batch, metrics)
    batch = trainer._compute_advantage(batch, metrics)
    trainer._update_actor(batch, metrics)
    padded = {
        name: queue.fields[name].to_padded_tensor(0)
        for name in ("old_log_probs", "advantages", "response_mask", "entropy", "rm_scores")
    }
    log_probs = [row for half in group.log_prob for row in half.unbind()]
    log_prob = torch.nested.as_nested_tensor(log_probs, layout=torch.jagged).to_padded_tensor(0)
    return {
        **padded,
        "log_prob": log_prob,  # before the update that takes the row
        "updates": {name: [float(x) for x in group.metrics.get(name, [])] for name in UPDATES},
        "metrics": {k: float(v) for k, v in metrics.items() if isinstance(v, int | float)},
        "moved": group.moved(),
    }


def files(data: Path, out: Path) -> list[list[dict]]:
    """Writes the prompts and their scores; returns the prompts."""
    table = pd.read_parquet(data / "train.parquet")[:PROMPTS]
    table.to_parquet(out / "train.parquet")
    prompts = [[dict(message) for message in messages] for messages in table["prompt"]]
    ids = [prompt_id(prompt) for prompt in prompts]
    scores = {"prompt_id": ids, "semantic_entropy": range(PROMPTS), "pass_rate": 0.5}
    pd.DataFrame(scores).to_parquet(out / "scores.parquet")
    return prompts


@functools.cache
def unresolved_config(recipe: str, model: str, data: Path, out: Path) -> DictConfig:
    """Returns a recipe's config; Hydra reads its yamls once, not once per preset."""
    overrides = [
        "machine=cpu",
        f"data.train_files={out}/train.parquet",
        f"data.val_files={data}/test.parquet",
        f"data.curriculum.scores={out}/scores.parquet",
        f"data.train_batch_size={PROMPTS}",
        "data.max_prompt_length=32",
        f"data.max_response_length={LENGTH}",
        "data.val_max_samples=1",
        f"actor_rollout_ref.model.path={model}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={PROMPTS // 2}",
        f"actor_rollout_ref.actor.optim.lr={RATE}",
        f"actor_rollout_ref.rollout.n={ROLLOUTS}",
        "actor_rollout_ref.rollout.temperature=1.0",
        f"trainer.total_training_steps={STEPS}",
        f"trainer.default_local_dir={out}/run",
    ]
    return unresolved(recipe, overrides)


def config_of(method: Method, *places: Any) -> DictConfig:
    """Returns the config of a preset."""
    config = method.config(unresolved_config(method.recipe.name, *places))
    for key, value in ACTING.get(str(method), {}).items():
        OmegaConf.update(config, key, value)
    return config


def main(model: str, data: Path, out: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    prompts = files(data, out)
    groups = sample(model, prompts)
    rollouts = {prompt_id(p): group for p, group in zip(prompts, groups, strict=True)}
    queue_of_recipes.for_workers = lambda batch: batch
    group: Group | None = None
    for method in methods():
        config = config_of(method, model, data, out)
        group = group or Group(config.actor_rollout_ref)
        steps = 1 + BEFORE.get(str(method), 0)
        torch.save(train_steps(config, group, rollouts, steps), out / f"{method}.pt")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
