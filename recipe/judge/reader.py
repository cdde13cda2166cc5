"""What an answer says: a value, a list, a tuple, a set of real numbers, an equation, words …

One reader serves the judge and the clusters of equivalent answers. **Its rule**: every token of the
answer is used. What is left over beside a value must be a known unit or a known filler (`units`);
else the answer is no value but a text, which equals only the same text.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from recipe.judge import units
from recipe.judge.latex import Token, Unreadable, plain, text_of, tokens_of
from recipe.judge.value import (
    GREEK,
    Number,
    digits_of,
    formula_key,
    has_letters,
    is_call,
    key_of,
    value_of,
)

LONGEST = 2_000  # characters
MAX_SIGNS = 4  # of ± in an answer

CURRENCY = re.compile(r"\\?[$€£¥]")
SEPARATOR = r"(?:,|\{,\}|,?\\[,!]|[ \u00a0\u2009\u202f])"
PLAIN = re.compile(rf"([+-]?)\s*([0-9]{{1,3}}(?:{SEPARATOR}[0-9]{{3}})+|[0-9]*)(?:\.([0-9]*))?")
CANONICAL = re.compile(r"-?[0-9]+(\.[0-9]+)?")
THOUSANDS = re.compile(r"(?<![\d,.])([0-9]{1,3}(?:,[0-9]{3})+)(?![\d,])")
REPEATING = re.compile(
    r"(\d*)\.(\d*?)(?:\\overline\{(\d+)\}|\\dot\{(\d)\}|(\d+?)\5{2,}(?:\.\.\.|\\l?dots))"
)
MATRIX = re.compile(r"\s*\\begin\{([pb]?matrix)\}(.*)\\end\{\1\}\s*", re.DOTALL)
FILLER = re.compile(
    r"(?:the\s+)?(?:final\s+|correct\s+)?answer(?:\s+is)?\s*[:=]?\s+|(?:answer)\s*[:=]\s*", re.I
)
TIME = re.compile(
    r"(\d{1,2})(?::(\d{2}))?\s*(?:\\(?:text|mathrm)\{\s*)?([ap])\.?\s?m\.?\s*\}?|(\d{1,2}):(\d{2})",
    re.IGNORECASE,
)
CHOICE = re.compile(r"\(?([A-E])(?:\)|\.(?=\s))\s*(?=\S)")
DERIVATIVE = re.compile(r"frac\{d(?:\^\{?\d\}?)?[A-Za-z]\}\{d[A-Za-z](?:\^\{?\d\}?)?\}")
BASE = re.compile(r"\(?\s*(?:in\s+)?base\s*[-_]?\s*(\w+)\s*\)?")

OPENING, CLOSING = {"(": ")", "[": "]", r"\{": r"\}", "{": "}", "langle": "rangle"}, {
    ")", "]", r"\}", "}", "rangle",
}  # fmt: skip
RELATIONS = {"=", "<", ">", "le", "ge", "ne", "in", "notin", "approx", "equiv", "to",
             "Rightarrow", "mapsto", "subset", "subseteq", "perp", "parallel"}  # fmt: skip
ORDER = {"<": "<", ">": ">", "le": "<=", "ge": ">="}
MIRRORED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
SYNONYMS = {
    "dne": "does not exist", "no solutions": "no solution", "undefined": "undefined",
    "all reals": "R", "all real numbers": "R", "real numbers": "R", "the real numbers": "R",
    "infinity": "infty", "empty set": "emptyset", "the empty set": "emptyset",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """What an answer says. Equal ones say the same."""

    kind: str
    key: str = ""  # of a value, to six places; of words and texts, themselves
    parts: tuple[Answer, ...] = ()  # of a list, set, tuple, matrix, equation
    name: str = ""  # x of "x = 4"
    unit: str = ""
    base: str = ""  # of the digits
    digits: str = field(default="", compare=False)  # of a number, 45 of them
    text: str = field(default="", compare=False)  # LaTeX of an expression, for math-verify


def normalise(answer: str) -> str:
    """Returns a plain number in one spelling, `-?digits[.digits]` without needless zeros; else the
    text.

    Plain: sign, digits with or without thousands separators (1,234 1{,}234 1\\,234 1 234),
    decimals, and around it currency signs, `$` of LaTeX, emphasis (`**18**`), one full stop.
    """
    text = answer.strip().strip("*").strip().replace("−", "-")
    text = re.sub(r"^(\$+)([^$]*)\1$", r"\2", text).strip()
    text = re.sub(r"(?<![.\\])\.$", "", text)
    number = PLAIN.fullmatch(CURRENCY.sub("", text).strip())
    if not number or not (number[2] or number[3]):
        return text
    sign, integer, decimals = number.groups()
    integer = re.sub(r"[^0-9]", "", integer).lstrip("0") or "0"
    decimals = (decimals or "").rstrip("0")
    value = f"{integer}.{decimals}" if decimals else integer
    return f"-{value}" if sign == "-" and value != "0" else value


def value_answer(value: Number, tokens: Sequence[Token] = (), **tags: str) -> Answer:
    """Returns a value as an answer; with variables in its tokens all its digits count."""
    text = latex_of(tokens)
    if has_letters(tokens):
        return Answer("value", formula_key(tokens), text=text, **tags)
    return Answer("value", key_of(value), digits=digits_of(value), text=text, **tags)


def number_answer(number: str) -> Answer:
    """Returns a number in the spelling of `normalise` as an answer."""
    if "." not in number and len(number) < 39:
        return Answer("value", number, digits=f"{number} 0", text=number)
    tokens = [Token("number", number.lstrip("-"))]
    value = value_of([Token("sign", "-"), *tokens] if number[0] == "-" else tokens)
    return Answer("text", number) if value is None else value_answer(value)


class Reader:
    """Reads answers.

    Args:
        thousands: 1,234 is a number; else the list of 1 and 234.
    """

    def __init__(self, thousands: bool = True):
        self.thousands = thousands

    def read(self, answer: str) -> Answer:
        """Returns what the answer says; kind "text" where that is beyond this reader."""
        number = normalise(answer)
        if CANONICAL.fullmatch(number) and (self.thousands or "," not in answer):
            return number_answer(number)
        if len(answer) > LONGEST:
            return Answer("text", answer)
        try:
            return self.structure(answer)
        except (Unreadable, RecursionError):
            return Answer("text", " ".join(answer.split()))

    def structure(self, answer: str) -> Answer:
        """Reads what has a form of its own, then the rest by its tokens."""
        text = answer.strip().strip("*").strip()
        if matrix := MATRIX.fullmatch(text.strip("$").strip()):
            return self.matrix(matrix[2])
        text = plain(text).strip()
        while (
            shorter := re.sub(r"(?:(?<!\.)\.|[,;]|\\\\|\*\*|__|\\newline)$", "", text).strip()
        ) != text:
            text = shorter
        text = FILLER.sub("", text, count=1) if FILLER.match(text) else text
        text = re.sub(
            r"^\\text\{\s*(?:the\s+)?(?:final\s+)?answer(?:\s+is)?\s*:?\s*\}", "", text, flags=re.I
        )
        if clock := TIME.fullmatch(text):
            return time_answer(clock)
        if self.thousands:
            text = without_thousands(text)
        text = REPEATING.sub(repeating, text)
        tokens = tokens_of(text)
        if not tokens:
            raise Unreadable(answer)
        return self.phrase(tokens)

    def matrix(self, content: str) -> Answer:
        rows = [row for row in re.split(r"\\\\", content) if row.strip()]
        cells = [[self.read(cell) for cell in row.split("&")] for row in rows]
        if all(len(row) == 1 for row in cells):
            return Answer("tuple", parts=tuple(row[0] for row in cells))
        return Answer("matrix", parts=tuple(Answer("tuple", parts=tuple(row)) for row in cells))

    # -- lists

    def phrase(self, tokens: list[Token]) -> Answer:
        """Reads a whole answer: one statement, or several side by side."""
        tokens = without_filler(tokens)
        parts = [part for part in split(tokens, is_separator) if part]
        answers = list(itertools.chain.from_iterable(self.signs(part) for part in parts))
        if not answers:
            raise Unreadable("")
        return answers[0] if len(answers) == 1 else Answer("list", parts=ordered(answers))

    def signs(self, tokens: list[Token]) -> list[Answer]:
        """Reads a statement, with ± once with each sign."""
        count = sum(t.text in ("pm", "mp") for t in tokens)
        if not count:
            return [self.statement(tokens)]
        if count > MAX_SIGNS:
            return [text_answer(tokens)]
        return [self.statement([signed(t, upper) for t in tokens]) for upper in (True, False)]

    # -- statements

    def statement(self, tokens: list[Token]) -> Answer:
        """Reads an equation, an inequality, a membership, or a term."""
        if not balanced(tokens):
            raise Unreadable(text_of(tokens))
        places = [i for i, t in at_top(tokens) if t.text in RELATIONS and t.kind != "letter"]
        if not places:
            return self.term(tokens)
        relations = [tokens[i].text for i in places]
        edges = [-1, *places, len(tokens)]
        sides = [tokens[a + 1 : b] for a, b in itertools.pairwise(edges)]
        if not sides[0] and len(relations) == 1 and relations[0] == "approx":
            return self.term(sides[1])
        if set(relations) <= {"=", "approx"} and all(sides):
            return self.equation(tokens, sides, relations)
        if relations == ["in"] and all(sides) and (name := name_of(sides[0])):
            return replace(self.term(sides[1]), name=name)
        if set(relations) <= set(ORDER) and all(sides[1:]):
            return self.inequality(tokens, sides, [ORDER[r] for r in relations])
        return text_answer(tokens)

    def equation(
        self, tokens: list[Token], sides: list[list[Token]], relations: list[str]
    ) -> Answer:
        """Reads `name = value`, a calculation `2 + 3 = 5`, or an equation of two sides."""
        names = [name_of(side) for side in sides]
        if names[0] and not (len(sides) == 2 and names[1] and is_lone_letter(sides[1])):
            sides, relations = sides[1:], relations[1:]
            if len(sides) == 1:
                return replace(self.term(sides[0]), name=names[0])
            return replace(self.equation(tokens, sides, relations), name=names[0])
        if len(sides) == 2 and names[1] and not names[0] and self.term(sides[0]).kind == "value":
            if not has_letters(sides[0]):
                return replace(self.term(sides[0]), name=names[1])
        if relations == ["approx"]:
            return self.term(sides[0])
        terms = [self.term(side) for side in sides]
        if all(term.kind == "value" for term in terms) and not any(map(has_letters, sides)):
            numbers = {t.key for t, s in zip(terms, sides, strict=True) if len(s) == 1}
            return terms[-1] if len(numbers) < 2 else text_answer(tokens)
        if len(sides) == 2 and "approx" not in relations:
            return self.two_sides(tokens, *sides)
        return text_answer(tokens)

    def equation_of(self, name: str, text: str) -> Answer:
        """Returns `name = text` as an equation."""
        left, right = tokens_of(name), tokens_of(text)
        return self.two_sides([*left, Token("sign", "="), *right], left, right)

    def two_sides(self, tokens: list[Token], left: list[Token], right: list[Token]) -> Answer:
        """Reads an equation by the quotients of its difference at two points: they are the same for
        every equation that is this one times a number."""
        terms = self.term(left), self.term(right)
        texts = f"{text_of(left)} = {text_of(right)}"
        values = []
        for point in (1, 2):
            a, b = value_of(left, point), value_of(right, point)
            if a is None or b is None:
                if not (readable(left) and readable(right)):
                    return text_answer(tokens)
                return Answer("equation", texts, parts=terms, text=latex_of(tokens))
            values.append(a - b)
        if 0 in values:
            return text_answer(tokens)
        return Answer("equation", digits_of(values[0] / values[1])[:40])

    def inequality(
        self, tokens: list[Token], sides: list[list[Token]], relations: list[str]
    ) -> Answer:
        """Reads `x < 3`, `0 < x < 5`, `< 3` as the set of real numbers that it says."""
        middle = next((i for i, side in enumerate(sides) if is_lone_letter(side)), None)
        if middle is None:
            middle = 0 if not sides[0] and len(sides) == 2 else None
        if middle is None or len(sides) > 3 or (len(sides) == 3 and middle != 1):
            return self.compared(tokens, sides, relations)
        low, high = (
            (value_of(self.token_parse("-\\infty")), False),
            (value_of(self.token_parse("\\infty")), False),
        )
        for i, relation in enumerate(relations):
            other = sides[i] if i < middle else sides[i + 1]
            facing = MIRRORED[relation] if i < middle else relation
            value = value_of(other)
            if value is None or not real(value) or has_letters(other):
                return self.compared(tokens, sides, relations)
            if facing[0] == "<":
                high = value, facing == "<="
            else:
                low = value, facing == ">="
        name = text_of(sides[middle])
        return replace(region([(low[0], low[1], high[0], high[1])]), name=name)

    @staticmethod
    def token_parse(text: str) -> list[Token]:
        return tokens_of(text)

    def compared(
        self, tokens: list[Token], sides: list[list[Token]], relations: list[str]
    ) -> Answer:
        """Reads any other inequality as its text, turned so that it reads from small to large."""
        if relations[0][0] == ">":
            sides, relations = sides[::-1], [MIRRORED[r] for r in relations[::-1]]
        texts = [self.term(side).key or text_of(side) if side else "" for side in sides]
        return Answer(
            "relation",
            " ".join([*map(str, itertools.chain(*zip(texts, [*relations, ""], strict=True)))]),
        )

    # -- terms

    def term(self, tokens: list[Token]) -> Answer:
        """Reads brackets, sets of real numbers, ratios, measures, words, an expression."""
        tokens = without_filler(tokens)
        if not tokens:
            raise Unreadable("")
        if (bracketed := self.bracketed(tokens)) is not None:
            return bracketed
        if any(
            t.text in ("cup", "setminus", "mathbb") or (t.text == "U" and t.kind == "letter")
            for t in tokens
        ):
            numbers = self.real_numbers(tokens)
            if numbers is not None:
                return region(numbers)
        if (ratio := self.ratio(tokens)) is not None:
            return ratio
        if (answer := short_unit(tokens)) is not None:
            return answer
        value = value_of(tokens)
        if value is not None and not is_name(tokens):
            return value_answer(value, tokens)
        if tokens[-1].text == "%" and (value := value_of(tokens[:-1])) is not None:
            return value_answer(value / 100, tokens, unit="percent")
        return self.measure(tokens) or self.words(tokens) or self.expression(tokens)

    def bracketed(self, tokens: list[Token]) -> Answer | None:
        """Reads what one pair of brackets encloses; None for anything else."""
        first, last = tokens[0].text, tokens[-1].text
        if first not in OPENING or last not in CLOSING or matching(tokens, 0) != len(tokens) - 1:
            return None
        inner = tokens[1:-1]
        if not inner:
            return Answer("words", "emptyset") if first == r"\{" else None
        if first == "{" and last == "}":
            return self.phrase(inner)
        if first == r"\{":
            bars = [i for i, t in at_top(inner) if t.text in ("|", ":")]
            if bars:
                condition = self.phrase(inner[bars[0] + 1 :])
                return condition if condition.kind in ("region", "tuple") else None
        parts = split(inner, lambda t: t.kind == "sign" and t.text in (",", ";"))
        if any(not part for part in parts):
            return None
        if len(parts) == 1:
            return self.phrase(inner) if first + last in ("()", "[]", r"\{\}") else None
        if first == r"\{":
            answers = itertools.chain.from_iterable(self.signs(part) for part in parts)
            return Answer("set", parts=ordered(set(answers)))
        if len(parts) == 2 and first in "([" and first + last != "()":
            numbers = self.real_numbers(tokens)
            if numbers is not None:
                return region(numbers)
            return Answer("interval", first + last, tuple(self.statement(p) for p in parts))
        if first + last not in ("()", "[]", "langlerangle"):
            return None
        return Answer("tuple", parts=tuple(self.statement(part) for part in parts))

    def real_numbers(self, tokens: list[Token]) -> list[tuple] | None:
        """Returns the intervals of a union, a difference or an interval; None for anything else."""
        pieces = split(tokens, lambda t: t.text == "cup" or (t.text == "U" and t.kind == "letter"))
        if len(pieces) > 1:
            parts = [self.real_numbers(piece) for piece in pieces]
            return None if None in parts else [i for part in parts for i in part]
        pieces = split(
            tokens, lambda t: t.text in ("setminus", "-") and t.kind in ("command", "sign")
        )
        if len(pieces) > 1 and any(t.text == "setminus" for t in tokens):
            parts = [self.real_numbers(piece) for piece in pieces]
            if None in parts:
                return None
            kept = parts[0]
            for taken in parts[1:]:
                kept = difference(merged(kept), merged(taken))
            return kept
        if [t.text for t in tokens] in (["mathbb", "{", "R", "}"], ["mathbb", "R"]):
            infinity = value_of(tokens_of(r"\infty"))
            return [(-infinity, False, infinity, False)]
        first, last = tokens[0].text, tokens[-1].text if tokens else ""
        if not tokens or matching(tokens, 0) != len(tokens) - 1:
            return None
        parts = split(tokens[1:-1], lambda t: t.text == ",")
        values = [value_of(part) for part in parts]
        if any(v is None or not real(v) for v in values) or any(map(has_letters, parts)):
            return None
        if first == r"\{":
            return [(v, True, v, True) for v in values]
        if len(values) != 2 or first not in "([" or last not in ")]" or values[0] > values[1]:
            return None
        return [(values[0], first == "[", values[1], last == "]")]

    def ratio(self, tokens: list[Token]) -> Answer | None:
        parts = split(tokens, lambda t: t.text == ":" and t.kind == "sign")
        if len(parts) < 2:
            return None
        values = [value_of(part) for part in parts]
        if None in values or 0 in values[1:]:
            return text_answer(tokens)
        if len(values) == 2:
            return value_answer(values[0] / values[1], tokens)
        quotients = [v / values[0] if values[0] else v for v in values[1:]]
        return Answer("tuple", "ratio", tuple(value_answer(q, tokens) for q in quotients))

    def measure(self, tokens: list[Token]) -> Answer | None:
        """Reads a value with a unit behind it, or a currency before it; None for anything else."""
        if tokens[0].kind == "word" and (unit := units.unit_of([tokens[0].text])) is not None:
            rest = tokens[1:]
            rest = rest[1:] if rest and rest[0].text == "." else rest
            value = value_of(rest) if rest else None
            if value is not None and unit in units.CURRENCIES:
                return value_answer(value, rest, unit=unit)
        for end in range(len(tokens) - 1, 0, -1):
            head, tail = tokens[:end], tokens[end:]
            if not starts_unit(head, tail):
                continue
            if (value := value_of(head)) is None:
                continue
            answer = measured(value, head, tail)
            if answer is not None:
                return answer
        return None

    def words(self, tokens: list[Token]) -> Answer | None:
        """Reads words alone; a single letter is one, its case does not count."""
        if len(tokens) == 1 and tokens[0].kind == "letter":
            return Answer("words", tokens[0].text.casefold())
        if not all(t.kind == "word" or t.text in ("'", "-", ".", "or", "in") for t in tokens):
            return None
        text = " ".join(t.text for t in tokens if t.text != ".")
        if text.isupper() and 1 < len(text) < 5 and text.isascii() and text != "DNE":
            return Answer("words", text)  # the names of points: ABC is not CBA
        text = text.casefold()
        return Answer("words", SYNONYMS.get(text, text)) if text else None

    def expression(self, tokens: list[Token]) -> Answer:
        """Reads an expression without a value: math-verify's to compare, if it knows all of it."""
        digits = [t.text for t in tokens]
        if tokens[0].kind == "number" and digits[1:2] == ["_"]:
            base = "".join(t.text for t in tokens[2:] if t.text not in "{}")
            if base.isalnum():
                key = normalise(tokens[0].text)
                return Answer("value", key, base="" if base == "10" else base)
        if [t.text for t in tokens] == ["emptyset"]:
            return Answer("words", "emptyset")
        if readable(tokens):
            return Answer("expression", text_of(tokens), text=latex_of(tokens))
        return text_answer(tokens)


