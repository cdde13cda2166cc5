"""Lists of tokens: brackets, pieces, names."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from recipe.judge.vocabulary import GREEK

OPENING = {"(": ")", "[": "]", r"\{": r"\}", "{": "}", "langle": "rangle"}
CLOSING = frozenset(OPENING.values())
UNKNOWN_FUNCTIONS = frozenset("fghFG")
NAMED_FUNCTIONS = frozenset("fghFGPpEqrsuvyHTNLQRSVABCM")  # left of "=": f(2), P(A)
NO_NAMES = frozenset(  # not = 5
    ("not", "incorrect", "never", "impossible", "except", "least", "most", "greater",
     "less", "than", "between", "minus", "negative", "twice", "half", "double")
)  # fmt: skip
MARKS = frozenset(("angle", "triangle", "Delta", "overline", "vec", "nabla"))
EVENTS = frozenset(("=", "<", ">", "le", "ge", "cap", "cup"))
# beside names and numbers, in the brackets of a probability, an expectation, a variance
INSIDE = {"P": EVENTS, "Pr": EVENTS, "E": frozenset("^"), "Var": frozenset(), "Cov": frozenset()}
DERIVATIVE = re.compile(r"frac\{d(?:\^\{?\d\}?)?[A-Za-z]\}\{d[A-Za-z](?:\^\{?\d\}?)?\}")


class Token(NamedTuple):
    kind: str  # number, letter, word, command, sign
    text: str  # of a command, its name
    spaced: bool = False  # a blank or a text command stands before it


def by_thousands(separator: str) -> str:
    """Returns the pattern of a whole number of several groups of digits with a separator between
    them: 1,234,567. Its first group begins with no zero: 0,100 are two numbers.

    Args:
        separator: the pattern of one.
    """
    return rf"[1-9][0-9]{{0,2}}(?:{separator}[0-9]{{3}})+"


def text_of(tokens: Sequence[Token]) -> str:
    """Returns tokens as LaTeX, the same for the same tokens."""
    return " ".join(f"\\{t.text}" if t.kind == "command" else t.text for t in tokens)


def at_top(tokens: Sequence[Token]) -> Iterator[tuple[int, Token]]:
    """Yields the tokens outside all brackets with their places."""
    depth = 0
    for i, token in enumerate(tokens):
        closes = token.text in CLOSING
        depth -= closes
        if depth == 0 and not closes and token.text not in OPENING:
            yield i, token
        depth += token.text in OPENING


def balanced(tokens: Sequence[Token]) -> bool:
    """Says whether each bracket closes, in order; ( may be closed by ]."""
    open_brackets: list[str] = []
    for token in tokens:
        if token.text in OPENING:
            open_brackets.append(token.text)
        elif token.text in CLOSING:
            if not open_brackets:
                return False
            opening = open_brackets.pop()
            if OPENING[opening] != token.text and not {opening, token.text} <= set("([)]"):
                return False
    return not open_brackets


def encloses(tokens: Sequence[Token]) -> bool:
    """Says whether the first token is a bracket that the last one closes."""
    if len(tokens) < 2 or tokens[0].text not in OPENING or tokens[-1].text not in CLOSING:
        return False
    depth = 0
    for place, token in enumerate(tokens):
        depth += (token.text in OPENING) - (token.text in CLOSING)
        if depth == 0:
            return place == len(tokens) - 1
    return False


def split(tokens: Sequence[Token], separates: Callable[[Token], bool]) -> list[list[Token]]:
    """Returns the pieces between the separators outside all brackets."""
    places = [i for i, token in at_top(tokens) if separates(token)]
    edges = [-1, *places, len(tokens)]
    return [list(tokens[a + 1 : b]) for a, b in itertools.pairwise(edges)]


def has_letters(tokens: Sequence[Token]) -> bool:
    """Says whether an expression has a variable, which e and i are not."""
    return any(
        (t.kind == "letter" and t.text not in "ei") or (t.kind == "command" and t.text in GREEK)
        for t in tokens
    )


def joins_digits(tokens: Sequence[Token]) -> bool:
    """Says whether a group that is no argument stands at a digit, which then prints as one number:
    {3}{4}, {6}5."""
    arguments = 0  # that a command still takes
    opened: list[tuple[bool, int]] = []  # of each open group: is it bare, and `arguments` after it
    for i, token in enumerate(tokens):
        before = tokens[i - 1] if i else Token("", "")
        after = tokens[i + 1] if i + 1 < len(tokens) else Token("", "")
        if token.text == "{":
            of_command = before.kind == "command" or before.text in ("^", "_", "]")
            bare = not arguments and not of_command
            if bare and after.kind == "number" and (before.kind == "number" or before.text == "}"):
                return True
            opened.append((bare, max(arguments - 1, 0)))
            arguments = 0
        elif token.text == "}" and opened:
            bare, arguments = opened.pop()
            if bare and before.kind == "number" and after.kind == "number":
                return True
        elif token.kind == "command":
            arguments = {"frac": 2, "binom": 2, "sqrt": 1}.get(token.text, 1)
        else:
            arguments = max(arguments - 1, 0)
    return False


def is_derivative(tokens: Sequence[Token]) -> bool:
    """Says whether a fraction is a derivative or a difference quotient: dy/dx, 2 dy/dx,
    d(x^2)/dx."""
    small = ("d", "Delta", "delta")
    for i, token in enumerate(tokens[:-1]):
        if token.text != "frac" or tokens[i + 1].text != "{":
            continue
        rest = tokens[i + 2 :]
        end = _closing(rest)
        above = next((t.text for t in rest[:end] if t.kind != "number"), "")
        below = [t.text for t in rest[end + 1 : end + 4]]
        if above in small and len(below) == 3 and below[0] == "{" and below[1] in small:
            return below[2] != "}"
    return False


def _closing(tokens: Sequence[Token]) -> int:
    """Returns the place of the } that closes a group which has been opened before."""
    depth = 1
    for place, token in enumerate(tokens):
        depth += (token.text == "{") - (token.text == "}")
        if depth == 0:
            return place
    return len(tokens)


def is_call(tokens: Sequence[Token], place: int) -> bool:
    """Says whether a bracket behind a letter is a function's, as far as that can be told: after f,
    g, h, or without a sum inside, as in P(A) and I(0); x(x - 3) is a product."""
    if place >= len(tokens) or tokens[place].text != "(":
        return False
    if place and tokens[place - 1].text in UNKNOWN_FUNCTIONS:
        return True
    inside = itertools.takewhile(lambda t: t.text not in ("(", ")"), tokens[place + 1 :])
    return not any(token.text in ("+", "-") for token in inside)


def is_variable(tokens: Sequence[Token]) -> bool:
    """Says whether the tokens are one variable: x, a_n, a_{10}, a', \\theta."""
    if not tokens or not (tokens[0].kind == "letter" or tokens[0].text in GREEK):
        return False
    rest = [t.text for t in tokens[1:] if t.text != "'"]
    if not rest:
        return True
    return rest[0] == "_" and (len(rest) == 2 or encloses([t for t in tokens[2:] if t.text != "'"]))


