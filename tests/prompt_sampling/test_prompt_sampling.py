"""Orders of prompts by their latest pass rates: closed forms, what they reduce to, resume, and the
trainer's dataloader."""

import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from builders import queue_of, run_overrides, step_of
from verl.trainer.ppo.v1.trainer_base import get_trainer_cls

from recipe.core.part import DATASET_ROW
from recipe.core.prompts_in_flight import PromptsInFlight
from recipe.core.recipe import FOLDER
from recipe.launch import preflight
from recipe.launch.compose import compose
from recipe.prompt_sampling.config import PRESETS, PromptSamplingSettings
from recipe.prompt_sampling.part import PromptSamplingPart
from recipe.prompt_sampling.sampler import PassRateSampler, chance

RATES = np.array([0.0, 0.25, 0.5, 1.0, np.nan])


def draws(sampler: PassRateSampler, number: int) -> list[int]:
    return [sampler.draw() for _ in range(number)]


def shuffles(prompts: int, seed: int, epochs: int) -> list[int]:
    rngs = [np.random.default_rng([seed, epoch]) for epoch in range(epochs)]
    return [int(row) for rng in rngs for row in rng.permutation(prompts)]


# ---- the formula ---------------------------------------------------------------------------------


def test_the_chance_is_the_weight_above_a_floor_and_one_without_a_pass_rate():
    # 0.2 + 0.8 (1 - s): s = 0, 1/4, 1/2, 1
    assert chance("failure", RATES, 0.2) == pytest.approx([1.0, 0.8, 0.6, 0.2, 1.0])
    # 0.2 + 0.8 * 4 s (1 - s): 4 * 1/4 * 3/4 = 3/4
    assert chance("variance", RATES, 0.2) == pytest.approx([0.2, 0.8, 1.0, 0.2, 1.0])


@pytest.mark.parametrize("rollouts", [2, 4, 8, 16])
def test_the_variance_order_s_weight_is_vcrl_s_score_of_an_even_group(rollouts):
    """k (G - k) / (G (G - 1)), the unbiased variance, over its largest value G / (4 (G - 1))."""
    k = np.arange(rollouts + 1)
    score = k * (rollouts - k) / (rollouts * (rollouts - 1)) / (rollouts / (4 * (rollouts - 1)))
    assert chance("variance", k / rollouts, 1e-12) == pytest.approx(score, abs=1e-9)


def test_a_prompt_s_pass_rate_is_over_its_rollouts_of_the_last_update_that_had_any():
    sampler = PassRateSampler(4, "variance", 0.1, 0)
    sampler.observe(np.array([2, 0, 2, 2, 2]), np.array([True, False, False, False, True]))
    assert sampler.pass_rate_N.tolist()[::2] == [0.0, 0.5]
    assert np.isnan(sampler.pass_rate_N[[1, 3]]).all()
    sampler.observe(np.array([2]), np.array([True]))
    assert sampler.pass_rate_N[2] == 1.0 and sampler.pass_rate_N[0] == 0.0


# ---- the draws -----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["failure", "variance"])
def test_without_pass_rates_it_is_a_plain_shuffle(order):
    assert draws(PassRateSampler(7, order, 0.1, 3), 21) == shuffles(7, 3, 3)


@pytest.mark.parametrize(("order", "rate"), [("failure", 0.0), ("variance", 0.5)])
def test_with_equal_pass_rates_at_full_weight_it_is_a_plain_shuffle(order, rate):
    sampler = PassRateSampler(7, order, 0.1, 3)
    sampler.pass_rate_N[:] = rate
    assert draws(sampler, 21) == shuffles(7, 3, 3)


def test_a_floor_of_one_would_be_a_plain_shuffle_whatever_the_pass_rates():
    """Which is why the settings refuse it."""
    sampler = PassRateSampler(5, "variance", 1.0, 0)
    sampler.pass_rate_N[:] = RATES
    assert draws(sampler, 20) == shuffles(5, 0, 4)


