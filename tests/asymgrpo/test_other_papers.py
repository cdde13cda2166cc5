"""The advantages of other papers among the presets: closed forms, and what each reduces to."""

import numpy as np
import pytest
import torch
from builders import run_overrides
from omegaconf import OmegaConf
from verl.trainer.ppo import core_algos

from recipe.asymgrpo import advantages as adv
from recipe.asymgrpo.checks import check, check_estimator, summary
from recipe.asymgrpo.config import NODE, PRESETS, AsymGRPOConfig, check_group_size
from recipe.asymgrpo.register import rollout_advantages
from recipe.launch.compose import compose

STD = "algorithm.norm_adv_by_std_in_grpo=true"
ONE_UPDATE = "actor_rollout_ref.actor.ppo_mini_batch_size=4"


def by_outcome(preset: str, correct: int, size: int, **settings):
    """(advantage of a correct, of an incorrect rollout) in one group; None where there is none."""
    correct_B, group_B = torch.arange(size) < correct, torch.zeros(size, dtype=torch.long)
    config = AsymGRPOConfig(preset=preset, **settings)
    adv_B = rollout_advantages(config, correct_B, group_B, torch.ones(size, dtype=torch.bool))
    return (adv_B[:correct].tolist() or [None])[0], (adv_B[correct:].tolist() or [None])[0]


@pytest.mark.parametrize(
    ("preset", "expected"), [("psr", (1, 0)), ("nsr", (0, -1)), ("w_reinforce", (0.1, -1))]
)
@pytest.mark.parametrize("correct", [1, 4, 7])
def test_sign_weights_do_not_depend_on_the_group(preset, expected, correct):
    assert by_outcome(preset, correct, 8) == pytest.approx(expected)


def test_w_reinforce_at_weight_1_is_reinforce_and_the_sum_of_psr_and_nsr():
    for correct in range(9):
        reinforce = by_outcome("reinforce", correct, 8)
        assert by_outcome("w_reinforce", correct, 8, correct_weight=1.0) == reinforce
        parts = zip(by_outcome("psr", correct, 8), by_outcome("nsr", correct, 8), strict=True)
        assert tuple(None if a is None else a + b for a, b in parts) == reinforce


@pytest.mark.parametrize(
    ("correct", "expected"),
    [
        (0, (None, 0)),
        (1, (8 / 7**0.5, 0)),  # hard: 1 / sqrt(p (1-p)), p = 1/8
        (4, (2, 0)),  # p = 1/2 <= 1 - 0.4
        (5, (0, -8 / 15**0.5)),  # easy: p = 5/8 > 0.6
        (8, (0, None)),
    ],
)
def test_qae_trains_the_correct_rollouts_of_hard_and_the_incorrect_ones_of_easy_groups(
    correct, expected
):
    got = by_outcome("qae", correct, 8)
    assert got == tuple(x if x is None else pytest.approx(x, abs=1e-6) for x in expected)


@pytest.mark.parametrize(("size", "quantile"), [(5, 0.4), (10, 0.3), (10, 0.7), (15, 0.4)])
def test_qae_at_p_of_exactly_1_minus_K_is_hard(size, quantile):
    correct = round((1 - quantile) * size)
    assert by_outcome("qae", correct, size, quantile=quantile)[1] == 0
    assert by_outcome("qae", correct + 1, size, quantile=quantile)[0] == 0


def test_qae_differs_from_grpo_by_its_baseline_alone():
    """Both give a correct rollout 1 / std more than an incorrect one of its group."""
    for correct in range(1, 8):
        grpo, qae = by_outcome("grpo", correct, 8), by_outcome("qae", correct, 8)
        assert qae[0] - qae[1] == pytest.approx(grpo[0] - grpo[1], rel=1e-6)


def test_max_rl_is_odds_1_0_but_in_groups_without_a_correct_rollout():
    for correct in range(1, 9):
        odds = by_outcome("asymgrpo", correct, 8, beta_pos=1.0, beta_neg=0.0)
        assert by_outcome("max_rl", correct, 8) == odds
    assert by_outcome("max_rl", 2, 8) == (3, -1)  # (1 - p) / p at p = 1/4
    assert by_outcome("max_rl", 0, 8) == (None, 0)


def test_the_presets_of_verls_estimators_name_them():
    for name in ("rloo", "reinforce_plus_plus", "reinforce_plus_plus_baseline"):
        assert PRESETS[name].adv_estimator == name
        assert name in core_algos.ADV_ESTIMATOR_REGISTRY


