"""What an answer says, as data, and plain numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from recipe.judge.expression import Number
from recipe.judge.tokens import Token, by_thousands, has_letters, text_of
from recipe.judge.value import digits_of, formula_key, key_of, value_of

CURRENCY = re.compile(r"^([+-]?\s*)\\?[$€£¥]|\s*\\?[$€£¥]$")
NAMED_CURRENCY = re.compile(r"\\\$|[€£¥₹]")
SEPARATOR = r"(?:,|\{,\}|,?\\!\s*|\\,|[ \u00a0\u2009\u202f])"  # and ,\, is between two answers
PLAIN = re.compile(rf"([+-]?)\s*({by_thousands(SEPARATOR)}|[0-9]*)(?:\.([0-9]*))?")
INTEGER = re.compile(r"0|-?[1-9][0-9]*")
CANONICAL = re.compile(r"-?[0-9]+(\.[0-9]+)?")
MOST_DIGITS = 39  # of a whole number that is its own key


@dataclass(frozen=True, slots=True)
class Answer:
    """What an answer says. Equal ones say the same.

    kind: value, words, list, set, tuple, interval, region, matrix, equation, relation, time,
        expression (without a value, for math-verify) or text (equal to the same text only).
    key: of a value as `value.key_of` or `formula_key`; of words and texts themselves.
    parts: of a list, a set, a tuple, an interval, a matrix.
    name: x of "x = 4".
    unit: as `vocabulary.SPELLINGS` has it.
    base: of the digits; "" for ten.
    digits: 45 of a number.
    text: LaTeX of an expression.
    """

    kind: str
    key: str = ""
    parts: tuple[Answer, ...] = ()
    name: str = ""
    unit: str = ""
    base: str = ""
    digits: str = field(default="", compare=False)
    text: str = field(default="", compare=False)


def normalise(answer: str) -> str:
    """Returns a plain number in one spelling, `-?digits[.digits]` without needless zeros; else the
    text.

    Plain: sign, digits with or without thousands separators (1,234 1{,}234 1\\,234 1 234),
    decimals, and around it currency signs, `$` of LaTeX, emphasis (`**18**`), one full stop.
    """
    if INTEGER.fullmatch(answer):  # as most answers are
        return answer
    text = answer.strip().strip("*").strip().replace("−", "-")
    text = re.sub(r"^(\$+)([^$]*)\1$", r"\2", text).strip()
    text = re.sub(r"(?<![.\\])\.$", "", text)
    number = PLAIN.fullmatch(CURRENCY.sub(r"\1", text).strip())
    if not number or not (number[2] or number[3]):
        return text
    sign, integer, decimals = number.groups()
    integer = re.sub(r"[^0-9]", "", integer).lstrip("0") or "0"
    decimals = (decimals or "").rstrip("0")
    value = f"{integer}.{decimals}" if decimals else integer
    return f"-{value}" if sign == "-" and value != "0" else value


def is_plain(number: str) -> bool:
    """Says whether a text of `normalise` is a plain number."""
    return CANONICAL.fullmatch(number) is not None


def value_answer(value: Number, tokens: Sequence[Token] = (), **tags: str) -> Answer:
    """Returns a value as an answer; with letters in its tokens, all its digits count."""
    if not has_letters(tokens):
        key = key_of(value)
        text = key if is_plain(key) and "." not in key else text_of(tokens)
        return Answer("value", key, digits=digits_of(value), text=text, **tags)
    key = formula_key(tokens)
    return Answer("value", key, text=text_of(tokens), **tags) if key else text_answer(tokens)


def number_answer(number: str) -> Answer:
    """Returns a plain number as an answer."""
    if "." not in number and len(number) < MOST_DIGITS:
        return Answer("value", number, digits=f"{number} 0", text=number)
    tokens = [Token("number", number.lstrip("-"))]
    value = value_of([Token("sign", "-"), *tokens] if number[0] == "-" else tokens)
    return Answer("text", number) if value is None else value_answer(value)


def text_answer(tokens: Sequence[Token]) -> Answer:
    """Returns what no reader knows: its text, without braces around one token."""
    text = text_of(without_needless_braces(tokens))
    return Answer("text", text.casefold() if all(t.kind == "word" for t in tokens) else text)


def without_needless_braces(tokens: Sequence[Token]) -> list[Token]:
    """Returns the tokens without the braces that hold one of them: 2^{n} is 2^n, 2^{n+1} is not
    2^n+1."""
    kept: list[Token] = []
    for token in tokens:
        if token.text == "}" and len(kept) > 1 and kept[-2].text == "{":
            kept[-2:] = [kept[-1]]
        else:
            kept.append(token)
    return kept


def ordered(answers: Iterable[Answer]) -> tuple[Answer, ...]:
    """Returns the parts of a list or a set, whose order does not count, in one order."""
    return tuple(sorted(answers, key=repr))
