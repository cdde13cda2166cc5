"""Target sums: problems, correct responses by brute force, the reward function, its use by verl."""

import itertools
import os
import random
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager
from verl.protocol import DataProto
from verl.trainer.ppo.metric_utils import process_validation_metrics
from verl.utils.import_utils import load_extern_object

from data_prep import arithmetic
from recipe.cpu import warm_start
from recipe.cpu.model import END, make_tokenizer
from recipe.cpu.tasks import DEFAULT, TASKS
from recipe.cpu.tasks.target_sums import (
    LEVELS,
    TARGET_SUMS,
    Problem,
    compute_score,
    draw,
    read,
    signs_to,
)

unhurried = settings(deadline=None)  # a busy machine is no failure
seeds = st.integers(0, 2**32)
levels = st.sampled_from(sorted(LEVELS))


def texts_of(problem: Problem) -> set[str]:
    """All correct responses, by writing every order with all signs and adding up."""
    n = len(problem.digits)
    texts = set()
    for order in itertools.permutations(problem.digits):
        for signs in itertools.product((1, -1), repeat=n - 1):
            total = order[0] + sum(s * d for s, d in zip(signs, order[1:], strict=True))
            if total == problem.target:
                tail = "".join(f"{s * d:+d}" for s, d in zip(signs, order[1:], strict=True))
                texts.add(f"{order[0]}{tail}")
    return texts


def score(response: str, prompt: str = "3729:3") -> float:
    result = compute_score("synthetic/target_sums", response, prompt)
    assert result["acc"] is (result["score"] == 1.0)
    return result["score"]


def test_the_correct_responses_of_a_small_prompt_by_hand():
    # 12:1, that is 1 and 2 to 1: only 2-1
    assert texts_of(read(1, "12:1")) == {"2-1"}
    # 3729:3: the digits add up to 21, so those with a minus add up to 9: {9} or {7, 2}. One of the
    # three or two positive ones is first, the other three digits follow in any order:
    # (3 + 2) * 3! = 30
    problem = read(1, "3729:3")
    assert len(signs_to(problem.digits, 3)) == 2
    assert problem.solutions() == 30
    assert {"9-7+3-2", "7+3+2-9"} <= texts_of(problem)
    # 1122:0, alike digits: minus on 1 and 2 (4 labelled choices, 2 positive ones each):
    # 4 * 2 * 3! / (2! 2!) = 12 texts
    assert read(1, "1122:0").solutions() == 12
    # no text for a target of another parity, or beyond the sum
    assert not texts_of(read(1, "3729:5")) and read(1, "3729:5").solutions() == 0
    assert read(1, "3729:22").solutions() == 0


@unhurried
@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), st.integers(0, 20))
def test_the_check_takes_exactly_the_correct_responses_that_brute_force_finds(digits, target):
    problem = Problem(1, tuple(digits), target)
    texts = texts_of(problem)
    assert problem.solutions() == len(texts)
    for order in set(itertools.permutations(digits)):
        for signs in itertools.product("+-", repeat=len(digits) - 1):
            text = f"{order[0]}{''.join(map(str.__add__, signs, map(str, order[1:])))}"
            assert (score(text, problem.prompt) == 1.0) is (text in texts)


@unhurried
@given(levels, seeds)
def test_a_problem_has_the_digits_of_its_level_and_a_solution(level, seed):
    problem = draw(level, random.Random(seed))
    assert len(problem.digits) == LEVELS[level]
    assert all(1 <= digit <= 9 for digit in problem.digits)
    assert problem.target >= 0 and problem.solutions() > 0
    assert read(level, problem.prompt) == problem
    assert set(problem.prompt) <= set(TARGET_SUMS.alphabet)
    text = problem.solution(random.Random(seed))
    assert set(text) <= set(TARGET_SUMS.alphabet)
    assert len(text) <= TARGET_SUMS.longest_solution
    assert score(text, problem.prompt) == 1.0


def test_solutions_are_drawn_evenly_from_all_of_them():
    # 30 texts, 6,000 draws: 200 each, standard deviation 13.9; the farthest of 30 is within 5 of it
    problem, rng = read(1, "3729:3"), random.Random(0)
    drawn = [problem.solution(rng) for _ in range(6000)]
    counts = {text: drawn.count(text) for text in set(drawn)}
    assert set(counts) == texts_of(problem)
    assert all(130 < count < 270 for count in counts.values())


