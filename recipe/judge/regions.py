"""Sets of real numbers: intervals, their unions and differences, inequalities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from recipe.judge.answer import Answer, value_answer
from recipe.judge.expression import Number, context
from recipe.judge.tokens import Token, encloses, has_letters, split
from recipe.judge.value import key_of, value_of

MIRRORED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}


class Interval(NamedTuple):
    low: Number
    has_low: bool  # whether `low` belongs to it
    high: Number
    has_high: bool


def is_union(token: Token) -> bool:
    return token.text == "cup" or (token.text == "U" and token.kind == "letter")


def is_difference(token: Token) -> bool:
    return token.text == "setminus"


def region_of(tokens: Sequence[Token]) -> list[Interval] | None:
    """Returns the intervals of an interval, \\mathbb{R}, a set of numbers, a union or a difference
    of these; None for anything else."""
    pieces = split(tokens, is_union)
    if len(pieces) > 1:
        parts = [region_of(piece) for piece in pieces]
        return None if None in parts else [i for part in parts if part for i in part]
    pieces = split(tokens, is_difference)
    if len(pieces) > 1:
        parts = [region_of(piece) for piece in pieces]
        if None in parts:
            return None
        kept, *others = (merged(part or []) for part in parts)
        for taken in others:
            kept = difference(kept, taken)
        return kept
    if [t.text for t in tokens if t.text not in "{}"] == ["mathbb", "R"]:
        return [Interval(-context().inf, False, context().inf, False)]
    return _interval(tokens) if tokens and encloses(tokens) else None


def _interval(tokens: Sequence[Token]) -> list[Interval] | None:
    first, last = tokens[0].text, tokens[-1].text
    ends = [real_number(part) for part in split(tokens[1:-1], lambda t: t.text == ",")]
    if any(end is None for end in ends):
        return None
    if first == r"\{":
        return [Interval(end, True, end, True) for end in ends]
    if len(ends) != 2 or first not in "([" or last not in ")]" or ends[0] > ends[1]:
        return None
    return [Interval(ends[0], first == "[", ends[1], last == "]")]


def real_number(tokens: Sequence[Token]) -> Number | None:
    """Returns the value of a real number, infinity too; None for anything else."""
    value = None if has_letters(tokens) else value_of(tokens)
    return None if value is None or isinstance(value, context().mpc) else value


def bounded(
    sides: Sequence[Sequence[Token]], relations: Sequence[str], middle: int
) -> list[Interval] | None:
    """Returns the numbers of x < 3, 0 < x <= 5, < 3; None where a bound is no number.

    Args:
        sides: of the inequality.
        relations: <, >, <=, >= between them.
        middle: the place of the variable, or of nothing, among the sides.
    """
    low, has_low = -context().inf, False
    high, has_high = context().inf, False
    for i, relation in enumerate(relations):
        bound = real_number(sides[i] if i < middle else sides[i + 1])
        facing = MIRRORED[relation] if i < middle else relation
        if bound is None:
            return None
        if facing[0] == "<":
            high, has_high = bound, facing == "<="
        else:
            low, has_low = bound, facing == ">="
    return [Interval(low, has_low, high, has_high)]


def region_answer(intervals: Sequence[Interval]) -> Answer:
    """Returns a set of real numbers as an answer: (a, b) alone is the same as the pair."""
    pieces = merged(intervals)
    if not pieces:
        return Answer("words", "emptyset")
    low, has_low, high, has_high = pieces[0]
    if len(pieces) == 1 and not has_low and not has_high:
        return Answer("tuple", parts=(value_answer(low), value_answer(high)))
    texts = (
        f"{'[' if i.has_low else '('}{key_of(i.low)}, {key_of(i.high)}{']' if i.has_high else ')'}"
        for i in pieces
    )
    return Answer("region", " ".join(texts))


def merged(intervals: Sequence[Interval]) -> list[Interval]:
    """Returns the union as disjoint intervals in their order."""
    pieces: list[Interval] = []
    for interval in sorted(intervals, key=lambda i: (i.low, not i.has_low)):
        low, has_low, high, has_high = interval
        if low > high or (low == high and not (has_low and has_high)):
            continue
        last = pieces[-1] if pieces else None
        if last and (low < last.high or (low == last.high and (has_low or last.has_high))):
            end = max((last.high, last.has_high), (high, has_high))
            pieces[-1] = Interval(last.low, last.has_low, *end)
        else:
            pieces.append(interval)
    return pieces


def difference(kept: Sequence[Interval], taken: Sequence[Interval]) -> list[Interval]:
    """Returns the numbers of `kept` that are not in `taken`."""
    for hole in taken:
        pieces = []
        for a, has_a, b, has_b in kept:
            end = min((b, has_b), (hole.low, not hole.has_low))
            start, misses_start = max((a, not has_a), (hole.high, hole.has_high))
            pieces += [Interval(a, has_a, *end), Interval(start, not misses_start, b, has_b)]
        kept = merged(pieces)
    return list(kept)