# ---- tokens --------------------------------------------------------------------------------------


def at_top(tokens: Sequence[Token]) -> Iterable[tuple[int, Token]]:
    """Yields the tokens outside all brackets with their places."""
    depth = 0
    for i, token in enumerate(tokens):
        if token.kind == "letter":
            if depth == 0:
                yield i, token
            continue
        closes = token.text in CLOSING
        depth -= closes
        if depth == 0 and not closes and token.text not in OPENING:
            yield i, token
        depth += token.text in OPENING


def balanced(tokens: Sequence[Token]) -> bool:
    """Says whether each bracket closes, in the right order; ( may be closed by ]."""
    depth = []
    for token in tokens:
        if token.text in OPENING:
            depth.append(token.text)
        elif token.text in CLOSING:
            if not depth:
                return False
            if (depth.pop() in "([") != (token.text in ")]"):
                return False
    return not depth


def matching(tokens: Sequence[Token], start: int) -> int:
    """Returns where the bracket at `start` closes; -1 if it does not or is none."""
    depth = 0
    for place in range(start, len(tokens)):
        depth += (tokens[place].text in OPENING) - (tokens[place].text in CLOSING)
        if depth == 0:
            return place if place > start else -1
    return -1


def split(tokens: Sequence[Token], separates) -> list[list[Token]]:
    """Returns the pieces between the separators outside all brackets."""
    places = [i for i, token in at_top(tokens) if separates(token)]
    edges = [-1, *places, len(tokens)]
    return [list(tokens[a + 1 : b]) for a, b in itertools.pairwise(edges)]


