"""What can be known to be wrong before Ray starts: each check raises one sentence with its cure.

`check(config)` runs them all on a resolved config; `recipe.launch` calls it for every run, and
stops there with `--dry-run`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from recipe.core import config as run_config
from recipe.core import transfer_queue
from recipe.core.recipe import POLICY_LOSS, TRAINER, recipes
from recipe.core.settings import build, check_choice, check_number, plain
from recipe.core.trainer_settings import TrainerSettings
from recipe.sampling.prompts import resolve_model

TRAINER_MODE = TRAINER.rpartition(".")[2]
MODEL = "actor_rollout_ref.model.path"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")


WHOLE_NUMBERS = (  # of verl's settings, those that the checks calculate with
    "data.train_batch_size",
    "actor_rollout_ref.rollout.n",
    "trainer.nnodes",
    "trainer.n_gpus_per_node",
    "actor_rollout_ref.actor.ppo_mini_batch_size",
    "actor_rollout_ref.actor.ppo_epochs",
)


def numbers(config: DictConfig) -> None:
    """verl's settings with which the other checks calculate."""
    for key in WHOLE_NUMBERS:
        value = OmegaConf.select(config, key)
        check_number(key, value, "a whole number above 0", lambda x: x > 0, int)


def distillation(config: DictConfig) -> None:
    """A loss that reads the step takes the place of verl's loss function, distillation with it."""
    from recipe.trainer import make_parts

    if not (config.get("distillation") or {}).get("enabled", False):
        return
    if any(part.reads_step_in_loss for part in make_parts(config, trainer_settings(config))):
        loss_mode = config.actor_rollout_ref.actor.policy_loss.loss_mode
        raise ValueError(
            f"{POLICY_LOSS}.loss_mode={loss_mode} takes the place of verl's distillation loss: "
            "set distillation.enabled=false."
        )


def registrations(config: DictConfig | None = None) -> None:
    """verl hides a plugin that fails to load, so its registrations are looked for by name."""
    from verl.trainer.ppo import core_algos
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

    missing = []
    for recipe in recipes():
        for name in recipe.estimators:
            if name not in core_algos.ADV_ESTIMATOR_REGISTRY:
                missing.append(f"advantage estimator {name}")
        for name in recipe.losses:
            if name not in core_algos.POLICY_LOSS_REGISTRY:
                missing.append(f"policy loss {name}")
    if TRAINER_MODE not in TRAINER_REGISTRY:
        missing.append(f"trainer {TRAINER_MODE}")
    if not transfer_queue.installed():
        missing.append("a TransferQueue of each run's own")
    if missing:
        raise RuntimeError(
            f"The recipes are not registered with verl ({', '.join(missing)}): install this "
            "package in the environment that runs verl (`bash setup.sh cpu`, `bash setup.sh gpu`), "
            "check that VERL_USE_EXTERNAL_PLUGINS is unset or auto, and run `python -c 'import "
            "recipe.plugin'` to see why the plugin does not load."
        )


def estimator_and_loss(config: DictConfig) -> None:
    """verl looks for both only in the first step, after a whole batch of rollouts."""
    from verl.trainer.ppo import core_algos

    for key, registry in (
        ("algorithm.adv_estimator", core_algos.ADV_ESTIMATOR_REGISTRY),
        (f"{POLICY_LOSS}.loss_mode", core_algos.POLICY_LOSS_REGISTRY),
    ):
        name = OmegaConf.select(config, key)
        check_choice(f"{key}={name}", name, registry)


def trainer(config: DictConfig) -> None:
    """The recipes' trainer, and its settings."""
    if config.trainer.v1.trainer_mode != TRAINER_MODE:
        raise ValueError(
            f"trainer.v1.trainer_mode={config.trainer.v1.trainer_mode} would run without the "
            f"recipes' diagnostics and settings: use {TRAINER_MODE}."
        )
    settings = trainer_settings(config)
    try:
        get_object(settings.task_runner)
    except Exception as error:
        raise ValueError(
            f"{TRAINER}.task_runner={settings.task_runner} cannot be imported ({error}): name a "
            "Ray actor class such as verl.trainer.main_ppo.TaskRunnerV1."
        ) from error


def trainer_settings(config: DictConfig) -> TrainerSettings:
    """Returns the settings of the recipes' trainer; raises ValueError for a value that is
    not allowed."""
    return build(TrainerSettings, plain(config.trainer.v1[TRAINER_MODE]), TRAINER)


def recipe_settings(config: DictConfig) -> None:
    """Every recipe's settings, whichever recipe runs: their names and values."""
    run_config.policy_loss(config)
    for recipe in recipes():
        for place, reference in recipe.settings.items():
            node = OmegaConf.select(config, place)
            if node is not None:
                build(recipe.load(reference), plain(node), place)


def recipe_checks(config: DictConfig) -> None:
    """Each recipe's own checks of its settings against the rest of the config and the data."""
    for recipe in recipes():
        if recipe.checks is not None:
            recipe.load(recipe.checks)(config)


def data(config: DictConfig) -> None:
    for key in ("train_files", "val_files"):
        for path in run_config.data_files(config, key):
            where = Path(os.path.expanduser(path))
            if "://" in str(path):
                continue
            if not where.is_file():
                raise FileNotFoundError(
                    f"data.{key}={path} does not exist: write it with a script of data_prep/ "
                    "(python data_prep/gsm8k.py --help) or set TRAIN_FILE and TEST_FILE."
                )
            if where.suffix != ".parquet":
                continue
            missing = {"data_source", "prompt", "reward_model"} - set(pq.read_schema(where).names)
            if missing:
                raise ValueError(
                    f"data.{key}={path} lacks the column {sorted(missing)[0]}: verl wants "
                    "data_source, prompt, ability, reward_model, extra_info, as data_prep/ writes."
                )
    files = run_config.local_parquet_files(config, "train_files")
    if files is not None:
        rows = sum(pq.read_metadata(f).num_rows for f in files)
        limit = config.data.get("train_max_samples", -1)
        rows = min(rows, limit) if limit > 0 else rows
        if rows < config.data.train_batch_size:
            raise ValueError(
                f"data.train_batch_size={config.data.train_batch_size} is larger than the training "
                f"data ({rows} rows), so no step would ever run: set TRAIN_BATCH_SIZE to at most "
                f"{rows}."
            )


