"""What can be known to be wrong before Ray starts: each check raises one sentence with its cure.

`check(config)` runs them all on a resolved config; `recipe.launch` calls it for every run, and
stops there with `--dry-run`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
from omegaconf import DictConfig, ListConfig, OmegaConf

from recipe.core import transfer_queue
from recipe.core.settings import check_known

TRAINER = "recipe_sync"


def registrations(config: DictConfig | None = None) -> None:
    """verl hides a plugin that fails to load, so its registrations are looked for by name."""
    from verl.trainer.ppo import core_algos
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

    missing = []
    if "asymgrpo" not in core_algos.ADV_ESTIMATOR_REGISTRY:
        missing.append("advantage estimator asymgrpo")
    for loss in ("dynamic_clip", "sent"):
        if loss not in core_algos.POLICY_LOSS_REGISTRY:
            missing.append(f"policy loss {loss}")
    if TRAINER not in TRAINER_REGISTRY:
        missing.append(f"trainer {TRAINER}")
    if not transfer_queue.installed():
        missing.append("a TransferQueue of each run's own")
    if missing:
        raise RuntimeError(
            f"The recipes are not registered with verl ({', '.join(missing)}): install this "
            "package in the environment that runs verl (`bash setup.sh cpu`, `bash setup.sh gpu`), "
            "check that VERL_USE_EXTERNAL_PLUGINS is unset or auto, and run `python -c 'import "
            "recipe.plugin'` to see why the plugin does not load."
        )


def trainer(config: DictConfig) -> None:
    if config.trainer.v1.trainer_mode != TRAINER:
        raise ValueError(
            f"trainer.v1.trainer_mode={config.trainer.v1.trainer_mode} would run without the "
            f"recipes' diagnostics and settings: use {TRAINER}."
        )
    settings = config.trainer.v1[TRAINER]
    known = ("poll_interval", "log_prob_gain_freq", "allow_padded_vocab")
    for key in settings:
        check_known(f"trainer.v1.{TRAINER}.{key}", key, known)
    if settings.poll_interval <= 0:
        raise ValueError(
            f"trainer.v1.{TRAINER}.poll_interval={settings.poll_interval} must be above 0 seconds."
        )


def asymgrpo(config: DictConfig) -> None:
    from recipe.asymgrpo.config import AsymGRPOConfig, check_group_size

    node = config.algorithm.get("asymgrpo")
    if node is None:
        if config.algorithm.adv_estimator == "asymgrpo":
            raise ValueError(
                "algorithm.adv_estimator=asymgrpo needs its settings under algorithm.asymgrpo: "
                "start from recipe/asymgrpo/asymgrpo.yaml."
            )
        return
    settings = AsymGRPOConfig.from_mapping(OmegaConf.to_container(node, resolve=True))
    check_group_size(settings, config.actor_rollout_ref.rollout.n)


def _policy_loss(config: DictConfig):
    """The settings of the node policy_loss; None if it is verl's own, without ours."""
    from recipe.semantic_curriculum.config import SentConfig

    node = config.actor_rollout_ref.actor.policy_loss
    if "token_rule" not in node:
        if node.loss_mode in ("dynamic_clip", "sent"):
            raise ValueError(
                f"actor_rollout_ref.actor.policy_loss.loss_mode={node.loss_mode} needs its "
                "settings in the same node: start from recipe/common.yaml."
            )
        return None
    return SentConfig.from_mapping(OmegaConf.to_container(node, resolve=True))


def _updates_per_rollout(config: DictConfig) -> int:
    actor = config.actor_rollout_ref.actor
    return config.data.train_batch_size // actor.ppo_mini_batch_size * actor.ppo_epochs


def _bypassed(config: DictConfig) -> bool:
    return bool((config.algorithm.get("rollout_correction") or {}).get("bypass_mode", False))