def is_separator(token: Token) -> bool:
    if token.kind == "word":
        return token.text in ("and", "or")
    return token.kind == "sign" and token.text in (",", ";")


def signed(token: Token, upper: bool) -> Token:
    if token.text not in ("pm", "mp"):
        return token
    return Token("sign", "+" if (token.text == "pm") == upper else "-")


def ordered(answers: Iterable[Answer]) -> tuple[Answer, ...]:
    return tuple(sorted(answers, key=repr))


def is_lone_letter(tokens: Sequence[Token]) -> bool:
    """Says whether the tokens are one variable, a_n and a' too."""
    if not tokens or not (tokens[0].kind == "letter" or tokens[0].text in GREEK):
        return False
    rest = [t.text for t in tokens[1:] if t.text != "'"]
    if not rest:
        return True
    return rest[0] == "_" and (
        len(rest) == 2 or (rest[1] == "{" and rest[-1] == "}" and "}" not in rest[:-1])
    )


def is_name(tokens: Sequence[Token]) -> bool:
    """Says whether an answer is one letter: the letter of a choice, or a name."""
    return len(tokens) == 1 and tokens[0].kind == "letter" and tokens[0].text not in ""


def name_of(tokens: Sequence[Token]) -> str:
    """Returns the name that a left side is: x, a_n, f(x), P(A), \\angle ABC, AB, |AB|, words; "" if
    it is none."""
    if not tokens:
        return ""
    if is_lone_letter(tokens):
        return canonical_name(tokens)
    texts = [t.text for t in tokens]
    if all(t.kind == "word" for t in tokens):
        return canonical_name(tokens)
    if texts[0] == "|" and texts[-1] == "|" and len(tokens) == 3 and tokens[1].kind == "word":
        return texts[1]
    if texts[0] in ("angle", "triangle", "Delta", "overline", "vec", "bold", "nabla") or texts[
        :2
    ] == ["m", "angle"]:
        if all(t.kind in ("letter", "word", "command") or t.text in "{}_'" for t in tokens):
            return canonical_name(tokens)
        return ""
    open_place = next((i for i, t in enumerate(tokens) if t.text == "("), None)
    if open_place and matching(tokens, open_place) == len(tokens) - 1:
        head = [t for t in tokens[:open_place]]
        head = head[:-4] if [t.text for t in head[-4:]] == ["{", "-", "1", "}"] else head
        head = head[:-1] if head and head[-1].text == "^" else head
        single = is_lone_letter(head) or (len(head) == 1 and head[0].kind == "word")
        if single and len(head[0].text) == 1:
            letters = [t for t in tokens[open_place + 1 : -1]]
            function = head[0].text in "fghFGPpEqrsuvyHTNLQRSVABCM" or len(letters) > 1
            if function and all(
                t.kind in ("letter", "number", "word") or t.text in ",|_{}'" for t in letters
            ):
                return canonical_name(tokens)
    if tokens[0].text == "(" and matching(tokens, 0) == len(tokens) - 1:
        parts = split(tokens[1:-1], lambda t: t.text == ",")
        if len(parts) > 1 and all(map(is_lone_letter, parts)):
            return canonical_name(tokens)
    if DERIVATIVE.fullmatch("".join(texts)):
        return canonical_name(tokens)
    return ""


