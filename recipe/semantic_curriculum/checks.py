"""What can be known to be wrong with SENT's settings before Ray starts, and their summary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow.parquet as pq
from omegaconf import DictConfig, OmegaConf

from recipe.core import config as run_config
from recipe.core.recipe import POLICY_LOSS
from recipe.core.settings import plain, settings_of
from recipe.judge import reward_function
from recipe.judge.reward_function import DEFAULT_NAME, JUDGE, RewardFunction
from recipe.sampling import rows
from recipe.sampling.model_content import fingerprint
from recipe.sampling.prompts import prompt_id
from recipe.semantic_curriculum.config import (
    CURRICULUM,
    LOSS_MODE,
    NO_REFERENCE,
    NODE,
    PRESETS,
    CurriculumConfig,
    TokenRule,
    TokenRuleSettings,
)
from recipe.semantic_curriculum.curriculum import curriculum_for, steps_of_plan
from recipe.semantic_curriculum.scores import read_scores, rows_of


def check(config: DictConfig) -> None:
    """Raises ValueError or FileNotFoundError, in one sentence, for what cannot work."""
    check_token_rule(config)
    check_curriculum(config)


def check_token_rule(config: DictConfig) -> None:
    """Checks the token rule against the actor's settings."""
    settings = run_config.policy_loss(config)
    if not isinstance(settings, TokenRuleSettings):
        return
    check_advantage(settings.token_rule.preset, config)
    if settings.loss_mode != LOSS_MODE:
        check_other_loss(plain(config.actor_rollout_ref.actor.policy_loss), settings)
        return
    check_rule_acts(settings.token_rule)
    check_kl_cov(plain(config.actor_rollout_ref.actor.policy_loss))
    actor, rule = config.actor_rollout_ref.actor, settings.token_rule
    if rule.scope == "micro_batch":
        if rule.needs_entropy and not actor.calculate_entropy:
            raise ValueError(
                f"{NODE}.scope=micro_batch chooses by the current policy's entropy: set "
                "actor_rollout_ref.actor.calculate_entropy=true."
            )
    else:
        cure = ", or use scope=micro_batch"
        run_config.check_entropies(config, f"{NODE}.scope={rule.scope}", cure)
        if rule.scope != "batch" and actor.shuffle and actor.ppo_epochs > 1:
            raise ValueError(
                f"{NODE}.scope={rule.scope} chooses tokens once for each mini-batch, but with "
                "actor_rollout_ref.actor.shuffle=true each of the "
                f"ppo_epochs={actor.ppo_epochs} has other ones: set one of them back, or use "
                "scope=batch or micro_batch."
            )
    if rule.constrains and rule.anchor == "ref":
        if not (actor.use_kl_loss or config.algorithm.use_kl_in_reward):
            raise ValueError(NO_REFERENCE)
    elif rule.constrains and run_config.updates_per_rollout(config) <= 1:
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


def check_rule_acts(rule: TokenRule) -> None:
    """Raises ValueError for a token rule that leaves each token its policy term alone."""
    if rule.acts:
        return
    names = ["coef", "high_cov_coef", "low_cov_coef", "policy_tokens"]
    # where a coefficient is above 0, no token can have its class
    names += [
        name
        for name, coef in (
            ("high_cov_fraction", rule.high_cov_coef),
            ("low_cov_fraction", rule.low_cov_coef),
        )
        if coef > 0
    ]
    if rule.policy_tokens == "selected":
        names.append("low_fraction")
    values = ", ".join(f"{name}={getattr(rule, name)}" for name in names)
    if (usual := PRESETS[rule.preset].loss_mode) == LOSS_MODE:
        cure = "leave them at null, or use preset=grpo or curriculum, which have no token rule"
    else:
        cure = (
            f"use a preset with a token rule (as_described), or set {POLICY_LOSS}.loss_mode={usual}"
        )
    raise ValueError(
        f"{NODE}.preset={rule.preset} with {POLICY_LOSS}.loss_mode={LOSS_MODE} has a token rule "
        f"without effect, as {values} hold no token to an anchor and take no token's policy "
        f"gradient away: {cure}."
    )


