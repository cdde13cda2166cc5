"""What several tests build: a run's files and config, an actor's config, a batch of tokens, verl's
nested tensors, and a step of the trainer."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pandas as pd
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from transfer_queue import KVBatchMeta
from verl.workers.config import FSDPActorConfig

from recipe.core import transfer_queue
from recipe.core.part import Part
from recipe.core.recipe import Recipe, recipes
from recipe.core.rollouts import CorrectnessRule
from recipe.core.step import Step
from recipe.core.trainer_settings import TrainerSettings
from recipe.launch.compose import resolved
from recipe.policy_loss import RecipePolicyLoss
from recipe.trainer import make_parts

# ---- the methods of the registries ---------------------------------------------------------------


# Settings that presets leave to the user, who measures them for a model: any values, for tests
TOKEN_RULE = "actor_rollout_ref.actor.policy_loss.token_rule"
THRESHOLDS = [f"{TOKEN_RULE}.low_threshold=0.7", f"{TOKEN_RULE}.high_cov_threshold=0.05"]
LEFT_TO_THE_USER = {"paper": THRESHOLDS, "sent_paper": THRESHOLDS}


class Method(NamedTuple):
    """A recipe with one of its presets; None where it has no presets."""

    recipe: Recipe
    preset: str | None

    def __str__(self) -> str:
        return f"{self.recipe.name}-{self.preset}" if self.preset else self.recipe.name

    def overrides(self) -> list[str]:
        if not self.preset:
            return []
        preset = f"{self.recipe.preset_key}={self.preset}"
        return [preset, *LEFT_TO_THE_USER.get(self.preset, [])]

    def config(self, unresolved: DictConfig) -> DictConfig:
        """Returns what these overrides on the command line make of its recipe's config, of which
        Hydra has read the yamls once and not once per preset."""
        config = copy.deepcopy(unresolved)
        for override in self.overrides():
            key, _, value = override.partition("=")
            OmegaConf.update(config, key, value if key == self.recipe.preset_key else float(value))
        return resolved(config)


def methods() -> list[Method]:
    """Returns every recipe with every preset that its record names."""
    return [
        Method(record, preset)
        for record in recipes()
        for preset in (record.load(record.presets) if record.presets else (None,))
    ]


# ---- a run's files -------------------------------------------------------------------------------

PROMPT = [{"role": "user", "content": "1+1"}]


def write_data(folder: Path, rows: int = 8) -> None:
    """train.parquet and test.parquet of verl's schema; every row is the same prompt."""
    row = {
        "data_source": "synthetic/test",
        "prompt": PROMPT,
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "2"},
        "extra_info": {"index": 0},
    }
    for name in ("train", "test"):
        pd.DataFrame([row] * rows).to_parquet(folder / f"{name}.parquet")


def write_model(folder: Path, extra_vocabulary: int = 0) -> None:
    """A model's folder without weights: a real tokenizer and a config."""
    from recipe.cpu.model import make_tokenizer

    folder.mkdir()
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    config = {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_size": 64,
        "num_attention_heads": 4,  # that the sizes of the run scripts divide
        "num_key_value_heads": 4,
        "num_hidden_layers": 1,
        "intermediate_size": 64,
        "vocab_size": len(tokenizer) + extra_vocabulary,
    }
    (folder / "config.json").write_text(json.dumps(config))


def write_scores(folder: Path) -> None:
    """scores.parquet: what the curriculum needs to know of the data's prompt."""
    from recipe.sampling.prompts import prompt_id

    row = {"prompt_id": prompt_id(PROMPT), "semantic_entropy": 0.5, "pass_rate": 0.5}
    pd.DataFrame([row]).to_parquet(folder / "scores.parquet")


def gpu_config(model: str, *overrides: str) -> DictConfig:
    """Returns the config of a run on one node of GPUs, for checks that read no data."""
    from recipe.launch.compose import compose

    files = ["data.train_files=train.parquet", "data.val_files=test.parquet"]
    actor = "actor_rollout_ref.actor.use_dynamic_bsz=true"
    path = f"actor_rollout_ref.model.path={model}"
    return compose("asymgrpo", [*files, path, actor, *overrides])