def canonical_name(tokens: Sequence[Token]) -> str:
    return " ".join(t.text for t in tokens if t.text not in "{}")


def text_answer(tokens: Sequence[Token]) -> Answer:
    return Answer(
        "text",
        text_of([t for t in tokens if t.text not in "{}"]).casefold()
        if all(t.kind == "word" for t in tokens)
        else text_of(list(tokens)),
    )


def latex_of(tokens: Sequence[Token]) -> str:
    """Returns tokens as LaTeX."""
    return " ".join(f"\\{t.text}" if t.kind == "command" else t.text for t in tokens)


MATH_VERIFY_COMMANDS = (
    set(
        [
            "frac",
            "sqrt",
            "sin",
            "cos",
            "tan",
            "cot",
            "sec",
            "csc",
            "arcsin",
            "arccos",
            "arctan",
            "sinh",
            "cosh",
            "tanh",
            "ln",
            "log",
            "lg",
            "exp",
            "pi",
            "infty",
            "cdot",
            "div",
            "binom",
            "sum",
            "prod",
            "int",
            "lim",
            "to",
            "lfloor",
            "rfloor",
            "lceil",
            "rceil",
            "max",
            "min",
            "gcd",
            "lcm",
            "partial",
        ]
    )
    | GREEK
)


def is_known_to_math_verify(token: Token) -> bool:
    """Says whether math-verify reads a token as a person would, and so drops nothing."""
    if token.kind == "command":
        return token.text in MATH_VERIFY_COMMANDS
    return (
        token.kind in ("number", "letter")
        or token.text in set("+-*/^_(){}[]|!='")
        or token.text == ","
    )