def test_prompts_come_in_proportion_to_their_chance_and_at_most_once_per_epoch():
    sampler = PassRateSampler(4, "failure", 0.1, 1)
    sampler.pass_rate_N[:] = [0.0, 0.5, 0.8, 1.0]  # chances 1, 0.55, 0.28, 0.1
    epochs: dict[int, list[int]] = {}
    while sampler.epoch < 4000:
        row = sampler.draw()
        epochs.setdefault(sampler.epoch, []).append(row)
    assert all(len(set(rows)) == len(rows) for rows in epochs.values())
    count_N = np.bincount([row for rows in list(epochs.values())[:4000] for row in rows])
    # binomial of 4,000 epochs: a standard deviation of at most 0.008
    assert count_N / 4000 == pytest.approx([1.0, 0.55, 0.28, 0.1], abs=0.03)


def test_a_pass_rate_counts_from_the_next_draw_on():
    """A prompt whose turn has not come yet in this epoch is judged by what was just seen."""
    plain, told = (PassRateSampler(50, "failure", 0.01, 0) for _ in range(2))
    assert draws(plain, 5) == draws(told, 5)
    told.observe(np.arange(50), np.ones(50, dtype=bool))  # all solved: chance 0.01
    rest = draws(plain, 45)
    drawn = draws(told, 3)
    assert [row for row in drawn if row in rest][:1] != rest[:1]
    assert told.epoch > 0  # three prompts of chance 0.01 are not found in 45


def test_a_sampler_resumes_after_every_draw():
    def step(sampler: PassRateSampler) -> int:
        row = sampler.draw()
        sampler.observe(np.array([row, row]), np.array([row % 2 == 0, row % 3 == 0]))
        return row

    straight = PassRateSampler(6, "variance", 0.2, 5)
    expected = [step(straight) for _ in range(30)]
    assert straight.epoch > 5  # prompts were passed over
    for done in range(1, 30):
        first = PassRateSampler(6, "variance", 0.2, 5)
        for _ in range(done):
            step(first)
        resumed = PassRateSampler(6, "variance", 0.2, 5)
        resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert [step(resumed) for _ in range(30 - done)] == expected[done:]


# ---- prompts of a step ---------------------------------------------------------------------------


def update(in_flight: PromptsInFlight, number: int, uids: list[str], padding: int = 0) -> list[int]:
    step = step_of(uids, number=number, padding=padding)
    with queue_of({"uid": np.array(uids, dtype=object)}):
        return in_flight.rows_of_update(step).tolist()


def test_rows_are_those_of_the_rollouts_and_none_of_padding():
    in_flight = PromptsInFlight()
    assert in_flight.draw({"uid": ["a", "b"], DATASET_ROW: [7, 4]})
    assert not in_flight.draw({"uid": ["c"], DATASET_ROW: [9]})  # the same step draws again
    assert update(in_flight, 0, ["b", "b", "a", "pad1"], padding=1) == [4, 4, 7]
    assert in_flight.row_of == {"c": (0, 9)}  # it may come in a later update of this step
    assert in_flight.draw({"uid": ["d"], DATASET_ROW: [1]})
    assert update(in_flight, 1, ["d"]) == [1]
    assert in_flight.row_of == {}  # and is gone with the step


def test_the_pass_rates_and_metrics_of_an_update_leave_padding_out():
    """Four prompts, two of them in the update: u once of twice, v never; the padding is correct."""
    part = PromptSamplingPart(PromptSamplingSettings(order="failure", floor=0.2), seed=5)
    part.prompt_order([None] * 4)
    part.on_prompts({"uid": ["u", "v"], DATASET_ROW: [2, 0]})
    uids = ["u", "u", "v", "pad"]
    step = step_of(uids, padding=1)
    step.correct_B = torch.tensor([True, False, False, True])
    with queue_of({"uid": np.array(uids, dtype=object)}):
        part.after_update(step)
    assert part.sampler.pass_rate_N == pytest.approx([0.0, np.nan, 0.5, np.nan], nan_ok=True)
    # chances 0.2 + 0.8 (1 - s): 1, 0.6, and 1 of the two that have not been seen
    assert step.metrics == {
        "prompt_sampling/epoch": 0,
        "prompt_sampling/seen": 0.5,
        "prompt_sampling/chance": pytest.approx(0.9),
    }
    assert part.resume_settings() == {
        "data.prompt_sampling.order": "failure",
        "data.prompt_sampling.floor": 0.2,
        "data.seed": 5,
    }


