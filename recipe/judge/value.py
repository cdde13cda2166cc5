"""The value of an answer that is a short closed form, and when two values are equal.

Most answers are of this kind, and parsing LaTeX in full takes milliseconds where this takes a
tenth of one. Letters stand for positive numbers of 40 random digits: two expressions that agree
there agree for all positive numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import mpmath

from recipe.judge.expression import (
    EXACT,
    MOST_EXACT,
    POINTS,
    Expression,
    NoValue,
    Number,
    context,
)
from recipe.judge.tokens import Token, has_letters, joins_digits

LONGEST = 200  # tokens
MOST_BITS = 100_000  # of a value, before or behind the point
PLACES = mpmath.mpf("1e-6") * (1 + mpmath.mpf("1e-9"))  # a difference of 1e-6 itself is none


def formula_key(tokens: Sequence[Token]) -> str:
    """Returns a text that two expressions with letters share only if they agree at all POINTS to
    30 digits; "" for one without a value."""
    c, texts = context(), []
    for point in POINTS:
        value = value_of(tokens, point)
        if value is None:
            return ""
        texts += [c.nstr(part, 30) for part in (c.re(value), c.im(value))]
    return "formula " + " ".join(texts)


def value_of(tokens: Sequence[Token], point: int = 0) -> Number | None:
    """Returns the value of an expression to 50 digits, or None if it has none by these rules.

    Args:
        tokens: of `latex.tokens_of`.
        point: letters have other values at another point.
    """
    if not 0 < len(tokens) <= LONGEST or joins_digits(tokens):
        return None
    reader = Expression(tokens, point)
    try:
        value = reader.sum()
        if reader.at != len(reader.tokens):
            return None
        # a real number where the imaginary part is rounding
        if isinstance(value, reader.c.mpc) and abs(value.imag) <= EXACT * abs(value):
            value = value.real
        size = abs(value)
        if reader.c.isnan(value):
            return None
        if size in (0, reader.c.inf):
            return value
        too_large = abs(reader.c.mag(size)) > MOST_BITS
        # (2^75 + 1)(2^75 - 1) differs from 2^150 beyond the digits
        inexact = reader.has_sum and size > MOST_EXACT and not has_letters(tokens)
        return None if too_large or inexact else value
    except (NoValue, ArithmeticError, ValueError, TypeError, MemoryError):
        return None


def is_whole(value: Number) -> bool:
    """Says whether a value is a whole number, to 40 digits."""
    if isinstance(value, context().mpc):
        return is_whole(value.real) and is_whole(value.imag)
    if abs(value) == context().inf:
        return False
    if abs(value) > MOST_EXACT:
        return True  # all digits of more are 0 behind the point, and too many to make
    return abs(value - context().nint(value)) <= EXACT * abs(value)


def same_value(a: Number, b: Number) -> bool:
    """Says whether two values are equal as answers.

    They are if they agree to 40 digits, or if neither is a whole number and they agree to six
    places: to 1e-6, and below 1 to 1e-6 of the larger.
    """
    infinite = context().inf
    if a == b:
        return True
    if infinite in (abs(a), abs(b)):
        return False
    difference, scale = abs(a - b), max(abs(a), abs(b))
    if is_whole(a) and is_whole(b) and scale < MOST_EXACT:
        return difference < 0.5  # also beyond 40 digits
    if difference <= EXACT * scale:
        return True
    if is_whole(a) or is_whole(b):
        return False
    return difference <= PLACES * min(1, scale)


def key_of(value: Number) -> str:
    """Returns a text that two values share only if `same_value` finds them equal: the value to six
    decimals, below 1 to seven digits; a whole number exactly."""
    c = context()
    if isinstance(value, c.mpc):
        return f"{key_of(value.real)}+{key_of(value.imag)}i"
    if abs(value) == c.inf:
        return "infinity" if value > 0 else "-infinity"
    if is_whole(value):
        return str(int(c.nint(value))) if abs(value) < MOST_EXACT else c.nstr(value, 40)
    if abs(value) >= 1:
        return f"{int(c.nint(value * 10**6))}e-6" if abs(value) < 10**32 else c.nstr(value, 40)
    return c.nstr(value, 7)


def quotient_key(value: Number) -> str:
    """Returns a text that two numbers share if they agree to 38 digits; a part that is rounding
    beside the other one is 0."""
    c, parts = context(), (context().re(value), context().im(value))
    return " ".join(c.nstr(x if abs(x) > EXACT * abs(value) else c.zero, 38) for x in parts)


def digits_of(value: Number) -> str:
    """Returns a value to 45 digits, its real and its imaginary part."""
    c = context()
    return " ".join(c.nstr(part, 45) for part in (c.re(value), c.im(value)))


def value_from(digits: str) -> Number:
    """Returns the value of `digits_of`."""
    c = context()
    real, imaginary = (c.mpf(part) for part in digits.split())
    return c.mpc(real, imaginary) if imaginary else real
