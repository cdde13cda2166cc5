"""A preset whose advantages are GRPO's, or are all 0, is refused before a run."""

import pytest
import torch
from builders import run_overrides

from recipe.asymgrpo.checks import check, check_other_than_grpo, is_grpo
from recipe.asymgrpo.config import PRESETS, AsymGRPOConfig
from recipe.asymgrpo.register import rollout_advantages
from recipe.launch.compose import compose

GRPOS = {name for name, preset in PRESETS.items() if preset.rule == "grpo"}
# what is GRPO in small groups: the number of rollouts up to which it is
SMALL = {
    **dict.fromkeys(("symmetric", "asymgrpo", "asymgrpo_clip_higher", "max_rl"), 2),
    **dict.fromkeys(("dr_grpo", "rloo"), 3),
}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("n", range(2, 17))
def test_a_preset_is_grpo_by_its_definition_or_in_groups_of_two_and_three(preset, n):
    expected = preset in GRPOS or n <= SMALL.get(preset, 1)
    assert is_grpo(AsymGRPOConfig(preset=preset), n) == expected


@pytest.mark.parametrize("preset", sorted(GRPOS))
def test_what_is_grpo_s_estimator_by_its_definition_is_not_refused(preset):
    check_other_than_grpo(AsymGRPOConfig(preset=preset), 2)


def test_pass_at_k_in_groups_of_k_has_no_advantage_at_all():
    """Which is why the settings refuse it, and what they advise has some."""
    settings = AsymGRPOConfig(preset="pass_at_k")

    def largest(n: int) -> float:
        correct_B = (torch.arange(n) < torch.arange(n + 1)[:, None]).flatten()
        group_B = torch.arange(n + 1).repeat_interleave(n)
        adv_B = rollout_advantages(settings, correct_B, group_B, torch.ones_like(correct_B))
        return adv_B.abs().max().item()

    assert largest(5) == 0
    # one correct of six: 1 - Rbar = C(5, 5) / C(6, 5) = 1/6, and A = sqrt((1/6) / (5/6))
    assert largest(6) == pytest.approx(0.2**0.5)


HALVES = ["algorithm.asymgrpo.beta_pos=0.5", "algorithm.asymgrpo.beta_neg=0.5"]


@pytest.mark.parametrize(
    ("preset", "n", "overrides", "sentence"),
    [
        (
            "asymgrpo",
            8,
            HALVES,
            r"^algorithm.asymgrpo.preset=asymgrpo with beta_pos, beta_neg=\(0.5, 0.5\) at "
            r"actor_rollout_ref.rollout.n=8 gives every group GRPO's advantages, or one multiple "
            r"of them: leave beta_pos and beta_neg at null, or preset=grpo\.$",
        ),
        ("symmetric", 8, HALVES, "leave beta_pos and beta_neg at null, or preset=grpo"),
        (
            "pos_only",
            8,
            HALVES[1:],
            r"\(0.5, 0.5\) .* leave beta_pos and beta_neg at null",
        ),
        ("asymgrpo", 2, [], r"rollout.n=2 gives .*: use n >= 3 \(paper: 8\), or preset=grpo"),
        ("asymgrpo_clip_higher", 2, [], "use n >= 3 .* or preset=grpo_clip_higher"),
        ("max_rl", 2, [], "preset=max_rl at .*rollout.n=2 gives .* use n >= 3"),
        ("rloo", 3, [], "preset=rloo at .*rollout.n=3 gives .* use n >= 4"),
        ("dr_grpo", 2, [], "preset=dr_grpo at .*rollout.n=2 gives .* use n >= 4"),
        (
            "pass_at_k",
            8,
            ["algorithm.asymgrpo.pass_k=1"],
            "preset=pass_at_k and pass_k=1 at .* use a pass_k above 1, or preset=grpo",
        ),
    ],
)
def test_a_preset_that_is_grpo_is_refused(preset, n, overrides, sentence, tmp_path):
    chosen = f"algorithm.asymgrpo.preset={preset}"
    size = f"actor_rollout_ref.rollout.n={n}"
    files = run_overrides(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        check(compose("asymgrpo", [*files, chosen, size, *overrides]))
    check(compose("asymgrpo", [*files, chosen]))


def test_another_recipe_s_estimator_is_not_compared(tmp_path):
    """Where none of these presets is chosen, algorithm.asymgrpo reads as its default, asymgrpo."""
    check(compose("clip_entropy", [*run_overrides(tmp_path), "actor_rollout_ref.rollout.n=2"]))


def test_another_estimator_without_groups_takes_one_rollout_a_prompt(tmp_path):
    """The preset of a recipe that names none does not speak for the estimator that is chosen."""
    one = [*run_overrides(tmp_path), "actor_rollout_ref.rollout.n=1"]
    check(compose("clip_entropy", [*one, "algorithm.adv_estimator=reinforce_plus_plus"]))
    with pytest.raises(ValueError, match="n=1 leaves preset=asymgrpo nothing to compare"):
        check(compose("clip_entropy", [*one, "algorithm.adv_estimator=asymgrpo"]))
