"""The judge on the benchmarks' own answers, and on hostile text.

    python data_prep/benchmarks.py && python perf/judge.py
    python perf/judge.py --data FOLDER --hostile 0

Each answer of FOLDER/*.parquet is judged as given, in every rewording below that applies to it, in
every mutation, of which none may be accepted, and against the answers of other problems of its set.
Two answers of different problems may be the same number, or the same expression; they count as
equal if `judge.equivalence` finds so, and the rest are printed for a person to read. Then made-up
texts, none of which is correct: noise, brackets, arithmetic that never ends, hedges around the
correct answer, cut-off answers, attempts to talk to the judge's child process. Exits with 1 if a
bar is missed.
"""

from __future__ import annotations

import argparse
import logging
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from tqdm import tqdm

from recipe.judge.equivalence import Equivalence, read
from recipe.judge.reward import MAX_ANSWER, accepted_answers, compute_score, normalise

BAR = 0.995
OTHERS = 3  # other problems' answers per problem
TIME_LIMIT = 1.0  # seconds of CPU time, for hostile text
WALL_LIMIT = 4 * TIME_LIMIT + 20  # and to start the child again, on a busy machine
FRACTION = re.compile(r"\\frac\{(\d+)\}\{(\d+)\}")


class Case(NamedTuple):
    kind: str
    gold: str
    response: str
    correct: bool


def spaced(text: str) -> str | None:
    text = re.sub(r"(?<=[\w})])([-+=])(?=[\w\\({])", r" \1 ", text)
    return re.sub(r"(?<=[\w})]),(?=[-\w(]|\\[a-z])(?!\d{3}(?!\d))", ", ", text)


def in_other_order(text: str) -> str | None:
    """a + b as b + a, where both are plain products."""
    terms = re.fullmatch(r"((?:[\w^{} ]|\\[a-z])+?)\s*([-+])\s*((?:[\w^{} ]|\\[a-z])+)", text)
    if not terms or any(t.count("{") != t.count("}") for t in terms.groups()) or "text" in text:
        return None
    return f"{'-' if terms[2] == '-' else ''}{terms[3]} + {terms[1]}"


def only_if(pattern: str, change: Callable[[str], str]) -> Callable[[str], str | None]:
    return lambda text: change(text) if re.fullmatch(pattern, text, re.DOTALL) else None


# of an answer, another spelling; the same text or None where it does not apply
REWORDINGS: dict[str, Callable[[str], str | None]] = {
    "\\dfrac": lambda t: t.replace(r"\frac", r"\dfrac"),
    "\\tfrac": lambda t: t.replace(r"\frac", r"\tfrac"),
    "a/b": lambda t: FRACTION.sub(r"(\1/\2)", t) if "^" not in t else None,
    "without \\left and \\right": lambda t: re.sub(r"\\(left|right)(?=[\[\](){}|\\])\s*", "", t),
    "with \\left and \\right": only_if(
        r"[(\[][^()\[\]]*[)\]]", lambda t: rf"\left{t[:-1]}\right{t[-1]}"
    ),
    "spaces": spaced,
    "\\displaystyle": only_if(r"[^,]*", lambda t: rf"\displaystyle {t}"),
    "$ in the box": lambda t: f"${t}$",
    "$$": lambda t: f"$${t}$$",
    "thousands": only_if(r"-?\d{4,}", lambda t: f"{int(t):,}"),
    "thousands in LaTeX": only_if(r"-?\d{4,}", lambda t: f"{int(t):,}".replace(",", "{,}")),
    "decimals of an integer": only_if(r"-?\d+", lambda t: f"{t}.00"),
    "one more zero": only_if(r"-?\d*\.\d+", lambda t: f"{t}0"),
    "a unit": only_if(r"-?\d+(\.\d+)?", lambda t: rf"{t} \text{{ cm}}"),
    "a sentence's end": only_if(r"-?[\w\\{}]+", lambda t: f"{t}."),
    "x =": only_if(r"-?\d+|\\frac\{\d+\}\{\d+\}|-?\d*\\sqrt\{\d+\}", lambda t: f"x = {t}"),
    "as a quotient": only_if(r"\d{1,6}", lambda t: rf"\frac{{{2 * int(t)}}}{{2}}"),
    "\\times": lambda t: t.replace(r"\times", r"\cdot"),
    "\\text": only_if(r"\\text\{[^{}]*\}", lambda t: t[6:-1]),
    "\\mathrm": only_if(r"\\text\{[^{} ]*\}", lambda t: rf"\mathrm{t[5:]}"),
    "degrees": lambda t: t.replace(r"^\circ", r"^{\circ}"),
    "no degrees": only_if(r"\d+\^\\circ", lambda t: t.removesuffix(r"^\circ")),
    "the other order": in_other_order,
}
NUMBER = re.compile(r"(?<![\d.,_^{(])(?<!\\begin\{)([1-9]\d*)(?![\d.])")
WORD = r"\\text|\\mathrm|[A-Za-z]{2}"