@pytest.mark.parametrize(
    "response",
    [
        "",
        "9-7+3",  # a digit is missing
        "7-7+3",
        "9-7+3-2-1+1",  # and more than the digits
        "9-7+3-2+0",
        "9-3-3",  # repeated
        "9-3-3-0",
        "9--7+3-2",  # two signs
        "9-+7+3-2",
        "9-7+3-",
        "+9-7+3-2",  # a first sign
        "-9+7+3+2",
        "09-7+3-2",  # leading zero
        "9-07+3-2",
        "9+7-3-2",  # 11, another target
        "9-7-3+2",
        "9-7+3-2=3",  # text around it
        "=9-7+3-2",
        " 9-7+3-2",
        "9-7+3-2 ",
        "9-7+3-2\n",
        "9-7+3-2.",
        "9 -7+3-2",
        "\\boxed{9-7+3-2}",
        "the answer is 9-7+3-2",
        "3",  # the target alone
        "97-3-2",
        "9-7+3-2" * 100_000,  # very long
        "9-7+3-2" + "0" * 1_000_000,
        "9\u22127+3\u22122",  # minus signs, digits and plus signs of other scripts
        "\uff19-7+3-2",
        "\u0669-\u0667+\u0663-\u0662",
        "9-7\uff0b3-2",
        "9-7+3-\u00b2",
        "9-7+3-2\u200b",
        "9-7+3-2\x00",
        "9\ud800-7+3",
    ],
)
def test_nothing_incorrect_is_rewarded(response):
    assert score("9-7+3-2") == 1.0
    assert score(response) == 0.0


@unhurried
@given(st.text("123456789+-=:0 \n\u0663\uff13", max_size=14), levels, seeds)
def test_whatever_is_rewarded_is_one_of_the_texts_of_brute_force(response, level, seed):
    problem = draw(min(level, 2), random.Random(seed))
    assert (score(response, problem.prompt) == 1.0) is (response in texts_of(problem))


@unhurried
@given(levels, seeds, st.data())
def test_a_correct_response_with_one_character_changed_added_or_left_out(level, seed, data):
    problem = draw(level, random.Random(seed))
    text = problem.solution(random.Random(seed))
    at = data.draw(st.integers(0, len(text) - 1))
    character = data.draw(st.sampled_from("0123456789+- "))
    assert score(text[:at] + text[at + 1 :], problem.prompt) == 0.0
    assert score(text[:at] + character + text[at:], problem.prompt) == 0.0
    changed = text[:at] + character + text[at + 1 :]
    if changed != text:  # one digit or one sign alone never keeps digits and value
        assert score(changed, problem.prompt) == 0.0


@pytest.mark.parametrize("truth", ["", "3", "3729", "3729:", ":3", "3729:-3", "3029:3", "3729:03"])
def test_a_ground_truth_that_is_no_prompt_is_an_error(truth):
    with pytest.raises(ValueError, match="is not digits and a target such as 3729:3"):
        compute_score("synthetic/target_sums", "9-7+3-2", truth)


def test_the_vote_is_over_the_values_of_sums_of_the_digits():
    assert compute_score("", "9-7+3-2", "3729:3")["pred"] == "3"
    assert compute_score("", "3-2-7-9", "3729:3")["pred"] == "-15"  # incorrect, and a vote
    assert compute_score("", "9-3-3", "3729:3")["pred"] == ""
    assert compute_score("", "1+1+1+0", "3729:3")["pred"] == ""  # 3, but not of these digits
    assert compute_score("", "9-7+3-2=3", "3729:3")["pred"] == ""


def test_no_test_problem_is_in_the_train_split_in_any_order():
    train, test = TARGET_SUMS.splits(seed=0, train_size=3000, test_size=240)
    assert len({problem.prompt for problem in train}) == 3000
    held = {problem.essence for problem in test}
    assert len(held) == 240
    assert not held & {problem.essence for problem in train}
    assert [problem.level for problem in test] == [1, 2, 3] * 80
    assert TARGET_SUMS.splits(seed=0, train_size=60, test_size=240)[1] == test


