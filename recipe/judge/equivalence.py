"""When two final answers mean the same, and the groups of meaning among a prompt's answers.

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

from recipe.judge.pool import pool_of, reply_of
from recipe.judge.reward import MAX_ANSWER, normalise, quick_verdict, says_otherwise
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


class Meaning(NamedTuple):
    """An answer taken apart, as far as equality needs it."""

    kind: str  # value, words, list, set, tuple, interval
    text: str  # what math-verify is to compare
    variable: str = ""  # x of "x = 4"
    unit: str = ""


def top_level_commas(text: str) -> int:
    depth = commas = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        commas += character == "," and depth == 0
    return commas


def read(answer: str, units: str = "ignore", thousands: bool = True) -> Meaning:
    """Takes an answer apart.

    units: "ignore" (5 cm is 5) or "compare" (5 cm is neither 5 m nor 5). thousands: 1,234 is a
    number; else the list of 1 and 234.
    """
    text = SPACING.sub(" ", answer).strip().strip("$").strip()
    text = text.removesuffix(".").strip()
    number = normalise(text) if thousands else text
    if number != text:
        return Meaning("value", number)
    variable = ""
    if (equation := VARIABLE.fullmatch(text)) and not top_level_commas(equation[2]):
        variable, text = equation[1], equation[2].strip().strip("$")
    if percent := PERCENT.fullmatch(text):
        return Meaning("value", f"({percent[1]})/100", variable)
    if (measured := UNIT.fullmatch(text)) and measured[2] not in ("e", "i", "x", "y", "n"):
        unit = re.sub(r"\\(?:text|mathrm|textrm|operatorname)|[{}\s^]", "", measured[2]).lower()
        unit = {"°": "degrees", "\\circ": "degrees", "degree": "degrees"}.get(unit, unit)
        value = normalise(measured[1])
        return Meaning("value", value, variable, "" if units == "ignore" else unit)
    inner = text.replace("\\{", "{").replace("\\}", "}")
    if top_level_commas(inner):
        return Meaning("list", re.sub(r",\s*", ", ", text), variable)
    first, last = inner[:1], inner[-1:]
    if first in BRACKETS and last in "})]" and top_level_commas(inner[1:-1]):
        mixed = first + last not in ("{}", "()")
        return Meaning("interval" if mixed else BRACKETS[first], text, variable)
    if (words := WORDS.fullmatch(text)) and len(words[1]) > 1:
        return Meaning("words", words[1].casefold())
    return Meaning("value", text, variable)


_value = functools.lru_cache(maxsize=65536)(value_of)  # few answers of a dataset are new


def elements(meaning: Meaning) -> list[str] | None:
    """The parts in their order of a value, a tuple or an interval; None where order is nothing."""
    if meaning.kind == "value":
        return [meaning.text]
    if meaning.kind not in ("tuple", "interval"):
        return None
    inner, depth, parts = meaning.text[1:-1], 0, [""]
    for character in inner:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def by_value(one: Meaning, other: Meaning) -> bool | None:
    """Two answers of one kind by the values of their parts; None if that does not decide."""
    ours, theirs = elements(one), elements(other)
    if ours is None or theirs is None:
        return None
    if one.kind != "value" and one.text[0] + one.text[-1] != other.text[0] + other.text[-1]:
        return False  # [1, 2) and [1, 2]
    if len(ours) != len(theirs):
        return False
    verdict = True
    for mine, yours in zip(ours, theirs, strict=True):
        values = _value(mine), _value(yours)
        same = None if None in values else same_value(*values)
        if same is False:
            return False
        verdict = verdict and same
    return verdict


@dataclass(frozen=True)
class Equivalence:
    """Same or not, with limits on each comparison as in `recipe.judge.pool.Pool`.

    An answer that has once run into a limit by itself is not compared again: it costs one limit,
    however many it stands beside.
    """

    units: str = "ignore"
    thousands: bool = True
    time_limit: float = 5.0
    memory_mb: int = 1024
    children: int = 2
    hopeless: set[str] = field(default_factory=set, compare=False)  # Meaning.text of such answers

    def read(self, answer: str) -> Meaning:
        return read(answer, self.units, self.thousands)

    def same(self, one: Meaning, other: Meaning) -> bool | None:
        """None: a limit left no verdict."""
        if one == other:
            return True
        if {one.kind, other.kind} == {"list", "set"}:  # 1, 2 and {1, 2}
            pass
        elif one.kind != other.kind:
            return False
        if one.kind == "words" or one.unit != other.unit:
            return False
        if one.variable and other.variable and one.variable != other.variable:
            return False
        if max(len(one.text), len(other.text)) > MAX_ANSWER:
            return False
        verdict = quick_verdict(one.text, other.text)
        if verdict is None:
            verdict = by_value(one, other)
        if verdict is not None:
            return verdict
        if not self.hopeless.isdisjoint((one.text, other.text)):
            return False
        if says_otherwise(one.text, other.text) or says_otherwise(other.text, one.text):
            return False
        pool = pool_of(children=self.children, time_limit=self.time_limit, memory_mb=self.memory_mb)
        for pair in (one.text, other.text), (other.text, one.text):  # it takes one for the truth
            reply = reply_of(pool, *pair)
            if reply is None:
                self.hopeless.update(text for text in pair if reply_of(pool, "0", text) is None)
                return None
            if reply["equal"]:
                return True
        return False


class Groups(NamedTuple):
    index: list[int]  # the group of each answer, 0.. in the order of first appearance
    gave_up: int  # comparisons that a limit ended; those answers count as different


def group(
    answers: Sequence[str],
    read: Callable[[str], Hashable],
    same: Callable[[Hashable, Hashable], bool | None],
    unparsable: str = "one",
) -> Groups:
    """Groups of equal meaning: connected by `same`, so the order of the answers does not matter.

    Blank answers, those of responses without one, are one group ("one") or one each ("own").
    """
    meanings = [read(answer) if answer.strip() else None for answer in answers]
    distinct = list(dict.fromkeys(m for m in meanings if m is not None))
    parent = {meaning: meaning for meaning in distinct}

    def root(meaning):
        while parent[meaning] != meaning:
            meaning = parent[meaning]
        return meaning

    gave_up = 0
    for i, one in enumerate(distinct):
        for other in distinct[:i]:
            if root(one) == root(other):
                continue
            verdict = same(one, other)
            gave_up += verdict is None
            if verdict:
                parent[root(one)] = root(other)
    keys = []
    for number, meaning in enumerate(meanings):
        if meaning is not None:
            keys.append(("meaning", root(meaning)))
        else:
            keys.append(("blank", number if unparsable == "own" else 0))
    numbers: dict = {}
    return Groups([numbers.setdefault(key, len(numbers)) for key in keys], gave_up)