def test_verls_rloo_is_grpo_without_its_std_times_n_over_n_minus_1():
    reward_B1, mask_BT = torch.tensor([1.0, 0, 0, 0, 1, 1, 0, 0])[:, None], torch.ones(8, 3)
    rloo, _ = core_algos.get_adv_estimator_fn("rloo")(reward_B1, mask_BT, np.array(["a"] * 8))
    # (r - p) n / (n - 1), p = 3/8
    torch.testing.assert_close(rloo[:, 0], (reward_B1[:, 0] - 3 / 8) * 8 / 7)


def of_verl(name, reward_B, group_B, mask_BT):
    """The advantages of an estimator of verl's; each row's reward stands at its last token."""
    reward_BT = torch.zeros(mask_BT.shape)
    reward_BT[torch.arange(len(reward_B)), mask_BT.sum(1).long() - 1] = reward_B
    estimator = core_algos.get_adv_estimator_fn(name)
    config = OmegaConf.create({"gamma": 1.0})
    return estimator(
        token_level_rewards=reward_BT, response_mask=mask_BT, index=group_B, config=config
    )[0]


def test_verls_reinforce_plus_plus_whitens_the_rewards_over_all_tokens():
    """Two correct responses of 3 and 1 tokens, an incorrect one of 4: p = 1/2 of the tokens."""
    mask_BT = torch.tensor([[1.0, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]])
    reward_B = torch.tensor([1.0, 1.0, 0.0])
    got = of_verl("reinforce_plus_plus", reward_B, np.array(["a", "b", "c"]), mask_BT)
    std = (8 / 7 * 1 / 4) ** 0.5
    torch.testing.assert_close(got, (reward_B[:, None] - 1 / 2) / std * mask_BT)


def test_verls_reinforce_plus_plus_baseline_whitens_what_is_left_of_the_group_s_mean():
    """In groups of p = 1/4 and 1/2: r - p, divided by one std over all tokens."""
    reward_B, mask_BT = torch.tensor([1.0, 0, 0, 0, 1, 1, 0, 0]), torch.ones(8, 3)
    got = of_verl(
        "reinforce_plus_plus_baseline", reward_B, np.array(["a"] * 4 + ["b"] * 4), mask_BT
    )
    centred_B = reward_B - torch.tensor([1 / 4] * 4 + [1 / 2] * 4)
    std = (24 / 23 * (3 / 16 + 1 / 4) / 2) ** 0.5  # mean of p (1 - p), 24 tokens
    torch.testing.assert_close(got, (centred_B / std)[:, None] * mask_BT)


@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("preset", ["reinforce_plus_plus", "reinforce_plus_plus_baseline"])
def test_verls_reinforce_plus_plus_is_grpo_in_one_group_of_equal_lengths(preset, length):
    """(r - p) / std, of N tokens in the place of n rollouts: GRPO's population std (eq. 6) times
    sqrt(N / (N - 1)); with one token each N = n, and it is the sample std, verl's GRPO."""
    correct_B, one_group_B = torch.arange(8) < 3, torch.zeros(8, dtype=torch.long)
    reward_B, mask_BT, index_B = correct_B.float(), torch.ones(8, length), np.array(["a"] * 8)
    got = of_verl(PRESETS[preset].adv_estimator, reward_B, index_B, mask_BT)
    grpo_B, tokens = adv.grpo_advantage(correct_B, one_group_B), 8 * length
    expected = grpo_B[:, None] * ((tokens - 1) / tokens) ** 0.5 * mask_BT
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)
    if length == 1:
        verls, _ = core_algos.get_adv_estimator_fn("grpo")(reward_B[:, None], mask_BT, index_B)
        torch.testing.assert_close(got, verls, rtol=3e-6, atol=0)  # its eps is 1e-6


def test_verls_reinforce_plus_plus_baseline_changes_nothing_where_groups_have_one_accuracy():
    """Their mean is then one number, and the whitening takes any such number off by itself."""
    reward_B, group_B = torch.tensor([1.0, 0, 0, 0, 0, 1, 0, 0]), np.array(["a"] * 4 + ["b"] * 4)
    lengths_B = torch.tensor([1, 4, 2, 3, 3, 2, 4, 1])
    mask_BT = (torch.arange(4) < lengths_B[:, None]).float()
    plain = of_verl("reinforce_plus_plus", reward_B, group_B, mask_BT)
    got = of_verl("reinforce_plus_plus_baseline", reward_B, group_B, mask_BT)
    torch.testing.assert_close(got, plain, rtol=1e-6, atol=1e-6)
    others = of_verl("reinforce_plus_plus_baseline", reward_B, np.array([*"aabbbabb"]), mask_BT)
    assert not torch.allclose(others, plain, atol=0.1)