def name_of(tokens: Sequence[Token]) -> str:
    """Returns the name that the left side of an equation is, or "" if it is none.

    A name is a variable, words, points (AB, |AB|, [ABC], \\angle ABC), a function of something
    (f(x), P(X = 2), E[X]), variables in brackets, or a derivative; 2x + 3y is none.
    """
    if not tokens:
        return ""
    texts = [t.text for t in tokens]
    is_name = (
        is_variable(tokens)
        or all(t.kind == "word" and t.text.lower() not in NO_NAMES for t in tokens)
        or (texts[0] == texts[-1] == "|" and len(tokens) == 3 and tokens[1].kind == "word")
        or _is_area(tokens)
        or _is_marked(tokens)
        or _is_function(tokens)
        or _is_probability(tokens)
        or _is_group(tokens)
        or DERIVATIVE.fullmatch("".join(texts)) is not None
    )
    return " ".join(text for text in texts if text not in "{}|") if is_name else ""


def _is_marked(tokens: Sequence[Token]) -> bool:
    texts = [t.text for t in tokens]
    bold = texts[0].startswith("bold ")
    if not (bold or texts[0] in MARKS or texts[:2] == ["m", "angle"]):
        return False
    return all(t.kind in ("letter", "word", "command") or t.text in "{}_'" for t in tokens)


def _is_area(tokens: Sequence[Token]) -> bool:
    """[ABC], of three points or more; [x] is a whole part."""
    if len(tokens) != 3 or tokens[0].text + tokens[2].text != "[]":
        return False
    return tokens[1].text.isupper() and len(tokens[1].text) > 2


def _call(tokens: Sequence[Token], opening: str) -> tuple[Sequence[Token], Sequence[Token]] | None:
    """Returns what stands before a bracket and within it, where it ends the tokens; else None."""
    start = next((i for i, t in enumerate(tokens) if t.text in opening), 0)
    if not start or not encloses(tokens[start:]):
        return None
    return tokens[:start], tokens[start + 1 : -1]


def _has_only_names(tokens: Sequence[Token], also: frozenset[str] = frozenset()) -> bool:
    """Says whether the tokens are names, numbers and the signs between them."""
    return all(
        t.kind in ("letter", "number", "word") or t.text in ",|_{}'" or t.text in also
        for t in tokens
    )


def _is_probability(tokens: Sequence[Token]) -> bool:
    """P(X = 2), \\Pr(A | B), \\mathbb{E}[X^2], Var(X): of events and variables, without a sum."""
    if (call := _call(tokens, "([")) is None:
        return False
    head = "".join(t.text for t in call[0] if t.text not in ("mathbb", "{", "}"))
    return head in INSIDE and _has_only_names(call[1], INSIDE[head])


def _is_function(tokens: Sequence[Token]) -> bool:
    if (call := _call(tokens, "(")) is None:
        return False
    head, inside = call
    if [t.text for t in head[-5:]] == ["^", "{", "-", "1", "}"]:
        head = head[:-5]  # the inverse
    if not is_variable(head) or not (head[0].text in NAMED_FUNCTIONS or len(inside) > 1):
        return False
    return _has_only_names(inside)


def _is_group(tokens: Sequence[Token]) -> bool:
    if tokens[0].text != "(" or not encloses(tokens):
        return False
    parts = split(tokens[1:-1], lambda t: t.text == ",")
    return len(parts) > 1 and all(map(is_variable, parts))
