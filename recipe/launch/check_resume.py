"""What can be known, before Ray starts, to be wrong with a run that would resume.

verl resumes whatever lies in the run's folder, and compares nothing: another batch size, model or
method continues from the old weights, in the old run's metrics. A resumed run must be the same run.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from recipe.core import config as run_config
from recipe.core.recipe import POLICY_LOSS, TRAINER, default_settings, recipes
from recipe.core.settings import check_choice, plain
from recipe.core.states import STATE_FILE, check_settings
from recipe.experiment import provenance
from recipe.experiment.provenance import config_identity, differences, flatten, is_below
from recipe.experiment.run import RunFolder
from recipe.launch.check_values import UNREAD

if TYPE_CHECKING:
    from recipe.core.part import Part

MODES = ("auto", "disable", "resume_path")
# What a resumed run may change, beside provenance.IGNORED_KEYS: its length, what is looked at and
# how often, and how the work is laid out in memory, as after an out-of-memory error
MAY_DIFFER = (
    "trainer.total_training_steps",
    "trainer.total_epochs",
    "trainer.test_freq",
    "trainer.val_before_train",
    "trainer.val_only",
    "trainer.log_val_generations",
    "trainer.rollout_data_dir",
    "trainer.validation_data_dir",
    "trainer.resume_from_path",
    "trainer.max_critic_ckpt_to_keep",
    "trainer.default_hdfs_dir",
    "trainer.del_local_ckpt_after_load",
    "trainer.esi_redundant_time",
    "trainer.ray_wait_register_center_timeout",
    "trainer.device",
    f"{TRAINER}.poll_interval",
    f"{TRAINER}.task_runner",
    f"{TRAINER}.diagnostics",
    f"{TRAINER}.log_prob_gain_freq",
    f"{TRAINER}.held_out_entropy",
    f"{TRAINER}.allow_padded_vocab",
    f"{POLICY_LOSS}.total_steps",  # of the schedule, whose own T is compared in its state
    f"{POLICY_LOSS}.region_diagnostics",
    f"{POLICY_LOSS}.exact_contribution_freq",
    "actor_rollout_ref.actor.checkpoint",
    "actor_rollout_ref.rollout.agent.num_workers",
    "actor_rollout_ref.rollout.agent.agent_loop_manager_class",
    "actor_rollout_ref.rollout.checkpoint_engine",
    "actor_rollout_ref.rollout.prometheus",
    "data.dataloader_num_workers",
    "data.filter_overlong_prompts_workers",
    "data.val_batch_size",
    "reward.num_workers",
    "transfer_queue",
    "global_profiler",
)
LAYOUT = {  # the last word of a key, of the actor, the reference and the rollout alike
    "param_offload",
    "optimizer_offload",
    "offload_policy",
    "reshard_after_forward",
    "forward_prefetch",
    "use_torch_compile",
    "entropy_from_logits_with_chunking",
    "entropy_from_logits_chunk_size",
    "entropy_checkpointing",
    "enable_gradient_checkpointing",
    "enable_activation_offload",
    "ppo_micro_batch_size_per_gpu",
    "ppo_max_token_len_per_gpu",
    "log_prob_micro_batch_size_per_gpu",
    "log_prob_max_token_len_per_gpu",
    "gpu_memory_utilization",
    "max_model_len",
    "max_num_batched_tokens",
    "max_num_seqs",
    "enforce_eager",
    "free_cache_engine",
    "enable_sleep_mode",
    "enable_chunked_prefill",
    "enable_prefix_caching",
    "cudagraph_capture_sizes",
    "tensor_model_parallel_size",
    "disable_log_stats",
    "layered_summon",
    "load_format",
}
# settings of older versions that no run could change
GONE = ("data.curriculum.optimizer", "data.curriculum.reference")
# a value that verl's config copies from another place, which is the one to name
COPIES = {
    "actor_rollout_ref.actor.rollout_n": "actor_rollout_ref.rollout.n",
    "actor_rollout_ref.rollout.n_gpus_per_node": "trainer.n_gpus_per_node",
    "actor_rollout_ref.rollout.prompt_length": "data.max_prompt_length",
    "actor_rollout_ref.rollout.response_length": "data.max_response_length",
}
CHECKPOINT = "global_step_"  # and its step: the folder of a checkpoint
SHARD = re.compile(r"model_world_size_(\d+)_rank_")  # of FSDP
RANKS = {"trainer.nnodes", "trainer.n_gpus_per_node"}
LENGTHS = ("trainer.total_training_steps", "trainer.total_epochs")


def resume(config: DictConfig) -> None:
    """A run that would resume from a checkpoint is the run that wrote it.

    Raises:
        ValueError, FileNotFoundError: Names the setting, its old and its new value, and what to do.
    """
    mode = config.trainer.resume_mode
    check_choice(f"trainer.resume_mode={mode}", mode, MODES)
    folder = RunFolder.from_config(config)
    if mode == "disable":
        check_folder_is_free(folder, f"trainer.resume_mode={mode} would begin anew")
        return
    if mode == "resume_path":
        checkpoint = resume_path(config)
        of_this_run = checkpoint.absolute().parent == folder.path  # back to an earlier step of it
        step = int(checkpoint.name.removeprefix(CHECKPOINT))
        if not of_this_run:
            check_folder_is_free(folder, f"trainer.resume_from_path={checkpoint} is of another run")
    else:
        of_this_run, step = True, resume_step(folder)
        if not step:
            return  # it begins at step 1
        checkpoint = folder.path / f"{CHECKPOINT}{step}"
    from recipe.trainer import make_parts

    parts = make_parts(config, run_config.trainer_settings(config))
    if of_this_run:
        same_run(config, folder, step, parts)
    check_settings(parts, checkpoint / STATE_FILE)


def writable_folder(config: DictConfig) -> None:
    """A run writes its metrics, log and checkpoints into its folder, which it makes.

    Raises:
        ValueError: It cannot be made, or nothing can be written into it.
    """
    value = config.trainer.default_local_dir
    what = f"trainer.default_local_dir={value} (CKPTS_DIR of a run script) is not allowed"
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{what}: name the folder of the run.")
    path = RunFolder.from_config(config).path
    nearest = next(folder for folder in (path, *path.parents) if os.path.lexists(folder))
    if not nearest.is_dir():
        raise ValueError(f"{what}, as {nearest} is no folder: name another one.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"{what}, as {nearest} cannot be written by this user: name another one.")


def check_folder_is_free(folder: RunFolder, why: str) -> None:
    """Raises ValueError if a run's folder holds a checkpoint: a start that is not from it, and ends
    before its own first one, would leave it for the next start to resume under other settings."""
    if steps := folder.complete_steps():
        raise ValueError(
            f"{why}, but {folder.path} holds the checkpoint of step {steps[-1]}: give another "
            "folder (trainer.default_local_dir, CKPTS_DIR of a run script), or resume that run "
            "with trainer.resume_mode=auto."
        )


def resume_path(config: DictConfig) -> Path:
    """Returns the checkpoint of trainer.resume_from_path."""
    path = config.trainer.resume_from_path
    # verl reads the step as what follows the name, so that nothing may
    if not isinstance(path, str) or not path.rpartition(f"/{CHECKPOINT}")[2].isdecimal():
        raise ValueError(
            f"trainer.resume_from_path={path} is not allowed: trainer.resume_mode=resume_path "
            "needs the folder of a checkpoint, .../global_step_<N>, without a / at its end."
        )
    actor = Path(path) / "actor"
    if not any(actor.glob("*")):
        raise FileNotFoundError(
            f"trainer.resume_from_path={path} is no checkpoint (it has no actor/): give the folder "
            "of one, .../global_step_<N>."
        )
    ranks = config.trainer.nnodes * config.trainer.n_gpus_per_node
    shards = filter(None, (SHARD.match(file.name) for file in actor.iterdir()))
    sharded = sorted({int(shard[1]) for shard in shards})
    if sharded and ranks not in sharded:
        raise ValueError(
            f"trainer.nnodes={config.trainer.nnodes} and trainer.n_gpus_per_node="
            f"{config.trainer.n_gpus_per_node} make {ranks} ranks, but the checkpoint "
            f"trainer.resume_from_path={path} is in shards of {sharded[0]}: use as many."
        )
    return Path(path)


def resume_step(folder: RunFolder) -> int:
    """Returns the step of the checkpoint that a start in this folder resumes from, 0 for none;
    raises ValueError where the marker is at fault and no checkpoint is whole."""
    fault = folder.marker_fault()
    if fault is None:
        return folder.marked_step()
    steps = folder.complete_steps()
    if not steps:
        folder.repair_marker()  # raises
    print(f"[preflight] {fault}: the run will resume after step {steps[-1]}, the last whole one")
    return steps[-1]


def same_run(config: DictConfig, folder: RunFolder, step: int, parts: Sequence[Part]) -> None:
    """Compares the config with the record of the run's last start that can be read."""
    records = [record for record in folder.records() if "config" in record]
    if not records:
        print(f"[preflight] {folder.path} has no record of its run: its settings are not compared")
        return
    now = plain(config)
    record = {
        "config": now,
        "files": provenance.files_of(now),
        "packages": provenance.packages(),
    }
    old, new = config_identity(records[-1]), config_identity(record)
    forget_unused_settings(old, new)
    differing = [key for key in differences(old, new) if not may_differ(key, now)]
    packages = [key for key in differing if key.startswith("package ")]
    if packages:
        texts = [f"{key.removeprefix('package ')} {old.get(key)}" for key in packages]
        print(f"[preflight] {folder.path} was written with {', '.join(texts)}: the run resumes")
    keys = [COPIES.get(key, key) for key in differing if key not in packages]
    if keys:
        others = len({*keys}) - 1
        more = f" (and {others} more settings differ)" if others else ""
        cures = [
            "set it back",
            "start anew in another folder (trainer.default_local_dir, CKPTS_DIR of a run script)",
        ]
        # other ranks cannot load the shards, nor other parts the states
        file = folder.path / f"{CHECKPOINT}{step}" / STATE_FILE
        if RANKS.isdisjoint(keys) and fits(parts, file):
            cures.append(
                "let a new run there continue from this one's weights (trainer.resume_mode="
                f"resume_path trainer.resume_from_path={folder.path}/{CHECKPOINT}{step})"
            )
        raise ValueError(
            f"{keys[0]} is {new.get(keys[0])}, but {folder.path} holds step {step} of a run with "
            f"{old.get(keys[0])}{more}: {', '.join(cures[:-1])}, or {cures[-1]}."
        )


