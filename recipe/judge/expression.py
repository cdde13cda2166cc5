"""The grammar of a closed form: arithmetic with fractions, powers, roots, functions, e, i, pi,
infinity and letters, to 50 digits.

`e` and `i` are the constants, `E` and `I` letters. A whole number before a fraction of such numbers
is a mixed number; degrees are radians where a function takes them. What a reader could take in two
ways (1/2x, log x, f(x)) has no value here.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import mpmath

from recipe.judge.tokens import Token, has_letters, is_call
from recipe.judge.vocabulary import GREEK

DEEPEST = 20  # brackets inside one another
LARGEST_EXPONENT, LARGEST_ARGUMENT = 1000, 10_000
LARGEST_MAGNITUDE = 10_000  # bits of a function's argument before the point
DIGITS = 50
MOST_EXACT = mpmath.mpf("1e45")
EXACT = mpmath.mpf("1e-40")  # relative
# where letters stand for numbers: from here on, within this width; other points have 1 to 2
RANGES = {1: (0, 1), 7: (20, 10), 8: (2, 4), 9: (6, 14), 10: (100, 900)}
POINTS = (0, *RANGES)
FAR = 9
CONSTANTS: dict[str, Callable] = {"pi": lambda c: c.pi, "infty": lambda c: c.inf}
FUNCTIONS = {  # mpmath's names
    "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc",
    "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "exp": "exp", "ln": "ln", "arcsin": "asin",
    "arccos": "acos", "arctan": "atan",
}  # fmt: skip
INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}
FACTORS = frozenset((*FUNCTIONS, *CONSTANTS, *GREEK, "sqrt", "frac", "binom", "log", "lg", "lfloor",
                     "lceil"))  # fmt: skip
MULTIPLIES, DIVIDES = ("*", "cdot"), ("/", "div")
CLOSING = {"(": ")", "{": "}", "[": "]", "|": "|"}

Number = Any  # an mpf or mpc of a context of mpmath, which has no types


class NoValue(Exception):
    """The text is not of the grammar, or has no finite value."""


_local = threading.local()


def context() -> mpmath.MPContext:
    """Returns this thread's arithmetic: mpmath's functions change the precision of theirs."""
    if not hasattr(_local, "context"):
        _local.context = mpmath.MPContext()
        _local.context.dps = DIGITS
    return _local.context


@lru_cache(maxsize=4096)
def letter(name: str, point: int) -> tuple[int, int]:
    """Returns the number that stands for a letter at a point, as a numerator and a power of ten;
    the same in every process."""
    digest = hashlib.sha256(f"{point}{name}".encode()).digest()
    number = int.from_bytes(digest[:17], "big") % 10**40
    start, width = RANGES.get(point, (1, 1))
    return start * 10**40 + width * number, 40


class Expression:
    """Recursive descent; each method reads from `self.at` on and returns a value."""

    def __init__(self, tokens: Sequence[Token], point: int):
        self.tokens, self.point = list(tokens), point
        self.at, self.depth, self.in_function, self.bars = 0, 0, 0, 0
        self.has_sum = False
        self.c = context()

    def peek(self, ahead: int = 0) -> Token:
        place = self.at + ahead
        return self.tokens[place] if 0 <= place < len(self.tokens) else Token("end", "")

    def take(self, *wanted: str) -> bool:
        token = self.peek()
        if token.text in wanted and token.kind in ("sign", "command"):
            self.at += 1
            return True
        return False

    def need(self, wanted: str) -> None:
        if not self.take(wanted):
            raise NoValue

    def sum(self) -> Number:
        self.depth += 1
        if self.depth > DEEPEST:
            raise NoValue
        value = self.product()
        while True:
            if self.take("+"):
                value = self.added(value, self.product())
            elif self.take("-"):
                value = self.added(value, -self.product())
            else:
                self.depth -= 1
                return value

    def added(self, a: Number, b: Number) -> Number:
        """Adds two terms; what is left of terms that cancel is rounding."""
        self.has_sum = True
        total, sizes = a + b, sorted((abs(a), abs(b)))
        if 0 < sizes[0] < EXACT * sizes[1] < a.context.inf:
            raise NoValue  # the smaller one is lost
        return total * 0 if abs(total) <= EXACT * abs(a) < a.context.inf else total

    def product(self) -> Number:
        value, divided = self.signed(), False
        while True:
            token = self.peek()
            if self.take(*MULTIPLIES):
                value = value * self.signed()
            elif self.take(*DIVIDES):
                value, divided = self.quotient(value, self.signed()), True
            elif self.starts_factor(token):
                # factors side by side: not 1/2x, x2
                if divided or (token.kind == "number" and not self.is_factor(token)):
                    raise NoValue
                value = value * self.power()
            else:
                return value

    def starts_factor(self, token: Token) -> bool:
        if token.kind in ("number", "letter"):
            return True
        if token.kind == "sign":
            return token.text in ("(", "{", "[") or (token.text == "|" and not self.bars)
        return token.kind == "command" and token.text in FACTORS

    def is_factor(self, token: Token) -> bool:
        """Says whether a number is one behind what stands before it: 2! 3!, 2^6 3^5, not x2."""
        before = self.tokens[self.at - 1].text
        return before in ("}", "!", ")") or (token.spaced and self.peek(-2).text == "^")

    def quotient(self, above: Number, below: Number) -> Number:
        if below == 0:
            raise NoValue
        return above / below

    def signed(self) -> Number:
        if self.take("-"):
            return -self.signed()
        if self.take("+"):
            return self.signed()
        return self.power()

    def power(self) -> Number:
        base = self.postfix(self.atom())
        if not self.take("^"):
            return base
        if self.take("circ"):
            return self.degrees(base)
        return self.raised(base, self.exponent())

    def exponent(self) -> Number:
        """Of a power: a group, or one atom, -1 too. {\\circ} is no exponent."""
        if self.peek().text == "{":
            return self.group()
        sign = -1 if self.take("-") else 1
        token = self.peek()
        if token.kind == "number" and token.text.isdigit() and len(token.text) <= DIGITS - 10:
            self.at += 1  # not a mixed number: 2^3\frac14 is a quarter of 8
            return sign * self.c.mpf(token.text)
        return sign * self.atom()

    def raised(self, base: Number, exponent: Number) -> Number:
        if self.peek().text == "^" or abs(exponent) > LARGEST_EXPONENT:
            raise NoValue
        if base == 0 and (isinstance(exponent, self.c.mpc) or exponent <= 0):
            raise NoValue
        if self.c.isinf(base) and exponent == 0:
            raise NoValue
        return base**exponent

    def postfix(self, value: Number) -> Number:
        while self.take("!"):
            if not self.is_count(value):
                raise NoValue
            value = self.c.factorial(value)
            if self.peek().text == "!":
                raise NoValue  # 5!! is the double factorial
        if self.peek().text == "^" and [self.peek(i).text for i in (1, 2, 3)] == ["{", "circ", "}"]:
            self.at += 4
            return self.degrees(value)
        return value

    def degrees(self, value: Number) -> Number:
        if not self.in_function:
            raise NoValue  # the reader takes them for a unit
        return value * self.c.pi / 180

    def group(self) -> Number:
        self.need("{")
        value = self.sum()
        self.need("}")
        return value

    def argument(self, command: str = "frac") -> Number:
        """Of \\frac, \\binom, \\sqrt: a group, a letter, or one digit, which \\frac12 takes
        out of 12."""
        token = self.peek()
        if token.text == "{":
            return self.group()
        if command == "sqrt" and token.text == "(":
            return self.bracketed_after()
        self.at += 1
        if token.kind == "letter" or token.text in GREEK:
            return self.variable(token)
        if token.text in CONSTANTS:
            return CONSTANTS[token.text](self.c)
        if token.kind != "number" or not token.text.isdigit():
            raise NoValue
        if len(token.text) == 1:
            return self.c.mpf(token.text)
        if command == "sqrt":
            raise NoValue  # \\sqrt12 is the root of 1, times 2, in LaTeX, and not to its writer
        self.at -= 1
        self.tokens[self.at] = Token("number", token.text[1:])
        return self.c.mpf(token.text[0])

    def bracketed_after(self) -> Number:
        self.need("(")
        return self.bracketed("(")

    def applied(self, name: str) -> Number:
        """A function of what follows: a bracket, or factors up to the next sign or function."""
        exponent = None
        if self.take("^"):
            exponent = self.exponent()
            if exponent == -1 and name in INVERSES:
                name, exponent = INVERSES[name], None
        self.in_function += 1
        value = self.function_argument()
        self.in_function -= 1
        self.check_argument(name, value)
        value = getattr(self.c, FUNCTIONS[name])(value)
        return value if exponent is None else self.raised(value, exponent)

    def check_argument(self, name: str, value: Number) -> None:
        """Refuses an argument so large that the function takes long: a sine needs pi to as many
        digits, and the exponential of a large number is larger than any answer."""
        for part in (self.c.re(value), self.c.im(value)):
            if self.c.isfinite(part) and part != 0 and self.c.mag(part) > LARGEST_MAGNITUDE:
                raise NoValue
        if name in ("exp", "sinh", "cosh") and self.c.re(value) != self.c.re(value) * 0:
            real = abs(self.c.re(value))
            if self.c.isfinite(real) and real > LARGEST_ARGUMENT:
                raise NoValue

    def function_argument(self) -> Number:
        if self.peek().text in ("(", "{", "["):
            return self.postfix(self.atom())
        value = self.signed()
        while self.peek().kind in ("number", "letter") or self.peek().text in (
            "frac", "pi", "sqrt", *GREEK,
        ):  # fmt: skip
            value = value * self.power()
        if self.take(*DIVIDES):
            raise NoValue  # sin x/2
        return value

    def logarithm(self, base: Number | None) -> Number:
        if self.take("_"):
            base = self.exponent()
        if base is None:
            raise NoValue  # to some readers to base ten, to others natural
        self.in_function += 1
        value = self.function_argument()
        self.in_function -= 1
        if value == 0 or base in (0, 1):
            raise NoValue
        return self.c.log(value) / self.c.log(base)

    def variable(self, token: Token) -> Number:
        name = token.text
        if token.kind == "letter" and name in "ei" and self.peek().text != "_":
            return self.c.e if name == "e" else self.c.j
        if self.take("_"):
            start = self.at
            if self.take("{"):
                while not self.take("}"):
                    if self.peek().kind == "end":
                        raise NoValue
                    self.at += 1
            else:
                self.at += 1
            name += "_" + "".join(
                t.text for t in self.tokens[start : self.at] if t.text not in "{}"
            )
        while self.take("'"):
            name += "'"
        if is_call(self.tokens, self.at):
            raise NoValue  # f(2) is no product
        numerator, places = letter(name, self.point)
        return self.c.mpf(numerator) / 10**places

    def number(self, token: Token) -> Number:
        """Also a mixed number: a whole number before a fraction of whole numbers."""
        exponent = token.text.lower().partition("e")[2]
        if len(token.text) > DIGITS - 10 or abs(int(exponent or 0)) > LARGEST_EXPONENT:
            raise NoValue
        value = self.c.mpf(token.text)
        if not token.text.isdigit() or self.peek(-2).kind == "number":
            return value
        after = [self.peek(i) for i in range(7)]
        if after[0].text == "frac":
            braced = [t.text for t in after[1:7:3]] == ["{", "{"]
            digits = [after[2], after[5]] if braced else [after[1]]
            if all(t.kind == "number" and t.text.isdigit() for t in digits):
                self.at += 1
                return value + self.proper(self.argument(), self.argument())
        slash = after[0].kind == after[2].kind == "number" and after[1].text == "/"
        if slash and after[0].spaced and after[0].text.isdigit() and after[2].text.isdigit():
            self.at += 3
            return value + self.proper(self.c.mpf(after[0].text), int(after[2].text))
        return value

    def proper(self, above: Number, below: Number) -> Number:
        """The fraction of a mixed number: 2 10/3 is none."""
        if above >= below:
            raise NoValue
        return above / below

    def bracketed(self, opening: str) -> Number:
        self.bars += opening == "|"
        start, value = self.at, self.sum()
        self.bars -= opening == "|"
        self.need(CLOSING[opening])
        if opening == "|" and has_letters(self.tokens[start : self.at]):
            raise NoValue  # positive numbers alone do not decide
        return abs(value) if opening == "|" else value

    def rounded(self, down: bool) -> Number:
        start, value = self.at, self.sum()
        self.need("rfloor" if down else "rceil")
        if has_letters(self.tokens[start : self.at]) or abs(value) > MOST_EXACT:
            raise NoValue  # two points do not decide; a number of more digits is not exact
        return self.c.floor(value) if down else self.c.ceil(value)

    def atom(self) -> Number:
        token = self.peek()
        self.at += 1
        if token.kind == "number":
            return self.number(token)
        if token.kind == "letter" or (token.kind == "command" and token.text in GREEK):
            return self.variable(token)
        if token.kind == "sign" and token.text in CLOSING:
            return self.bracketed(token.text)
        if token.kind != "command":
            raise NoValue
        return self.command(token.text)

    def command(self, name: str) -> Number:
        if name in CONSTANTS:
            return CONSTANTS[name](self.c)
        if name == "frac":
            return self.quotient(self.argument(), self.argument())
        if name in FUNCTIONS:
            return self.applied(name)
        if name in ("log", "lg"):
            return self.logarithm(self.c.mpf(10) if name == "lg" else None)
        if name in ("lfloor", "lceil"):
            return self.rounded(name == "lfloor")
        if name == "binom":
            return self.chosen(self.argument(), self.argument())
        if name == "sqrt":
            if not self.take("["):
                return self.c.sqrt(self.argument("sqrt"))
            root = self.sum()
            self.need("]")
            radicand = self.argument("sqrt")
            if isinstance(radicand, self.c.mpc) or radicand < 0 or root == 0:
                raise NoValue  # the real root and the principal one differ
            return self.raised(radicand, 1 / root)
        raise NoValue

    def is_count(self, value: Number) -> bool:
        """Says whether a factorial can be taken of a value; the bound comes first, since a whole
        number is made of all its digits."""
        if isinstance(value, self.c.mpc) or not 0 <= value <= LARGEST_ARGUMENT:
            return False
        return value == self.c.floor(value)

    def chosen(self, n: Number, k: Number) -> Number:
        if not (self.is_count(n) and self.is_count(k)):
            raise NoValue
        return self.c.binomial(n, k) if k <= n else self.c.mpf(0)
