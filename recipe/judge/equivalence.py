"""When two final answers mean the same, and the clusters of equivalent answers of a prompt.

SENT (arXiv 2512.04359) groups the rollouts of a question by meaning and does not say how (paper
extract, sec. 1). *Ours*: equality of what `reader.read` takes the final answers for. The judge asks
`accepts`, which allows a response what it may leave to the reader of its question; whatever it
calls different is never one cluster.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from networkx import Graph, connected_components

from recipe.judge.answer import Answer, value_answer
from recipe.judge.expression import context
from recipe.judge.latex import tokens_of
from recipe.judge.pool import pool_of, reply_of
from recipe.judge.reader import Reader, read
from recipe.judge.value import formula_key, same_value, value_from

UNORDERED, ORDERED = {"list", "set"}, {"tuple", "matrix", "interval"}  # kinds with parts
# what may run to infinity and have a value: math-verify computes some of these
OVER_A_RANGE = re.compile(r"\\(lim|sum|prod|int)\b")
INDEX = " _ "  # in a name of `tokens.name_of`
MAX_PARTS = 50  # of a list whose order does not count


def compatible(a: str, b: str) -> bool:
    """Says whether two names, or two units, can be of one answer: equal, or one is not said."""
    return a == b or not a or not b


def same_time(a: Answer, b: Answer) -> bool:
    """Says whether two times of the day are one. Without a half (8:30) a time is its digits, or,
    beside one that says its half, also the time of the whole day: 20:30 is 8:30 p.m., and 1:16,
    which may be a ratio, is not 13:16."""
    if a.key == b.key:
        return compatible(a.unit, b.unit)
    if a.unit and b.unit:
        return False
    with_half, other = (a, b) if a.unit else (b, a)
    hour, minute = map(int, with_half.key.split(":"))
    return (
        bool(with_half.unit)
        and other.key == f"{hour % 12 + 12 * (with_half.unit == 'p')}:{minute:02d}"
    )


def same_product(a: Answer, b: Answer) -> bool:
    """Says whether `5 m`, read as five metres, and a formula are the same product."""
    for measure, formula in (a, b), (b, a):
        if measure.unit and measure.digits and formula.key.startswith("formula"):
            return formula.key == formula_key(tokens_of(measure.text))
    return False


@dataclass(frozen=True)
class Equivalence:
    """Decides whether two answers are equivalent, with limits on each comparison by math-verify.

    An answer that has once run into a limit by itself is not compared again: it costs one limit,
    however many others it is compared with.

    Args:
        units: "ignore" (5 cm is 5, and not 5 m) or "compare" (5 cm is neither 5 m nor 5).
        thousands: 1,234 is a number; else the list of 1 and 234.
        time_limit, memory_mb, children: as in `recipe.judge.pool.Pool`.
        budget: seconds of CPU time for all comparisons together; the rest have no verdict. For a
            judge of one answer: a list has as many comparisons as pairs of parts.
        timed_out_answers: `Answer.text` of those that have run into a limit by themselves.
    """

    units: str = "ignore"
    thousands: bool = True
    time_limit: float = 5.0
    memory_mb: int = 1024
    children: int = 2
    budget: float = math.inf
    spent: list[float] = field(default_factory=list, compare=False)
    timed_out_answers: set[str] = field(default_factory=set, compare=False)

    def read(self, answer: str) -> Answer:
        """Returns what an answer says."""
        return read(answer, self.thousands)

    def equivalent(self, a: Answer, b: Answer, strict: bool = False) -> bool | None:
        """Returns whether two answers mean the same, or None where a limit left no verdict.

        Args:
            strict: A name (x of x = 4) and a unit count also where only one of them says it. That
                relation is transitive.
        """
        if a == b:
            return True
        if strict and (a.name, a.unit) != (b.name, b.unit):
            return False
        if self.units == "compare" and a.unit != b.unit:
            return False
        if a.base != b.base or not compatible(a.name, b.name):
            return False
        if a.kind == b.kind == "time":
            return same_time(a, b)
        if not compatible(a.unit, b.unit):
            return False
        if {a.kind, b.kind} <= UNORDERED:  # 1, 2 and {1, 2}
            return in_any_order(a, b, lambda x, y: self.equivalent(x, y, strict))
        if a.kind != b.kind:
            return self._across(a, b)
        if a.kind in ORDERED:
            return in_order(a, b, lambda x, y: self.equivalent(x, y, strict))
        if a.key == b.key:
            return True
        if a.kind == "expression":  # math-verify takes any two equations it cannot solve for one
            return self._by_math_verify(a, b)
        return a.kind == "value" and same_product(a, b)

    def _across(self, a: Answer, b: Answer) -> bool | None:
        """Compares answers of two kinds: y = 2x + 1 and an equation, a sum and its value."""
        if {a.kind, b.kind} == {"expression", "value"}:
            return self._by_math_verify(a, b)
        if {a.kind, b.kind} == {"equation", "value"}:
            equation, value = (a, b) if a.kind == "equation" else (b, a)
            if value.name and value.key.startswith("formula"):
                return equation.key == Reader().assignment_as_equation(value).key
        return False

    def _by_math_verify(self, a: Answer, b: Answer) -> bool | None:
        """Asks with each of the two as the truth: equivalent if math-verify accepts either."""
        text_a, text_b = a.text, b.text
        if not text_a or not text_b:
            return False
        if any(r"\infty" in text and not OVER_A_RANGE.search(text) for text in (text_a, text_b)):
            return False  # sympy's infinity ** 0 is 1, and infinity is no number
        if not self.timed_out_answers.isdisjoint((text_a, text_b)):
            return False
        pool = pool_of(children=self.children, time_limit=self.time_limit, memory_mb=self.memory_mb)
        for gold, answer in (text_a, text_b), (text_b, text_a):
            if sum(self.spent) >= self.budget:
                return None
            reply = reply_of(pool, gold, answer)
            self.spent.append(self.time_limit if reply is None else reply["seconds"])
            if reply is None:
                suspects = [x.text for x in (a, b) if x.kind != "value"]
                if len(suspects) > 1:
                    suspects = [text for text in suspects if reply_of(pool, "0", text) is None]
                self.timed_out_answers.update(suspects)
                return None
            if reply["equal"]:
                return True
        return False

    def accepts(self, truth: Answer, answer: Answer) -> bool | None:
        """Returns whether the judge accepts an answer for a truth, or None where a limit left no
        verdict.

        Beside what is equivalent it accepts, also as a part of a list, a set or a tuple: numbers
        equal to six places; 50 and 0.5 alike for 50 %, and 50 % for either; the digits of a number
        to another base without the base; degrees as radians; 3:10, which may be a time, for 3/10;
        m + n = 113 for 113; x_1 = 2, x_2 = 3 for 2, 3.
        """
        verdict = self.equivalent(truth, answer)
        if verdict is not False or not compatible(truth.name, answer.name):
            return verdict
        if truth.kind == "value" and not truth.name:
            answer = as_number(answer)
        if answer.kind == truth.kind == "value":
            return self._close(truth, answer)
        if {truth.kind, answer.kind} <= UNORDERED:
            return in_any_order(truth, without_indices(answer), self.accepts)
        if truth.kind == answer.kind == "tuple":
            return in_order(truth, answer, self.accepts)
        return False

    def _close(self, truth: Answer, answer: Answer) -> bool:
        if answer.base not in ("", truth.base) and (truth.base or answer.base != "10"):
            return False
        if truth.base or answer.base:
            return truth.key == answer.key
        if not (truth.digits and answer.digits):
            return False
        a, b = value_from(truth.digits), value_from(answer.digits)
        units = {truth.unit, answer.unit}
        if "percent" in units and len(units) == 2:
            if "" not in units:
                return False
            if truth.unit:
                return same_value(a, b) or same_value(a * 100, b)
            return same_value(a, b) or (abs(a) >= 1 and same_value(a, b * 100))
        if not compatible(truth.unit, answer.unit):
            return False
        if "degree" in units and "" in units:
            factor = a.context.pi / 180
            if (truth.unit and same_value(a * factor, b)) or (
                answer.unit and same_value(a, b * factor)
            ):
                return True
        return same_value(a, b)


def as_number(answer: Answer) -> Answer:
    """Returns what may be meant as a number, beside one: the quotient of 3:10, which is read as a
    time, and 113 of m + n = 113. Anything else returns as it is."""
    if answer.kind == "time" and not answer.unit:
        above, below = map(context().mpf, answer.key.split(":"))
        return value_answer(above / below) if below else answer
    if answer.kind == "equation" and answer.digits:
        return value_answer(value_from(answer.digits))
    return answer


def without_indices(answer: Answer) -> Answer:
    """Returns x_1 = 2, x_2 = 3 as x = 2, x = 3, the roots of one variable."""
    letters = {part.name.partition(INDEX)[0] for part in answer.parts}
    if len(letters) > 1 or not all(INDEX in part.name for part in answer.parts):
        return answer
    letter = letters.pop()
    return replace(answer, parts=tuple(replace(part, name=letter) for part in answer.parts))


def in_order(a: Answer, b: Answer, same: Callable[[Answer, Answer], bool | None]) -> bool | None:
    """Says whether two tuples, intervals or matrices are the same part by part."""
    if a.key != b.key or len(a.parts) != len(b.parts):
        return False
    return every(same(x, y) for x, y in zip(a.parts, b.parts, strict=True))


def in_any_order(a: Answer, b: Answer, same: Callable[[Answer, Answer], bool | None]) -> bool:
    """Says whether two lists or sets are the same but for the order of their parts. Where the parts
    have several names, only their names say which is which: x = 1, y = 2 is not 2, 1."""
    several = len({part.name for part in (*a.parts, *b.parts)} - {""}) > 1
    return matched(a.parts, b.parts, lambda x, y: (not several or x.name == y.name) and same(x, y))


def every(verdicts: Iterable[bool | None]) -> bool | None:
    """Returns False if one is, else None if one is, else True."""
    result: bool | None = True
    for verdict in verdicts:
        if verdict is False:
            return False
        result = None if verdict is None else result
    return result


def matched(
    first: Sequence[Answer],
    second: Sequence[Answer],
    same: Callable[[Answer, Answer], bool | None],
) -> bool:
    """Says whether the parts of two lists can be paired so that each pair is the same; of more than
    MAX_PARTS it is not tried."""
    if len(first) != len(second) or len(first) > MAX_PARTS:
        return False
    graph = [[j for j, y in enumerate(second) if same(x, y)] for x in first]
    taken: dict[int, int] = {}

    def place(i: int, seen: set[int]) -> bool:
        for j in graph[i]:
            if j not in seen:
                seen.add(j)
                if j not in taken or place(taken[j], seen):
                    taken[j] = i
                    return True
        return False

    return all(place(i, set()) for i in range(len(first)))


class Clusters(NamedTuple):
    labels: list[int]  # the cluster of each answer, 0.. in the order of first appearance
    timed_out: int  # comparisons that a limit ended; those answers count as different


def cluster(
    answers: Sequence[str],
    read: Callable[[str], Hashable],
    equivalent: Callable[..., bool | None],
    unparsable: str = "one",
) -> Clusters:
    """Clusters equivalent answers; their order does not matter.

    What is not said (x of x = 4, a unit) is no difference, unless the answers of a cluster then
    disagree with each other (x = 4, 4 and y = 4): there it counts.

    Args:
        answers: final answers; blank where a response has none.
        read: takes an answer apart; equal results are equivalent without a comparison.
        equivalent: compares two results of `read`, also with strict=True; None: a limit left no
            verdict.
        unparsable: responses without an answer are one cluster ("one") or one each ("own").

    Returns:
        the clusters; none for no answers.
    """
    parsed = [read(answer) if answer.strip() else None for answer in answers]
    distinct = list(dict.fromkeys(answer for answer in parsed if answer is not None))
    graph, timed_out = Graph(), 0
    graph.add_nodes_from(range(len(distinct)))
    for i, j in itertools.combinations(range(len(distinct)), 2):
        verdict = equivalent(distinct[i], distinct[j])
        timed_out += verdict is None
        if verdict:
            graph.add_edge(i, j)
    cluster_of = {}
    for component in connected_components(graph):
        part = graph.subgraph(component)
        if part.number_of_edges() < len(component) * (len(component) - 1) // 2:
            part = Graph(part)
            part.remove_edges_from(
                [
                    (i, j)
                    for i, j in part.edges
                    if not equivalent(distinct[i], distinct[j], strict=True)
                ]
            )
        for members in connected_components(part):
            cluster_of.update(dict.fromkeys(members, min(members)))
    place_of = {answer: i for i, answer in enumerate(distinct)}
    keys = [
        ("answer", cluster_of[place_of[answer]])
        if answer is not None
        else ("blank", position if unparsable == "own" else 0)
        for position, answer in enumerate(parsed)
    ]
    labels: dict = {}
    return Clusters([labels.setdefault(key, len(labels)) for key in keys], timed_out)
