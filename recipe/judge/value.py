"""The value of an answer that is a short closed form, to 50 digits: arithmetic with fractions,
powers, roots, pi and letters, in plain text or LaTeX.

Most answers are of this kind, and parsing LaTeX in full takes milliseconds where this takes a
tenth of one. A letter stands for a fixed number of 40 random digits: two expressions that agree
there agree everywhere. What is ambiguous to a reader (1/2x, 3\\frac{1}{2}, e, i) has no value here.
"""

from __future__ import annotations

import hashlib
import re
from decimal import Context, Decimal, DivisionByZero, InvalidOperation, Overflow

LONGEST, DEEPEST, LARGEST_EXPONENT = 200, 20, 1000
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")
TOKEN = re.compile(
    r"\s*(?:(\d+\.?\d*|\.\d+)|\\([dt]?frac|sqrt|pi|infty|cdot|times|div)(?![A-Za-z])|([A-Za-z])"
    r"|([-+*/^(){}\[\]]))"
)
CONSTANTS = {"pi": PI, "infty": Decimal("Infinity")}
AMBIGUOUS = set("eEiIdD")  # a constant to some readers and a letter to others


class NoValue(Exception):
    """The text is not of the grammar, or has no finite real value."""


def letter(name: str) -> Decimal:
    """Returns the number between 1 and 2 that stands for a letter, the same in every process."""
    digits = int.from_bytes(hashlib.sha256(name.lower().encode()).digest()[:17], "big")
    return Decimal(f"0.{digits:041d}") + 1


class _Reader:
    """Recursive descent; each method reads from `self.at` on and returns a value."""

    def __init__(self, text: str):
        self.tokens, place = [], 0
        text = text.strip()
        while place < len(text):
            match = TOKEN.match(text, place)
            if not match:
                raise NoValue
            kind = match.lastindex
            self.tokens.append((("number", "command", "letter", "sign")[kind - 1], match[kind]))
            place = match.end()
        self.at, self.depth = 0, 0
        self.context = Context(prec=50, traps=[InvalidOperation, DivisionByZero, Overflow])

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def take(self, *wanted: str) -> bool:
        if self.peek()[1] in wanted and self.peek()[0] != "letter":
            self.at += 1
            return True
        return False

    def need(self, wanted: str) -> None:
        if not self.take(wanted):
            raise NoValue

    def sum(self) -> Decimal:
        self.depth += 1
        if self.depth > DEEPEST:
            raise NoValue
        value = self.product()
        while True:
            if self.take("+"):
                value = self.context.add(value, self.product())
            elif self.take("-"):
                value = self.context.subtract(value, self.product())
            else:
                self.depth -= 1
                return value

    def product(self) -> Decimal:
        value, divided = self.signed(), False
        while True:
            before, (kind, word) = self.tokens[self.at - 1][0], self.peek()
            if self.take("*", "cdot", "times"):
                value = self.context.multiply(value, self.signed())
            elif self.take("/", "div"):
                value, divided = self.context.divide(value, self.signed()), True
            elif kind in ("number", "letter", "command") or word in ("(", "{"):
                # factors side by side: not 1/2x, 3\frac{1}{2}, x2
                if divided or kind == "number" or (before == "number" and word.endswith("frac")):
                    raise NoValue
                value = self.context.multiply(value, self.power())
            else:
                return value

    def signed(self) -> Decimal:
        if self.take("-"):
            return self.context.minus(self.signed())
        if self.take("+"):
            return self.signed()
        return self.power()

    def power(self) -> Decimal:
        base = self.atom()
        if not self.take("^"):
            return base
        exponent = self.group() if self.peek()[1] == "{" else self.signed_atom()
        if self.peek()[1] == "^" or abs(exponent) > LARGEST_EXPONENT:
            raise NoValue
        return self.context.power(base, exponent)

    def signed_atom(self) -> Decimal:
        return self.context.minus(self.atom()) if self.take("-") else self.atom()

    def group(self) -> Decimal:
        self.need("{")
        value = self.sum()
        self.need("}")
        return value

    def argument(self) -> Decimal:
        """Of a command: a group, or a single digit, which \\frac12 takes out of a number."""
        if self.peek()[1] == "{":
            return self.group()
        kind, word = self.peek()
        if kind != "number" or not word.isdigit():
            raise NoValue
        if len(word) == 1:
            self.at += 1
        else:
            self.tokens[self.at] = ("number", word[1:])
        return Decimal(word[0])

    def atom(self) -> Decimal:
        kind, word = self.peek()
        self.at += 1
        if kind == "number":
            return Decimal(word)
        if kind == "letter" and word not in AMBIGUOUS:
            return letter(word)
        if kind == "sign" and word in "({":
            value = self.sum()
            self.need(")" if word == "(" else "}")
            return value
        if kind == "command" and word in CONSTANTS:
            return CONSTANTS[word]
        if kind == "command" and word.endswith("frac"):
            return self.context.divide(self.argument(), self.argument())
        if kind == "command" and word == "sqrt":
            if not self.take("["):
                return self.context.sqrt(self.argument())
            root = self.sum()
            self.need("]")
            return self.context.power(self.argument(), self.context.divide(Decimal(1), root))
        raise NoValue


def value_of(text: str) -> Decimal | None:
    """Returns the value of a text to 50 digits, or None if it has none by these rules."""
    if len(text) > LONGEST:
        return None
    try:
        reader = _Reader(text)
        value = reader.sum()
    except (NoValue, InvalidOperation, DivisionByZero, Overflow):
        return None
    return value if reader.at == len(reader.tokens) else None


def same_value(a: Decimal, b: Decimal) -> bool | None:
    """Returns True for values equal to 40 digits, False for values apart by more than any rounding
    of decimals, and None between the two."""
    if a == b:
        return True
    if a.is_infinite() or b.is_infinite():
        return False
    difference, scale = abs(a - b), max(abs(a), abs(b))
    if difference <= Decimal("1e-40") * scale:
        return True
    return False if difference > Decimal("1e-3") * (1 + scale) else None