GRPO = {"order": "none", "filter_groups": False, "clip_ratio_high": 0.2, "clip_ratio_c": 3.0}
FROM_GRPO = {  # what the papers and their scripts have otherwise
    "grpo": {},
    "dynamic_sampling": {"filter_groups": True},
    "dapo": {"filter_groups": True, "clip_ratio_high": 0.28, "clip_ratio_c": 10.0},
    "failure": {"order": "failure"},
    "variance": {"order": "variance"},
}


def test_the_presets_have_the_values_of_their_papers():
    expected = {name: GRPO | changed for name, changed in FROM_GRPO.items()}
    assert {name: dataclasses.asdict(preset) for name, preset in PRESETS.items()} == expected


# ---- in the trainer ------------------------------------------------------------------------------


def write_run(folder, rows: int) -> list[str]:
    overrides = run_overrides(folder)
    prompts = [[{"role": "user", "content": f"{row}+1"}] for row in range(rows)]
    table = pd.read_parquet(folder / "train.parquet").iloc[[0] * rows].copy()
    table["prompt"] = prompts
    table.to_parquet(folder / "train.parquet")
    return [*overrides, "actor_rollout_ref.rollout.n=2"]


def trainer_of(overrides: list[str]):
    config = compose("prompt_sampling", overrides)
    preflight.check(config)
    made = get_trainer_cls(config.trainer.v1.trainer_mode)(config)
    made._init_tokenizer()
    made._init_dataloader()
    (part,) = (part for part in made.parts if isinstance(part, PromptSamplingPart))
    return made, part


def train_step(made, part, number: int, solved: set[int]) -> list[int]:
    """A step on the trainer's own dataloader, of which the rollouts are made up: verl's engine is
    left out here (tests/e2e)."""
    made.global_steps = number + 1
    batch = made._next_train_batch()
    rows = list(batch[DATASET_ROW])
    uids = [uid for uid in batch["uid"] for _ in range(2)]
    step = step_of(uids, number=number)
    step.correct_B = torch.tensor([row in solved for row in rows for _ in range(2)])
    with queue_of({"uid": np.array(uids, dtype=object)}):
        part.before_update(step)
        part.after_update(step)
    return rows


def test_the_trainer_s_dataloader_draws_as_the_pass_rates_say_and_resumes(tmp_path):
    """The loader has no workers, which would draw ahead of the pass rates."""
    overrides = [*write_run(tmp_path, 12), "data.dataloader_num_workers=2", "data.seed=4"]
    solved = set(range(6))
    made, part = trainer_of(overrides)
    assert made.train_dataloader.num_workers == 0
    assert made.total_training_steps == 10  # verl's number, here that of the config
    expected = [train_step(made, part, number, solved) for number in range(9)]
    assert sorted(row for rows in expected[:3] for row in rows) == list(
        range(12)
    )  # the first epoch: a plain shuffle
    sampler = PassRateSampler(12, "variance", 0.1, 4)
    for rows in expected:
        assert draws(sampler, 4) == rows
        correct = [row in solved for row in rows]
        sampler.observe(np.array(rows), np.array(correct))
    for done in (1, 4, 8):
        first, part = trainer_of(overrides)
        for number in range(done):
            train_step(first, part, number, solved)
        saved = first.train_dataloader.state_dict(), json.dumps(part.state_dict())
        resumed, part = trainer_of(overrides)
        resumed.train_dataloader.load_state_dict(saved[0])
        part.load_state_dict(json.loads(saved[1]))
        again = [train_step(resumed, part, number, solved) for number in range(done, 9)]
        assert again == expected[done:]


def test_a_state_of_other_data_is_refused(tmp_path):
    _, part = trainer_of(write_run(tmp_path, 12))
    state = part.state_dict()
    with pytest.raises(ValueError, match="has pass rates of 11 prompts, and the training data 12"):
        part.load_state_dict({**state, "pass_rates": state["pass_rates"][1:]})


def test_rewards_that_do_not_say_what_is_correct_are_refused_before_the_update(tmp_path):
    _, part = trainer_of(write_run(tmp_path, 12))
    step = step_of(["a"])
    step.correct_B = None
    with pytest.raises(ValueError, match="the rewards do not say which rollouts are correct"):
        part.before_update(step)


# ---- what has no effect --------------------------------------------------------------------------