def model(config: DictConfig) -> None:
    """A local model folder: config and tokenizer present, and made for each other."""
    path = config.actor_rollout_ref.model.path
    folder = resolve_model(
        path, f"{MODEL}=", "set MODEL_PATH to a checkpoint folder or a model's name on the hub"
    )
    if folder is None:
        print(f"[preflight] model {path} is not a local folder: its files are not checked")
        return
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{MODEL}={path} has no config.json: set MODEL_PATH to a Hugging Face checkpoint "
            "folder."
        )
    from transformers import AutoConfig, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder(config))
    hf_config = AutoConfig.from_pretrained(folder)
    check_newline(path, hf_config.model_type, tokenizer)
    allow_padding = config.trainer.v1[TRAINER_MODE].allow_padded_vocab
    check_vocabulary(path, hf_config.vocab_size, len(tokenizer), allow_padding)


def tokenizer_folder(config: DictConfig) -> Path:
    """Returns the folder of the model's tokenizer, which may be a hub's name; raises
    FileNotFoundError if it is a local folder without one."""
    path = config.actor_rollout_ref.model.get("tokenizer_path")
    path = path or config.actor_rollout_ref.model.path
    folder = Path(os.path.expanduser(path))
    if folder.is_dir() and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise FileNotFoundError(
            f"{MODEL}={path} has no tokenizer (tokenizer.json): copy the model's tokenizer files "
            "there or set actor_rollout_ref.model.tokenizer_path."
        )
    return folder


def check_newline(path: str, model_type: str, tokenizer: Any) -> None:
    """verl's agent loop takes a newline of a Qwen model for one token."""
    newline = tokenizer.encode("\n", add_special_tokens=False)
    if model_type.startswith("qwen") and len(newline) != 1:
        raise ValueError(
            f"{MODEL}={path} is a {model_type} model whose tokenizer makes {len(newline)} tokens "
            "of a newline, and verl's agent loop needs exactly one: use the tokenizer that belongs "
            "to the model."
        )


def check_vocabulary(path: str, vocabulary: int, tokens: int, allow_padding: bool) -> None:
    """verl masks ids beyond the tokenizer in vLLM but not in the actor."""
    if vocabulary < tokens:
        raise ValueError(
            f"{MODEL}={path} has vocab_size {vocabulary}, less than the {tokens} tokens of its "
            "tokenizer, so some token would have no embedding: use the tokenizer that belongs to "
            "the model."
        )
    if vocabulary > tokens and not allow_padding:
        raise ValueError(
            f"{MODEL}={path} has vocab_size {vocabulary}, more than the {tokens} tokens of its "
            "tokenizer, and verl masks the rest in vLLM but not in the actor, so the two policies "
            "differ: resize the embeddings (model.resize_token_embeddings), or, for a model whose "
            f"padding rows have negligible probability, set {TRAINER}.allow_padded_vocab=true."
        )


def cluster(config: DictConfig) -> None:
    if config.trainer.nnodes > 1 and not os.environ.get("RAY_ADDRESS"):
        raise ValueError(
            f"trainer.nnodes={config.trainer.nnodes} needs a running Ray cluster: start it with "
            "`ray start --head` and `ray start --address=HEAD:6379`, and set RAY_ADDRESS."
        )


def batches(config: DictConfig) -> None:
    """verl finds out in the first step, on the workers, that a batch cannot be split."""
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    ranks = config.trainer.nnodes * config.trainer.n_gpus_per_node
    prompts = config.data.train_batch_size
    if prompts % actor.ppo_mini_batch_size:
        raise ValueError(
            f"data.train_batch_size={prompts} is not a multiple of actor_rollout_ref.actor."
            f"ppo_mini_batch_size={actor.ppo_mini_batch_size} (both in prompts): change one."
        )
    if actor.ppo_mini_batch_size * rollout.n % ranks:
        raise ValueError(
            f"actor_rollout_ref.actor.ppo_mini_batch_size={actor.ppo_mini_batch_size} times "
            f"rollout.n={rollout.n} is not a multiple of the {ranks} ranks: change one of them."
        )
    micro = rollout.log_prob_micro_batch_size_per_gpu
    if not actor.use_dynamic_bsz and micro and prompts * rollout.n // ranks % micro:
        raise ValueError(
            f"actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu={micro} does not divide "
            f"the {prompts * rollout.n // ranks} rollouts of a rank: change it, or set "
            "actor_rollout_ref.actor.use_dynamic_bsz=true."
        )


def verl_itself(config: DictConfig) -> None:
    """verl's own checks (batch divisibility, micro-batches, LoRA rank …)."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    validate_config(
        config=config,
        use_reference_policy=need_reference_policy(config),
        use_critic=need_critic(config),
    )


CHECKS: tuple[Callable[[DictConfig], None], ...] = (
    registrations,
    numbers,
    estimator_and_loss,
    trainer,
    recipe_settings,
    data,
    recipe_checks,
    model,
    cluster,
    batches,
    distillation,
    verl_itself,
)


def check(config: DictConfig) -> None:
    """Runs every check on a resolved config; raises for the first that fails."""
    for check_one in CHECKS:
        check_one(config)
