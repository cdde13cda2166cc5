"""One suite for every advantage estimator that a recipe's record names, with the settings of every
method that uses it, in verl's own trainer and in the recipes'.

The estimators here are of outcome rewards: a row's reward is the sum over its row (as in verl, the
response mask does not cut it: a reward may stand on a tool's token).
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import builders
import numpy as np
import pytest
import torch
from builders import parts_of, queue_of, step_of
from omegaconf import DictConfig
from torch import Tensor
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY

from recipe.core.recipe import recipe_named, recipes

KEY = "algorithm.adv_estimator"
TRAINERS = ("verl's trainer", "the recipes' trainer")


def names() -> list[str]:
    return [name for record in builders.recipes() for name in record.estimators]


@dataclass(frozen=True)
class Rollouts:
    """What an estimator gets of a batch; the last `padding` rows are verl's."""

    rewards_BT: Tensor
    mask_BT: Tensor
    uid_B: np.ndarray
    padding: int = 0

    def rows(self, order: Tensor) -> Rollouts:
        return Rollouts(self.rewards_BT[order], self.mask_BT[order], self.uid_B[order.numpy()])

    def arguments(self) -> dict[str, Any]:
        """As verl's compute_advantage hands them over."""
        return {
            "token_level_rewards": self.rewards_BT,
            "response_mask": self.mask_BT,
            "index": self.uid_B,
        }


def rollouts() -> Rollouts:
    """Groups of several sizes: mixed ones, all correct, all incorrect, and a group of one."""
    generator = torch.Generator().manual_seed(0)
    correct = [[1, 1, 0, 0, 0, 0, 0, 0], [1] * 8, [0] * 8, [1, 0, 1, 0, 1], [1]]
    reward_B = torch.tensor([float(x) for group in correct for x in group])
    uid_B = np.repeat(np.array([f"p{p}" for p in range(5)], dtype=object), [*map(len, correct)])
    length_B = torch.randint(1, 9, (len(reward_B),), generator=generator)
    mask_BT = (torch.arange(8) < length_B[:, None]).long()
    rewards_BT = torch.zeros(len(reward_B), 8).scatter(1, length_B[:, None] - 1, reward_B[:, None])
    order = torch.randperm(len(reward_B), generator=generator)
    return Rollouts(rewards_BT, mask_BT, uid_B).rows(order)


Estimate = Callable[[Rollouts], tuple[Tensor, Tensor]]


def estimate_by(function: Callable, config: DictConfig, trainer: str) -> Estimate:
    """Returns the estimator as a trainer calls it."""

    def estimate(batch: Rollouts) -> tuple[Tensor, Tensor]:
        lengths = torch.full((len(batch.uid_B),), batch.rewards_BT.shape[1])
        rules = [p.correctness for p in parts_of(config) if p.correctness is not None]
        step = step_of(
            batch.uid_B.tolist(),
            padding=batch.padding,
            config=config,
            correctness=rules[0] if rules else None,
        )
        fields = {"uid": batch.uid_B, "rm_scores": builders.nested(batch.rewards_BT, lengths)}
        with queue_of(fields), step.as_current() if trainer == TRAINERS[1] else nullcontext():
            return function(**batch.arguments(), config=config.algorithm)

    return estimate


# ---- the properties ------------------------------------------------------------------------------


def returns_float32_pairs_that_are_finite(estimate: Estimate) -> None:
    batch = rollouts()
    for values in estimate(batch):
        assert values.shape == batch.mask_BT.shape and values.dtype == torch.float32
        assert values.isfinite().all()
    advantages, _ = estimate(batch)
    assert advantages.any()


def takes_masks_of_any_dtype(estimate: Estimate) -> None:
    batch = rollouts()
    for dtype in (torch.bool, torch.int64, torch.float32):
        masked = dataclasses.replace(batch, mask_BT=batch.mask_BT.to(dtype))
        for values, expected in zip(estimate(masked), estimate(batch), strict=True):
            assert values.dtype == torch.float32 and torch.equal(values, expected)


def leaves_its_inputs_alone(estimate: Estimate) -> None:
    batch, same = rollouts(), rollouts()
    estimate(batch)
    assert torch.equal(batch.rewards_BT, same.rewards_BT)
    assert torch.equal(batch.mask_BT, same.mask_BT)
    assert batch.uid_B.tolist() == same.uid_B.tolist()


def is_zero_outside_the_mask_and_reads_nothing_there(estimate: Estimate) -> None:
    """More tokens outside the mask, and holes in it, change no row's advantage."""
    batch = rollouts()
    advantages, _ = estimate(batch)
    assert not advantages[batch.mask_BT == 0].any()
    wider = dataclasses.replace(
        batch,
        rewards_BT=torch.nn.functional.pad(batch.rewards_BT, (0, 5)),
        mask_BT=torch.nn.functional.pad(batch.mask_BT, (0, 5)),
    )
    for values, expected in zip(estimate(wider), estimate(batch), strict=True):
        assert torch.equal(values, torch.nn.functional.pad(expected, (0, 5)))
    holes = batch.mask_BT.clone()
    holes[:, 1::2] = 0  # the first token of each row stays
    for values, expected in zip(
        estimate(dataclasses.replace(batch, mask_BT=holes)), estimate(batch), strict=True
    ):
        assert torch.equal(values, expected * holes)


def depends_on_no_order_of_rows(estimate: Estimate) -> None:
    batch = rollouts()
    order = torch.randperm(len(batch.uid_B), generator=torch.Generator().manual_seed(1))
    for values, expected in zip(estimate(batch.rows(order)), estimate(batch), strict=True):
        torch.testing.assert_close(values, expected[order], rtol=1e-6, atol=0)