def readable(tokens: Sequence[Token]) -> bool:
    """Says whether math-verify reads an expression as a person would: it drops a base, and takes
    f(2) for a product."""
    for i, token in enumerate(tokens):
        if not is_known_to_math_verify(token):
            return False
        after = tokens[i + 1].text if i + 1 < len(tokens) else ""
        if token.kind == "number" and after == "_":
            return False
        if token.kind == "letter" and is_call(tokens, i + 1):
            return False
    return True


def without_filler(tokens: list[Token]) -> list[Token]:
    """Drops `for all x` behind a statement, the letter of a choice before one, a lone label."""
    texts = [t.text.lower() for t in tokens]
    for i in range(1, len(tokens)):
        if texts[i] == "for" and texts[i + 1 : i + 2] in (["all"], ["any"], ["every"], ["each"]):
            rest = tokens[i + 2 :]
            if all(
                t.kind in ("letter", "command")
                or t.text
                in ("real", "integer", "integers", "positive", "number", "numbers", "{", "}")
                for t in rest
            ):
                return tokens[:i]
    first = tokens[0] if tokens else None
    if (
        first
        and first.kind in ("letter", "word")
        and first.text in tuple("ABCDE")
        and len(tokens) > 2
    ):
        if tokens[1].text == "." or (tokens[1].text == ")" and False):
            return tokens[2:]
    if len(tokens) > 3 and texts[0] == "(" and texts[2] == ")" and tokens[1].text in tuple("ABCDE"):
        if tokens[3].apart:
            return tokens[3:]
    return tokens


