"""Values with a unit, times of the day, and repeating decimals.

A letter straight behind a number is algebra, not a unit: 5m is five times m, 5 m five metres.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from recipe.judge.answer import Answer, normalise, value_answer
from recipe.judge.expression import Number
from recipe.judge.tokens import Token, by_thousands, has_letters, text_of
from recipe.judge.value import is_whole, value_of
from recipe.judge.vocabulary import (
    CHANGES,
    CURRENCIES,
    MULTIPLES,
    NO_THINGS,
    POWERS,
    SHORT_UNITS,
    UNITS,
)

TIME = re.compile(
    r"(\d{1,2})(?::(\d{2}))?\s*(?:\\(?:text|mathrm)\{\s*)?([ap])\.?\s?m\.?\s*\}?|(\d{1,2}):(\d{2})",
    re.IGNORECASE,
)
IN_TEXT = re.compile(r"(?:\\(?:text(?:bf|rm)?|mathrm))?\{([^{}]*)\}")
REPEATING = re.compile(
    r"(?<!\d)(\d{0,40})\.(\d{0,40}?)"
    r"(?:\\overline\{(\d{1,20})\}|\\dot\{(\d)\}|(\d{1,20}?)\5{2,}(?:\.\.\.|\\l?dots))(?!\d)"
)
THOUSANDS = re.compile(rf"(?<![\d,.]){by_thousands(',')}(?![\d,])")
DEGREES = {(): "degree", ("C",): "celsius", ("F",): "fahrenheit"}
PARTS_OF_PI = 720720  # denominators up to 16 divide it
MOST_WORDS = 3  # of a thing that is counted: 3 small red balls


def measure(tokens: Sequence[Token]) -> Answer | None:
    """Reads a value with a unit behind it, or a currency before it; None for anything else."""
    if len(tokens) > 2 and tokens[0].text == "-" and unit_of([tokens[1].text]) in CURRENCIES:
        tokens = [tokens[1], tokens[0], *tokens[2:]]  # -$5
    if tokens[0].kind == "word" and unit_of([tokens[0].text]) in CURRENCIES:
        rest = tokens[2:] if tokens[1:] and tokens[1].text == "." else tokens[1:]
        value = value_of(rest)
        unit = unit_of([tokens[0].text]) or ""
        if value is None:  # $1.5 million, $18 dollars
            again = measure(rest) if len(rest) > 1 else None
            return replace(again, unit=unit) if again and again.unit in ("", unit) else None
        return value_answer(value, rest, unit=unit)
    if (short := _short_unit(tokens)) is not None:
        return short
    for end in range(len(tokens) - 1, 0, -1):
        head, tail = tokens[:end], tokens[end:]
        if tail[0].kind != "word" and tail[0].text not in ("^", "(", "Omega"):
            continue
        value = value_of(head)
        if value is not None and (answer := _measured(value, head, tail)) is not None:
            return answer
    return None


def _short_unit(tokens: Sequence[Token]) -> Answer | None:
    """Reads `5 m`, with a blank; its text stays that of the product 5m."""
    *head, last = tokens
    if not (head and last.kind == "letter" and last.spaced and last.text in SHORT_UNITS):
        return None
    value = None if has_letters(head) or head[-1].kind != "number" else value_of(head)
    if value is None:
        return None
    return replace(value_answer(value, unit=unit_of([last.text]) or ""), text=text_of(tokens))


def _measured(value: Number, head: Sequence[Token], tail: Sequence[Token]) -> Answer | None:
    """Returns a value with what stands behind it: degrees, a base, a multiple, a unit."""
    texts = [t.text for t in tail if t.text not in "{}"]
    if texts[:2] == ["^", "circ"]:
        return _degrees(value, head, texts[2:])
    in_brackets = texts[0] == "(" and texts[-1] == ")"
    if in_brackets:
        texts = texts[1:-1]
        if len(texts) == 2 and texts[0] == "base" and len(head) == 1:
            return Answer("value", normalise(head[0].text), base=texts[1])
    elif texts and texts[0].lower() in MULTIPLES:
        if has_letters(head):
            return None
        value, head, texts = value * MULTIPLES[texts[0].lower()], [], texts[1:]
    unit = unit_of(texts)
    if unit is None or (in_brackets and not unit):
        return None
    return value_answer(value, head, unit=unit)


def _degrees(value: Number, head: Sequence[Token], rest: list[str]) -> Answer | None:
    """Reads 45^\\circ, 20^\\circ C, and 45^\\circ 30' as 45.5 degrees."""
    turns = value / value.context.pi * PARTS_OF_PI
    if value != 0 and not has_letters(head) and is_whole(turns):
        return None  # \pi^\circ is neither pi nor 180 degrees
    if tuple(rest) in DEGREES:
        return value_answer(value, head, unit=DEGREES[tuple(rest)])
    if len(rest) == 2 and rest[1] == "'" and rest[0].isdigit() and not has_letters(head):
        return value_answer(value + value.context.mpf(rest[0]) / 60, unit="degree")
    return None