def clip_entropy(config: DictConfig) -> None:
    from recipe.clip_entropy.config import LOSS_MODE, NODE

    actor = config.actor_rollout_ref.actor
    settings = _policy_loss(config)
    if settings is None:
        return
    if not settings.scheduled:
        if settings.schedule != "static":
            raise ValueError(
                f"{NODE}.schedule={settings.schedule} has no effect with loss_mode="
                f"{settings.loss_mode}: set {NODE}.loss_mode={LOSS_MODE}, or schedule=static."
            )
        return
    for name in ("clip_ratio_low", "clip_ratio_high"):
        ratio = actor[name]
        if not isinstance(ratio, int | float) or not 0 <= ratio < 1:
            raise ValueError(
                f"actor_rollout_ref.actor.{name}={ratio} is not allowed: use a number from 0, "
                "below 1 (paper: 0.2)."
            )
    levels = settings.levels(actor.clip_ratio_low, actor.clip_ratio_high)
    settings.make_schedule(levels, config.trainer.total_training_steps)
    moves = settings.schedule != "static" or actor.clip_ratio_low != actor.clip_ratio_high
    if _updates_per_rollout(config) <= 1 and moves:
        raise ValueError(
            f"data.train_batch_size={config.data.train_batch_size} with actor_rollout_ref.actor."
            f"ppo_mini_batch_size={actor.ppo_mini_batch_size} makes one update per rollout, where "
            f"the ratio is always 1 and {NODE}.schedule={settings.schedule} can clip nothing: use "
            "a smaller mini-batch (the paper's clip shares show several updates)."
        )
    if settings.schedule == "od" and _bypassed(config):
        raise ValueError(
            f"{NODE}.schedule=od needs the policy's entropy, which verl does not compute with "
            "algorithm.rollout_correction.bypass_mode=true: set it to false."
        )
    if (config.get("distillation") or {}).get("enabled", False):
        raise ValueError(
            f"{NODE}.loss_mode={settings.loss_mode} takes the place of verl's distillation loss: "
            "set distillation.enabled=false."
        )


def token_rule(config: DictConfig) -> None:
    from recipe.semantic_curriculum.config import LOSS_MODE, NODE

    actor = config.actor_rollout_ref.actor
    settings = _policy_loss(config)
    if settings is None or settings.loss_mode != LOSS_MODE:
        return
    rule = settings.token_rule
    if rule.scope == "micro_batch":
        if rule.needs_entropy and not actor.calculate_entropy:
            raise ValueError(
                f"{NODE}.scope=micro_batch with low_fraction={rule.low_fraction} needs the current "
                "policy's entropy: set actor_rollout_ref.actor.calculate_entropy=true."
            )
    elif _bypassed(config):
        raise ValueError(
            f"{NODE}.scope={rule.scope} chooses by the old policy's entropy, which verl does not "
            "compute with algorithm.rollout_correction.bypass_mode=true: set it to false, or use "
            "scope=micro_batch."
        )
    elif actor.shuffle and actor.ppo_epochs > 1:
        raise ValueError(
            f"{NODE}.scope={rule.scope} chooses tokens once for each mini-batch, but with "
            "actor_rollout_ref.actor.shuffle=true each of the "
            f"ppo_epochs={actor.ppo_epochs} has other ones: set one of them back, or use "
            "scope=micro_batch."
        )
    if rule.constrains and rule.anchor == "ref":
        if not (actor.use_kl_loss or config.algorithm.use_kl_in_reward):
            raise ValueError(
                f"{NODE}.anchor=ref needs the reference's log-probs: set "
                "actor_rollout_ref.actor.use_kl_loss=true (kl_loss_coef=0 adds no other KL)."
            )
    elif rule.constrains and _updates_per_rollout(config) <= 1:
        raise ValueError(
            f"{NODE}.anchor=old with one update per rollout (data.train_batch_size="
            f"{config.data.train_batch_size}, actor_rollout_ref.actor.ppo_mini_batch_size="
            f"{actor.ppo_mini_batch_size}) holds the policy to itself, which has no effect: use "
            "anchor=ref or a smaller mini-batch."
        )
    if rule.policy_tokens == "selected" and actor.loss_agg_mode != "token-mean":
        raise ValueError(
            f"{NODE}.policy_tokens=selected is a mean over the kept tokens: set actor_rollout_ref."
            f"actor.loss_agg_mode=token-mean (now {actor.loss_agg_mode})."
        )