def check_kl_cov(node: Mapping[str, Any]) -> None:
    """Raises ValueError for a setting of verl's own `kl_cov`, which the token rule does not read.

    Args:
        node: `policy_loss`.
    """
    from verl.workers.config import PolicyLossConfig

    usual = PolicyLossConfig()
    for name, read in (("kl_cov_ratio", "high_cov_fraction"), ("ppo_kl_coef", "high_cov_coef")):
        if node[name] != getattr(usual, name):
            raise ValueError(
                f"{POLICY_LOSS}.{name}={node[name]} has no effect with loss_mode={LOSS_MODE}, "
                f"which reads {NODE}.{read}: set that, or {POLICY_LOSS}.loss_mode=kl_cov."
            )


def check_advantage(preset: str, config: DictConfig) -> None:
    """Raises ValueError where AsymGRPO's estimator was set beside a preset of SENT's without the
    one of its presets that it is to compute: GRPO's stands there."""
    method = PRESETS[preset]
    advantage = (config.algorithm.get("asymgrpo") or {}).get("preset")
    if (
        preset != TokenRule.preset
        and (method.adv_estimator, method.asymgrpo_preset) == ("grpo", advantage)
        and config.algorithm.adv_estimator == "asymgrpo"
    ):
        raise ValueError(
            f"algorithm.adv_estimator=asymgrpo with {NODE}.preset={preset} computes GRPO's "
            f"advantages, by algorithm.asymgrpo.preset={advantage}: set algorithm.asymgrpo."
            "preset=asymgrpo, or leave the estimator at grpo."
        )


def check_other_loss(node: Mapping[str, Any], settings: TokenRuleSettings) -> None:
    """Raises ValueError for a preset, or a setting of the token rule, that the loss does not read;
    what a loss of another package reads is not known.

    Args:
        node: `policy_loss` as the config has it, where a null is the preset's.
    """
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY

    loss = POLICY_LOSS_REGISTRY.get(settings.loss_mode)
    if loss is None or not loss.__module__.startswith(("verl.", "recipe.")):
        return
    preset = settings.token_rule.preset
    given = [name for name, value in node["token_rule"].items() if value is not None]
    for name in given:
        if name in settings_of(TokenRule) and (
            name != "preset" or PRESETS[preset].loss_mode == LOSS_MODE
        ):
            raise ValueError(
                f"{NODE}.{name}={node['token_rule'][name]} has no effect with "
                f"{POLICY_LOSS}.loss_mode={settings.loss_mode}, which has no token rule: set "
                f"{POLICY_LOSS}.loss_mode={LOSS_MODE}, or "
                f"{'another preset' if name == 'preset' else 'leave it at null'}."
            )


def check_curriculum(config: DictConfig) -> None:
    """Reads the scores and the training prompts as the trainer will. Of prompts that are too long
    for it, which verl leaves out, those count that the measurement has left out for that too."""
    if "curriculum" not in config.data:
        return
    settings = CurriculumConfig.from_mapping(plain(config.data.curriculum))
    if settings.order == "none":
        return
    assert settings.scores is not None  # CurriculumConfig requires it for an order
    scores = read_scores(settings.scores)
    check_template(config, scores.attrs, settings.scores)
    check_reward(config, scores.attrs, settings.scores)
    check_model(config, scores.attrs, settings)
    files = run_config.local_parquet_files(config, "train_files")
    if files is None:
        return  # the trainer looks again
    key = config.data.get("prompt_key", "prompt")
    prompts = [p for file in files for p in pq.read_table(file, columns=[key])[key].to_pylist()]
    ids = [prompt_id(prompt) for prompt in prompts]
    if len(set(ids)) < len(ids) and any(rows.media_in(file, str(file)) for file in files):
        raise ValueError(
            f"{CURRICULUM}.scores names a prompt by its text, and of the {len(ids)} training "
            f"prompts, which have images, only {len(set(ids))} have a text of their own: number "
            f"them in their text, or set {CURRICULUM}.order=none."
        )
    limit = config.data.get("train_max_samples", -1)
    first = ids[:limit] if 0 < limit < len(ids) else ids
    if too_long := left_out(config, scores.attrs):
        ids, first = ([name for name in x if name not in too_long] for x in (ids, first))
    if len(first) < len(ids) and config.data.shuffle:  # any of them may be taken
        rows_of(scores, ids, settings.scores)
    ids = first
    curriculum = curriculum_for(ids, settings)
    steps_of_plan(
        len(curriculum.plan.prompt_D),
        config.data.train_batch_size,
        config.trainer.total_training_steps,
        run_config.replaces_groups(config),
    )


