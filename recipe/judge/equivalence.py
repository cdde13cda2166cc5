"""When two final answers mean the same, and the clusters of equivalent answers of a prompt.

SENT (arXiv 2512.04359) groups the rollouts of a question by meaning and does not say how (paper
extract, sec. 1). *Ours*: equality of the final answers, by math-verify (`recipe.judge`), after
what math-verify reads too generously for two answers of which neither is the truth: 50% is 0.5 and
not also 50, a set is no tuple, 5 cm is not 5 m (if units count), and words are compared as words.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from networkx.utils import UnionFind

from recipe.judge.pool import pool_of, reply_of
from recipe.judge.reward import MAX_ANSWER, contradicts, fast_verdict, normalise
from recipe.judge.value import same_value, value_of

NUMBER = r"[-+]?(?:\d[\d,]*)?\.?\d+(?:\s*/\s*\d+)?|[-+]?\\[dt]?frac\{[^{}]+\}\{[^{}]+\}"
UNIT = re.compile(
    rf"\$?({NUMBER})\s*(?:\\[,;! ]|~)*\s*"
    r"((?:\\(?:text|mathrm|textrm|operatorname)\{[^{}]*\}|[A-Za-z]{1,12}|\^?\{?\\circ\}?|°)"
    r"(?:\s*/?\s*(?:\\text\{[^{}]*\}|[A-Za-z]{1,12}))*(?:\^\{?[0-9]\}?)?)\$?"
)
VARIABLE = re.compile(r"\$?\s*([A-Za-z](?:_\{?\w+\}?)?)\s*(?:=|\\in(?![a-z]))\s*([^=<>]+)")
PERCENT = re.compile(r"([^%]+?)\s*\\?%")
WORDS = re.compile(r"(?:\\(?:text|textbf|mathrm)\{)?\s*([A-Za-z][A-Za-z .'-]*?)\s*\}?")
SPACING = re.compile(r"(?<!\\)\\(?:left|right|displaystyle|,|;|!|:| )|~")
BRACKETS = {"{": "set", "(": "tuple", "[": "interval"}


class Answer(NamedTuple):
    """An answer taken apart, as far as equality needs it."""

    kind: str  # value, words, list, set, tuple, interval
    text: str  # what math-verify is to compare
    variable: str = ""  # x of "x = 4"
    unit: str = ""


def top_level_commas(text: str) -> int:
    """Returns the number of commas outside all brackets."""
    depth = commas = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        commas += character == "," and depth == 0
    return commas


def read(answer: str, units: str = "ignore", thousands: bool = True) -> Answer:
    """Takes an answer apart.

    Args:
        answer: as `reward.extract_answer` returns it, not blank.
        units: "ignore" (5 cm is 5) or "compare" (5 cm is neither 5 m nor 5).
        thousands: 1,234 is a number; else the list of 1 and 234.
    """
    text = SPACING.sub(" ", answer).strip().strip("$").strip()
    text = text.removesuffix(".").strip()
    number = normalise(text) if thousands else text
    if number != text:
        return Answer("value", number)
    variable = ""
    if (equation := VARIABLE.fullmatch(text)) and not top_level_commas(equation[2]):
        variable, text = equation[1], equation[2].strip().strip("$")
    if percent := PERCENT.fullmatch(text):
        return Answer("value", f"({percent[1]})/100", variable)
    if (measured := UNIT.fullmatch(text)) and measured[2] not in ("e", "i", "x", "y", "n"):
        unit = re.sub(r"\\(?:text|mathrm|textrm|operatorname)|[{}\s^]", "", measured[2]).lower()
        unit = {"°": "degrees", "\\circ": "degrees", "degree": "degrees"}.get(unit, unit)
        value = normalise(measured[1])
        return Answer("value", value, variable, "" if units == "ignore" else unit)
    inner = text.replace("\\{", "{").replace("\\}", "}")
    if top_level_commas(inner):
        return Answer("list", re.sub(r",\s*", ", ", text), variable)
    first, last = inner[:1], inner[-1:]
    if first in BRACKETS and last in "})]" and top_level_commas(inner[1:-1]):
        mixed = first + last not in ("{}", "()")
        return Answer("interval" if mixed else BRACKETS[first], text, variable)
    if (words := WORDS.fullmatch(text)) and len(words[1]) > 1:
        return Answer("words", words[1].casefold())
    return Answer("value", text, variable)


_value = functools.lru_cache(maxsize=65536)(value_of)  # few answers of a dataset are new


def parts(answer: Answer) -> list[str] | None:
    """Returns the value alone, or the parts of a tuple or an interval in their order; None for a
    kind whose order has no meaning."""
    if answer.kind == "value":
        return [answer.text]
    if answer.kind not in ("tuple", "interval"):
        return None
    inner, depth, texts = answer.text[1:-1], 0, [""]
    for character in inner:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            texts.append("")
        else:
            texts[-1] += character
    return texts


def equal_by_value(a: Answer, b: Answer) -> bool | None:
    """Compares two answers of one kind by the values of their parts; None if that does not
    decide."""
    parts_a, parts_b = parts(a), parts(b)
    if parts_a is None or parts_b is None:
        return None
    if a.kind != "value" and a.text[0] + a.text[-1] != b.text[0] + b.text[-1]:
        return False  # [1, 2) and [1, 2]
    if len(parts_a) != len(parts_b):
        return False
    verdict = True
    for part_a, part_b in zip(parts_a, parts_b, strict=True):
        values = _value(part_a), _value(part_b)
        same = None if None in values else same_value(*values)
        if same is False:
            return False
        verdict = verdict and same
    return verdict


@dataclass(frozen=True)
class Equivalence:
    """Decides whether two answers are equivalent, with limits on each comparison.

    An answer that has once run into a limit by itself is not compared again: it costs one limit,
    however many others it is compared with.

    Args:
        units, thousands: as in `read`.
        time_limit, memory_mb, children: as in `recipe.judge.pool.Pool`.
        timed_out_answers: `Answer.text` of those that have run into a limit by themselves.
    """

    units: str = "ignore"
    thousands: bool = True
    time_limit: float = 5.0
    memory_mb: int = 1024
    children: int = 2
    timed_out_answers: set[str] = field(default_factory=set, compare=False)

    def read(self, answer: str) -> Answer:
        """Takes an answer apart by these rules."""
        return read(answer, self.units, self.thousands)

    def equivalent(self, a: Answer, b: Answer) -> bool | None:
        """Returns whether two answers mean the same, or None where a limit left no verdict."""
        if a == b:
            return True
        list_and_set = {a.kind, b.kind} == {"list", "set"}  # 1, 2 and {1, 2}
        if a.kind != b.kind and not list_and_set:
            return False
        if a.kind == "words" or a.unit != b.unit:
            return False
        if a.variable and b.variable and a.variable != b.variable:
            return False
        if max(len(a.text), len(b.text)) > MAX_ANSWER:
            return False
        verdict = fast_verdict(a.text, b.text)
        if verdict is None:
            verdict = equal_by_value(a, b)
        if verdict is not None:
            return verdict
        if not self.timed_out_answers.isdisjoint((a.text, b.text)):
            return False
        if contradicts(a.text, b.text) or contradicts(b.text, a.text):
            return False
        return self._by_math_verify(a.text, b.text)

    def _by_math_verify(self, a: str, b: str) -> bool | None:
        """Asks with each of the two as the truth: equivalent if math-verify accepts either."""
        pool = pool_of(children=self.children, time_limit=self.time_limit, memory_mb=self.memory_mb)
        for gold, answer in (a, b), (b, a):
            reply = reply_of(pool, gold, answer)
            if reply is None:
                alone = (text for text in (a, b) if reply_of(pool, "0", text) is None)
                self.timed_out_answers.update(alone)
                return None
            if reply["equal"]:
                return True
        return False


class Clusters(NamedTuple):
    labels: list[int]  # the cluster of each answer, 0.. in the order of first appearance
    timed_out: int  # comparisons that a limit ended; those answers count as different


def cluster(
    answers: Sequence[str],
    read: Callable[[str], Hashable],
    equivalent: Callable[[Hashable, Hashable], bool | None],
    unparsable: str = "one",
) -> Clusters:
    """Clusters answers that `equivalent` connects, so that their order does not matter.

    Args:
        answers: final answers; blank where a response has none.
        read: takes an answer apart; equal results are equivalent without a comparison.
        equivalent: compares two results of `read`; None: a limit left no verdict.
        unparsable: responses without an answer are one cluster ("one") or one each ("own").

    Returns:
        the clusters; none for no answers.
    """
    parsed = [read(answer) if answer.strip() else None for answer in answers]
    distinct = list(dict.fromkeys(answer for answer in parsed if answer is not None))
    clusters, timed_out = UnionFind(distinct), 0
    for i, a in enumerate(distinct):
        for b in distinct[:i]:
            if clusters[a] == clusters[b]:
                continue
            verdict = equivalent(a, b)
            timed_out += verdict is None
            if verdict:
                clusters.union(a, b)
    keys = [
        ("answer", clusters[answer])
        if answer is not None
        else ("blank", position if unparsable == "own" else 0)
        for position, answer in enumerate(parsed)
    ]
    labels: dict = {}
    return Clusters([labels.setdefault(key, len(labels)) for key in keys], timed_out)