def starts_unit(head: Sequence[Token], tail: Sequence[Token]) -> bool:
    """Says whether words behind a value may be its unit: 5 m and 5cm, not 5m, which is algebra."""
    first = tail[0]
    if first.kind == "word" or first.text in ("^", "(", "%"):
        return True
    if first.kind == "command":
        return first.text in ("circ", "Omega")
    return first.kind == "letter" and first.apart and head[-1].kind != "letter"


SHORT_UNITS = set("m g s h l L N J W V K A C")


def short_unit(tokens: Sequence[Token]) -> Answer | None:
    """Reads `5 m`, with a blank, as a measure; its text stays that of the product 5m."""
    *head, last = tokens
    if not (head and last.kind == "letter" and last.apart and last.text in SHORT_UNITS):
        return None
    value = None if has_letters(head) or head[-1].kind != "number" else value_of(head)
    if value is None:
        return None
    unit = units.unit_of([last.text])
    return replace(value_answer(value, head, unit=unit or ""), text=latex_of(tokens))


def measured(value: Number, head: Sequence[Token], tail: Sequence[Token]) -> Answer | None:
    """Returns a value with what stands behind it, if that is a unit, degrees, a base or a
    multiple."""
    texts = [t.text for t in tail if t.text not in "{}"]
    if texts[:2] == ["^", "circ"]:
        rest = texts[2:]
        if rest and rest[0] in ("C", "F"):
            return (
                value_answer(value, head, unit={"C": "celsius", "F": "fahrenheit"}[rest[0]])
                if rest[1:] == []
                else None
            )
        if len(rest) in (2, 4) and rest[1] == "'" and rest[0].isdigit():
            value = value + value.context.mpf(rest[0]) / 60
            if len(rest) == 4 and not (rest[2].isdigit() and rest[3] == "''"):
                return None
            return value_answer(value, head, unit="degree") if len(rest) == 2 else None
        if not rest or rest in (["."],):
            return value_answer(value, head, unit="degree")
        return None
    if texts[0] == "(" and texts[-1] == ")":
        texts = texts[1:-1]
        if len(texts) == 2 and texts[0] == "base" and len(head) == 1:
            return Answer(
                "value", normalise(head[0].text), base="" if texts[1] == "10" else texts[1]
            )
        unit = units.unit_of(texts)
        return None if not unit else value_answer(value, head, unit=unit)
    if texts[0].lower() in units.MULTIPLES:
        value = value * units.MULTIPLES[texts[0].lower()]
        texts = texts[1:]
        if texts[:1] == ["of"]:
            return None
    unit = units.unit_of(texts)
    return None if unit is None else value_answer(value, head, unit=unit)