def curriculum(config: DictConfig) -> None:
    """Reads the scores and the training prompts as the trainer will, but for its length filter."""
    from recipe.semantic_curriculum.config import CURRICULUM, CurriculumConfig

    node = config.data.get("curriculum")
    if node is None:
        return
    settings = CurriculumConfig.from_mapping(OmegaConf.to_container(node, resolve=True))
    if settings.order == "none":
        return
    from recipe.semantic_curriculum.curriculum import plan_of
    from recipe.semantic_curriculum.scores import prompt_id, read_scores, rows_of, score_of
    from recipe.semantic_curriculum.trainer import steps_of_plan

    if (config.algorithm.get("filter_groups") or {}).get("enable", False):
        raise ValueError(
            f"{CURRICULUM}.order={settings.order} counts prompts by the step, which "
            "algorithm.filter_groups.enable=true draws more of: set it to false."
        )
    table = read_scores(settings.scores)
    files = [Path(os.path.expanduser(path)) for path in _paths(config.data.train_files)]
    if not all(file.suffix == ".parquet" and file.is_file() for file in files):
        return  # the trainer looks again
    key = config.data.get("prompt_key", "prompt")
    prompts = [p for file in files for p in pq.read_table(file, columns=[key])[key].to_pylist()]
    limit = config.data.get("train_max_samples", -1)
    if 0 < limit < len(prompts) and not config.data.shuffle:
        prompts = prompts[:limit]
    rows = rows_of(table, [prompt_id(p) for p in prompts], settings.scores)
    if limit > 0:
        rows = rows[:limit]  # as many as the trainer takes, if not the same
    plan = plan_of(score_of(rows, settings.order), settings)
    steps_of_plan(len(plan.prompt_D), config)


def _paths(value) -> list[str]:
    return list(value) if isinstance(value, list | tuple | ListConfig) else [value]


def data(config: DictConfig) -> None:
    for key in ("train_files", "val_files"):
        for path in _paths(config.data[key]):
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
    files = [Path(os.path.expanduser(p)) for p in _paths(config.data.train_files)]
    if all(f.suffix == ".parquet" and f.is_file() for f in files):
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
    """A local model folder: tokenizer present, vocabulary of the same size."""
    path = config.actor_rollout_ref.model.path
    folder = Path(os.path.expanduser(path))
    if not folder.is_dir():
        if folder.is_absolute() or path.startswith((".", "~")):
            raise FileNotFoundError(
                f"actor_rollout_ref.model.path={path} does not exist: set MODEL_PATH to a "
                "checkpoint folder or a model's name on the hub."
            )
        print(f"[preflight] model {path} is not a local folder: its files are not checked")
        return
    from transformers import AutoConfig, AutoTokenizer

    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"actor_rollout_ref.model.path={path} has no config.json: set MODEL_PATH to a Hugging "
            "Face checkpoint folder."
        )
    tokenizer_path = config.actor_rollout_ref.model.get("tokenizer_path") or path
    tokenizer_folder = Path(os.path.expanduser(tokenizer_path))
    if tokenizer_folder.is_dir() and not any(
        (tokenizer_folder / name).is_file()
        for name in ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
    ):
        raise FileNotFoundError(
            f"actor_rollout_ref.model.path={tokenizer_path} has no tokenizer (tokenizer.json): "
            "copy the model's tokenizer files there or set actor_rollout_ref.model.tokenizer_path."
        )
    hf_config = AutoConfig.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    vocabulary, tokens = hf_config.vocab_size, len(tokenizer)
    newline = tokenizer.encode("\n", add_special_tokens=False)
    if hf_config.model_type.startswith("qwen") and len(newline) != 1:
        raise ValueError(
            f"actor_rollout_ref.model.path={path} is a {hf_config.model_type} model whose "
            f"tokenizer makes {len(newline)} tokens of a newline, and verl's agent loop needs "
            "exactly one: use the tokenizer that belongs to the model."
        )
    if vocabulary < tokens:
        raise ValueError(
            f"actor_rollout_ref.model.path={path} has vocab_size {vocabulary}, less than the "
            f"{tokens} tokens of its tokenizer, so some token would have no embedding: use the "
            "tokenizer that belongs to the model."
        )
    if vocabulary > tokens and not config.trainer.v1[TRAINER].allow_padded_vocab:
        raise ValueError(
            f"actor_rollout_ref.model.path={path} has vocab_size {vocabulary}, more than the "
            f"{tokens} tokens of its tokenizer, and verl masks the rest in vLLM but not in the "
            "actor, so the two policies differ: resize the embeddings "
            "(model.resize_token_embeddings), or, for a model whose padding rows have negligible "
            f"probability, set trainer.v1.{TRAINER}.allow_padded_vocab=true."
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
    trainer,
    asymgrpo,
    clip_entropy,
    token_rule,
    data,
    curriculum,
    model,
    cluster,
    batches,
    verl_itself,
)


def check(config: DictConfig) -> None:
    for one in CHECKS:
        one(config)
