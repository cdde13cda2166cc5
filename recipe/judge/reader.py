"""What an answer says: a value, a list, a tuple, a set of real numbers, an equation, words.

One reader serves the judge and the clusters of equivalent answers. **Its rule**: every token of the
answer is used. What is left over beside a value must be a known unit or a known filler
(`vocabulary`); else the answer is no value but a text, which equals only the same text.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from recipe.judge.answer import (
    NAMED_CURRENCY,
    Answer,
    is_plain,
    normalise,
    number_answer,
    ordered,
    text_answer,
    value_answer,
)
from recipe.judge.expression import FAR
from recipe.judge.latex import Unreadable, plain, tokens_of
from recipe.judge.measures import measure, time_of_day, without_repetition, without_thousands
from recipe.judge.regions import (
    MIRRORED,
    Interval,
    bounded,
    is_difference,
    is_union,
    region_answer,
    region_of,
)
from recipe.judge.tokens import (
    CLOSING,
    OPENING,
    Token,
    at_top,
    balanced,
    encloses,
    has_letters,
    is_call,
    is_derivative,
    is_variable,
    joins_digits,
    name_of,
    split,
    text_of,
)
from recipe.judge.value import digits_of, is_whole, quotient_key, same_value, value_from, value_of
from recipe.judge.vocabulary import FOR_ALL, QUANTIFIED, READ_BY_MATH_VERIFY, SYNONYMS

LONGEST = 2_000  # characters
CACHED = 100  # characters of an answer that is kept
MOST_SIGNS = 4  # ± in a statement
MOST_CHOICES = 64  # of signs, in an answer: a set within a statement is read with each choice
SIGNS = {"pm": "+-", "mp": "-+"}
MOST_POINTS = 4  # letters of a name of points: ABCD

MATRIX = re.compile(
    r"\s*(?:\\(?:display|text)style)?\s*(?:\\left\s*[(\[])?\s*"
    r"\\begin\{([pb]?matrix|array)\}(?:\{[lcr ]*\})?(.*)\\end\{\1\}\s*(?:\\right\s*[)\]])?\s*",
    re.DOTALL,
)
FILLER = re.compile(
    r"(?:\\text\{\s*)?(?:the\s+)?(?:final\s+|correct\s+)?answer(?:\s+is)?\s*(?:[:=]\s*)?(?:\}|\s|$)"
    r"|(?:\\text\{\s*)?answer\s*[:=]",
    re.IGNORECASE,
)
ENDING = re.compile(r"(?:(?<!\.)\.|[,;]|\\\\|\*\*|__|\\newline)$")
RELATIONS = frozenset(
    ("=", "<", ">", "le", "ge", "ne", "in", "notin", "approx", "equiv", "to", "Rightarrow",
     "mapsto", "subset", "subseteq", "perp", "parallel")
)  # fmt: skip
ORDER = {"<": "<", ">": ">", "le": "<=", "ge": ">="}
CHOICES = tuple("ABCDE")
PAIRS = ("()", "[]", r"\{\}", "langlerangle")
OF_SEVERAL = ("max", "min", "gcd", "lcm")
# a derivative, of a name or before what is to be derived
OPERATOR = re.compile(
    r"frac\{d(?:\^\{?\d\}?)?[A-Za-z]?\}\{d[A-Za-z](?:\^\{?\d\}?)?\}"
    r"|(?<![A-Za-z])d[A-Za-z]/d[A-Za-z](?![A-Za-z])"
)
# of tokens with a blank between them and # for a number: 2^3^2, 2^{3}^2; 2 10/3, where the fraction
# may be proper and is then read before; 6/2(1+2), 1/2 x
TWO_POWERS = re.compile(r"\^ (?:[#A-Za-z]|\{ [^{}]* \}) \^")
IMPROPER = re.compile(r"# frac \{ # \} \{ # \}")
QUOTIENT = re.compile(r"(?:/|div) (?:[#A-Za-z]|\( [^()]* \)) (?:[#A-Za-z(]|sqrt|frac|pi)(?= |$)")
ROUNDED = 0.01  # by how much two sides of a calculation may differ
ROW_END = re.compile(r"\\\\(?:\s*\[\s*-?[\d.]+\s*(?:pt|em|ex|mm|cm|in)\s*\])?")  # of a matrix


def is_separator(token: Token) -> bool:
    if token.kind == "word":
        return token.text in ("and", "or")
    return token.kind == "sign" and token.text in (",", ";")


class Reader:
    """Reads answers.

    Args:
        thousands: 1,234 is a number; else the list of 1 and 234.
    """

    def __init__(self, thousands: bool = True):
        self.thousands = thousands
        self.choices = 0  # of signs, read so far

    def read(self, answer: str) -> Answer:
        """Returns what the answer says; kind "text" where that is beyond this reader."""
        number = normalise(answer)
        plain_number = is_plain(number) and (self.thousands or "," not in answer)
        if plain_number and not NAMED_CURRENCY.search(answer):
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
        if (matrix := self.named_matrix(text.strip("$").strip())) is not None:
            return matrix
        text = plain(text).strip()
        while (shorter := ENDING.sub("", text).strip()) != text:
            text = shorter
        text = FILLER.sub("", text, count=1) if FILLER.match(text) else text
        if (time := time_of_day(text)) is not None:
            return time
        text = without_thousands(text) if self.thousands else text
        return self.phrase(tokens_of(without_repetition(text)))

    def named_matrix(self, text: str) -> Answer | None:
        """Reads a matrix, and one behind its name (M = ...); None for anything else."""
        if matrix := MATRIX.fullmatch(text):
            return self.matrix(matrix[2])
        before, _, behind = text.partition("=")
        matrix = MATRIX.fullmatch(behind.strip())
        name = name_of(tokens_of(plain(before))) if matrix else ""
        return replace(self.matrix(matrix[2]), name=name) if matrix and name else None

    def matrix(self, content: str) -> Answer:
        """Reads a matrix; one of one column is a tuple."""
        rows = [row for row in ROW_END.split(content) if row.strip()]
        cells = [tuple(self.read(cell) for cell in row.split("&")) for row in rows]
        if all(len(row) == 1 for row in cells):
            return Answer("tuple", parts=tuple(row[0] for row in cells))
        return Answer("matrix", parts=tuple(Answer("tuple", parts=row) for row in cells))

    def phrase(self, tokens: Sequence[Token]) -> Answer:
        """Reads a whole answer: one statement, or several side by side."""
        tokens = without_filler(tokens)
        pieces = split(tokens, is_separator)
        top = {token.text for _, token in at_top(tokens)}
        if "or" in top and (union := either(pieces)) is not None:
            return union
        answers = [answer for piece in pieces if piece for answer in self.with_signs(piece)]
        if not answers:
            raise Unreadable("nothing")
        if "and" in top and not top.isdisjoint(ORDER):
            return text_answer(tokens)  # x < 1 and x > 3 is no list of the two
        return answers[0] if len(answers) == 1 else Answer("list", parts=ordered(answers))

    def with_signs(self, tokens: Sequence[Token]) -> list[Answer]:
        """Reads a statement; one with ± with each choice of signs, and one with ∓ too with all the
        upper signs and all the lower ones. Within a set they are its members'."""
        places = [i for i, t in outside_sets(tokens) if t.text in SIGNS]
        if not places:
            return [self.statement(tokens)]
        if len(places) > MOST_SIGNS:
            return [text_answer(tokens)]
        tied = any(tokens[i].text == "mp" for i in places)
        each = list(itertools.product((0, 1), repeat=1 if tied else len(places)))
        self.choices += len(each)
        if self.choices > MOST_CHOICES:
            return [text_answer(tokens)]
        answers = []
        for choice in (i * len(places) for i in each) if tied else each:
            chosen = list(tokens)
            for place, i in zip(places, choice, strict=True):
                chosen[place] = Token("sign", SIGNS[tokens[place].text][i])
            answers.append(self.statement(chosen))
        return answers

    # ---- statements

    def statement(self, tokens: Sequence[Token]) -> Answer:
        """Reads an equation, an inequality, a membership, or a term."""
        if not balanced(tokens):
            raise Unreadable(text_of(tokens))
        sides, relations = sides_of(tokens)
        if not relations:
            return self.term(tokens)
        if relations in (["approx"], ["="]) and not sides[0] and sides[1]:
            return self.term(sides[1])
        if set(relations) <= {"=", "approx"} and all(sides):
            return self.equation(tokens, sides, relations)
        if relations == ["in"] and all(sides) and (name := name_of(sides[0])):
            return replace(self.term(sides[1]), name=name)
        if set(relations) <= set(ORDER) and all(sides[1:]):
            return self.inequality(sides, relations)
        return text_answer(tokens)

    def equation(
        self, tokens: Sequence[Token], sides: list[list[Token]], relations: list[str]
    ) -> Answer:
        """Reads `name = value`, `value = name`, a calculation `2 + 3 = 5`, or an equation."""
        name, last = name_of(sides[0]), name_of(sides[-1])
        if name and not (len(sides) == 2 and last and is_variable(sides[1])):
            if len(sides) == 2:
                return replace(self.term(sides[1]), name=name)
            return replace(self.equation(tokens, sides[1:], relations[1:]), name=name)
        terms = [self.term(side) for side in sides]
        constant = [
            t.kind == "value" and not has_letters(s) for t, s in zip(terms, sides, strict=True)
        ]
        if len(sides) == 2 and last and constant[0]:
            return replace(terms[0], name=last)
        if relations == ["approx"]:
            false = terms[1].kind not in ("value", "expression") or are_far_apart(terms)
            return text_answer(tokens) if false else terms[0]
        if all(constant):
            literal = {t.key for t, s in zip(terms, sides, strict=True) if len(s) == 1}
            exact = "approx" not in relations
            if len(literal) > 1 or are_far_apart(terms, exact):
                return text_answer(tokens)  # a false one: 4 = 5, 3 + 4 = 5
            return terms[-1]
        if len(sides) == 2 and relations == ["="]:
            return self.two_sides(tokens, *sides)
        return text_answer(tokens)

    def assignment_as_equation(self, answer: Answer) -> Answer:
        """Returns y = 2x + 1, read as a value with a name, as an equation."""
        name, value = tokens_of(answer.name), tokens_of(answer.text)
        return self.two_sides([*name, Token("sign", "="), *value], name, value)

    def two_sides(
        self, tokens: Sequence[Token], before: Sequence[Token], behind: Sequence[Token]
    ) -> Answer:
        """Reads an equation by the quotients of its difference at three points, which are the same
        for each equation that is this one times a number."""
        values = []
        for point in (2, 4, FAR):
            a, b = value_of(before, point), value_of(behind, point)
            if a is None or b is None:
                if not (readable(before) and readable(behind)):
                    return text_answer(tokens)
                return Answer("equation", text_of(tokens), text=text_of(tokens))
            values.append(a - b)
        if 0 in values:
            return text_answer(tokens)
        value = None if has_letters(behind) or not is_sum(before) else value_of(behind)
        digits = "" if value is None else digits_of(value)
        key = " ".join(quotient_key(values[0] / other) for other in values[1:])
        return Answer("equation", key, digits=digits)

    def inequality(self, sides: list[list[Token]], relations: list[str]) -> Answer:
        """Reads `x < 3`, `0 < x < 5`, `< 3` as the real numbers that it says; any other one as its
        sides from small to large."""
        allowed = range_of(sides, relations)
        if allowed is not None:
            name, intervals = allowed
            return replace(region_answer(intervals), name=name)
        relations = [ORDER[relation] for relation in relations]
        if relations[0][0] == ">":
            sides, relations = sides[::-1], [MIRRORED[r] for r in reversed(relations)]
        terms = [self.term(side) if side else None for side in sides]
        texts = [
            t.key if t and t.key and not t.base and t.kind != "words" else text_of(side)
            for t, side in zip(terms, sides, strict=True)
        ]
        pairs = itertools.zip_longest(texts, relations, fillvalue="")
        return Answer("relation", " ".join(itertools.chain.from_iterable(pairs)))

    # ---- terms

    def term(self, tokens: Sequence[Token]) -> Answer:
        """Reads brackets, sets of real numbers, ratios, measures, words, an expression."""
        tokens = without_filler(tokens)
        if not tokens:
            raise Unreadable("nothing")
        if encloses(tokens) and (answer := self.bracketed(tokens)) is not None:
            return answer
        if any(is_union(t) or is_difference(t) or t.text == "mathbb" for t in tokens):
            intervals = region_of(tokens)
            if intervals is not None:
                return region_answer(intervals)
        if any(t.text == ":" for t in tokens):
            return ratio(tokens)
        if len(tokens) == 1 and tokens[0].kind == "letter":
            return Answer("words", tokens[0].text.casefold())  # a choice, in either case
        if is_derivative(tokens) or OPERATOR.search("".join(t.text for t in tokens)):
            return text_answer(tokens)  # its d would be cancelled
        short = tokens[-1].kind == "letter" and tokens[-1].spaced
        if short and (answer := measure(tokens)) is not None:
            return answer
        value = value_of(tokens)
        if value is not None:
            return value_answer(value, tokens)
        if tokens[-1].text.lower() in ("%", "percent") and not has_letters(tokens):
            value = value_of(tokens[:-1])
            if value is not None:
                return value_answer(value / 100, unit="percent")
        return measure(tokens) or in_words(tokens) or expression(tokens)

    def bracketed(self, tokens: Sequence[Token]) -> Answer | None:
        """Reads what one pair of brackets encloses; None for anything else."""
        brackets, inner = tokens[0].text + tokens[-1].text, tokens[1:-1]
        if not inner:
            return Answer("words", "emptyset") if brackets == r"\{\}" else None
        if brackets == "{}":
            return self.phrase(inner)
        if brackets == r"\{\}" and (bars := [i for i, t in at_top(inner) if t.text in "|:"]):
            return self.set_builder(tokens, inner[: bars[0]], inner[bars[0] + 1 :])
        pieces = split(inner, lambda t: t.kind == "sign" and t.text in (",", ";"))
        if not all(pieces):
            return None
        if len(pieces) == 1 and brackets in ("()", "[]", r"\{\}"):
            answer = self.phrase(inner)
            of_sets = answer.kind == "set" or (answer.kind, answer.key) == ("words", "emptyset")
            return Answer("set", parts=(answer,)) if of_sets and brackets == r"\{\}" else answer
        if len(pieces) == 1:
            return None
        if brackets == r"\{\}":
            return Answer("set", parts=ordered({a for p in pieces for a in self.with_signs(p)}))
        if len(pieces) == 2 and brackets != "()" and set(brackets) <= set("([)]"):
            intervals = region_of(tokens)
            if intervals is not None:
                return region_answer(intervals)
            return Answer("interval", brackets, tuple(self.statement(p) for p in pieces))
        if brackets not in PAIRS:
            return None
        return Answer("tuple", parts=tuple(self.statement(piece) for piece in pieces))

    def set_builder(
        self, tokens: Sequence[Token], elements: Sequence[Token], condition: Sequence[Token]
    ) -> Answer:
        """Reads { x | 1 < x < 3 } and { x in R : ... } as the real numbers that it says."""
        texts = [t.text for t in elements if t.text not in "{}"]
        of_reals = texts[-3:] == ["in", "mathbb", "R"]
        variable = elements[: [t.text for t in elements].index("in")] if of_reals else elements
        answer = self.phrase(condition)
        same = is_variable(variable) and answer.name == text_of(variable)
        return answer if same and answer.kind in ("region", "tuple") else text_answer(tokens)


