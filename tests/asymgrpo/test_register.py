"""The estimator as verl 0.9.1 sees it: registered, called by keyword, compared with verl's own."""

import importlib
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from transfer_queue import KVBatchMeta
from verl.trainer.ppo import core_algos

from recipe.asymgrpo import register
from recipe.asymgrpo.config import PRESETS
from recipe.core.rollouts import CorrectnessRule
from recipe.core.step import Step


def estimate(rewards, uids, mask_BT=None, **settings):
    """Calls the registered estimator as verl's trainer does; rewards stand on the last token."""
    mask_BT = torch.ones(len(rewards), 3, dtype=torch.int64) if mask_BT is None else mask_BT
    rewards_BT = torch.zeros(mask_BT.shape)
    rewards_BT[:, -1] = torch.as_tensor(rewards, dtype=torch.float32)
    return core_algos.get_adv_estimator_fn("asymgrpo")(
        token_level_rewards=rewards_BT,
        response_mask=mask_BT,
        index=np.array(uids, dtype=object),
        config=OmegaConf.create({"gamma": 1.0, "asymgrpo": settings}),
    )


def random_groups(seed: int, sizes: list[int]):
    generator = torch.Generator().manual_seed(seed)
    uids = [f"prompt-{p}" for p, size in enumerate(sizes) for _ in range(size)]
    rewards = (torch.rand(len(uids), generator=generator) < 0.4).float()
    order = torch.randperm(len(uids), generator=generator)
    return rewards, [uids[i] for i in order]


