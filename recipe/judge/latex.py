"""The text of an answer as tokens: LaTeX, plain text and Unicode in one spelling.

Nothing is dropped but what has no meaning: spaces, dollar signs around a formula, font and size
commands, emphasis. What a later reader does not use is therefore still there to be seen.
"""

from __future__ import annotations

import re
import unicodedata

from recipe.judge.tokens import Token, by_thousands
from recipe.judge.vocabulary import (
    BOLD,
    COMMANDS,
    FONTS,
    FUNCTIONS,
    SIGN_COMMANDS,
    SPELT,
    SYMBOLS,
    TWO_LETTERS,
    UNITS,
)

PLAIN = str.maketrans({
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "∗": "*", "⁄": "/", "∕": "/", "’": "'",
    "′": "'", "‘": "'", "″": "''", "“": '"', "”": '"', "，": ",", "、": ",", "；": ";", "：": ":",
    "（": "(", "）": ")", "［": "[", "］": "]", "＝": "=", "＜": "<", "＞": ">", "．": ".",
    "＋": "+", "％": "%", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}",
    "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}", "\u200b": "", "\ufeff": "", "\u2061": "",
    "₹": r"\text{ rupees }", "€": r"\text{ euros }", "£": r"\text{ pounds }",
    "¥": r"\text{ yen }",
})  # fmt: skip
SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n", strict=True))
SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋ₙ", "0123456789+-n", strict=True))
# what has no meaning
SPACING = re.compile(
    r"\\(?:[,;:! ]|quad(?![a-z])|qquad(?![a-z])|displaystyle(?![a-z])|textstyle(?![a-z])"
    r"|(?:[lL]arge|LARGE|[hH]uge|small|normalsize)(?![A-Za-z])"
    r"|limits(?![a-z])|nolimits(?![a-z])|hspace\{[^{}]*\}|phantom\{[^{}]*\})|~|\u00a0|\u2009|\u202f"
)
SIZES = re.compile(r"\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])\s*\.?(?=[^A-Za-z]|\\)")
DELIMITERS = re.compile(r"(?<!\\)(?:\\\\)*\\[()\[\]]|(?<!\\)\$|`")
COLOURS = re.compile(
    r"\\(?:text)?color\s*\{[^{}]*\}|\\(?:fbox|boxed|underline|mathop|ensuremath)(?=\s*\{)"
)
CHOOSE = re.compile(r"\{([^{}]*)\\choose([^{}]*)\}")
DEGREE = re.compile(r"(?<!\^)(?<!\^\{)\\degree(?![A-Za-z])")
GROUPING = r"(?:\{,\}|,\\!\s*|(?<!,)\\,)"
THOUSANDS = re.compile(rf"(?<![\d.]){by_thousands(GROUPING)}(?!\d)")
APOSTROPHES = re.compile(r"(?<![\d'])(\d{1,3}(?:'\d{3})+)(?![\d'])")
RANGE = re.compile(r"\d[–—]\d")  # pages 5–6, which is no difference
SUPERSCRIPT = re.compile(f"[{''.join(SUPERSCRIPTS)}]+")
SUBSCRIPT = re.compile(f"[{''.join(SUBSCRIPTS)}]+")
ABBREVIATION = re.compile(r"(?<=[A-Za-z]{2})\.(?=\s|$)")  # sq. units
ROOT = re.compile(r"√\s*(\d+(?:\.\d+)?|[A-Za-z])?")
FONT = re.compile(rf"\\({'|'.join(sorted(FONTS, key=len, reverse=True))})(?![A-Za-z])\*?\s*")
TOKEN = re.compile(
    r"(?P<number>\d+(?:\.\d+)?(?:[eE][-+]?\d+(?![\d.]))?|\.\d+(?:[eE][-+]?\d+(?![\d.]))?)"
    r"|\\(?P<command>[A-Za-z]+)|(?P<letters>[A-Za-z]+)|(?P<escaped>\\[^A-Za-z])"
    r"|(?P<dots>\.\.\.)|(?P<power>\*\*)|(?P<relation><=|>=|!=|=>|->)|(?P<sign>.)",
    re.DOTALL,
)
SPELT_SIGNS = {
    "**": ("sign", "^"), "<=": ("command", "le"), ">=": ("command", "ge"), "!=": ("command", "ne"),
    "=>": ("command", "Rightarrow"), "->": ("command", "to"), "...": ("command", "ldots"),
}  # fmt: skip
SIGNS = set("+-*/^_=<>()[]{}|,;:!%'&.\"")


class Unreadable(ValueError):
    """The text has a sign that no answer has, brackets that do not close, or nothing."""