def sides_of(tokens: Sequence[Token]) -> tuple[list[list[Token]], list[str]]:
    """Returns the sides of a statement and the relations between them; one side for none."""
    signs = ("sign", "command")
    places = [i for i, t in at_top(tokens) if t.text in RELATIONS and t.kind in signs]
    edges = [-1, *places, len(tokens)]
    sides = [list(tokens[a + 1 : b]) for a, b in itertools.pairwise(edges)]
    return sides, [tokens[i].text for i in places]


def range_of(
    sides: Sequence[Sequence[Token]], relations: Sequence[str]
) -> tuple[str, list[Interval]] | None:
    """Returns the variable of `x < 3`, `0 < x < 5`, `< 3` and the numbers that it may be; None for
    anything else."""
    if not relations or not set(relations) <= set(ORDER) or not all(sides[1:]):
        return None
    order = [ORDER[relation] for relation in relations]
    middle = next((i for i, side in enumerate(sides) if is_variable(side)), None)
    if middle is None and not sides[0] and len(sides) == 2:
        middle = 0
    between = len(sides) == 3 and middle == 1 and len({relation[0] for relation in order}) == 1
    if middle is None or not (len(sides) == 2 or between):
        return None
    intervals = bounded(sides, order, middle)
    return None if intervals is None else (text_of(sides[middle]), intervals)