def test_a_fresh_process_that_imports_verls_algorithms_has_the_estimator():
    code = (
        "from verl.trainer.ppo.core_algos import get_adv_estimator_fn as get;"
        "print('estimator:', get('asymgrpo').__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "estimator: recipe.asymgrpo.register" in done.stdout, done.stderr[-2000:]


def test_importing_the_module_twice_registers_again_without_a_clash():
    importlib.reload(register)
    assert core_algos.get_adv_estimator_fn("asymgrpo") is register.asymgrpo_advantage


def test_another_function_under_the_name_is_a_clash(monkeypatch):
    monkeypatch.setitem(core_algos.ADV_ESTIMATOR_REGISTRY, "asymgrpo", print)
    with pytest.raises(ValueError, match="already registered by builtins"):
        importlib.reload(register)


@pytest.mark.parametrize("size", [2, 8, 16])
@pytest.mark.parametrize("seed", [0, 1])
def test_betas_of_one_half_are_verls_grpo_times_the_sample_std_correction(seed, size):
    rewards, uids = random_groups(seed, [size] * 12)
    mask_BT = (torch.arange(5) < torch.arange(1, len(uids) + 1)[:, None] % 5 + 1).long()
    got, returns = estimate(rewards, uids, mask_BT, preset="grpo")
    rewards_BT = torch.zeros(mask_BT.shape)
    rewards_BT[:, -1] = rewards
    verls, _ = core_algos.compute_grpo_outcome_advantage(rewards_BT, mask_BT, np.array(uids))
    expected = verls * math.sqrt(size / (size - 1))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert returns is got and got.dtype == torch.float32


def test_grpo_with_sample_std_and_verls_epsilon_is_verls_grpo_on_unequal_groups():
    rewards, uids = random_groups(3, [2, 3, 5, 8, 8, 16])
    got, _ = estimate(rewards, uids, preset="grpo", std="sample", eps=1e-6)
    verls, _ = core_algos.compute_grpo_outcome_advantage(
        rewards[:, None], torch.ones(len(uids), 3), np.array(uids)
    )
    torch.testing.assert_close(got, verls, atol=1e-5, rtol=1e-5)


def test_a_group_of_one_gets_zero_where_verls_grpo_gives_its_plain_reward():
    got, _ = estimate([1.0], ["a"], preset="grpo")
    verls, _ = core_algos.compute_grpo_outcome_advantage(
        torch.ones(1, 1), torch.ones(1, 3), np.array(["a"])
    )
    assert got.tolist() == [[0.0] * 3]
    torch.testing.assert_close(verls, torch.ones(1, 3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("preset", [name for name in PRESETS if PRESETS[name].rule != "verl"])
def test_every_preset_of_this_estimator_runs(preset):
    rewards = [1.0, 0, 0, 0, 0, 0, 0, 1]
    got, _ = estimate(rewards, ["a"] * 8, preset=preset)
    assert got.shape == (8, 3) and got.isfinite().all()
    assert got[0, 0] >= 0 >= got[1, 0] and got[0, 0] > got[1, 0]


@pytest.mark.parametrize(
    ("settings", "correct", "incorrect"),
    [  # 2 of 8 correct: (1-p)/p = 3
        ({"preset": "asymgrpo"}, 3**0.9, -(3**-0.4)),
        ({"preset": "asymgrpo_clip_higher"}, 3**0.9, -(3**-0.3)),
        ({"preset": "asymgrpo", "beta_neg": 0.0}, 3**0.9, -1.0),
        ({"preset": "ent_decrease"}, 3**-0.5, -(3**-0.5)),
        ({"preset": "ent_increase"}, 3**0.5, -(3**0.5)),
        ({"preset": "grpo_entropy_adv"}, 3**0.5, -(3**-0.5)),  # the trainer adds the entropy term
        # pass@2: C(6,2)/C(8,2) = 15/28 fail, A+ = sqrt(15/13), A- = -A+ 2/6
        ({"preset": "pass_at_k", "pass_k": 2}, (15 / 13) ** 0.5, -((15 / 13) ** 0.5) / 3),
        ({}, 3**0.9, -(3**-0.4)),
        ({"preset": "w_reinforce", "correct_weight": 0.3}, 0.3, -1.0),
        # 1 / std, sample: sqrt(2 6 / 8 / 7)
        ({"preset": "qae", "std": "sample"}, (56 / 12) ** 0.5, 0.0),
        ({"preset": "max_rl"}, 3.0, -1.0),
    ],
)
def test_settings_choose_the_advantage(settings, correct, incorrect):
    got, _ = estimate([1.0, 1, 0, 0, 0, 0, 0, 0], ["a"] * 8, **settings)
    assert got[0, 0].item() == pytest.approx(correct, abs=1e-6)
    assert got[-1, 0].item() == pytest.approx(incorrect, abs=1e-6)


def test_verls_padding_rows_count_nowhere_even_where_incorrect_is_minus_one():
    # verl pads with rows of reward 0, an empty mask and a uid of their own
    mask_BT = torch.tensor([[1, 1, 1]] * 4 + [[0, 0, 0]] * 2)
    got, _ = estimate([1, -1, -1, -1, 0, 0], ["a"] * 4 + ["pad"] * 2, mask_BT, preset="reinforce")
    assert got[:, 0].tolist() == [1.0, -1.0, -1.0, -1.0, 0.0, 0.0]


def test_a_reward_that_is_not_binary_is_refused_and_a_threshold_cures_it():
    with pytest.raises(ValueError, match=r"reward is 0.5, neither.*correct_threshold"):
        estimate([1.0, 0.5], ["a", "a"])
    got, _ = estimate([1.0, 0.5], ["a", "a"], correct_threshold=0.7)
    assert got[:, 0].tolist() == [1.0, -1.0]


def step_of(correct: list[bool], uids: list[str], padding: int = 0) -> Step:
    """A step of the trainer that has read which rollouts are correct."""
    tags = [{}] * (len(correct) - padding) + [{"is_padding": True}] * padding
    batch = KVBatchMeta(partition_id="train", keys=[str(i) for i in range(len(uids))], tags=tags)
    rule = CorrectnessRule(required=True)
    step = Step(batch, number=0, metrics={}, config=OmegaConf.create(), correctness=rule)
    step.correct_B, step.uid_B = torch.tensor(correct), uids
    return step


def test_within_the_trainer_the_step_says_what_is_correct_and_not_the_reward():
    """So a KL penalty in the reward changes no verdict, and a field may stand for it."""
    step = step_of([False, True, False], ["a"] * 3)
    with step.as_current():
        got, _ = estimate([0.3, -4.0, 9.0], ["a"] * 3, preset="reinforce", correct_field="acc")
    assert got[:, 0].tolist() == [-1.0, 1.0, -1.0]


def test_within_the_trainer_a_row_that_verl_rejected_still_counts_for_its_group():
    """Its mask is zero, so it has no gradient, but p is over all rollouts of the prompt; a padding
    row, by verl's tag, counts nowhere."""
    mask_BT = torch.tensor([[1, 1, 1], [0, 0, 0], [1, 1, 1], [0, 0, 0]])
    step = step_of([True, False, False, True], ["a", "a", "a", "b"], padding=1)
    with step.as_current():
        got, _ = estimate([0] * 4, ["a"] * 4, mask_BT, preset="grpo")
    # p = 1/3: (1-p)/p = 2
    assert got[:, 0].tolist() == pytest.approx([2**0.5, 0, -(2**-0.5), 0])


def test_correct_field_without_the_recipes_trainer_is_refused():
    with step_of([True, False], ["a", "a"]).as_current():
        pass  # what one batch was told does not stay for the next
    with pytest.raises(
        ValueError, match=r"correct_field=acc was not read.*trainer_mode=recipe_sync"
    ):
        estimate([1.0, 0.0], ["a", "a"], correct_field="acc")


def test_a_preset_of_verls_own_estimator_is_refused_with_that_estimators_name():
    with pytest.raises(
        ValueError, match=r"does not compute preset=dr_grpo: set .*adv_estimator=grpo"
    ):
        estimate([1.0, 0.0], ["a", "a"], preset="dr_grpo")


def test_a_mistyped_setting_is_refused():
    with pytest.raises(ValueError, match=r"did you mean beta_neg\?"):
        estimate([1.0, 0.0], ["a", "a"], beta_negative=0.4)


def test_a_config_reads_what_its_preset_sets_through_the_resolver():
    config = OmegaConf.create(
        {
            "preset": "asymgrpo_clip_higher",
            "clip": "${preset:asymgrpo,${preset},clip_ratio_high}",
            "norm": "${preset:asymgrpo,${preset},norm_adv_by_std_in_grpo}",
        }
    )
    assert (config.clip, config.norm) == (0.28, True)
    config.preset = "dr_grpo"
    assert (config.clip, config.norm) == (0.2, False)
    config.clip = 0.25  # an override stands in the resolver's place
    assert config.clip == 0.25