def unit_of(words: Sequence[str]) -> str | None:
    """Returns the one spelling of a unit, or None if the words are none; "" for no words.

    Args:
        words: of the answer behind its value, with the signs between them: ["m", "/", "s"],
            ["square", "feet"], ["cm", "^", "2"], ["miles", "per", "hour"], ["red", "apples"].
    """
    unit, power, at = "", "", 0
    while at < len(words):
        word = words[at]
        spelt = UNITS.get(word) or UNITS.get(word.lower() if len(word) > 1 else "")
        if word in ("/", "per", "*", "cdot") and unit and unit[-1] not in "/*":
            unit += "/" if word in ("/", "per") else "*"
        elif word == "^" and unit and at + 1 < len(words) and words[at + 1].isdigit():
            unit += words[at + 1]
            at += 1
        elif word.lower() in POWERS and not power:
            power = POWERS[word.lower()]
        elif spelt:
            unit += spelt + power
            power = ""
        else:
            return _things(words)
        at += 1
    if power or unit.endswith(("/", "*")):
        return None
    return {"mile/hour": "mph"}.get(unit, unit)


def _things(words: Sequence[str]) -> str | None:
    """Returns a plural noun with at most two words before it: `18 eggs`, `3 red balls`."""
    if len(words) > MOST_WORDS or any(
        not w.isalpha() or len(w) < 3 or w.lower() in CHANGES for w in words
    ):
        return None
    last = words[-1].lower()
    plural = last.endswith("s") and not last.endswith(("ss", "ths")) and last not in NO_THINGS
    return UNITS.get(last, last.removesuffix("s")) if plural or last in UNITS else None


def time_of_day(text: str) -> Answer | None:
    """Reads 20:34, 8:34 p.m., 9 a.m. as it is said, and which half of the day, if that is said;
    None for anything else, 16:81."""
    wrapped = IN_TEXT.fullmatch(text)
    match = TIME.fullmatch(wrapped[1].strip() if wrapped else text)
    if match is None:
        return None
    hour, minute = int(match[1] or match[4]), int(match[2] or match[5] or 0)
    half = (match[3] or "").lower()
    if hour > 24 or minute > 59 or (half and not 1 <= hour <= 12):
        return None
    return Answer("time", f"{hour}:{minute:02d}", unit=half)


def without_thousands(text: str) -> str:
    """Returns the text without the commas of one long number, if it has no others."""
    match = THOUSANDS.search(text)
    if match is None or text.count(",") != match[0].count(",") or re.search(r"[(\[]|\\\{", text):
        return text
    return THOUSANDS.sub(match[0].replace(",", ""), text)


def without_repetition(text: str) -> str:
    """Returns the text with repeating decimals (0.\\overline{3}, 0.333...) as fractions."""

    def fraction(match: re.Match) -> str:
        digits = match[3] or match[4] or match[5]
        start = f"{match[1] or '0'}{match[2]}"
        below = 10 ** len(match[2]) * (10 ** len(digits) - 1)
        return rf"(\frac{{{int(start + digits) - int(start)}}}{{{below}}})"

    return REPEATING.sub(fraction, text)