def either(statements: Sequence[Sequence[Token]]) -> Answer | None:
    """Reads `x < 1 or x > 3` as the numbers of either; None for anything else."""
    ranges = [range_of(*sides_of(statement)) for statement in statements if statement]
    names = {allowed[0] for allowed in ranges if allowed is not None}
    if None in ranges or len(ranges) < 2 or len(names) > 1:
        return None
    intervals = [interval for allowed in ranges if allowed is not None for interval in allowed[1]]
    return replace(region_answer(intervals), name=names.pop())


def is_sum(tokens: Sequence[Token]) -> bool:
    """Says whether an expression is a sum of several variables, each once: m + n."""
    terms = split(tokens, lambda t: t.text == "+")
    names = {text_of(term) for term in terms}
    return len(names) == len(terms) > 1 and all(map(is_variable, terms))


def are_far_apart(terms: Sequence[Answer], exact: bool = False) -> bool:
    """Says whether two sides of a calculation differ by more than they would where one is
    rounded; `exact`: or at all, where both are whole. A side with a unit or a base is left out."""
    numbers = [term for term in terms if term.digits and not term.unit and not term.base]
    values = [value_from(term.digits) for term in numbers]
    largest = max(map(abs, values), default=0)
    pairs = itertools.combinations(values, 2)
    return any(
        abs(a - b) > ROUNDED * largest
        or (exact and is_whole(a) and is_whole(b) and not same_value(a, b))
        for a, b in pairs
        if a != b
    )


