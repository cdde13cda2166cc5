"""`algorithm.adv_estimator=asymgrpo`: registers the estimators of this folder with verl 0.9.1.

What the estimator assumes: every row is one whole rollout (verl merges the several trajectories of
a session for its own `grpo` only), and rows of one prompt share a uid.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import pandas as pd
import torch
from omegaconf import OmegaConf
from torch import Tensor
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, register_adv_est

from recipe.asymgrpo import advantages as adv
from recipe.asymgrpo.config import AsymGRPOConfig, preset_value

NAME = "asymgrpo"
_correct_B: ContextVar[Tensor | None] = ContextVar("asymgrpo_correct", default=None)


@contextmanager
def correctness(correct_B: Tensor | None) -> Iterator[None]:
    """Tells the estimator which rows of the batch are right, for `correct_field`: verl hands an
    estimator the rewards only. The trainer sets it around verl's own call."""
    token = _correct_B.set(correct_B)
    try:
        yield
    finally:
        _correct_B.reset(token)


def group_index(uids) -> Tensor:
    """(B,) long: rows of equal uid share a number 0..P-1. verl's `as_torch_index` is not used: it
    reads strings as integers where it can, so uids "7" and "07" would fall into one group."""
    return torch.from_numpy(pd.factorize(np.asarray(uids), use_na_sentinel=False)[0]).long()


def row_advantages(settings: AsymGRPOConfig, *rows: Tensor) -> Tensor:
    """(B,): the advantage that the settings name, for rows = (correct_B, group_B, valid_B)."""
    correct_B, group_B, valid_B = rows
    if settings.betas == (0.5, 0.5):
        return adv.grpo_advantage(correct_B, group_B, settings.std, settings.eps, valid_B)
    if settings.betas is not None:
        return adv.odds_advantage(correct_B, group_B, *settings.betas, valid_B)
    if settings.rule == "pass_at_k":
        return adv.pass_at_k_advantage(correct_B, group_B, settings.pass_k, valid_B)
    if settings.rule == "ent_increase":
        return adv.ent_increase_advantage(*rows)
    if settings.rule == "ent_decrease":
        return adv.ent_decrease_advantage(*rows)
    raise ValueError(
        f"algorithm.adv_estimator={NAME} does not compute preset={settings.preset}: set "
        f"algorithm.adv_estimator={preset_value(settings.preset, 'adv_estimator')}."
    )


def _correct_rows(settings: AsymGRPOConfig, token_level_rewards: Tensor, valid_B: Tensor) -> Tensor:
    if settings.correct_field is None:
        reward_B = adv.scalar_rewards(token_level_rewards)
        return adv.right_or_wrong(reward_B, settings.correct_threshold, valid_B)
    correct_B = _correct_B.get()
    if correct_B is None or correct_B.shape != valid_B.shape:
        raise ValueError(
            f"algorithm.asymgrpo.correct_field={settings.correct_field} was not read for this "
            "batch: use trainer.v1.trainer_mode=recipe_sync, which reads it, or set it to null."
        )
    return correct_B.to(valid_B.device)


def asymgrpo_advantage(
    token_level_rewards: Tensor, response_mask: Tensor, index, config, **_
) -> tuple[Tensor, Tensor]:
    """verl's estimator interface: one (B, T) tensor, as advantages and as returns."""
    node = config.get(NAME, {})
    plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    settings = AsymGRPOConfig.from_mapping(plain)
    group_B = group_index(index).to(token_level_rewards.device)
    valid_B = adv.real_rows(response_mask)
    correct_B = _correct_rows(settings, token_level_rewards, valid_B)
    adv_B = row_advantages(settings, correct_B, group_B, valid_B)
    adv_BT = adv.token_advantages(adv_B, response_mask)
    return adv_BT, adv_BT


# verl refuses a second function under a name: this module's own, imported again, is not a clash
if getattr(ADV_ESTIMATOR_REGISTRY.get(NAME), "__module__", None) == __name__:
    del ADV_ESTIMATOR_REGISTRY[NAME]
register_adv_est(NAME)(asymgrpo_advantage)
OmegaConf.register_new_resolver("asymgrpo_preset", preset_value, replace=True)
logging.getLogger(__name__).info("registered %s", NAME)