SAMPLING = "data.prompt_sampling"
FILTER = "algorithm.filter_groups.enable"
OVERLONG = [
    "reward.reward_manager.name=dapo",
    "+reward.reward_kwargs.max_resp_len=20480",
    "+reward.reward_kwargs.overlong_buffer_cfg={enable:true,len:4096,penalty_factor:1,log:false}",
]
WITHOUT_EFFECT = [
    ([f"{SAMPLING}.preset=variance", f"{SAMPLING}.order=none"], "order=none: set"),
    ([f"{SAMPLING}.preset=failure", f"{SAMPLING}.order=variance"], "has no effect with order="),
    ([f"{SAMPLING}.preset=dapo", f"{FILTER}=false"], f"no effect with {FILTER}=false"),
    ([f"{SAMPLING}.preset=grpo", f"{SAMPLING}.floor=0.3"], "floor=0.3 has no effect with"),
    ([f"{SAMPLING}.floor=1"], "floor=1 is not allowed: use a number above 0, below 1"),
    ([f"{FILTER}=true"], "drops the groups whose pass rate is 0 or 1 before they are seen"),
    (["data.curriculum.order=pass_rate", "data.curriculum.stages=1"], "both order the prompts"),
    (["data.shuffle=false"], "data.shuffle=false has no effect with"),
    (OVERLONG, "overlong_buffer_cfg.enable=true takes a part of the reward"),
    # 8 rows in steps of 4: each prompt once
    (
        ["trainer.total_training_steps=2"],
        rf"^{SAMPLING}.order=variance has no effect within the first epoch, where no prompt has a "
        r"pass rate yet, and 2 steps of 4 \(data.train_batch_size\) take none of the 8 training "
        r"prompts twice: set trainer.total_training_steps \(STEPS\) to at least 3, use fewer "
        r"prompts \(data.train_max_samples\), or order=none\.$",
    ),
    (
        [f"{SAMPLING}.preset=failure", "trainer.total_training_steps=1"],
        f"{SAMPLING}.order=failure has no effect within the first epoch",
    ),
    (
        ["trainer.total_training_steps=null", "trainer.total_epochs=1"],
        "2 steps of 4 .* set trainer.total_epochs to at least 2, use fewer",
    ),
]


@pytest.mark.parametrize(("overrides", "sentence"), WITHOUT_EFFECT)
def test_settings_that_do_nothing_are_refused(tmp_path, overrides, sentence):
    config = compose("prompt_sampling", [*run_overrides(tmp_path), *overrides])
    with pytest.raises(ValueError, match=sentence):
        preflight.check(config)


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.total_training_steps=3"],
        ["trainer.total_training_steps=2", "data.train_max_samples=7"],
        ["trainer.total_training_steps=null", "trainer.total_epochs=2"],
        [f"{SAMPLING}.preset=grpo", "trainer.total_training_steps=2"],
        [f"{SAMPLING}.preset=dapo", "trainer.total_training_steps=2"],
    ],
)
def test_a_run_in_which_a_prompt_comes_twice_or_without_an_order_is_not_refused(
    tmp_path, overrides
):
    preflight.check(compose("prompt_sampling", [*run_overrides(tmp_path), *overrides]))


def test_the_run_script_goes_beyond_the_first_epoch():
    """Its own numbers: 40 steps of 32 prompts, by recipe/cpu/task.sh."""
    script = (FOLDER / "prompt_sampling/run_cpu.sh").read_text()
    task = (FOLDER / "cpu/task.sh").read_text()
    (prompts,) = re.findall(r"data\.train_max_samples=(\d+)", script)
    (steps,) = re.findall(r"^STEPS=\$\{STEPS:-(\d+)\}", task, re.MULTILINE)
    (batch,) = re.findall(r"^TRAIN_BATCH_SIZE=\$\{TRAIN_BATCH_SIZE:-(\d+)\}", task, re.MULTILINE)
    assert int(steps) * int(batch) >= 2 * int(prompts)


def test_dapo_with_its_overlong_penalty_passes_the_checks_as_the_readme_has_it(tmp_path):
    overrides = [f"{SAMPLING}.preset=dapo", *OVERLONG, "algorithm.filter_groups.metric=acc"]
    preflight.check(compose("prompt_sampling", [*run_overrides(tmp_path), *overrides]))
