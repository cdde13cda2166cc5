"""The reward function: is the final answer of a response correct? 1 or 0, by math-verify.

For verl: `reward.custom_reward_function.path=pkg://recipe.judge` (or this file's path) and
`name=compute_score`; settings as `+reward.custom_reward_function.reward_kwargs.time_limit=10`.

**The answer of a response**, looked for in the whole response, is the first of these that exists:
1. the content of the last `\\boxed{...}` (or `\\fbox`) that is complete and not blank;
2. what follows the last `####` on its line, if not blank;
3. the last number, fraction or formula (`$...$`, `\\(...\\)`, `\\[...\\]`).
With `boxed_only` only 1 counts. Of several answers the last one alone is judged.

**Correct** means equal to the ground truth after `normalise`, or equal by math-verify. So 1,234 is
1234, never a pair; $5.00 is 5; 0.5 is 1/2; `x = 5` is 5; 18 \\text{ dollars} is 18. By
math-verify's rules 50% is 50, 0.5 and 1/2 alike, and a decimal is compared to six places, though
not with an integer. What math-verify ignores makes an answer incorrect unless the truth says it:
\\neq 5, 5 \\bmod 3, 5_8 (but 5_{10} is 5), 4 = 5. An answer that cannot be parsed or is longer
than MAX_ANSWER is incorrect.
A ground truth that is a JSON list of texts (`["1/3", "0.33"]`) accepts each of them.

**It cannot hang.** Plain numbers are compared at once. All else goes to a child process with
limits of CPU time and of memory (`pool.py`, `child.py`), which is replaced when it
dies: in any thread and in Ray workers. A child ends with this process, however it is killed (one
that is at work at its limit at the latest).
"""

from __future__ import annotations

import importlib.util
import json
import logging
import re
from collections import deque
from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from recipe.judge.pool import Pool, pool_of, reply_of

MAX_RESPONSE = 1_000_000  # characters; of a longer response, its end
MAX_ANSWER = 2_000  # characters
MAX_PLAIN = 15  # digits; more than a float holds are left to math-verify
MARGIN = Decimal("2e-6")  # closer decimals are left to math-verify, which rounds them to 1e-6

BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\[{}]|[{}]")
NUMBER = (
    r"(?:(?<![\w)}])[-+])?(?:\\?\$)?"
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?:/[0-9]+)?(?:\s?\\?%)?"
)
LAST = re.compile(
    r"(?<!\\)\$(?=[^\s$])([^$\n]{1,300})(?<=\S)\$(?!\d)|\\\((.{1,300}?)\\\)|\\\[(.{1,300}?)\\\]"
    r"|(-?\\[dt]?frac\{[^{}]{1,100}\}\{[^{}]{1,100}\})"
    rf"|({NUMBER})",
    re.DOTALL | re.ASCII,
)
CURRENCY = re.compile(r"\\?[$€£¥]")
SEPARATOR = r"(?:,|\{,\}|,?\\[,!]|[ \u00a0\u2009\u202f])"
PLAIN = re.compile(rf"([+-]?)\s*([0-9]{{1,3}}(?:{SEPARATOR}[0-9]{{3}})+|[0-9]*)(?:\.([0-9]*))?")
CANONICAL = re.compile(r"-?[0-9]+(\.[0-9]+)?")

# what math-verify ignores, though it changes the meaning: not 5, 5 mod 3, 5 to base 8
IGNORED_BY_MATH_VERIFY = re.compile(
    r"\\(?:neq?|not)(?![A-Za-z])|≠|\\[bp]?mod(?![A-Za-z])|\d\s*_\s*\{?\s*(?!10\b)(\w+)"
)

logger = logging.getLogger(__name__)
if importlib.util.find_spec("math_verify") is None:
    raise ImportError("recipe.judge needs math-verify: run `pip install math-verify`.")


def _last_box(text: str) -> str:
    """Returns the content of the complete, non-blank box that opens last, in one linear pass."""
    opened, last, content = [], -1, ""
    for token in BRACES.finditer(text):
        if token[0] == "}" and opened:
            start, boxed = opened.pop()
            if boxed and start > last and text[start : token.start()].strip():
                last, content = start, text[start : token.start()]
        elif token[0].endswith("{") and token[0] != r"\{":
            opened.append((token.end(), token[0] != "{"))
    return content


