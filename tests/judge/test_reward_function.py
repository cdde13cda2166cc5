"""Another reward function than the judge's: what is read from what it returns."""

import pytest

from recipe.judge import reward
from recipe.judge.responses import Grading, judge_prompts
from recipe.judge.reward_function import RewardFunction, Verdict, is_judge

TARGET_SUMS = RewardFunction("pkg://recipe.cpu.tasks.target_sums")
SOURCE = """
async def of_extra(data_source, solution_str, ground_truth, extra_info, bonus=0.0):
    return {"score": bonus - 1, "acc": solution_str == f"{data_source} {extra_info['index']}"}


def of_none(data_source, solution_str, ground_truth, extra_info):
    assert isinstance(extra_info, dict)
    return {"score": 0.0, "pred": solution_str if solution_str == "c" else None}


def as_score(data_source, solution_str, ground_truth, extra_info=None):
    return float(solution_str) if solution_str else 0.0
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "own.py").write_text(SOURCE)
    return str(tmp_path / "own.py")


def judge(texts, truths, function, rows=None, **rules):
    grading = Grading(reward=function, **rules)
    return judge_prompts(texts, truths, grading, grading.equivalence(), rows)


def test_responses_are_judged_by_the_function_and_clustered_by_its_pred():
    # two ways to 3, one to 21, one that is no answer
    texts = ["9-7+3-2", "3", "7+3+2-9", "9+7+3+2"]
    (judged,) = judge([texts], ["3729:3"], TARGET_SUMS)
    assert judged.correct == [True, False, True, False]
    assert judged.answers == ["3", "", "3", "21"]
    assert judged.clusters == [0, 1, 0, 2]
    assert (judged.majority, judged.majority_correct, judged.timed_out) == ("3", True, 0)


def test_a_majority_of_incorrect_answers_is_incorrect_and_blank_ones_are_none():
    (judged,) = judge([["9+7+3+2", "9+7+2+3", "9-7+3-2", "", "x", "y"]], ["3729:3"], TARGET_SUMS)
    assert (judged.majority, judged.majority_correct) == ("21", False)
    assert judged.clusters == [0, 0, 1, 2, 2, 2]
    (judged,) = judge([["", "x"]], ["3729:3"], TARGET_SUMS, unparsable="own")
    assert (judged.majority, judged.majority_correct, judged.clusters) == ("", False, [0, 1])


def test_a_function_gets_its_settings_and_the_row_and_may_be_a_coroutine(file):
    of_extra = RewardFunction(file, "of_extra", {"bonus": 0.5})
    rows = [{"data_source": "set", "extra_info": {"index": 7}}]
    (judged,) = judge([["set 7", "set 8"]], ["?"], of_extra, rows)
    assert judged.correct == [True, False]
    assert judged.answers == ["set 7", "set 8"]  # no pred: the responses' own texts
    assert str(of_extra) == f"{file}:of_extra (bonus=0.5)"


def test_a_score_that_says_neither_correct_nor_incorrect_is_refused(file):
    as_score = RewardFunction(file, "as_score")
    assert as_score.verdict("1", "?", "", {}) == Verdict(True, "1")
    assert as_score.verdict("", "?", "", {}) == Verdict(False, "")
    assert as_score.verdict("-1", "?", "", {}) == Verdict(False, "-1")  # as training takes it
    with pytest.raises(ValueError, match=r"score=0.5 to .*: let it return acc, .* with --reward"):
        as_score.verdict("0.5", "?", "", {})


def test_an_answer_that_is_none_is_blank_and_gets_no_vote(file):
    (judged,) = judge([["a", "b", "c"]], ["?"], RewardFunction(file, "of_none"))
    assert judged.answers == ["", "", "c"] and judged.majority == "c"


def test_rows_of_files_without_extra_info_give_an_empty_one(file):
    """pandas has a NaN there where another file has some."""
    rows = [{"data_source": "set", "extra_info": float("nan")}]
    (judged,) = judge([["a"]], ["?"], RewardFunction(file, "of_none"), rows)
    assert judged.correct == [False]


@pytest.mark.parametrize(
    "path",
    ["pkg://recipe.judge", "pkg://recipe/judge", "pkg://recipe.judge.reward", reward.__file__],
)
def test_the_judge_is_known_by_each_of_its_paths(path):
    assert is_judge(path, "compute_score") and not is_judge(path, "extract_answer")
    assert RewardFunction.of_run({"path": path, "name": None}) is None
    assert RewardFunction.of_run({"path": path, "name": "other"}) == RewardFunction(path, "other")


@pytest.mark.parametrize(
    ("text", "path", "name"),
    [
        ("pkg://a.b", "pkg://a.b", "compute_score"),
        ("pkg://a.b:score", "pkg://a.b", "score"),
        ("own/file.py", "own/file.py", "compute_score"),
        ("own/file.py:score", "own/file.py", "score"),
    ],
)
def test_the_flag_names_a_path_and_a_function(text, path, name):
    assert RewardFunction.parse(text) == RewardFunction(path, name)


def test_a_function_that_cannot_be_loaded_is_one_sentence():
    with pytest.raises(ValueError, match=r"cannot be loaded .*: name a file or pkg://module"):
        RewardFunction("pkg://no.such.module").verdict("", "", "", {})
