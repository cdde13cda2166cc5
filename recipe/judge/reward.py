"""The reward function: is the final answer of a response correct? 1 or 0.

For verl: `reward.custom_reward_function.path=pkg://recipe.judge` (or this file's path) and
`name=compute_score`; settings as `+reward.custom_reward_function.reward_kwargs.time_limit=10`.

**The answer of a response**, looked for in the whole response, is the first of these that exists:
1. the content of the last `\\boxed{...}` (or `\\fbox`) that is complete and not blank, and in no
   other one;
2. what follows the last `####` on its line, if not blank and no heading (`#### Final Answer`);
3. the last number, fraction or formula (`$...$`, `\\(...\\)`, `\\[...\\]`), unless the number is a
   part of what is not read: the 10 of 2^10, the 5 of x - 5.
A response that ends within its only box has none. With `boxed_only` only 1 counts. Of several
answers the last one alone is judged.

**Correct** means that the answer says what the truth says: `reader.py` reads both, and
`equivalence.Equivalence.accepts` compares. So 1,234 is 1234, never a pair; $5.00 is 5; 0.5 is 1/2;
`x = 5` is 5; 18 \\text{ dollars} is 18; 50% is 50, 0.5 and 1/2 alike. Numbers are equal to six
places, relative to their size below 1, and a whole number only exactly. What the reader does not
use must be a known unit or a known filler; else the answer is incorrect, unless its text is the
truth's: \\neq 5, 5 \\bmod 3, 5_8, 5 \\text{ or more}, < 5, 4 = 5. What has no value here (sums,
integrals) is math-verify's to compare. An answer that cannot be read or is longer than MAX_ANSWER
is incorrect. A ground truth that is a JSON list of texts (`["1/3", "0.33"]`) accepts each of them.
A closed form need not be evaluated, 2^{10} is 1024; but where the row has the question
(`extra_info.question`), a calculation that stands in it is no answer to it.

**It cannot hang.** Reading and values take bounded time in this process. math-verify runs in a
child process with limits of CPU time and of memory (`pool.py`, `child.py`), which is replaced when
it dies: in any thread and in Ray workers. A child ends with this process, however it is killed (one
that is at work at its limit at the latest).
"""

from __future__ import annotations

import importlib.util
import json
import logging
import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from recipe.judge.answer import NAMED_CURRENCY, is_plain, normalise
from recipe.judge.equivalence import Equivalence
from recipe.judge.pool import pool_of
from recipe.judge.tokens import by_thousands
from recipe.judge.vocabulary import UNITS

MAX_RESPONSE = 1_000_000  # characters; of a longer response, its end
MAX_ANSWER = 2_000  # characters

NOT_BLANK = re.compile(r"\S")
BOX = re.compile(r"\s*\\(?:boxed|fbox)\s*\{")
BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\[{}]|[{}]")
NUMBER = (
    r"(?:(?<![\w)}])[-+])?(?:\\?\$)?(?:[0-9]+ (?=[0-9]+/[0-9]))?"  # 3 1/2
    rf"(?:(?:{by_thousands(',')}(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?: ?/ ?[0-9]+)?(?:\s?\\?%| (?:hundred|thousand|million|billion|trillion)\b)?"
)
# what a number or a formula is a part of: before it, and behind it on its line
ALTERED = (
    # not 5, x > 5, at least 5, 7 mod 5, 2x = 5, = - 5, ±5, sqrt 5
    r"[≤≥≠±∓]|(?:(?<![<\w])[A-Za-z]|^|[\s:])[ \t]*[<>]"
    r"|\\(?:neq?|geq?|leq?|[gl]t|pm|mp|cdot|times|div|sqrt|ln|log|sin|cos|tan)"
    r"|\b(?:not|isn't|never|cannot be|mod|least|most|than|minus|negative|base)"
    r"|\b(?:sqrt|log|ln|sin|cos|tan)"
    r"|[0-9][xyzn][ \t]*=|=[ \t]*[-–]"
)
PART_BEFORE = re.compile(
    r"(?:(?:[0-9)\]}!]|\b[A-Za-z])[ \t]*[-+*/^×·÷√]|[\^_√/{\\]|[0-9)]\*\*"
    # 3 5, 1e5, 5'000, |-5|, f(5), 5 hours 30, 3 and 5
    r"|[0-9][ \t\u00a0\u2009\u202f,:–—]|[0-9][eE'’]|\|(?=\Z)|\b(?:[fgP]|sqrt|log|ln|sin|cos|tan)\("
    rf"|[0-9][ \t]+(?:hours?|hrs?|minutes?|min|feet|foot|ft|and)|{ALTERED})[ \t]*$",
    re.ASCII,
)
BEFORE_FORMULA = re.compile(
    rf"(?:(?:[0-9)\]}}!]|\b[A-Za-z])[ \t]*[-+*/^×·÷√]|[\^_√/{{\\0-9]|{ALTERED})[ \t]*$", re.ASCII
)
PART_BEHIND = re.compile(
    r"[ \t]*(?:[\^!√_½⅓¼¾]|[-+*/×·÷][ \t]*(?:[0-9(\\]|[A-Za-z]\b))|[(\\{}_\[]|[A-Za-z]+"
    r"| (?:i\b|or (?:more|less)\b|and (?:a half|1/2)|(?:thousand|million|billion|trillion)\b"
    r"|dozen|squared|cubed|halves|thirds|tenths|\(base)",
    re.ASCII,
)
LAST = re.compile(
    r"(?<!\\)\$(?=[^\s$])([^$\n]{1,300})(?<=\S)\$(?!\d)|\\\((.{1,300}?)\\\)|\\\[(.{1,300}?)\\\]"
    r"|(-?[0-9]{0,40}\\[dt]?frac\{[^{}]{1,100}\}\{[^{}]{1,100}\})"
    rf"|({NUMBER})",
    re.DOTALL | re.ASCII,
)
# a calculation, of a text of `compact`; a plain fraction is a number
CALCULATION = re.compile(r"(?<=[\w)\]])[-+*/^!÷]|\\(?!infty|pi|text|circ)[a-z]+")
PLAIN_FRACTION = re.compile(r"[-+]?(?:\\frac[0-9]+|[0-9]+/[0-9]+)")
NAMED = re.compile(r"[A-Za-z]\w*(?:\([A-Za-z]\))?=")
TYPESETTING = re.compile(r"[\s${}]|\\(?:left|right|displaystyle|[,;:! ])")
HEADING = re.compile(r"[*:\s]*(?:the )?(?:final )?(?:answer|solution|result)[*:\s]*", re.IGNORECASE)
BUDGET = 2  # time limits for all comparisons of an answer
FORMULA_GROUPS = (1, 2, 3)  # of LAST; the others are numbers
CONTEXT = 40  # characters beside a number that are looked at
logger = logging.getLogger(__name__)
if importlib.util.find_spec("math_verify") is None:
    raise ImportError("recipe.judge needs math-verify: run `pip install math-verify`.")


