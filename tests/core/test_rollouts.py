"""What a batch of rollouts says about itself: correctness, groups, padding."""

import numpy as np
import pytest
import torch

from recipe.core.rollouts import CorrectnessRule, group_index, real_rows, scalar_rewards

RULE = CorrectnessRule(node="algorithm.asymgrpo")


@pytest.mark.parametrize(
    ("rewards", "correct"),
    [
        ([0, 1, 1], [False, True, True]),
        ([-1, 1], [False, True]),
        ([0, 0], [False, False]),
        ([-1, -1], [False, False]),
        ([1], [True]),
    ],
)
def test_zero_one_and_minus_one_one_rewards_say_what_is_correct(rewards, correct):
    assert RULE.from_rewards(torch.tensor(rewards, dtype=torch.float32)).tolist() == correct


def test_a_threshold_makes_any_finite_reward_correct_above_it():
    rewards = torch.tensor([-0.3, 0.5, 0.51, 7.0])
    assert CorrectnessRule(threshold=0.5).from_rewards(rewards).tolist() == [
        False,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("reward", [0.5, 2.0, -1.1, 0.999])
def test_a_reward_that_is_neither_correct_nor_incorrect_is_refused_with_both_cures(reward):
    with pytest.raises(
        ValueError, match=f"is {reward:g}, neither correct.*correct_threshold.*field"
    ):
        RULE.from_rewards(torch.tensor([1.0, 0.0, reward]))


def test_zero_and_minus_one_together_are_refused_as_ambiguous():
    with pytest.raises(ValueError, match=r"reward is -1, another's is 0, and only one.*threshold"):
        RULE.from_rewards(torch.tensor([1.0, 0.0, -1.0]))


@pytest.mark.parametrize("threshold", [None, 0.5])
@pytest.mark.parametrize("reward", [float("nan"), float("inf"), -float("inf")])
def test_a_reward_that_is_not_finite_is_refused_even_with_a_threshold(reward, threshold):
    with pytest.raises(ValueError, match="not finite"):
        CorrectnessRule(threshold).from_rewards(torch.tensor([1.0, reward]))


def test_rewards_of_rows_that_are_not_counted_are_not_judged():
    # verl's padding rows have reward 0 even where incorrect is -1
    rewards, valid_B = torch.tensor([1.0, -1.0, 0.0, 0.3]), torch.tensor([True, True, False, False])
    assert RULE.from_rewards(rewards, valid_B)[:2].tolist() == [True, False]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([True, False], [True, False]), ([1.0, 0.0], [True, False]), ([1, -1], [True, False])],
)
def test_correctness_by_a_field_of_the_reward_functions_result(values, expected):
    fields = [{"reward_extra_info": {"acc": value}} for value in values]
    assert RULE._replace(field="acc").from_fields(fields).tolist() == expected


def test_a_field_that_the_reward_function_does_not_return_is_refused():
    fields = [{"reward_extra_info": {"acc": True}}, {"reward_extra_info": {}}, {}]
    with pytest.raises(ValueError, match=r"correct_field='acc' is not among what .* 2 of 3"):
        RULE._replace(field="acc").from_fields(fields)


@pytest.mark.parametrize(
    "uids",
    [["7", "7", "07", "07"], ["1_0", "1_0", "10", "10"], [3, 3, "3", "3"], [None, None, "a", "a"]],
)
def test_uids_that_differ_are_different_groups_however_alike_they_look(uids):
    assert group_index(np.array(uids, dtype=object)).tolist() == [0, 0, 1, 1]


def test_group_numbers_are_dense_whatever_the_uid_type():
    assert group_index(torch.tensor([10**15, 5, 10**15])).tolist() == [0, 1, 0]
    assert group_index(["b", "a", "b"]).tolist() == [0, 1, 0]


def test_scalar_rewards_counts_a_reward_outside_the_mask_as_verl_does():
    rewards_BT = torch.tensor([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]])
    assert scalar_rewards(rewards_BT).tolist() == [1.0, -1.0]


def test_real_rows_are_those_with_any_response_token():
    mask_BT = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 0, 1], [1, 0, 0]])
    assert real_rows(mask_BT).tolist() == [True, False, True, True]
    assert real_rows(mask_BT.bool()).tolist() == [True, False, True, True]