def outside_sets(tokens: Sequence[Token]) -> Iterator[tuple[int, Token]]:
    """Yields the tokens outside all \\{ \\} with their places."""
    depth = 0
    for i, token in enumerate(tokens):
        depth += (token.text == r"\{") - (token.text == r"\}")
        if depth == 0:
            yield i, token


def ratio(tokens: Sequence[Token]) -> Answer:
    """Reads 3:4 as its quotient, 1:2:3 as the quotients by the first."""
    values = [value_of(part) for part in split(tokens, lambda t: t.text == ":")]
    if None in values or 0 in values or has_letters(tokens):
        return text_answer(tokens)
    first, *others = values
    if len(others) == 1:
        return value_answer(first / others[0])
    return Answer("tuple", "ratio", tuple(value_answer(other / first) for other in others))


def in_words(tokens: Sequence[Token]) -> Answer | None:
    """Reads an answer in words; None for anything else."""
    if not all(t.kind == "word" or t.text in ("'", "-", ".") for t in tokens):
        return None
    text = " ".join(token.text for token in tokens if token.text != ".")
    if text.isupper() and 1 < len(text) <= MOST_POINTS and text.isascii() and text != "DNE":
        return Answer("words", text)  # the names of points: ABC is not CBA
    text = text.casefold()
    return Answer("words", SYNONYMS.get(text, text)) if text else None