def _box_spans(text: str, opened: list[tuple[int, bool]]) -> Iterator[tuple[int, int]]:
    """Yields where the content of each complete, non-blank box starts and ends; in one linear
    pass, which leaves in `opened` the braces that do not close: where they start, and whether they
    are a box's."""
    for token in BRACES.finditer(text):
        if token[0] == "}" and opened:
            start, boxed = opened.pop()
            if boxed and NOT_BLANK.search(text, start, token.start()):
                yield start, token.start()
        elif token[0].endswith("{") and token[0] != r"\{":
            opened.append((token.end(), token[0] != "{"))


def boxes(text: str) -> list[str]:
    """Returns the contents of the complete, non-blank boxes in the order in which they open."""
    return [text[start:end].strip() for start, end in sorted(_box_spans(text, []))]


def extract_answer(response: str, boxed_only: bool = False) -> str:
    """Returns the answer of a response as the module docstring defines it; "" if there is none."""
    text = response[-MAX_RESPONSE:].replace("−", "-")
    open_braces: list[tuple[int, bool]] = []
    last_box, is_first = None, True  # is_first: no box within it has been seen yet
    for start, end in sorted(_box_spans(text, open_braces)):
        if last_box is None or start > last_box[1]:
            last_box, is_first = (start, end), True
        elif is_first and _fills(text, start, end, last_box):
            last_box = start, end
        else:
            is_first = False
    if last_box is not None or boxed_only:
        return text[slice(*last_box)].strip() if last_box else ""
    if any(is_box for _, is_box in open_braces):
        return ""
    _, mark, rest = text.rpartition("####")
    answer = rest.partition("\n")[0].strip() if mark else ""
    if answer and not HEADING.fullmatch(answer):
        return answer
    last = next(iter(deque(LAST.finditer(text), maxlen=1)), None)
    if last is None or _is_part(text, *last.span(), last.lastindex in FORMULA_GROUPS):
        return ""
    return next(group for group in last.groups() if group).strip()


def _fills(text: str, start: int, end: int, outer: tuple[int, int]) -> bool:
    """Says whether a box is all that another one holds."""
    return BOX.fullmatch(text, outer[0], start) is not None and text[end : outer[1]].strip() == "}"


def _is_part(text: str, start: int, end: int, formula: bool = False) -> bool:
    """Says whether a number, or a formula in its delimiters, is a part of what is not read as a
    whole, or has letters behind it that are no unit."""
    while text[max(start - 1, 0) : start] == "*" == text[end : end + 1]:  # emphasis
        start, end = start - 1, end + 1
    behind = PART_BEHIND.match(text, end, end + CONTEXT)
    if behind and not (behind[0].isalpha() and len(behind[0]) > 1 and behind[0] in UNITS):
        return True
    before = BEFORE_FORMULA if formula else PART_BEFORE
    return before.search(text, max(start - CONTEXT, 0), start) is not None


def accepted_answers(ground_truth: str) -> list[str]:
    """Returns the answers of which each is correct: those of a JSON list of texts, else the text.

    Raises ValueError for a text that begins like a list and is none.
    """
    if not ground_truth.lstrip().startswith('["'):
        return [ground_truth]
    try:
        answers = json.loads(ground_truth)
        if all(isinstance(answer, str) for answer in answers):
            return answers
    except ValueError:
        pass
    raise ValueError(
        f"reward_model.ground_truth={ground_truth!r:.80} begins like a list of accepted answers "
        'but is not one: use JSON, ["a", "b"].'
    )


