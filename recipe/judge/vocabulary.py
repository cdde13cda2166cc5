"""The words and commands that a reader of answers knows; each list decides what an answer may say.

What is on no list changes an answer: `5 cm` is 5, `5 or more` is not.
"""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


GREEK = words("""
    alpha beta gamma delta epsilon zeta eta theta kappa lambda mu nu xi rho sigma tau phi chi psi
    omega Delta Omega Sigma Gamma Theta Lambda Phi Psi Pi hbar ell
""")
FUNCTIONS = words("""
    sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log lg exp sqrt pi max gcd lcm
    infty
""")  # also without a backslash
SPELT = {"infinity": "infty", "inf": "infty", "asin": "arcsin", "acos": "arccos", "atan": "arctan"}
READ_BY_MATH_VERIFY = GREEK | words("""
    frac sqrt sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log lg exp pi infty
    cdot div binom sum prod int lim to lfloor rfloor lceil rceil max min gcd lcm partial
""")

FONTS = words("""
    text textrm textit textbf textsf texttt textnormal mathrm mathit mathsf mathtt mathbf
    boldsymbol mathnormal operatorname mbox rm bf it
""")
BOLD = words("mathbf boldsymbol bf")
COMMANDS = {  # of several names of one thing
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "leq": "le", "geq": "ge", "leqslant": "le",
    "geqslant": "ge", "neq": "ne", "times": "cdot", "ast": "cdot", "varnothing": "emptyset",
    "rightarrow": "to", "longrightarrow": "to", "implies": "Rightarrow",
    "Longrightarrow": "Rightarrow", "sim": "approx", "simeq": "approx", "dots": "ldots",
    "cdots": "ldots", "dbinom": "binom", "tbinom": "binom", "varphi": "phi",
    "varepsilon": "epsilon", "vartheta": "theta", "degree": "circ", "backslash": "setminus",
    "overrightarrow": "vec", "bar": "overline",
}  # fmt: skip
SIGN_COMMANDS = {
    "lt": "<", "gt": ">", "lbrace": r"\{", "rbrace": r"\}", "lbrack": "[", "rbrack": "]",
    "lvert": "|", "rvert": "|", "vert": "|", "mid": "|", "colon": ":", "prime": "'",
}  # fmt: skip
SYMBOLS = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta",
    "η": "eta", "θ": "theta", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi",
    "π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau", "φ": "phi", "χ": "chi", "ψ": "psi",
    "ω": "omega", "Δ": "Delta", "Ω": "Omega", "Σ": "Sigma", "Γ": "Gamma", "Θ": "Theta",
    "Λ": "Lambda", "Φ": "Phi", "Ψ": "Psi", "Π": "Pi", "∞": "infty", "≤": "le", "≥": "ge",
    "⩽": "le", "⩾": "ge", "≠": "ne", "×": "cdot", "·": "cdot", "⋅": "cdot", "∙": "cdot",
    "÷": "div", "∪": "cup", "∩": "cap", "∈": "in", "∉": "notin", "±": "pm", "∓": "mp",
    "∅": "emptyset", "→": "to", "⇒": "Rightarrow", "↦": "mapsto", "≈": "approx", "∼": "approx",
    "≡": "equiv", "∠": "angle", "△": "triangle", "…": "ldots", "⋯": "ldots", "∖": "setminus",
    "⟨": "langle", "⟩": "rangle", "⊂": "subset", "⊆": "subseteq", "∣": "mid", "⌊": "lfloor",
    "⌋": "rfloor", "⌈": "lceil", "⌉": "rceil", "∫": "int", "∑": "sum", "∏": "prod",
    "∂": "partial", "∇": "nabla", "⊥": "perp", "∥": "parallel", "ℏ": "hbar", "ℓ": "ell",
}  # fmt: skip

# two letters side by side are a product, but for these
TWO_LETTERS = words("""
    am an as at be by cm do dm ft go he hr if in is it kg km lb me mg mi ml mm my ms no of oz or pm
    so to up us we yd yr kw mw hz
""")
SYNONYMS = {  # of an answer in words
    "dne": "does not exist", "no solutions": "no solution", "all reals": "R",
    "all real numbers": "R", "real numbers": "R", "the real numbers": "R", "infinity": "infty",
    "empty set": "emptyset", "the empty set": "emptyset",
}  # fmt: skip
FOR_ALL = words("all any every each")
QUANTIFIED = words("real integer integers positive number numbers { }")  # behind `for all`

# each unit, and the ways to write it
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
    "milliliter": "ml millilitre milliliters", "liter": "l L liters litre litres",
    "gallon": "gallons", "quart": "quarts", "pint": "pints", "cup": "cups",
    "tablespoon": "tablespoons", "teaspoon": "teaspoons",
    "millisecond": "ms milliseconds", "second": "s sec secs seconds 秒",
    "minute": "min mins minutes 分钟", "hour": "h hr hrs hours 小时", "day": "days 天",
    "week": "weeks", "month": "months", "year": "years yr yrs 年 岁",
    "mph": "", "newton": "N newtons", "joule": "J joules", "kilojoule": "kJ",
    "watt": "W watts", "kilowatt": "kW", "volt": "V volts", "ampere": "A amps amperes",
    "ohm": "ohms Omega", "hertz": "Hz", "kelvin": "K", "celsius": "", "fahrenheit": "",
    "mole": "mol moles", "pascal": "Pa pascals", "atmosphere": "atm", "coulomb": "C coulombs",
    "tesla": "T", "electronvolt": "eV", "radian": "radians rad", "erg": "ergs", "dyne": "dynes",
    "angstrom": "AA angstroms", "unit": "units", "point": "points pts",
    "piece": "pieces 个 只 件 本 张 条 块 颗 支 棵 辆 名 人",
    "person": "people persons", "child": "children", "man": "men", "woman": "women",
    "mouse": "mice", "goose": "geese", "fish": "", "sheep": "", "deer": "", "way": "ways",
    "time": "times", "dozen": "",
}  # fmt: skip
UNITS = {word: unit for unit, spelt in SPELLINGS.items() for word in (unit, *spelt.split())}
CURRENCIES = words("dollar cent euro pound yen rupee yuan")
SHORT_UNITS = words("m g s h l L N J W V K A C")  # behind a blank: 5 m
POWERS = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}
MULTIPLES = {
    "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12,
    "dozen": 12,
}  # fmt: skip
# plurals that are no things that are counted, or that change a number
NO_THINGS = words("""
    is was has does less plus minus times this thus its as us always perhaps besides else others yes
    squares cubes roots factors multiples divides equals exceeds percents tens hundreds thousands
    millions billions trillions dozens halves quarters thirds fourths fifths sixths sevenths
    eighths ninths tenths hundredths thousandths modulus mods choices unless negatives positives
    inverse inverses reciprocals opposites solutions primes digits bits bases cents minutes
    lakhs crores quadrillions quintillions fails contradicts violates
""")
# words that change what a number before them says
CHANGES = words("""
    a an and or not no non more less fewer most least than over under above below at about but by if
    is are was were be of off to from into isn't aren't only except without unless plus minus times
    divided squared cubed square cube root factorial modulo mod remainder negative positive extra
    additional other another first second third each per all any some every nor half quarter double
    twice triple hundred thousand million billion dozen incorrect false impossible extraneous
    never almost nearly approximately up down
""")