def expression(tokens: Sequence[Token]) -> Answer:
    """Reads a number to another base, and what has no value here: math-verify compares it, if it
    knows all of it."""
    texts = [t.text for t in tokens if t.text not in "{}"]
    if tokens[0].kind == "number" and len(texts) == 3 and texts[1] == "_" and texts[2].isalnum():
        return replace(number_answer(normalise(texts[0])), base=texts[2])
    if texts == ["emptyset"]:
        return Answer("words", "emptyset")
    if readable(tokens):
        return Answer("expression", text_of(tokens), text=text_of(tokens))
    return text_answer(tokens)


def readable(tokens: Sequence[Token]) -> bool:
    """Says whether math-verify reads all of an expression as a person would: it drops what it does
    not know, a prime and a base, and takes f(2) for a product, I for the imaginary unit and 5!! for
    a factorial of one; and where people read it in two ways, \\sqrt12, 2^3^2, 6/2(1+2), it takes
    one."""
    if sum(token.text == "|" for token in tokens) % 2 or has_strays(tokens):
        return False
    if joins_digits(tokens) or is_ambiguous(tokens):
        return False
    for i, token in enumerate(tokens):
        is_command = token.kind == "command"
        if is_command and token.text not in READ_BY_MATH_VERIFY:
            return False
        operand = token.kind in ("number", "letter") or token.text in "+-*/^_(){}[]|!=,"
        if not is_command and not operand:
            return False
        after = tokens[i + 1].text if i + 1 < len(tokens) else ""
        if token.kind == "number" and after == "_":
            return False
        if token.kind == "number" and i + 1 < len(tokens) and tokens[i + 1].kind == "number":
            return False  # it would add 3 4 to 7
        if token.text in ("sum", "prod", "lim") and after != "_":
            return False
        if (token.kind == "letter" and token.text == "I") or token.text == after == "!":
            return False
        if token.kind == "letter" and is_call(tokens, i + 1):
            return False
    return True