def extract_answer(response: str, boxed_only: bool = False) -> str:
    """Returns the answer of a response as the module docstring defines it; "" if there is none."""
    text = response[-MAX_RESPONSE:].replace("−", "-")
    answer = _last_box(text).strip()
    if answer or boxed_only:
        return answer
    _, mark, rest = text.rpartition("####")
    answer = rest.partition("\n")[0].strip() if mark else ""
    if answer:
        return answer
    last = deque(LAST.finditer(text), maxlen=1)
    return next(group for group in last[0].groups() if group).strip() if last else ""


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


def fast_verdict(gold: str, answer: str) -> bool | None:
    """Returns what math-verify would say of two normalised texts, where that needs no math-verify;
    else None."""
    if gold == answer:
        return True
    for text in (gold, answer):
        if not CANONICAL.fullmatch(text) or len(text.lstrip("-")) > MAX_PLAIN:
            return None
    integers = "." not in gold + answer
    return False if integers or abs(Decimal(gold) - Decimal(answer)) > MARGIN else None


def contradicts(gold: str, answer: str) -> bool:
    """Tells whether the answer says something that math-verify ignores and the truth does not say:
    a negation, a modulus, a base other than ten, two different numbers as equal."""
    in_answer, in_gold = (
        {match[1] or match[0] for match in IGNORED_BY_MATH_VERIFY.finditer(text)}
        for text in (answer, gold)
    )
    sides = {normalise(side) for side in answer.split("=")} if "=" in answer else ()
    return not in_answer <= in_gold or sum(bool(CANONICAL.fullmatch(s)) for s in sides) > 1


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


class Verdict(NamedTuple):
    correct: bool
    parsed: bool  # math-verify made an expression of the answer, or did not need to
    timed_out: bool  # the child ran into a limit or crashed, and no accepted answer is equal


def verdict(answer: str, golds: Sequence[str], pool: Pool) -> Verdict:
    """Judges a normalised answer by the normalised accepted answers, of which one is enough.

    math-verify is asked only where `contradicts` and `fast_verdict` do not decide, and no further
    once an accepted answer is equal. No answer, and one over MAX_ANSWER characters, is
    incorrect and counts as not parsed.
    """
    if not answer or len(answer) > MAX_ANSWER:
        return Verdict(correct=False, parsed=False, timed_out=False)
    decided = [False if contradicts(gold, answer) else fast_verdict(gold, answer) for gold in golds]
    if True in decided:
        return Verdict(correct=True, parsed=True, timed_out=False)
    replies = []
    for gold in (gold for gold, decision in zip(golds, decided, strict=True) if decision is None):
        replies.append(reply_of(pool, gold, answer))
        if replies[-1] is not None and replies[-1]["equal"]:
            return Verdict(correct=True, parsed=True, timed_out=False)
    parsed = False in decided or any(reply and reply["parsed"] for reply in replies)
    return Verdict(correct=False, parsed=parsed, timed_out=None in replies)


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
        extra_info: ignored.
        boxed_only: only an answer in a box counts.
        time_limit: seconds of CPU time for a comparison, see `pool.Pool`.
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
    pool = pool_of(children=children, time_limit=time_limit, memory_mb=memory_mb)
    if isinstance(ground_truth, bool) or not isinstance(ground_truth, str | int | float):
        raise ValueError(
            f"reward_model.ground_truth={ground_truth!r} of a row of {data_source} is not allowed: "
            "use one answer as a text."
        )
    golds = [normalise(gold) for gold in accepted_answers(str(ground_truth))]
    if not all(golds):
        raise ValueError(
            f"reward_model.ground_truth of a row of {data_source} is blank: give the final answer."
        )
    answer = normalise(extract_answer(solution_str, boxed_only))
    answer = answer.encode("utf-8", "replace").decode()  # verl writes pred to a file
    result = verdict(answer, golds, pool)
    if result.timed_out:
        logger.warning("no verdict within the limits on the answer %.80r", answer)
    return {
        "score": float(result.correct),
        "acc": result.correct,
        "pred": answer if result.parsed else "",
        "judge_timed_out": result.timed_out,
    }