def without_thousands(text: str) -> str:
    """Returns the text without the commas of one long number, if it has no others."""
    match = THOUSANDS.search(text)
    if match is None or text.count(",") != match[0].count(",") or re.search(r"[(\[]", text):
        return text
    return THOUSANDS.sub(match[0].replace(",", ""), text)


def repeating(match: re.Match) -> str:
    """Returns a repeating decimal as a fraction."""
    whole, start, digits = match[1] or "0", match[2], match[3] or match[4] or match[5]
    size = 10 ** len(start)
    number = int(whole + start + digits) - int(whole + start)
    return rf"(\frac{{{number}}}{{{size * (10 ** len(digits) - 1)}}})"


def time_answer(match: re.Match) -> Answer:
    """Returns a time of the day: minutes of a half day, and which half, if that is said."""
    hour, minute = int(match[1] or match[4]), int(match[2] or match[5] or 0)
    if hour > 24 or minute > 59:
        raise Unreadable(match[0])
    half = (match[3] or "").lower()
    if not half and (hour > 12 or hour == 0):
        half = "p" if hour > 12 else "a"
    return Answer("time", f"{hour % 12}:{minute:02d}", unit=half)


# ---- sets of real numbers ------------------------------------------------------------------------


def real(value: Number) -> bool:
    return not hasattr(value, "_mpc_")