def fits(parts: Sequence[Part], file: Path) -> bool:
    """Says whether these parts can continue from the states in a checkpoint."""
    try:
        check_settings(parts, file)
    except ValueError:
        return False
    return True


def may_differ(key: str, config: dict[str, Any]) -> bool:
    """Says whether a resumed run may have another value of a setting."""
    if key in LENGTHS:  # a learning rate that falls, or rises first, moves with the run's length
        optim = config["actor_rollout_ref"]["actor"]["optim"]
        constant = optim.get("lr_scheduler_type", "constant") == "constant"
        return constant and not optim.get("lr_warmup_steps_ratio")
    return is_below(key, MAY_DIFFER) or key.rpartition(".")[2] in LAYOUT


def forget_unused_settings(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Drops, from both identities, what makes no other config: the settings of recipes that only
    one of them knows and leaves at their defaults (a recipe that was installed since, or is gone);
    the content of files that an older version did not look at; the name of a preset that is
    nothing but values of keys, which are compared themselves; and keys that verl does not read, or
    that are gone. A preset of null is the one that it stands for, which older versions wrote."""
    for key, value in null_presets().items():
        for identity, other in ((old, new), (new, old)):
            if key in other and identity.get(key, value) is None:
                identity[key] = value
    for key in (*names_of_values(), *UNREAD, *GONE):
        old.pop(key, None)
        new.pop(key, None)
    defaults = flatten(default_settings())
    for identity, other in ((old, new), (new, old)):
        for key in [key for key in identity if key not in other]:
            at_default = key in defaults and identity[key] == defaults[key]
            if at_default or key.endswith("._target_") or key.startswith(provenance.CONTENT):
                del identity[key]


@functools.cache  # a comparison asks for each of its runs
def null_presets() -> dict[str, str]:
    """Returns {preset key: the preset that a null there stands for}."""
    presets = {}
    for key, nodes in ((r.preset_key, r.settings_nodes()) for r in recipes() if r.preset_key):
        node, _, name = key.rpartition(".")
        if node in nodes and nodes[node].__dataclass_fields__[name].default is None:
            presets[key] = getattr(nodes[node](), name)
    return presets


@functools.cache
def names_of_values() -> tuple[str, ...]:
    """Returns the preset keys of the recipes whose presets set nothing but what is in the config,
    under the keys that the recipe's yaml takes from them."""
    keys = []
    for recipe in recipes():
        if recipe.presets is not None and recipe.preset_key is not None:
            preset = next(iter(recipe.load(recipe.presets).values()))
            if set(vars(preset)) <= set(recipe.taken_from_preset().values()):
                keys.append(recipe.preset_key)
    return tuple(keys)
