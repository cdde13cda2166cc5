"""Names of verl's settings that it looks up when it needs them, in a worker or after a batch of
rollouts, and what else it finds out only then."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Collection, Iterable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipe.core.recipe import POLICY_LOSS
from recipe.core.settings import check_choice, plain
from recipe.sampling.flags import DTYPES

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
KL_ESTIMATORS = ("kl", "k1", "abs", "mse", "k2", "low_var_kl", "k3")  # verl's; tests hold them
KL_ESTIMATORS += tuple(f"{name}+" for name in KL_ESTIMATORS)  # with the gradient of k2
AGGREGATIONS = (
    "token-mean",
    "token-sum",
    "seq-mean-token-sum",
    "seq-mean-token-mean",
    "seq-mean-token-sum-norm",
)
CONTENTS = ("model", "optimizer", "extra", "hf_model")
PACKAGES = {  # of loggers and engines whose package has, or has not, their name
    name: name
    for name in (
        "wandb",
        "mlflow",
        "swanlab",
        "tensorboard",
        "clearml",
        "trackio",
        "vllm",
        "sglang",
    )
} | {"trtllm": "tensorrt_llm"}
PRECISIONS = ("bf16", "bfloat16", "fp16", "float16", "16", "fp32", "float32", "32")


def names(config: DictConfig) -> None:
    """Names that verl looks up when it needs them: in a worker, or after a batch of rollouts."""
    for key, choices in registries().items():
        value = OmegaConf.select(config, key)
        if value is None:
            continue  # of another engine; or null, where that is allowed
        for name in plain(value) if OmegaConf.is_list(value) else [value]:
            check_choice(f"{key}={name}", name, choices)
    installed(config)
    optimizer(config)
    rejection(config)
    filter_groups(config)


def registries() -> dict[str, Collection[Any]]:
    """Returns the names that verl has for each key: from its registries where there is one."""
    from verl.trainer.ppo import core_algos
    from verl.utils.tracking import Tracking
    from verl.workers.engine.base import EngineRegistry
    from verl.workers.rollout.replica import RolloutReplicaRegistry

    return {
        f"{ACTOR}.loss_agg_mode": AGGREGATIONS,
        f"{ACTOR}.optim.lr_scheduler_type": ("constant", "cosine"),
        "algorithm.adv_estimator": core_algos.ADV_ESTIMATOR_REGISTRY,
        "algorithm.kl_penalty": KL_ESTIMATORS,
        "algorithm.kl_ctrl.type": ("fixed", "adaptive"),
        "algorithm.rollout_correction.rollout_is": ("token", "sequence"),
        "algorithm.rollout_correction.loss_type": ("ppo_clip", "reinforce"),
        f"{POLICY_LOSS}.loss_mode": core_algos.POLICY_LOSS_REGISTRY,
        f"{ACTOR}.kl_loss_type": KL_ESTIMATORS,
        f"{ACTOR}.strategy": EngineRegistry._engines["language_model"],
        f"{ACTOR}.checkpoint.save_contents": CONTENTS,
        f"{ACTOR}.checkpoint.load_contents": CONTENTS,
        f"{ACTOR}.fsdp_config.model_dtype": PRECISIONS,
        f"{ACTOR}.fsdp_config.dtype": PRECISIONS,
        "actor_rollout_ref.ref.fsdp_config.model_dtype": PRECISIONS,
        f"{ROLLOUT}.name": RolloutReplicaRegistry._registry,
        f"{ROLLOUT}.mode": ("async",),
        f"{ROLLOUT}.dtype": DTYPES,
        "data.truncation": "error|left|right|middle".split("|"),  # noqa: SIM905  tests read words
        "trainer.device": ("cuda", "npu", "cpu"),
        "trainer.logger": (*Tracking.supported_backend, "tracking"),
    }


def installed(config: DictConfig) -> None:
    """verl imports the packages of a logger and of an engine when it makes them."""
    loggers = plain(config.trainer.logger)
    chosen = {"trainer.logger": [loggers] if isinstance(loggers, str) else loggers}
    chosen[f"{ROLLOUT}.name"] = [config.actor_rollout_ref.rollout.name]
    for key, values in chosen.items():
        for name in values:
            package = PACKAGES.get(name, name)
            if name in PACKAGES and importlib.util.find_spec(package) is None:
                raise ValueError(
                    f"{key}={name} needs the package {package}, which is not installed: install "
                    "it, or choose another."
                )


def optimizer(config: DictConfig) -> None:
    """verl imports the optimizer on the workers."""
    optim = config.actor_rollout_ref.actor.optim
    if "optimizer_impl" not in optim:
        return
    try:
        module = importlib.import_module(optim.optimizer_impl)
    except ImportError as error:
        raise ValueError(
            f"{ACTOR}.optim.optimizer_impl={optim.optimizer_impl} cannot be imported ({error}): "
            "name a module such as torch.optim."
        ) from error
    check_choice(f"{ACTOR}.optim.optimizer={optim.optimizer}", optim.optimizer, public(module))


def public(module: Any) -> Iterable[str]:
    """Returns the names of the classes of a module."""
    return [name for name, value in vars(module).items() if isinstance(value, type)]


def rejection(config: DictConfig) -> None:
    """verl reads the options of its rejection sampling with the first batch."""
    from verl.trainer.ppo.rollout_corr_helper import SUPPORTED_ROLLOUT_RS_OPTIONS

    key = "algorithm.rollout_correction.rollout_rs"
    options = OmegaConf.select(config, key)
    if options is None:
        return
    for name in options.split(","):
        check_choice(f"{key}={options}", name.strip(), sorted(SUPPORTED_ROLLOUT_RS_OPTIONS))
    if OmegaConf.select(config, f"{key}_threshold") is None:
        raise ValueError(f"{key}={options} has no threshold: set {key}_threshold (verl: 2.0).")


def filter_groups(config: DictConfig) -> None:
    """verl filters groups by a metric of the reward while it samples."""
    settings, reward_model = config.algorithm.get("filter_groups"), config.reward.reward_model
    if not settings or not settings.enable:
        return
    if not settings.metric:
        raise ValueError(
            f"algorithm.filter_groups.metric={settings.metric} with enable=true names nothing: "
            "name a metric of the reward, such as acc or score."
        )
    if config.actor_rollout_ref.rollout.n <= 1:
        raise ValueError(
            "algorithm.filter_groups.enable=true has no effect with actor_rollout_ref.rollout.n="
            f"{config.actor_rollout_ref.rollout.n}, as one rollout has no group: use at least 2."
        )
    if settings.max_num_gen_batches > 0:
        raise ValueError(
            f"algorithm.filter_groups.max_num_gen_batches={settings.max_num_gen_batches} has no "
            "effect in verl 0.9.1's trainer, which draws until the batch is full: set it to 0 "
            "(max_inflight_gen_batches bounds what is generated at once)."
        )
    if reward_model.enable and not reward_model.enable_resource_pool:
        raise ValueError(
            "algorithm.filter_groups.enable=true needs each reward while verl samples, which a "
            "reward model on the same GPUs gives later: set reward.reward_model."
            "enable_resource_pool=true."
        )
