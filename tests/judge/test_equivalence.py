"""Clusters of equivalent answers, on pairs that a person has judged, and semantic entropy."""

import itertools
import math
import random

import pytest

pytest.importorskip("math_verify")

from recipe.judge import equivalence as judge_equivalence
from recipe.judge.equivalence import Equivalence, cluster, every, matched
from recipe.semantic_curriculum.semantic_entropy import semantic_entropy

SAME = [  # every two of a line mean the same
    ["1/2", "0.5", r"\frac{1}{2}", r"\dfrac{1}{2}", r"$\frac12$", "50%"],
    ["4", "x=4", "x = 4", r"\boxed{4}", "4.0", "4.", "+4", r"\text{4}"],
    ["1234", "1,234", r"1{,}234", r"1\,234", "1 234"],
    ["-3", "−3", "- 3", "-3.0", r"\frac{-3}{1}"],
    ["5", "$5", r"\$5", "$5.00", "5 dollars", r"5\text{ dollars}"],
    ["12 cm", "12", r"12\text{ cm}", r"12\,\mathrm{cm}"],
    ["90", r"90^\circ", r"90^{\circ}", "90°", "90 degrees"],
    [r"\sqrt{8}", r"2\sqrt{2}", r"\sqrt8"],
    [r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"],
    [r"2\pi", r"\pi \cdot 2", r"2 \pi"],
    ["10^3", "1000", r"10^{3}"],
    ["1024", "2^{10}", "2^10"],
    ["3!", "6"],
    [r"\log_2 8", "3"],
    ["0.1+0.2", "0.3"],
    [r"x^2+2x+1", r"(x+1)^2", r"1+2x+x^2"],
    ["2x+1", "1+2x", "2(x+0.5)"],
    ["(1,2)", r"\left(1, 2\right)", "(1, 2)"],
    [r"\{1,2\}", r"\{2,1\}", r"\left\{1, 2\right\}", "1, 2", "2,1"],
    [r"[1,2)", r"\left[1, 2\right)", r"x \in [1,2)"],
    [r"(-\infty, 3)", r"\left(-\infty, 3\right)"],
    ["1+i", "i+1"],
    ["x<3", "3>x"],
    [r"3\frac{1}{2}", r"\frac{7}{2}", "3.5"],
    ["A", r"\text{A}", "a"],
    ["yes", "Yes", r"\text{Yes}"],
    [r"\infty", r"+\infty"],
    [r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"],
    ["25%", r"25\%", "0.25", r"\frac{1}{4}"],
    ["y=7", "7", "y = 7"],
    ["0", "0.0", "-0", r"\frac{0}{5}"],
    ["1000000", "1,000,000", "10^6"],
    ["Monday", "monday", r"\text{Monday}"],
    [r"\frac{a}{b}", "a/b"],
    [r"e^{2}", "e^2"],
]
DIFFERENT = [
    *[("1/2", "1/3"), ("0.5", "0.05"), ("4", "-4"), ("4", "5"), ("x=4", "y=4"), ("x=4", "x=5")],
    *[("50%", "50"), ("50%", "5"), ("0.333", "1/3"), ("3.14", r"\pi"), (r"2\pi", "6.28")],
    *[("1234", "12345"), ("1,234", "1.234"), ("100", "1000"), ("1000", "10000")],
    *[("(1,2)", "(2,1)"), ("(1,2)", r"\{1,2\}"), (r"\{1,2\}", r"\{1,3\}"), ("1, 2", "1, 3")],
    *[("(1,2)", "(1,3)"), ("(1,2)", "(1,2,3)"), ("[1,2)", "[1,2]"), ("[1,2)", "(1,2]")],
    *[(r"\{1,2\}", "1"), ("1, 2", "12"), ("(1,2)", "12"), ("(1,2)", "1.2")],
    *[(r"\infty", r"-\infty"), ("x<3", "x>3"), ("x<3", "3"), ("2x+1", "2x-1"), ("2x+1", "2y+1")],
    *[(r"\sqrt{2}", "2"), (r"\sqrt{2}", r"\sqrt{3}"), (r"2\sqrt{2}", r"\sqrt{2}")],
    *[("A", "B"), ("yes", "no"), ("Monday", "Tuesday"), ("abc", "cab"), ("true", "false")],
    *[("3!", "3"), ("2^{10}", "20"), ("10^3", "30"), ("1+i", "1-i"), ("i", "-i")],
    *[(r"\frac{1}{2}", "12"), (r"\frac{2}{1}", r"\frac{1}{2}"), (r"\frac{a}{b}", r"\frac{b}{a}")],
    *[("90 degrees", "80 degrees"), ("5 cm", "6 cm"), ("$5", "$50"), ("25%", "2.5%")],
    *[("0", "1"), ("0.1", "0.01"), ("123456789", "123456788"), ("1e-3", "1e3")],
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}"),
    *[("25_8", "25_7"), ("25_8", "25"), (r"\neq 8", "8"), (r"7 \bmod 7", "7"), ("3 = 4", "4")],
    *[("x^2", "x^3"), ("x^2", "2x"), (r"e^{2}", "2e"), (r"\log_2 8", "8")],
]
PAIRS = [
    *((a, b, True) for line in SAME for a, b in itertools.combinations(line, 2)),
    *((a, b, False) for a, b in DIFFERENT),
]


@pytest.fixture(scope="module")
def verdicts():
    equivalence = Equivalence(time_limit=20)
    read = equivalence.read
    return [(a, b, same, equivalence.equivalent(read(a), read(b))) for a, b, same in PAIRS]


def test_at_least_98_percent_as_a_person_would(verdicts):
    assert len(verdicts) >= 150
    unlike = [(a, b, same) for a, b, same, verdict in verdicts if bool(verdict) != same]
    print(f"{len(verdicts)} pairs, {len(unlike)} judged otherwise: {unlike}")
    assert len(unlike) <= 0.02 * len(verdicts), unlike


def test_no_two_unequal_answers_are_merged(verdicts):
    assert [(a, b) for a, b, same, verdict in verdicts if verdict and not same] == []


def test_units_can_count():
    strict = Equivalence(units="compare", time_limit=20)
    same = lambda a, b: strict.equivalent(strict.read(a), strict.read(b))  # noqa: E731
    assert same("5 cm", r"5\text{ cm}")
    assert not same("5 cm", "5 m")
    assert not same("5 cm", "5")
    assert same("90°", r"90^\circ")


def test_thousands_can_be_a_list():
    pair = Equivalence(thousands=False, time_limit=20)
    assert not pair.equivalent(pair.read("1,234"), pair.read("1234"))
    assert pair.equivalent(pair.read("1,234"), pair.read("234, 1"))


def test_clusters_do_not_depend_on_the_order():
    answers = ["1/2", "4", "0.5", "x=4", "", "7", r"\frac12", "4.0", "  ", "(1,2)", r"\{2,1\}"]
    equivalence = Equivalence(time_limit=20)
    partition = set()
    for seed in range(6):
        order = list(range(len(answers)))
        random.Random(seed).shuffle(order)
        labels = cluster(
            [answers[i] for i in order], equivalence.read, equivalence.equivalent
        ).labels
        members = {}
        for place, number in zip(order, labels, strict=True):
            members.setdefault(number, set()).add(place)
        partition.add(frozenset(map(frozenset, members.values())))
    assert partition == {
        frozenset(map(frozenset, [{0, 2, 6}, {1, 3, 7}, {4, 8}, {5}, {9}, {10}])),
    }


@pytest.mark.parametrize("unsaid", ["4", "4.0", r"\frac{8}{2}"])
def test_what_one_answer_leaves_unsaid_does_not_join_two_that_differ(unsaid):
    equivalence = Equivalence(time_limit=20)
    for answers in itertools.permutations(["x=4", unsaid, "y=4", "x=4.0"]):
        labels = cluster(answers, equivalence.read, equivalence.equivalent).labels
        members = {answer: label for answer, label in zip(answers, labels, strict=True)}
        assert members["x=4"] == members["x=4.0"]
        assert len({members["x=4"], members["y=4"], members[unsaid]}) == 3
        labels = cluster(answers[:2], equivalence.read, equivalence.equivalent).labels
        assert len(set(labels)) == 1 + (
            {"x=4", "y=4"} <= set(answers[:2]) or {"x=4.0", "y=4"} <= set(answers[:2])
        )


def equal(a, b, strict=False):
    return a == b


def test_blank_answers_can_be_a_cluster_each():
    count = lambda how: len(set(cluster(["", "", "4"], str, equal, how).labels))  # noqa: E731
    assert count("one") == 2
    assert count("own") == 3


def test_a_comparison_that_timed_out_separates_and_is_counted():
    clusters = cluster(["a", "b"], str, lambda a, b, strict=False: None)
    assert clusters.labels == [0, 1]
    assert clusters.timed_out == 1


@pytest.mark.parametrize(
    "bomb", ["9**9**9**9", "9^{9^{9^{9^9}}}", "(" * 100_000, "\\frac{" * 9_000]
)
def test_a_pathological_answer_costs_at_most_its_limit(bomb):
    equivalence = Equivalence(time_limit=2)
    answers = [bomb, "4", "x=4", bomb]
    clusters = cluster(answers, equivalence.read, equivalence.equivalent)
    assert clusters.labels == [0, 1, 1, 0]


INTEGRAL = r"\int_0^1 x^{x} dx"


@pytest.mark.parametrize(
    ("answers", "asked_of_the_integral"),
    [
        ([INTEGRAL, "2", "|x-1|", "3"], ["2"]),  # no number is to blame
        ([INTEGRAL, "|x-1|", "2", "3"], ["| x - 1 |", "0"]),  # which of the two is: each with 0
    ],
)
def test_an_answer_that_ran_into_a_limit_is_not_compared_again(
    monkeypatch, answers, asked_of_the_integral
):
    equivalence, asked = Equivalence(), []
    integral = equivalence.read(INTEGRAL).text

    def reply(pool, gold, answer):
        asked.append({gold, answer})
        return None if integral in (gold, answer) else {"equal": False, "seconds": 0.0}

    monkeypatch.setattr(judge_equivalence, "reply_of", reply)
    clusters = cluster(answers, equivalence.read, equivalence.equivalent)
    assert (clusters.labels, clusters.timed_out) == ([0, 1, 2, 3], 1)
    assert equivalence.timed_out_answers == {integral}
    with_it = [pair - {integral} for pair in asked if integral in pair]
    assert with_it == [{text} for text in asked_of_the_integral]
    # the others still are: the absolute value with 2 and with 3, each as the truth once
    assert sum({"| x - 1 |", number} == pair for pair in asked for number in "23") == 4


@pytest.mark.parametrize(
    ("verdicts", "of_all"),
    [
        *[([], True), ([True, True], True), ([True, None], None), ([None, True], None)],
        *[([True, False], False), ([None, False], False)],
    ],
)
def test_parts_without_a_verdict_leave_the_whole_without_one(verdicts, of_all):
    assert every(verdicts) is of_all


def test_parts_are_paired_where_the_first_must_leave_its_place_to_the_second():
    """a is x or y, b is x alone: a, which comes first, takes y in the end."""
    assert matched("ab", "xy", lambda a, b: a + b in ("ax", "ay", "bx"))
    assert not matched("ab", "xy", lambda a, b: b == "x")  # two parts for one


def test_no_answers_are_no_clusters():
    assert cluster([], str, equal) == ([], 0)


# --- entropy ---


@pytest.mark.parametrize(
    ("clusters", "expected"),
    [
        ([0] * 8, 0.0),
        (list(range(8)), math.log(8)),
        ([0, 0, 1], -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))),  # x=4, x=4, x=8
        ([5, 5, 9, 9], math.log(2)),
        ([3], 0.0),
    ],
)
def test_semantic_entropy_by_counts(clusters, expected):
    assert semantic_entropy(clusters) == pytest.approx(expected)
    assert semantic_entropy(clusters, base=2) == pytest.approx(expected / math.log(2))


def test_semantic_entropy_by_likelihoods():
    logs = [math.log(0.5), math.log(0.25), math.log(0.25)]
    assert semantic_entropy([0, 1, 1], logs) == pytest.approx(math.log(2))
    assert semantic_entropy([0, 1, 1], [x - 5000 for x in logs]) == pytest.approx(math.log(2))
    assert semantic_entropy([0, 1], [0.0, -5000.0]) == 0.0


def test_no_rollouts():
    with pytest.raises(ValueError, match="at least one rollout"):
        semantic_entropy([])