def if_number(change: str, but: tuple[str, ...] = ()) -> Callable[[str], str | None]:
    """Puts a whole number above 1 into a text; None for any other answer."""
    applies = lambda t: re.fullmatch(r"-?[1-9]\d*", t) and t not in ("1", "-1", *but)  # noqa: E731
    return lambda t: change % t if applies(t) else None


def if_wordless(change: str) -> Callable[[str], str | None]:
    return lambda t: None if re.search(WORD, t) else change % t


# of an answer, what says something else; the same text or None where it does not apply
MUTATIONS: dict[str, Callable[[str], str | None]] = {
    "ten times": lambda t: NUMBER.sub(r"\g<1>0", t, count=1),
    "one more": lambda t: NUMBER.sub(lambda m: str(int(m[1]) + 1), t, count=1),
    "other sign": if_number("-%s"),
    "plus 1": lambda t: None if re.search(rf"{WORD}|=|,", t) or len(t) < 2 else f"{t}+1",
    "<": lambda t: f"< {t}",
    "\\leq": lambda t: rf"\leq {t}",
    "\\neq": lambda t: rf"\neq {t}",
    "not": lambda t: rf"\text{{not }}{t}",
    "is not a root": lambda t: rf"{t}\text{{ is not a root}}",
    "or more": lambda t: f"{t} or more",
    "at least": lambda t: rf"\text{{at least }}{t}",
    "squared": lambda t: rf"{t}\text{{ squared}}",
    "two quantities": if_number(r"%s\text{ hours } 20\text{ minutes}"),
    "two things": if_number(r"%s\text{ apples and } 17\text{ pears}"),
    "million": if_number(r"%s\text{ million}"),
    "hundredths": if_number(r"%s\text{ hundredths}"),
    "arrow": lambda t: rf"1234 \to {t}",
    "left side": lambda t: f"2x+3y={t}",
    "one more answer": lambda t: rf"{t}\text{{ and }}98765",
    "in a pair": lambda t: f"({t}, 98765)",
    "twice": lambda t: f"{t}, {t}",
    "times a": if_number("%sa"),
    "times i": if_number("%si"),
    "root": if_number(r"\sqrt{%s}"),
    "square": if_number("%s^2"),
    "factorial": if_number("%s!", but=("2", "-2")),
    "base": if_number("%s_8"),
    "modulus": lambda t: rf"{t} \bmod 7",
    "remainder": lambda t: rf"{t}\text{{ remainder }}2",
    "vector": if_number(r"%s\mathbf{i}"),
    "other brackets": only_if(
        r"\([^(),]+,[^(),]+\)|\[[^\[\],]+,[^\[\],]+\]",
        lambda t: None if "infty" in t else t.translate(str.maketrans("()[]", "[]()")),
    ),
    "other order": only_if(
        r"\(-?\d+, ?-?\d+\)",
        lambda t: "({1},{0})".format(*t[1:-1].split(",")) if len({*t[1:-1].split(",")}) > 1 else t,
    ),
    "reciprocal": lambda t: FRACTION.sub(
        lambda m: rf"\frac{{{m[2]}}}{{{m[1]}}}" if m[1] != m[2] else m[0], t, count=1
    ),
    "other letter": only_if(r"[a-z]\^2|\d+[a-z]|[a-z]\+\d+", lambda t: re.sub("[a-z]", "q", t)),
    "other word": only_if(r"\\text\{\w+\}", lambda t: f"{t[:-1]}x}}"),
    "points backwards": only_if(r"[A-Z]{2,4}", lambda t: t[::-1]),
}
RESPONSES = {  # ways to answer
    "in a box": "So the answer is $\\boxed{%s}$.",
    "after ####": "We add 3 and 4.\n#### %s",
    "after an incorrect box": "I get \\boxed{-98765}. No: \\boxed{%s}, which is 1 of 2 cases.",
}