def left_out(config: DictConfig, measured: Mapping[str, Any]) -> set[str]:
    """Returns the prompts that the measurement has left out and verl will leave out: none where
    this run takes longer ones."""
    if "left_out" not in measured or not config.data.filter_overlong_prompts:
        return set()
    shorter = config.data.max_prompt_length <= measured["max_prompt_length"]
    return set(measured["left_out"]) if shorter else set()


def check_template(config: DictConfig, measured: Mapping[str, Any], path: str) -> None:
    """Raises ValueError if the scores are of prompts in another format than the run's; tables of
    older versions do not say theirs."""
    name = "chat_template_kwargs"
    trained = plain(config.data.get(f"apply_{name}") or {})
    if name in measured and measured[name] != trained:
        raise ValueError(
            f"data.curriculum.scores={path} was measured with chat template kwargs "
            f"{measured[name]}, and data.apply_{name} is {trained}: measure it again with "
            f"--{name.replace('_', '-')} '{json.dumps(trained)}'."
        )


def check_reward(config: DictConfig, measured: Mapping[str, Any], path: str) -> None:
    """Raises ValueError if the responses were judged by another function than the run's; tables of
    older versions do not say theirs, and a run without a path has verl's own functions."""
    node = plain(OmegaConf.select(config, reward_function.NODE) or {})
    if "reward" not in measured or not node.get("path"):
        return
    function = RewardFunction.of_run(node)
    trained = str(function or JUDGE)
    if measured["reward"] != trained:
        kwargs = f" --reward-kwargs '{json.dumps(function.kwargs)}'" if function else ""
        raise ValueError(
            f"data.curriculum.scores={path} was judged by {measured['reward']}, and the reward "
            f"function of this run is {trained}: measure it again with --reward "
            f"{node['path']}:{node.get('name') or DEFAULT_NAME}{kwargs}."
        )


def check_model(
    config: DictConfig, measured: Mapping[str, Any], settings: CurriculumConfig
) -> None:
    """Raises ValueError if the scores are of a model of other content than the run begins with;
    tables of older versions do not say theirs."""
    if settings.scores_from == "any_model" or "model" not in measured:
        return
    path = config.actor_rollout_ref.model.path
    content = fingerprint(path)
    if measured["model"] != content:
        raise ValueError(
            f"{CURRICULUM}.scores={settings.scores} was measured with another model "
            f"({measured['model_path']}, content {measured['model']}) than actor_rollout_ref.model."
            f"path={path} (content {content}): measure it again with --model {path}, or set "
            f"{CURRICULUM}.scores_from=any_model to train in that model's order."
        )


def summary(config: DictConfig) -> dict[str, str]:
    """Returns what the summary of a run says of these settings."""
    lines = {}
    settings = run_config.policy_loss(config)
    if isinstance(settings, TokenRuleSettings) and settings.loss_mode == LOSS_MODE:
        lines["loss"] = str({"token_rule": settings.token_rule_summary()})
    curriculum = config.data.get("curriculum")
    if curriculum is not None and curriculum.order != "none":
        lines["curriculum"] = str(dict(curriculum))
    return lines