def depends_on_no_names_of_prompts(estimate: Estimate) -> None:
    batch = rollouts()
    renamed = dataclasses.replace(
        batch, uid_B=np.array([f"0{9 - int(uid[1:])}" for uid in batch.uid_B], dtype=object)
    )
    for values, expected in zip(estimate(renamed), estimate(batch), strict=True):
        assert torch.equal(values, expected)


def gives_padding_rows_nothing(estimate: Estimate) -> None:
    """verl pads a batch with rows of reward 0, an empty mask and a uid of their own."""
    batch = rollouts()
    padded = Rollouts(
        torch.nn.functional.pad(batch.rewards_BT, (0, 0, 0, 3)),
        torch.nn.functional.pad(batch.mask_BT, (0, 0, 0, 3)),
        np.concatenate([batch.uid_B, np.array(["pad-0", "pad-1", "pad-2"], dtype=object)]),
        padding=3,
    )
    for values, expected in zip(estimate(padded), estimate(batch), strict=True):
        assert torch.equal(values, torch.nn.functional.pad(expected, (0, 0, 0, 3)))


PROPERTIES = (
    returns_float32_pairs_that_are_finite,
    takes_masks_of_any_dtype,
    leaves_its_inputs_alone,
    is_zero_outside_the_mask_and_reads_nothing_there,
    depends_on_no_order_of_rows,
    depends_on_no_names_of_prompts,
    gives_padding_rows_nothing,
)

# ---- the suite -----------------------------------------------------------------------------------


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("check", PROPERTIES, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", names())
def test_an_estimator(name, check, trainer, users_of):
    for method, config in users_of(KEY, name).items():
        try:
            check(estimate_by(ADV_ESTIMATOR_REGISTRY[name], config, trainer))
        except Exception as error:
            error.add_note(f"with the settings of {method}")
            raise


@pytest.mark.parametrize("name", names())
def test_an_estimator_takes_what_verl_hands_over(name):
    """verl's compute_advantage: these always, reward_baselines where there are some."""
    signature = inspect.signature(ADV_ESTIMATOR_REGISTRY[name])
    always = {**rollouts().arguments(), "config": None}
    signature.bind(**always)
    signature.bind(**always, reward_baselines=None)


def test_the_records_name_every_estimator_that_is_registered():
    """One that no record names would be in no suite."""
    for record in recipes():
        assert builders.registered_by(record, ADV_ESTIMATOR_REGISTRY) == set(record.estimators)


def test_an_estimator_that_no_method_uses_fails(monkeypatch, users_of):
    example = recipe_named("example")
    fake = dataclasses.replace(example, estimators=(*example.estimators, "unheard_of"))
    monkeypatch.setattr(builders, "recipes", lambda: (fake,))
    assert names() == ["leave_one_out", "unheard_of"]
    with pytest.raises(AssertionError, match="unheard_of is registered, but no recipe"):
        users_of(KEY, "unheard_of")


# ---- the suite finds what it is for --------------------------------------------------------------


def centred(token_level_rewards, response_mask, index, config, **_):
    """An estimator that keeps the contract: the reward minus that of the prompt's first row."""
    reward_B = token_level_rewards.sum(-1)
    uids = list(index)
    mean_B = torch.stack([reward_B[np.array(uids) == uid].double().mean() for uid in uids])
    values = ((reward_B - mean_B).float()[:, None] * response_mask.bool()).float()
    return values, values


def _double(**arguments):
    return tuple(values.double() for values in centred(**arguments))


def _in_place(token_level_rewards, **arguments):
    return centred(token_level_rewards=token_level_rewards.sub_(0.5), **arguments)


def _everywhere(response_mask, **arguments):
    return centred(response_mask=torch.ones_like(response_mask), **arguments)


def _by_length(token_level_rewards, **arguments):
    return centred(
        token_level_rewards=token_level_rewards / token_level_rewards.shape[1], **arguments
    )


def _by_first_row(token_level_rewards, response_mask, **_):
    reward_B = token_level_rewards.sum(-1)
    values = (reward_B - reward_B[0])[:, None] * response_mask
    return values, values


def _by_name(index, **arguments):
    values, _ = centred(index=index, **arguments)
    scale = torch.tensor([1.0 + float(str(uid)[-1].isdigit()) * int(uid[-1]) for uid in index])
    return values * scale[:, None], values


def _over_all_rows(token_level_rewards, response_mask, **_):
    reward_B = token_level_rewards.sum(-1)
    values = (reward_B - reward_B.mean())[:, None] * response_mask.bool()
    return values, values


def _as_the_mask(**arguments):
    values, _ = centred(**arguments)
    return values.to(arguments["response_mask"].dtype), values


BROKEN = {
    _double: returns_float32_pairs_that_are_finite,
    _as_the_mask: takes_masks_of_any_dtype,
    _in_place: leaves_its_inputs_alone,
    _everywhere: is_zero_outside_the_mask_and_reads_nothing_there,
    _by_length: is_zero_outside_the_mask_and_reads_nothing_there,
    _by_first_row: depends_on_no_order_of_rows,
    _by_name: depends_on_no_names_of_prompts,
    _over_all_rows: gives_padding_rows_nothing,
}


@pytest.fixture(scope="session")
def any_config(config_of) -> Iterator[DictConfig]:
    return config_of(builders.Method(recipe_named("example"), None))


@pytest.mark.parametrize("broken", BROKEN, ids=lambda function: function.__name__)
def test_a_broken_estimator_fails(broken, any_config):
    with pytest.raises(AssertionError):
        BROKEN[broken](estimate_by(broken, any_config, TRAINERS[0]))


@pytest.mark.parametrize("check", PROPERTIES, ids=lambda check: check.__name__)
def test_a_sound_estimator_passes(check, any_config):
    check(estimate_by(centred, any_config, TRAINERS[0]))