def benchmark_cases(
    golds: list[str], rng: random.Random, equivalence: Equivalence
) -> Iterator[Case]:
    forms = [accepted_answers(gold)[0] for gold in golds]
    for gold, form in zip(golds, forms, strict=True):
        for how, response in RESPONSES.items():
            if how != "after ####" or "\n" not in form:
                yield Case(f"itself, {how}", gold, response % form, True)
        for how, change in REWORDINGS.items():
            reworded = change(form)
            if reworded not in (None, form):
                yield Case(f"reworded: {how}", gold, rf"\boxed{{{reworded}}}", True)
        for how, change in MUTATIONS.items():
            mutated = change(form)
            if mutated is not None and normalise(mutated) != normalise(form):
                yield Case(f"mutated: {how}", gold, rf"\boxed{{{mutated}}}", False)
        for other in rng.sample(forms, min(OTHERS, len(forms))):
            equal = any(
                normalise(f) == normalise(other) or equivalence.equivalent(read(f), read(other))
                for f in accepted_answers(gold)
            )
            yield Case("another problem's", gold, rf"\boxed{{{other}}}", equal)


# ---- hostile text ------------------------------------------------------------------------------

PIECES = [
    *(r"\boxed{", "{", "}", "$", "$$", "####", "\n", r"\frac", r"\frac{", r"\sqrt", r"\sqrt[", "^"),
    *("_", "\\", "(", ")", "[", "]", ",", "=", "%", r"\%", "0", "1", ".", "-", "+", "/", "x", "y"),
    *(r"\text{", "&", r"\\", r"\begin{pmatrix}", r"\end{pmatrix}", r"\left(", r"\right]", r"\pm"),
    *("\x00", "\ud800", "\u202e", "\u200b", "٣", "∞", "½", "²", "−", "🙂", "é", "\r", "\t"),
    *(r"\infty", r"\int", r"\sum_{", r"\lim_{", r"\log", "!", "e", "i", r"\pi", "<", r"\le", "|"),
]
BOMBS = [
    "9^{9^{9^{9}}}", "9**9**9**9", "10^{10^{10}}!", "(10^9)!", r"\binom{10^9}{10^8}", "2^{10^{9}}",
    r"(1+\sqrt{2})^{1000000}", r"\sum_{i=1}^{10^{12}} i^{i}", r"\prod_{i=1}^{10^7} i",
    "(x+y+z+w)^{300}", r"\int_0^1 x^{x^{x}} dx", "1e999999999", r"\frac{1}{10^{-10^{8}}}",
    r"\sqrt[1000000007]{10^{1000000}}", r"\log_{2}(3^{10^{8}})", r"\lim_{x \to 0} (1+x)^{x^{-9}}",
    r"x^{x^{x^{x^{x^{x^{x}}}}}}", r"\cos(\cos(\cos(10^{10^{10}})))", r"10^{10^{5}} \bmod 7",
    r"\{1,2,...,10^{9}\}", r"[1,10^{9}] \cup (3,4] \cap \{2\}", "0.1^{10^{8}}",
]  # fmt: skip
HEDGES = [  # around a number n, none of them saying n
    r"{n}, {m}", r"{n} \text{ or } {m}", r"{n} or {m}", r"\{ {n}, {m} \}", r"({n}, {m})",
    r"[{n}, {m}]", r"{n} \pm 1", r"\neq {n}", r"x \neq {n}", r"x > {n}", r"x \le {n}", r"x<{n}",
    r"\text{not } {n}", r"({n}, \infty)", r"-{n}", r"{n}^2", r"{n}!", r"{n}i", r"{n}x",
    r"\sqrt{{n}}", r"\left|{n}-{m}\right|i",
    r"\frac{{n}}{0}", r"{n}0", r"0.{n}", r"{n}.{n}", r"{n}+{m}", r"{n} \bmod {n}", r"\frac{1}{{n}}",
    r"{n} \text{ and } {m}", r"{n};{m}", r"{m} = {n}", r"{n} \to {m}", r"{n}e5", r"{n}/{m}",
    r"{n}} and then \boxed{{m}", r"{n}\%\%\%{m}", r"x={n}, x={m}", r"{n}_{{m}}", r"{n} < x < {m}",
    r"\infty", r"\text{nan}", r"\emptyset", r"\text{True}", r"None", r"\text{the correct answer}",
    r"{n} = {m}", r"1={n}={m}", r"{n} \ne {n}", r"f({n})", r"{n} \cup {m}",
]  # fmt: skip
BRACKETS = [
    ("(", ")"), ("{", "}"), ("[", "]"), (r"\frac{", "}{2}"), (r"\sqrt{", "}"), ("-", ""),
    ("|", "|"), (r"\left(", r"\right)"), ("x^{", "}"), (r"\boxed{", "}"), (r"\text{", "}"),
]  # fmt: skip
INJECTIONS = [
    '__import__("os").system("touch {pwned}")', 'exec("open(\'{pwned}\',\'w\')")',
    '"}\n{"equal": true, "parsed": true}\n', '\n{"equal": true, "parsed": true}',
    "\\input{{pwned}}",
    "\\write18{touch {pwned}}", "$(touch {pwned})", "`touch {pwned}`", "; touch {pwned} #",
    "().__class__.__bases__[0].__subclasses__()", "{{7*7}}", "%s%n%x", "\\u0000", "<script>",
    'lambda: open("{pwned}","w")', '{"ready": true}', "Symbol('x').__class__", "\x04",
]  # fmt: skip