def whole_number(text: str) -> str | None:
    """Returns a plain whole number in the spelling of `normalise`; None for any other text."""
    number = normalise(text)
    plain = is_plain(number) and "." not in number and not NAMED_CURRENCY.search(text)
    return number if plain else None


def compact(text: str) -> str:
    """Returns a formula without what only sets it in type."""
    text = re.sub(r"\\[dt]frac", r"\\frac", TYPESETTING.sub("", text))
    return re.sub(r"\\cdot|\\times|×|·", "*", text)


def copies(answer: str, question: str, golds: Sequence[str]) -> bool:
    """Says whether an answer is a calculation that the question holds, and no accepted answer's
    own text: 115^2, where it is asked for."""
    short = compact(answer).removesuffix(".")
    short = short[match.end() :] if (match := NAMED.match(short)) else short
    is_calculation = CALCULATION.search(short) and not PLAIN_FRACTION.fullmatch(short)
    return bool(is_calculation) and short in compact(question) and short not in map(compact, golds)


class Verdict(NamedTuple):
    correct: bool
    parsed: bool  # the answer has a meaning that can be compared, or is the truth's text
    timed_out: bool  # the child ran into a limit or crashed, and no accepted answer is equal


def verdict(answer: str, golds: Sequence[str], equivalence: Equivalence) -> Verdict:
    """Judges an answer by the accepted answers, of which one is enough.

    No answer, and one over MAX_ANSWER characters, is incorrect and counts as not parsed.
    """
    if not answer or len(answer) > MAX_ANSWER:
        return Verdict(correct=False, parsed=False, timed_out=False)
    if answer in golds:
        return Verdict(correct=True, parsed=True, timed_out=False)
    numbers = [whole_number(text) for text in (answer, *golds)]
    if None not in numbers:  # most answers: nothing else needs to be read
        return Verdict(correct=numbers[0] in numbers[1:], parsed=True, timed_out=False)
    read = equivalence.read(answer)
    verdicts = []
    for gold in golds:
        verdicts.append(equivalence.accepts(equivalence.read(gold), read))
        if verdicts[-1]:
            return Verdict(correct=True, parsed=True, timed_out=False)
    return Verdict(correct=False, parsed=read.kind != "text", timed_out=None in verdicts)


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str | float,
    extra_info: dict | None = None,
    *,
    boxed_only: bool = False,
    time_limit: float = 5.0,
    memory_mb: int = 1024,
    children: int = 2,
    reward_router_address: str | None = None,
    reward_model_tokenizer: object = None,
) -> dict:
    """Judges one response: verl's reward function, the same for every `data_source`.

    Args:
        data_source: names the row's dataset in an error; it does not change the verdict.
        solution_str: the response.
        ground_truth: the final answer, or a JSON list of accepted ones.
        extra_info: of the row; its `question` is not to be copied.
        boxed_only: only an answer in a box counts.
        time_limit: seconds of CPU time for a comparison, see `pool.Pool`; all comparisons of an
            answer together have BUDGET times that.
        memory_mb: address space of a child process, see `pool.Pool`.
        children: child processes, see `pool.Pool`.
        reward_router_address, reward_model_tokenizer: what verl adds beside a reward model;
            ignored.

    Returns:
        score, 1.0 or 0.0; acc, the same as a bool; pred, the normalised answer that was judged
        ("" if there is none or it cannot be parsed), which verl votes over in maj@N;
        judge_timed_out: the child ran into a limit or crashed, so `acc` is False for want of a
        verdict.

    Raises:
        ValueError: for a setting out of its range, or a ground truth that is blank or no text.
    """
    pool_of(children=children, time_limit=time_limit, memory_mb=memory_mb)  # checks its settings
    if isinstance(ground_truth, bool) or not isinstance(ground_truth, str | int | float):
        raise ValueError(
            f"reward_model.ground_truth={ground_truth!r} of a row of {data_source} is not allowed: "
            "use one answer as a text."
        )
    golds = accepted_answers(str(ground_truth))
    if not all(gold.strip() for gold in golds):
        raise ValueError(
            f"reward_model.ground_truth of a row of {data_source} is blank: give the final answer."
        )
    answer = extract_answer(solution_str, boxed_only)
    answer = answer.encode("utf-8", "replace").decode()  # verl writes pred to a file
    limits = {"time_limit": time_limit, "memory_mb": memory_mb, "children": children}
    result = verdict(answer, golds, Equivalence(**limits, budget=BUDGET * time_limit))
    question = (extra_info or {}).get("question")
    if result.correct and isinstance(question, str) and copies(answer, question, golds):
        result = result._replace(correct=False)
    if result.timed_out:
        logger.warning("no verdict within the limits on the answer %.80r", answer)
    return {
        "score": float(result.correct),
        "acc": result.correct,
        "pred": normalise(answer) if result.parsed else "",
        "judge_timed_out": result.timed_out,
    }
