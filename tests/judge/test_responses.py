"""All responses to a prompt judged together: clusters, majority, limits."""

import pytest

pytest.importorskip("math_verify")

from recipe.judge import responses
from recipe.judge.responses import Grading, judge_prompt, judge_prompts


def judged(texts, truth="4", **rules):
    grading = Grading(**rules)
    return judge_prompt(texts, truth, {}, grading, grading.equivalence())


def test_answers_that_mean_the_same_are_one_cluster():
    result = judged(["#### 4", r"\boxed{8}", r"\boxed{x=4}", "none", "4.0"])
    assert result.answers == ["4", "8", "x=4", "", "4.0"]
    assert result.correct == [True, False, True, False, True]
    assert result.clusters == [0, 1, 0, 2, 0]
    assert result.majority_correct is True and result.timed_out == 0


def test_of_equally_large_clusters_the_first_is_the_majority():
    assert judged(["#### 8", "#### 4", "#### 4", "#### 8"]).majority == "8"
    result = judged(["nothing", "nothing", "nothing", "#### 4"])
    assert (result.majority, result.majority_correct) == ("4", True)  # blanks are no majority
    result = judged(["#### 4.0", "#### 8", "#### 4", "#### 4"])
    assert result.majority == "4"  # the most frequent spelling


def test_the_majoritys_verdict_is_that_of_its_spelling():
    """A cluster may hold two verdicts: x = 4 is 4, and 4 is y = 4, but x = 4 is not y = 4."""
    texts = [r"\boxed{x = 4}", r"\boxed{x = 4}", r"\boxed{4}"]
    result = judged(texts, truth="y = 4")
    assert result.clusters == [0, 0, 0] and result.correct == [False, False, True]
    assert (result.majority, result.majority_correct) == ("x = 4", False)
    result = judged([*texts, r"\boxed{4}", r"\boxed{4}"], truth="y = 4")
    assert (result.majority, result.majority_correct) == ("4", True)


def test_only_boxed_answers_can_count():
    assert judged(["#### 4", r"\boxed{4}"], boxed_only=True).correct == [False, True]


def test_each_distinct_answer_is_judged_once(monkeypatch):
    calls = []
    score = responses.compute_score
    monkeypatch.setattr(
        responses, "compute_score", lambda *a, **k: calls.append(a) or score(*a, **k)
    )
    assert judged(["#### 4", "it is 4", "#### 5", "5"]).correct == [True, True, False, False]
    assert len(calls) == 2


def test_many_prompts_come_back_in_their_order():
    grading = Grading(workers=3)
    texts = [[f"#### {i}", "#### 1"] for i in range(8)]
    results = judge_prompts(texts, map(str, range(8)), grading, grading.equivalence())
    assert [result.correct for result in results] == [[True, i == 1] for i in range(8)]