def hostile_case(rng: random.Random, golds: list[str], pwned: Path) -> Case:
    """A text that does not say 7919, or not the number it is a hedge around."""
    gold = "7919"
    kind = rng.choices(
        ["noise", "mutated", "brackets", "bomb", "hedge", "cut off", "injection", "flood"],
        [25, 25, 8, 3, 25, 5, 5, 4],
    )[0]
    if kind == "noise":
        text = "".join(rng.choices(PIECES, k=rng.randint(1, 60)))
        text = rng.choice([text, f"\\boxed{{{text}}}", f"#### {text}"])
    elif kind == "mutated":
        letters = list(rng.choice(golds))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(letters) + 1)
            letters[at : at + rng.randint(0, 2)] = rng.choice(PIECES)
        text = f"\\boxed{{{''.join(letters)}}}"
    elif kind == "brackets":
        opens, closes = rng.choice(BRACKETS)
        deep = rng.choice([10, 60, 200, 100_000])
        text = opens * deep + "1" + closes * rng.choice([deep, deep - 1, 0])
        text = rng.choice([text, f"\\boxed{{{text}}}"])
    elif kind == "bomb":
        bomb = rng.choice(BOMBS)
        text = f"\\boxed{{{rng.choice([bomb, f'{bomb}+{rng.randint(1, 99)}', f'({bomb})/3'])}}}"
    elif kind == "hedge":
        n = rng.randint(3, 9999)
        gold, m = str(n), str(n + rng.randint(1, 50))
        text = rng.choice(HEDGES).replace("{n}", gold).replace("{m}", m)
        text = f"\\boxed{{{text}}}"
    elif kind == "cut off":
        end = rng.choice(["", "\\", "{", ","])
        text = f"so it is \\boxed{{{gold[: rng.randint(0, 3)]}{end}"
    elif kind == "injection":
        text = rng.choice(INJECTIONS).replace("{pwned}", str(pwned))
        text = rng.choice([f"\\boxed{{{text}}}", text])
    else:
        text = rng.choice(["1,", "9", "$", "\\", "x+", "1/", "#### ", "\\boxed{", " ", "}"])
        text *= rng.choice([MAX_ANSWER // 2, MAX_ANSWER, 200_000])
        text = rng.choice([text, f"\\boxed{{{text}}}"])
    return Case(kind, gold, text, False)


# ---- judging -----------------------------------------------------------------------------------


def judge(cases: list[Case], what: str, time_limit: float) -> Iterator[tuple[Case, dict, float]]:
    def once(case: Case) -> tuple[Case, dict, float]:
        start = time.monotonic()
        verdict = compute_score("any", case.response, case.gold, time_limit=time_limit)
        return case, verdict, time.monotonic() - start

    with ThreadPoolExecutor(2) as threads:
        yield from tqdm(threads.map(once, cases), total=len(cases), desc=what, leave=False)


def on_benchmarks(sets: dict[str, list[str]]) -> bool:
    """Prints how many verdicts are as expected; returns whether that meets the bar."""
    rng, equivalence = random.Random(0), Equivalence()
    expected, judged, unexpected = Counter(), Counter(), []
    for name, golds in sets.items():
        cases = list(benchmark_cases(golds, rng, equivalence))
        for case, verdict, _ in judge(cases, name, 5.0):
            kind = case.kind.partition(":")[0].partition(",")[0]
            judged[name, kind] += 1
            expected[name, kind] += verdict["acc"] == case.correct
            if verdict["acc"] != case.correct:
                unexpected.append((name, case, verdict))
    kinds = list(dict.fromkeys(kind for _, kind in judged))
    print(f"{'set':<16}{'answers':>8}" + "".join(f"{kind:>26}" for kind in kinds))
    for name, golds in sets.items():
        cells = (f"{expected[name, kind]} of {judged[name, kind]}" for kind in kinds)
        print(f"{name:<16}{len(golds):>8}" + "".join(f"{cell:>26}" for cell in cells))
    met = True
    for kind in kinds:
        good, total = (sum(counts[name, kind] for name in sets) for counts in (expected, judged))
        bar = 1.0 if kind == "mutated" else BAR
        met &= good >= bar * total
        print(f"{kind}: {good} of {total} as they should be, {good / total:.4f} (bar {bar})")
    for name, case, verdict in unexpected:
        word = "correct" if verdict["acc"] else "incorrect"
        word = "timed out" if verdict["judge_timed_out"] else word
        print(f"  {name}, {case.kind}: {case.gold!r:.90} and {case.response!r:.110}: {word}")
    return met


def on_hostile_text(
    count: int, golds: list[str], pwned: Path, wall_limit: float = WALL_LIMIT
) -> bool:
    rng = random.Random(0)
    cases = [hostile_case(rng, golds, pwned) for _ in range(count)]
    kinds, false_correct, timed_out, longest = Counter(), [], Counter(), 0.0
    start = time.monotonic()
    for case, verdict, seconds in judge(cases, "hostile", TIME_LIMIT):
        kinds[case.kind] += 1
        timed_out[case.kind] += verdict["judge_timed_out"]
        longest = max(longest, seconds)
        if verdict["acc"]:
            false_correct.append(case)
    print(
        f"{count} hostile texts in {time.monotonic() - start:.0f} s, the longest {longest:.1f} s "
        f"(limit {TIME_LIMIT:g} s of CPU time), no crash; called correct: {len(false_correct)}"
    )
    for kind, number in kinds.most_common():
        print(f"  {kind:<12}{number:>6}, no verdict within the limits {timed_out[kind]:>5}")
    for case in false_correct:
        print(f"  called correct: {case.kind}, {case.response!r:.110} for {case.gold!r:.90}")
    if pwned.exists():
        print(f"an answer was executed: {pwned} exists")
    return not false_correct and longest < wall_limit and not pwned.exists()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="~/data/benchmarks", help="default: %(default)s")
    parser.add_argument("--hostile", type=int, default=10_000, help="texts; default: %(default)s")
    args = parser.parse_args()
    folder = Path(args.data).expanduser()
    sets = {
        path.stem: [row["ground_truth"] for row in pd.read_parquet(path)["reward_model"]]
        for path in sorted(folder.glob("*.parquet"))
    }
    if not sets:
        print(f"--data {args.data} has no .parquet file: run python data_prep/benchmarks.py.")
        return 1
    logging.getLogger("recipe.judge").setLevel(logging.ERROR)
    golds = [accepted_answers(gold)[0] for golds in sets.values() for gold in golds]
    met = on_benchmarks(sets)
    pwned = folder / "an_answer_was_executed"
    if args.hostile:
        met &= on_hostile_text(args.hostile, golds, pwned)
    print("all bars met" if met else "a bar is missed")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