def run_overrides(folder: Path) -> list[str]:
    """Writes all of a small run's files to a folder; returns the overrides that make it valid, for
    any recipe."""
    write_data(folder)
    write_model(folder / "model")
    write_scores(folder)
    return [
        "machine=cpu",
        f"data.train_files={folder}/train.parquet",
        f"data.val_files={folder}/test.parquet",
        f"data.curriculum.scores={folder}/scores.parquet",
        "data.train_batch_size=4",
        f"actor_rollout_ref.model.path={folder}/model",
        "actor_rollout_ref.actor.ppo_mini_batch_size=2",
        "trainer.total_training_steps=10",
        f"trainer.default_local_dir={folder}/run",
    ]


# ---- tensors -------------------------------------------------------------------------------------


def actor_config(
    loss_mode: str, mode: str = "token-mean", low: float = 0.2, high: float = 0.2, **settings: Any
) -> FSDPActorConfig:
    """verl's config of an actor, with the node policy_loss of all recipes."""
    return FSDPActorConfig(
        strategy="fsdp2",
        rollout_n=8,
        use_dynamic_bsz=True,
        clip_ratio_low=low,
        clip_ratio_high=high,
        loss_agg_mode=mode,
        policy_loss=RecipePolicyLoss(loss_mode=loss_mode, **settings),
    )


def random_tokens(
    seed: int = 0, rows: int = 16, tokens: int = 80, spread: float = 0.2
) -> dict[str, Tensor]:
    """The arguments (B, T) of a policy loss; among the rows a whole one and one of padding."""
    generator = torch.Generator().manual_seed(seed)
    old = -torch.randn(rows, tokens, generator=generator).abs()
    moved = spread * torch.randn(rows, tokens, generator=generator)
    lengths = torch.randint(0, tokens + 1, (rows,), generator=generator)
    lengths[0], lengths[1] = tokens, 0
    return dict(
        old_log_prob=old,
        log_prob=(old + moved).clamp(max=0),
        advantages=torch.randn(rows, 1, generator=generator).expand(rows, tokens).clone(),
        response_mask=torch.arange(tokens)[None] < lengths[:, None],
    )


def nested(padded: Tensor, lengths: Tensor) -> Tensor:
    """A padded (B, T) tensor as verl keeps it: jagged rows of these lengths."""
    rows = [row[:n] for row, n in zip(padded, lengths.tolist(), strict=True)]
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


# ---- a step of the trainer -----------------------------------------------------------------------


@contextmanager
def queue_of(fields: dict[str, Any]) -> Iterator[None]:
    """Puts a dictionary in TransferQueue's place, which needs a Ray cluster (the real one is in
    tests/e2e)."""

    def read(batch: KVBatchMeta, *names: str) -> dict[str, Any]:
        return {name: fields[name] for name in names if name in fields}

    def write(batch: KVBatchMeta, **more: Tensor) -> KVBatchMeta:
        fields.update(more)
        return KVBatchMeta(partition_id="train", keys=batch.keys, tags=batch.tags)

    with (
        mock.patch.object(transfer_queue, "read", read),
        mock.patch.object(transfer_queue, "write", write),
    ):
        yield


def step_of(
    uids: list[str],
    *,
    padding: int = 0,
    number: int = 0,
    metrics: Mapping[str, Any] | None = None,
    config: DictConfig | None = None,
    correctness: CorrectnessRule | None = None,
) -> Step:
    """A step of the trainer whose last `padding` rows are verl's padding; its fields are read from
    `queue_of`."""
    tags: list[dict] = [{}] * (len(uids) - padding) + [{"is_padding": True}] * padding
    keys = [f"{uid}-{row}" for row, uid in enumerate(uids)]
    return Step(
        KVBatchMeta(partition_id="train", keys=keys, tags=tags),
        number=number,
        metrics=dict(metrics or {}),
        config=config if config is not None else DictConfig({}),
        correctness=correctness or CorrectnessRule(),
    )


def parts_of(config: DictConfig) -> list[Part]:
    """Returns the recipes' parts that a run's config uses, as the trainer makes them."""
    return make_parts(config, TrainerSettings(diagnostics=False, log_prob_gain_freq=0))


def registered_by(record: Recipe, registry: Mapping[str, Any]) -> set[str]:
    """Returns the names under which a recipe's package has registered functions with verl."""
    return {
        name
        for name, function in registry.items()
        if f"{function.__module__}.".startswith(f"{record.package}.")
    }
