"""Words that an answer may carry beside its value: units, number words, fillers.

A list, since what is not on it changes the answer: `5 cm` is 5, `5 or more` is not.
"""

from __future__ import annotations

from collections.abc import Sequence

# each unit, and the ways to write it; a unit of several words is written with blanks
SPELLINGS = {
    "degree": "degrees deg circ °",
    "dollar": "dollars usd bucks", "cent": "cents ¢", "euro": "euros eur", "pound": "pounds gbp",
    "yen": "jpy", "rupee": "rupees rs inr", "yuan": "元 rmb cny",
    "millimeter": "mm millimeters millimetre millimetres",
    "centimeter": "cm centimeters centimetre centimetres 厘米", "decimeter": "dm decimeters",
    "meter": "m meters metre metres 米", "kilometer": "km kilometers kilometre kilometres 千米",
    "inch": "inches in", "foot": "feet ft", "yard": "yards yd", "mile": "miles mi",
    "milligram": "mg milligrams", "gram": "g grams 克", "kilogram": "kg kilograms 千克",
    "ton": "tons tonne tonnes", "ounce": "ounces oz", "lb": "lbs",
    "milliliter": "ml millilitre milliliters", "liter": "l liters litre litres", "gallon": "gallons",
    "quart": "quarts", "pint": "pints", "cup": "cups", "tablespoon": "tablespoons",
    "teaspoon": "teaspoons",
    "millisecond": "ms milliseconds", "second": "s sec secs seconds 秒",
    "minute": "min mins minutes 分钟", "hour": "h hr hrs hours 小时", "day": "days 天",
    "week": "weeks", "month": "months", "year": "years yr yrs 年 岁",
    "mph": "miles/hour", "newton": "N newtons", "joule": "J joules", "kilojoule": "kJ",
    "watt": "W watts", "kilowatt": "kW", "volt": "V volts", "ampere": "A amps amperes",
    "ohm": "ohms Omega", "hertz": "Hz", "kelvin": "K", "celsius": "", "fahrenheit": "",
    "mole": "mol moles", "pascal": "Pa pascals", "atmosphere": "atm", "coulomb": "C coulombs",
    "tesla": "T", "electronvolt": "eV", "radian": "radians rad", "erg": "ergs", "dyne": "dynes",
    "angstrom": "AA angstroms", "solar mass": "M_odot", "unit": "units", "point": "points pts",
    "percent": "percents", "piece": "pieces 个 只 件 本 张 条 块 颗 支 棵 辆 名 人",
    "person": "people persons", "child": "children", "man": "men", "woman": "women",
    "mouse": "mice", "goose": "geese", "fish": "", "sheep": "", "deer": "", "way": "ways",
    "time": "times", "dozen": "",
}  # fmt: skip
UNITS = {word: unit for unit, words in SPELLINGS.items() for word in (unit, *words.split()) if word}
POWERS = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}
MULTIPLES = {
    "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12,
    "dozen": 12,
}  # fmt: skip
# words that end like a plural and are no things that can be counted, or that change a number
CURRENCIES = set(["dollar", "cent", "euro", "pound", "yen", "rupee", "yuan"])
NO_THINGS = set(
    [
        "is",
        "was",
        "has",
        "does",
        "less",
        "plus",
        "minus",
        "times",
        "this",
        "thus",
        "its",
        "as",
        "us",
        "always",
        "perhaps",
        "besides",
        "else",
        "others",
        "yes",
        "squares",
        "cubes",
        "roots",
        "factors",
        "multiples",
        "divides",
        "equals",
        "exceeds",
        "percents",
        "tens",
        "hundreds",
        "thousands",
        "millions",
        "billions",
        "trillions",
        "dozens",
        "halves",
        "quarters",
        "thirds",
        "fourths",
        "fifths",
        "sixths",
        "sevenths",
        "eighths",
        "ninths",
        "tenths",
        "hundredths",
        "thousandths",
        "modulus",
        "mods",
        "choices",
        "unless",
        "negatives",
        "positives",
        "inverse",
        "inverses",
        "reciprocals",
        "opposites",
        "solutions",
        "primes",
        "digits",
        "bits",
        "bases",
        "cents",
        "minutes",
    ]
)
CHANGES = set(
    [
        "a",
        "an",
        "and",
        "or",
        "not",
        "no",
        "non",
        "more",
        "less",
        "fewer",
        "most",
        "least",
        "than",
        "over",
        "under",
        "above",
        "below",
        "at",
        "about",
        "but",
        "by",
        "if",
        "is",
        "are",
        "was",
        "were",
        "be",
        "of",
        "off",
        "to",
        "from",
        "into",
        "is",
        "isn't",
        "aren't",
        "only",
        "except",
        "without",
        "unless",
        "plus",
        "minus",
        "times",
        "divided",
        "squared",
        "cubed",
        "square",
        "cube",
        "root",
        "factorial",
        "modulo",
        "mod",
        "remainder",
        "negative",
        "positive",
        "extra",
        "additional",
        "other",
        "another",
        "first",
        "second",
        "third",
        "each",
        "per",
        "all",
        "any",
        "some",
        "every",
        "nor",
        "half",
        "quarter",
        "double",
        "twice",
        "triple",
        "hundred",
        "thousand",
        "million",
        "billion",
        "dozen",
        "wrong",
        "incorrect",
        "false",
        "impossible",
        "extraneous",
        "never",
        "almost",
        "nearly",
        "approximately",
        "up",
        "down",
    ]
)


def unit_of(words: Sequence[str]) -> str | None:
    """Returns the one spelling of a unit, or None if the words are none.

    Args:
        words: of the answer behind its value, with the signs between them: ["m", "/", "s"],
            ["square", "feet"], ["cm", "^", "2"], ["miles", "per", "hour"], ["red", "apples"].
    """
    if not words:
        return ""
    parts, power = [], ""
    at = 0
    while at < len(words):
        word = words[at]
        if word in ("/", "per", "·", "*", "cdot"):
            if not parts:
                return None
            parts.append("/" if word in ("/", "per") else "*")
        elif word in ("^",) and parts and at + 1 < len(words):
            parts[-1] += words[at + 1]
            at += 1
        elif word.lower() in POWERS and not power:
            power = POWERS[word.lower()]
        elif unit := UNITS.get(word) or UNITS.get(word.lower() if len(word) > 1 else ""):
            parts.append(unit + power)
            power = ""
        else:
            return _things(words)
        at += 1
    if power or parts[-1] in "/*":
        return None
    return {"mile/hour": "mph"}.get("".join(parts), "".join(parts))


def _things(words: Sequence[str]) -> str | None:
    """Returns a plural noun with at most two words before it: `18 eggs`, `3 red balls`."""
    if len(words) > 3 or any(not w.isalpha() or len(w) < 3 or w.lower() in CHANGES for w in words):
        return None
    last = words[-1].lower()
    plural = last.endswith("s") and not last.endswith("ss") and last not in NO_THINGS
    if not (plural or UNITS.get(last)) or last.endswith("ths"):
        return None
    return UNITS.get(last) or last.removesuffix("s")