def region(intervals: list[tuple]) -> Answer:
    """Returns a set of real numbers: (a, b) alone is the same answer as the pair."""
    pieces = merged(intervals)
    if len(pieces) == 1 and not pieces[0][1] and not pieces[0][3]:
        return Answer("tuple", parts=(value_answer(pieces[0][0]), value_answer(pieces[0][2])))
    texts = (
        f"{'[' if low_in else '('}{key_of(low)}, {key_of(high)}{']' if high_in else ')'}"
        for low, low_in, high, high_in in pieces
    )
    return Answer("region", " ".join(texts))


def merged(intervals: list[tuple]) -> list[tuple]:
    """Returns the union as disjoint intervals in their order."""
    pieces: list[tuple] = []
    for low, low_in, high, high_in in sorted(intervals, key=lambda i: (i[0], not i[1])):
        if low > high or (low == high and not (low_in and high_in)):
            continue
        if pieces:
            a, a_in, b, b_in = pieces[-1]
            if low < b or (low == b and (low_in or b_in)):
                end = max((b, b_in), (high, high_in))
                pieces[-1] = (a, a_in, *end)
                continue
        pieces.append((low, low_in, high, high_in))
    return pieces


def difference(kept: list[tuple], taken: list[tuple]) -> list[tuple]:
    """Returns the numbers of `kept` that are not in `taken`."""
    for c, c_in, d, d_in in taken:
        pieces = []
        for a, a_in, b, b_in in kept:
            left = (a, a_in, *min((b, b_in), (c, not c_in)))
            right = (*max((a, not a_in), (d, d_in)), b, b_in)
            right = (right[0], not right[1], right[2], right[3])
            pieces += [left, right]
        kept = merged(pieces)
    return kept


@lru_cache(maxsize=65536)  # few answers of a data set are new
def read(answer: str, thousands: bool = True) -> Answer:
    """Returns what an answer says.

    Args:
        answer: as `reward.extract_answer` returns it, not blank.
        thousands: 1,234 is a number; else the list of 1 and 234.
    """
    return Reader(thousands).read(answer)