def is_ambiguous(tokens: Sequence[Token]) -> bool:
    """Says whether an expression has a root without braces of several digits, a power of a power
    without brackets, 0^0, an improper fraction behind a number, or a quotient with a factor behind
    it that may be above or below."""
    texts = [token.text for token in tokens]
    joined = " ".join("#" if token.kind == "number" else token.text for token in tokens)
    if TWO_POWERS.search(joined) or IMPROPER.search(joined) or QUOTIENT.search(joined):
        return True
    if any(
        text == "0" and after[:1] == ["^"] and "".join(after[1:4]).strip("{}")[:1] == "0"
        for text, after in ((t, texts[i + 1 : i + 5]) for i, t in enumerate(texts))
    ):
        return True
    return any(
        a.text == "sqrt" and b.kind == "number" and len(b.text) > 1
        for a, b in itertools.pairwise(tokens)
    )


def has_strays(tokens: Sequence[Token]) -> bool:
    """Says whether math-verify would leave something out without a word: what stands before the
    last = or comma within brackets, an operator without an operand, an empty group, one end of a
    floor, a function of several numbers without any."""
    texts = [token.text for token in tokens]
    if any(texts.count(f"l{end}") != texts.count(f"r{end}") for end in ("floor", "ceil")):
        return True
    opened: list[str] = []  # what stands before each open bracket
    for before, text, after in zip(["(", *texts], texts, [*texts[1:], ""], strict=False):
        if text in OPENING:
            opened.append(before)
        elif text in CLOSING and opened:
            opened.pop()
        elif text in ("=", ","):
            around = opened[-1] if opened else ""
            if around != "_" and not (text == "," and around in OF_SEVERAL):
                return True
        starts = before in OPENING or before in ("+", "-")
        if text in ("/", "^", "_", "!", "*") and starts:
            return True
        if (text, after) == ("{", "}") or (text in OF_SEVERAL and after not in ("(", "{", "_")):
            return True
        if text == "partial" and not after.isalpha():
            return True
    return False


def without_filler(tokens: Sequence[Token]) -> Sequence[Token]:
    """Returns the tokens without `for all x` behind a statement and the letter of a choice before
    one (`A. 12`, `(A) 12`)."""
    texts = [t.text.lower() for t in tokens]
    for i in range(1, len(tokens) - 2):
        if texts[i] == "for" and texts[i + 1] in FOR_ALL:
            rest = tokens[i + 2 :]
            if all(t.kind in ("letter", "command") or t.text in QUANTIFIED for t in rest):
                return tokens[:i]
    if len(tokens) > 2 and tokens[0].text in CHOICES and texts[1] == ".":
        return tokens[2:]
    if len(tokens) > 3 and tokens[1].text in CHOICES and texts[0] + texts[2] == "()":
        return tokens[3:] if tokens[3].spaced and not is_separator(tokens[3]) else tokens
    return tokens


def read(answer: str, thousands: bool = True) -> Answer:
    """Returns what an answer says.

    Args:
        answer: as `reward.extract_answer` returns it, not blank.
        thousands: 1,234 is a number; else the list of 1 and 234.
    """
    return (_read if len(answer) <= CACHED else _read.__wrapped__)(answer, thousands)


@lru_cache(maxsize=16384)  # few answers of a data set are new; a long one may take 200 KB
def _read(answer: str, thousands: bool) -> Answer:
    return Reader(thousands).read(answer)