def plain(text: str) -> str:
    """Returns the text without Unicode's spellings and without what has no meaning."""
    if not text.isascii():
        if RANGE.search(text):
            raise Unreadable(text)
        text = SUPERSCRIPT.sub(lambda m: "^{" + "".join(map(SUPERSCRIPTS.get, m[0])) + "}", text)
        text = SUBSCRIPT.sub(lambda m: "_{" + "".join(map(SUBSCRIPTS.get, m[0])) + "}", text)
        text = text.replace("°", r"^{\circ}").translate(PLAIN)
        text = ROOT.sub(lambda m: rf"\sqrt{{{m[1]}}}" if m[1] else r"\sqrt ", text)
        text = "".join(
            rf"\{SYMBOLS[c]} " if c in SYMBOLS else _vulgar(c) if c > "\x7f" else c for c in text
        )
    text = DEGREE.sub(r"^\\circ ", text) if r"\degree" in text else text
    text = THOUSANDS.sub(lambda m: re.sub(r"[^0-9]", "", m[0]), text)
    text = APOSTROPHES.sub(lambda m: m[1].replace("'", ""), text)
    text = re.sub(r"\\rm(?![A-Za-z])\s*", "", text) if r"\rm" in text else text
    text = CHOOSE.sub(r"\\binom{\1}{\2}", text) if r"\choose" in text else text
    text = COLOURS.sub("", SIZES.sub("", text))
    return SPACING.sub(" ", DELIMITERS.sub(" ", text.replace(r"\$", r"\text{ dollars }")))


def _vulgar(character: str) -> str:
    """Returns ½ as a fraction, other characters outside ASCII as NFKC has them."""
    form = unicodedata.normalize("NFKC", character)
    above, slash, below = form.partition("\u2044")
    return rf"\frac{{{above}}}{{{below}}}" if slash and above and below else form


def tokens_of(text: str, words_alone: bool = False) -> list[Token]:
    """Takes a text of `plain` apart.

    Args:
        text: LaTeX and plain text mixed.
        words_alone: letters side by side are a word, as inside \\text{}; else a product where they
            stand at a number (2ab).

    Raises:
        Unreadable: For a sign that no answer has.
    """
    tokens: list[Token] = []
    place, spaced = 0, False
    while place < len(text):
        if text[place].isspace():
            place, spaced = place + 1, True
            continue
        font = FONT.match(text, place)
        if font:
            content, place = _group(text, font.end())
            tokens += _in_font(font[1], content, spaced)
            spaced = font[1].startswith(("text", "mbox"))
            continue
        match = TOKEN.match(text, place)
        assert match is not None
        kind, word, place = match.lastgroup, match[0], match.end()
        if kind == "command" and word[1:] in SIGN_COMMANDS:
            tokens.append(Token("sign", SIGN_COMMANDS[word[1:]], spaced))
        elif kind == "command":
            tokens.append(Token("command", COMMANDS.get(word[1:], word[1:]), spaced))
        elif kind == "letters":
            adjacent = bool(tokens) and not spaced and tokens[-1].kind in ("number", "letter")
            tokens += _letters(word, spaced, words_alone, adjacent)
        elif kind == "escaped":
            tokens += _escaped(word, spaced)
        elif word in SPELT_SIGNS:
            tokens.append(Token(*SPELT_SIGNS[word], spaced))
        elif kind == "number" or word in SIGNS:
            tokens.append(Token(kind or "sign", word, spaced))
        elif word.isalpha():
            tokens.append(Token("word", word, spaced))
        else:
            raise Unreadable(word)
        spaced = False
    return tokens


def _group(text: str, start: int) -> tuple[str, int]:
    """Returns the content of the braces at `start`, or the next character, and where it ends."""
    if start >= len(text) or text[start] != "{":
        return text[start : start + 1], min(start + 1, len(text))
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return text[start + 1 : place], place + 1
    raise Unreadable("{")


def _in_font(font: str, content: str, spaced: bool) -> list[Token]:
    """Returns the tokens of the content of a font command: words, numbers, a name in bold."""
    if font in BOLD and re.fullmatch(r"\s*[A-Za-z]\s*", content):
        return [Token("command", f"bold {content.strip()}", spaced)]
    if re.fullmatch(r"\s*[A-Za-z]\s*", content) and not font.startswith("text"):
        return [Token("letter", content.strip(), spaced)]
    if font.startswith("text") and content.strip() in UNITS:  # sec, which is the secant elsewhere
        return [Token("word", content.strip(), True)]
    inner = tokens_of(ABBREVIATION.sub("", content), words_alone=True)
    if inner and (spaced or content[:1].isspace() or font.startswith("text")):
        inner[0] = inner[0]._replace(spaced=True)
    return inner


def _letters(word: str, spaced: bool, words_alone: bool, adjacent: bool) -> list[Token]:
    """Returns a run of letters as a function, a word or a product of letters."""
    name = SPELT.get(word, word)
    if name in FUNCTIONS:
        return [Token("command", name, spaced)]
    if len(word) == 1 and not words_alone:
        return [Token("letter", word, spaced)]
    if words_alone or not (adjacent or _is_product(word)):
        return [Token("word", word, spaced)]
    return [Token("letter", letter, spaced and i == 0) for i, letter in enumerate(word)]


def _is_product(word: str) -> bool:
    return len(word) == 2 and word.islower() and word not in TWO_LETTERS


def _escaped(word: str, spaced: bool) -> list[Token]:
    """Returns an escaped sign: \\{ is a bracket, { is none; \\% is %."""
    if word in (r"\{", r"\}"):
        return [Token("sign", word, spaced)]
    if word in (r"\%", r"\#", r"\&", r"\_", r"\|"):
        return [Token("sign", {"|": "|"}.get(word[1], word[1]), spaced)]
    if word == "\\\\":
        return [Token("command", "newline", spaced)]
    raise Unreadable(word)