def test_verls_reward_manager_judges_tokens_with_the_settings_of_the_run_script():
    """verl's own loader and reward manager; the response as the model's tokens, with its end."""
    score = load_extern_object("pkg://recipe.cpu.tasks.target_sums", "compute_score")
    tokenizer = make_tokenizer(TARGET_SUMS)
    manager = NaiveRewardManager(OmegaConf.create(), tokenizer, score)

    def judged(text: str) -> dict:
        ids = torch.tensor([tokenizer.encode(text + END)])
        data = DataProto.from_dict(
            tensors={"responses": ids, "attention_mask": torch.ones_like(ids)},
            non_tensors={
                "data_source": np.array([TARGET_SUMS.source], dtype=object),
                "reward_model": np.array([{"ground_truth": "3729:3"}], dtype=object),
                "extra_info": np.array([{"index": 0}], dtype=object),
            },
        )
        return manager.loop.run_until_complete(manager.run_single(data))

    assert judged("9-7+3-2") == {
        "reward_score": 1.0,
        "reward_extra_info": {"score": 1.0, "acc": True, "pred": "3"},
    }
    assert judged("9-7+3-2-")["reward_score"] == judged("9-7+2-3")["reward_score"] == 0.0


def test_verls_validation_reports_accuracy_and_votes_over_values():
    """Of two problems one has 2 of 4 responses correct, the other all of one incorrect text."""
    texts = ["9-7+3-2", "7+3+2-9", "9+7+3+2", "", *["2-1+1"] * 4]
    truths = ["3729:3"] * 4 + ["12:1"] * 4
    results = [compute_score("", *pair) for pair in zip(texts, truths, strict=True)]
    columns = {name: [result[name] for result in results] for name in results[0]}
    rows = ["s"] * 8, ["a"] * 4 + ["b"] * 4
    seeds = range(10)
    of_seeds = [process_validation_metrics(*rows, columns, seed)["s"]["acc"] for seed in seeds]
    assert {metrics["mean@4"] for metrics in of_seeds} == {0.25}
    # verl votes in 1,000 draws of 4 of the responses: here in all 256. Of two values with as many
    # votes the first drawn wins. Over texts, all different, half of the votes would be correct
    votes = [
        Counter(draw).most_common(1)[0][0]
        for draw in itertools.product(columns["pred"][:4], repeat=4)
    ]
    exact = votes.count("3") / len(votes) / 2  # none of the other problem's is correct
    error = 3 * 0.5 / np.sqrt(1000 * len(seeds)) / 2  # three standard deviations at most
    assert set(votes) == {"3", "21", ""} and exact - error > 0.25
    voted = np.mean([metrics["maj@4/mean"] for metrics in of_seeds])
    assert voted == pytest.approx(exact, abs=error)
    del columns["pred"]
    without = process_validation_metrics(*rows, columns)["s"]["acc"]
    assert without["mean@4"] == 0.25
    assert not [name for name in without if name.startswith("maj@")]


@pytest.mark.parametrize(
    ("task", "other"), [("target_sums", "signed_sums"), ("signed_sums", "target_sums")]
)
def test_data_of_another_task_is_refused_in_one_sentence(tmp_path, task, other, capsys):
    sizes = ["--train_size", "12", "--test_size", "6"]
    arithmetic.main(["--task", other, "--local_save_dir", str(tmp_path), *sizes])
    code = warm_start.main(["--task", task, "--data", str(tmp_path), "--out", str(tmp_path / "m")])
    error = capsys.readouterr().err
    assert code == 2 and len(error.splitlines()) == 1
    assert f"has rows of {TASKS[other].source}, not of --task {task}" in error


def test_the_run_scripts_settings_are_those_of_the_task(tmp_path):
    """`recipe/cpu/task.sh` cannot read Python: what stands in both is held together here."""
    script = Path(warm_start.__file__).with_name("task.sh")
    for name, task in TASKS.items():
        shown = subprocess.run(
            ["bash", "-c", f'source {script}; echo "$TASK_FOLDER $RESPONSE_LENGTH $REWARD"'],
            env={"TASK": name, "HOME": str(tmp_path), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        assert shown[:2] == [task.folder, str(task.response_tokens())]
        function = load_extern_object(shown[2], "compute_score")
        problem = task.draw(1, random.Random(0))
        text = problem.solution(random.Random(0))
        assert function(task.source, text, problem.ground_truth)["acc"]
    unset = subprocess.run(
        ["bash", "-c", f'source {script}; echo "$TASK"'],
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert unset.stdout.strip() == DEFAULT


@pytest.mark.parametrize("command", [warm_start.main, arithmetic.main])
def test_the_help_names_the_defaults_of_each_task(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # no name is broken at its hyphen
    with pytest.raises(SystemExit):
        command(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for task in TASKS.values():
        assert f"~/data/{task.folder}" in shown
        if command is warm_start.main:
            assert f"~/models/{task.folder}-1m" in shown
        else:
            assert f"{task.test_size} ({task.name})" in shown