def test_qae_divides_by_the_std_that_is_set():
    # hard, so the baseline is 0: p = 1/4; sample: n p (1 - p) / (n - 1)
    got = by_outcome("qae", 2, 8, std="sample", eps=0.1)
    assert got == pytest.approx((1 / ((8 * 3 / 16 / 7) ** 0.5 + 0.1), 0))


def test_a_row_that_is_not_counted_changes_no_quantile():
    correct_B = torch.tensor([True, False, False, True, True])
    valid_B = torch.tensor([True, True, True, False, False])
    got = adv.quantile_advantage(correct_B, torch.zeros(5, dtype=torch.long), valid_B=valid_B)
    # p = 1/3 of three: hard
    assert got.tolist() == pytest.approx([3 / 2**0.5, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("settings", "n", "message"),
    [
        ({"preset": "qae"}, 2, r"quantile=0.4 at .*n=2 is the same .* only correct .*use n >= 3"),
        ({"preset": "qae", "quantile": 0.25}, 4, r"only correct .*above 0.25, at most 0.75, or"),
        ({"preset": "qae", "quantile": 0.1}, 8, r"use a number above 0.125, at most 0.875"),
        ({"preset": "qae", "quantile": 0.9}, 8, "only incorrect rollouts .* or preset=nsr"),
        ({"preset": "max_rl"}, 1, "nothing to compare a rollout with"),
    ],
)
def test_a_setting_or_group_size_that_makes_a_method_another_is_refused(settings, n, message):
    with pytest.raises(ValueError, match=message):
        check_group_size(AsymGRPOConfig(**settings), n)


def test_qae_takes_the_largest_quantile_that_leaves_a_hard_group():
    """K = 3/4 of 4: one correct rollout is p = 1/4 <= 1 - K, hard; three are easy."""
    check_group_size(AsymGRPOConfig(preset="qae", quantile=0.75), 4)
    assert by_outcome("qae", 1, 4, quantile=0.75)[1] == 0
    assert by_outcome("qae", 3, 4, quantile=0.75)[0] == 0


@pytest.mark.parametrize(
    ("preset", "estimator"),
    [
        *(("nsr", "grpo"), ("qae", "rloo"), ("rloo", "asymgrpo"), ("dr_grpo", "asymgrpo")),
        *(("asymgrpo", "grpo"), ("reinforce", "rloo")),
    ],
)
def test_a_preset_whose_advantages_another_estimator_replaces_is_refused(preset, estimator):
    settings = AsymGRPOConfig(preset=preset)
    with pytest.raises(ValueError, match=f"preset={preset} has no effect with .*={estimator},"):
        check_estimator(settings, estimator, chosen=True)
    check_estimator(settings, estimator, chosen=False)


@pytest.mark.parametrize("beta", ["beta_pos", "beta_neg"])
def test_a_beta_that_the_estimator_does_not_read_is_refused(beta):
    settings = AsymGRPOConfig(**{beta: 0.7})
    with pytest.raises(ValueError, match=rf"{beta}=0\.7 has no effect with .*adv_estimator=grpo:"):
        check_estimator(settings, "grpo", chosen=False)
    check_estimator(settings, "asymgrpo", chosen=False)


def test_another_recipe_s_run_with_the_estimator_has_the_paper_s_own_preset(tmp_path):
    """No preset is chosen in it: null, which is asymgrpo and is no setting of other estimators."""
    config = compose("clip_entropy", run_overrides(tmp_path))
    assert config.algorithm.asymgrpo.preset is None
    check(config)
    config.algorithm.adv_estimator = "asymgrpo"
    check(config)
    settings = AsymGRPOConfig.from_mapping(dict(config.algorithm.asymgrpo))
    assert (settings.preset, settings.betas) == ("asymgrpo", (0.9, 0.4))
    assert "'preset': 'asymgrpo'" in summary(config)["estimator"]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["preset=dr_grpo"], None),
        (["preset=dr_grpo", STD], "preset=dr_grpo has no effect with .*norm_adv_by_std_in_grpo=t"),
        (["preset=grpo_clip_higher"], None),
        (["preset=grpo_clip_higher", ONE_UPDATE], "preset=grpo_clip_higher clips nothing"),
    ],
)
def test_a_preset_that_another_setting_makes_grpo_is_refused(overrides, sentence, tmp_path):
    words = [f"{NODE}.{overrides[0]}", *overrides[1:]]
    config = compose("asymgrpo", [*run_overrides(tmp_path), *words])
    if sentence is None:
        check(config)
        return
    with pytest.raises(ValueError, match=sentence):
        check(config)


def test_grpos_own_presets_allow_another_estimator():
    for preset in ("grpo", "grpo_clip_higher", "grpo_entropy_adv"):
        check_estimator(AsymGRPOConfig(preset=preset), "grpo", chosen=True)
