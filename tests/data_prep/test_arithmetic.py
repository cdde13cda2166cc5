"""The signed sums: what the problems, worked solutions, splits and files promise."""

import json
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_prep import arithmetic
from recipe.cpu.tasks import signed_sums
from recipe.cpu.tasks.signed_sums import SIGNED_SUMS
from recipe.judge import reward as judge

SCRIPT = Path(arithmetic.__file__)
unhurried = settings(deadline=None)  # a busy machine is no failure
seeds = st.integers(0, 2**32)
levels = st.sampled_from(sorted(signed_sums.LEVELS))


def score(response, answer):
    return judge.compute_score(SIGNED_SUMS.source, response, answer)["score"]


@unhurried
@given(levels, seeds)
def test_a_problem_has_the_terms_of_its_level_and_an_answer_not_below_zero(level, seed):
    problem = signed_sums.draw(level, random.Random(seed))
    assert len(problem.terms) == signed_sums.LEVELS[level].terms
    assert all(1 <= abs(term) <= signed_sums.LEVELS[level].largest for term in problem.terms)
    assert problem.terms[0] > 0
    assert int(problem.ground_truth) == sum(problem.terms) >= 0
    assert signed_sums.parse(problem.prompt) == problem.terms
    assert eval(problem.prompt) == int(problem.ground_truth)


@unhurried
@given(levels, seeds)
def test_a_worked_solution_uses_each_term_once_and_never_goes_below_zero(level, seed):
    rng = random.Random(seed)
    problem = signed_sums.draw(level, rng)
    text = signed_sums.solution(problem.terms, rng)
    first, *steps = text.replace("+", " +").replace("-", " -").split()
    total, used = int(first), [int(first)]
    for step in steps:
        term, shown = step.split("=")
        used.append(int(term))
        total += int(term)
        assert int(shown) == total >= 0
    assert sorted(used) == sorted(problem.terms)
    assert set(text) <= set(SIGNED_SUMS.alphabet)
    assert len(text) <= SIGNED_SUMS.longest_solution


@unhurried
@given(levels, seeds)
def test_the_judge_takes_a_worked_solution_as_correct_and_another_answer_as_incorrect(level, seed):
    rng = random.Random(seed)
    problem = signed_sums.draw(level, rng)
    text = signed_sums.solution(problem.terms, rng)
    assert score(text, problem.ground_truth) == 1
    assert score(text, str(int(problem.ground_truth) + 1)) == 0
    assert signed_sums.final_answer(text) == problem.ground_truth


@unhurried
@given(st.text("0123456789+-=", max_size=20), st.integers(-99, 99), st.sampled_from("+-=9 "))
@example("0-", 0, "+")
@example("2+++", 9, "+")
def test_the_quick_reading_of_an_answer_agrees_with_the_judge(start, answer, between):
    response = f"{start}{between}{answer}"
    quick = signed_sums.final_answer(response) == str(answer)
    assert quick == (score(response, str(answer)) == 1)


def test_solutions_come_in_every_order():
    # 1+2+3 has 3! orders, each with its own text
    rng = random.Random(0)
    assert len({signed_sums.solution((1, 2, 3), rng) for _ in range(200)}) == 6


def test_a_term_that_would_go_below_zero_waits():
    # of 3-5+9 only 9 or 3 can come first, and 3 must be followed by 9
    rng = random.Random(0)
    solutions = {signed_sums.solution((3, -5, 9), rng) for _ in range(200)}
    assert solutions == {"3+9=12-5=7", "9+3=12-5=7", "9-5=4+3=7"}


@pytest.mark.parametrize("prompt", ["", "7", "-7+2", "7+-2", "7*2", "7+2=", "7 + 2"])
def test_a_prompt_that_is_not_a_sum_is_an_error(prompt):
    with pytest.raises(ValueError, match="is not a sum such as 7-12"):
        signed_sums.parse(prompt)


def test_no_test_problem_is_in_the_train_split_in_any_order():
    train, test = SIGNED_SUMS.splits(seed=0, train_size=3000, test_size=240)
    assert len(train) == len(set(train)) == 3000
    held = {tuple(sorted(problem.terms)) for problem in test}
    assert len(held) == 240
    assert not held & {tuple(sorted(problem.terms)) for problem in train}


def test_levels_are_even_and_the_test_split_does_not_depend_on_the_train_size():
    train, test = SIGNED_SUMS.splits(seed=1, train_size=60, test_size=24)
    longer, same = SIGNED_SUMS.splits(seed=1, train_size=120, test_size=24)
    assert test == same
    assert longer[:60] == train
    assert [problem.level for problem in test] == [1, 2, 3, 4, 5, 6] * 4
    assert SIGNED_SUMS.splits(seed=2, train_size=60, test_size=24) != (train, test)


def test_files_have_verls_schema_and_the_same_bytes_when_written_again(tmp_path, run_main, start):
    options = ("--train_size", "60", "--test_size", "24", "--local_save_dir")
    assert run_main(SCRIPT, arithmetic.main, *options, tmp_path / "a").returncode == 0
    assert start(SCRIPT, *options, tmp_path / "b").returncode == 0
    for name in ("train.parquet", "test.parquet", "train.json", "test.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert len(list((tmp_path / "a").iterdir())) == 4

    rows = pq.read_table(tmp_path / "a" / "test.parquet").to_pylist()
    assert len(rows) == 24
    problem = SIGNED_SUMS.splits(0, 60, 24)[1][5]
    assert rows[5] == {
        "data_source": "synthetic/arithmetic",
        "prompt": [{"role": "user", "content": problem.prompt}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": problem.ground_truth},
        "extra_info": {"split": "test", "index": 5, "question": problem.prompt, "level": 6},
    }
    # the judge knows the question by the row
    judged = (
        rf"\boxed{{{problem.prompt.removesuffix('=')}}}",
        problem.ground_truth,
        rows[5]["extra_info"],
    )
    assert not judge.compute_score(SIGNED_SUMS.source, *judged)["acc"]
    assert judge.compute_score(SIGNED_SUMS.source, *judged[:2])["acc"]
    facts = json.loads((tmp_path / "a" / "test.json").read_text())
    options = {"task": "signed_sums", "seed": 0, "train_size": 60, "test_size": 24}
    assert facts["options"] == options


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--train_size", "0", "train_size=0 must be at least 1"),
        ("--test_size", "9000", "test_size=9000 asks for more different problems than level"),
    ],
)
def test_a_bad_size_ends_in_one_sentence_and_writes_nothing(
    tmp_path, run_main, option, value, message
):
    options = (option, value, "--local_save_dir", tmp_path / "data")
    done = run_main(SCRIPT, arithmetic.main, *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "data").exists()
