"""The evaluation sets: a table with an entry for each, and the functions that its entries use.

To add a set, add an entry to BENCHMARKS. Its entry also holds what is special about a set: which
records belong to it (`exclude`), and how its answers are published (`answers`).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from data_prep import dapo_math, gsm8k
from data_prep.sources import Record, text_field
from recipe.judge.reward import extract_answer, normalise

# --- a record's fields, whatever their source calls them ---


def first_field(record: Record, *names: str) -> Any:
    """Returns the first of these fields that is not blank, whatever the case of its name; None if
    there is none."""
    fields = {name.lower(): value for name, value in record[1].items()}
    for name in names:
        if (value := fields.get(name)) is not None and str(value).strip() and value != []:
            return value
    return None


def question_of(record: Record) -> str:
    """Returns the problem, with its context, without what a published prompt wraps around it."""
    messages = first_field(record, "prompt")
    if isinstance(messages, list) and isinstance(messages[-1], dict):  # in verl's schema
        extra = first_field(record, "extra_info")
        extra = extra if isinstance(extra, dict) else {}
        raw = extra.get("raw_problem") or extra.get("question")
        return raw or dapo_math.without_wrapper(text_field((record[0], messages[-1]), "content"))
    texts = [record[1].get(name) for name in ("problem", "question", "Problem", "Question")]
    text = next((text for text in texts if isinstance(text, str) and text.strip()), None)
    if text is None:
        raise ValueError(
            f"{record[0]} has no text in a field `problem` or `question` but "
            f"{', '.join(map(repr, record[1])) or 'none'}: give the original files."
        )
    context = first_field(record, "context")
    return f"{str(context).strip()}\n\n{text.strip()}" if context else text.strip()


def listed(where: str, answer: Any) -> Any:
    """Returns the list that a text such as "['2']" is, which a CSV file makes of one; any other
    answer as it is.

    Raises:
        ValueError: The text begins like a list of texts and is none.
    """
    if not isinstance(answer, str) or not re.match(r"\s*\[\s*['\"]", answer):
        return answer
    try:
        items = ast.literal_eval(answer.strip())
    except (ValueError, SyntaxError):
        items = None
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ValueError(
            f"{where} has the answer {answer!r:.80}, which begins like a list of texts and is "
            "none: give the original files."
        )
    return items


def published_answers(record: Record) -> list[Any]:
    """Returns the answers as published: of several in a list, each is accepted as correct."""
    answer = first_field(record, "answer", "final_answer", "expected_answer")
    reward_model = first_field(record, "reward_model")
    if answer is None and isinstance(reward_model, dict):
        answer = reward_model.get("ground_truth")
    if answer is None:  # Qwen2.5-Math's minerva_math and math-ai/aime24 have only a solution
        solution = first_field(record, "solution")
        answer = extract_answer(solution, boxed_only=True) if isinstance(solution, str) else None
    answer = listed(record[0], answer)
    if isinstance(answer, list) and first_field(record, "is_multiple_answer"):
        answer = ", ".join(map(str, answer))  # all of them are asked for
    answers = answer if isinstance(answer, list) else [answer]
    if not answers or any(str("" if a is None else a).strip() == "" for a in answers):
        raise ValueError(
            f"{record[0]} has no answer: neither in `answer` or `final_answer` nor in a complete "
            "\\boxed{} of `solution`; give the original files."
        )
    return answers


# --- `answers` of an entry: the spellings that the judge accepts ---

VARIABLE = r"[A-Za-z]_(\{[^{}]*\}|\w)(\([^()]*\))?|\\d?frac\{d ?\w\}\{d ?\w\}"  # before a "="


def spellings(text: str) -> list[str]:
    """Returns an answer as the judge reads it; as published, where that differs; and without a
    variable before it, as in "m_{max} = 3".

    math-verify itself takes 2x for f(x) = 2x, but no value for m_{max} = ... or dM/dt = ...
    """
    text = text.strip()
    # what is not between dollars; with an odd number of them ($221,$8$), a dollar is left over
    outside = re.sub(r"(?<!\\)\$[^$]*(?<!\\)\$", "", text)
    clean = text
    if not outside.strip(" ,;.") or "$" in outside.replace("\\$", ""):
        clean = re.sub(r"(?<!\\)\$", "", text)
        clean = re.sub(r"(?<![.\\])\.$", "", clean).strip()
    clean = clean.replace("np.arcsin", "\\arcsin")
    clean = re.sub(r"(?<=\d)\./(?=\d)", "/", clean)  # -1./3
    power = re.fullmatch(r"([-+]?[0-9.]+)e([-+]?[0-9]+)", clean)
    if power:
        clean = f"{power[1]} \\times 10^{{{int(power[2])}}}"
    forms = [clean] if clean == text.replace("$", "") else [clean, text]
    name, equals, value = clean.partition("=")
    if equals and "=" not in value and re.fullmatch(VARIABLE, name.strip()):
        forms.append(value.strip())
    return forms


def integer(where: str, answer: Any) -> str:
    """Returns an integer in its shortest spelling: 27.0, "27.0", "027" and 27 are "27"."""
    text = normalise(str(answer))
    text = re.sub(r"^(-?)0+(?=[0-9])", r"\1", text)
    if not re.fullmatch(r"-?[0-9]+", text):
        raise ValueError(
            f"{where} has the answer {answer!r:.80}, and in this set each is an integer: give the "
            "original files."
        )
    return text


def any_spelling(record: Record) -> list[str]:
    """Returns answers of any kind: numbers, formulas, intervals, texts."""
    return [form for answer in published_answers(record) for form in spellings(str(answer))]


def integers(record: Record) -> list[str]:
    """Returns answers that are integers."""
    return [integer(record[0], answer) for answer in published_answers(record)]


def after_hashes(record: Record) -> list[str]:
    """Returns GSM8K's answers, which are the number after `####`."""
    return [gsm8k.final_answer(record[0], str(answer)) for answer in published_answers(record)]


# --- `exclude` of an entry: why a record does not belong to the set, or None ---


def nothing(record: Record) -> str | None:
    """Excludes no record."""
    return None


def other_years_than(year: str) -> Callable[[Record], str | None]:
    """Makes a function that excludes records that say their year, and it is not this one."""

    def other_year(record: Record) -> str | None:
        """Excludes a record of another year; one without a year stays."""
        texts = [str(first_field(record, name) or "") for name in ("year", "url", "id")]
        years = {
            match[0] for text in texts for match in re.finditer(r"(?<!\d)(19|20)\d\d(?!\d)", text)
        }
        return "of another year" if years and year not in years else None

    return other_year


def not_open_ended_english_text(record: Record) -> str | None:
    """Excludes problems of OlympiadBench that have images, want a proof, or are Chinese or
    physics."""
    language, subject, modality, question_type = (
        str(first_field(record, name) or "").lower()
        for name in ("language", "subject", "modality", "question_type")
    )
    question = question_of(record)
    images = [value for name, value in record[1].items() if re.match(r"image(s|_\d+)$", name)]
    if language.startswith(("chin", "zh")) or re.search(r"[一-鿿]", question):
        return "Chinese"
    if subject.startswith("phys"):
        return "physics"
    if modality.startswith("multi") or any(v is not None and v != [] for v in images):
        return "with images"
    if re.search(r"<image_\d+>", question):
        return "with images"
    answer = first_field(record, "final_answer", "answer", "reward_model")
    return "theorem proofs" if "theorem" in question_type or answer is None else None


# --- the table ---


class Benchmark(NamedTuple):
    """An evaluation set as published."""

    hub: str  # its name on the Hugging Face hub
    config: str | None
    split: str  # the hub's name for it
    counts: dict[int, str]  # numbers of problems as published -> which publication
    names: tuple[str, ...]  # of its files or folders, in small letters without punctuation
    answers: Callable[[Record], list[str]] = any_spelling  # each is accepted as correct
    exclude: Callable[[Record], str | None] = nothing  # why a record does not belong to the set
    partial_counts: dict[int, str] = {}  # noqa: RUF012 - numbers seen elsewhere -> what has so many
    parts: tuple[str, ...] = ()  # names of files that only together are the set
    has_train: bool = False  # a train file beside it is training data
    quotes_solutions: bool = False  # some problems quote the solution of an earlier part


ONE_OF_TWO = {15: "this is only one of AIME I and II"}

BENCHMARKS = {
    "gsm8k": Benchmark(
        hub="openai/gsm8k",
        config="main",
        split="test",
        counts={1319: "the test split"},
        names=("gsm8k",),
        answers=after_hashes,
        has_train=True,
    ),
    "math500": Benchmark(
        hub="HuggingFaceH4/MATH-500",
        config=None,
        split="test",
        counts={500: "the test split of prm800k"},
        names=("math500", "mathoai", "mathsplits"),
        partial_counts={5000: "this is the whole test split of MATH"},
        has_train=True,
    ),
    "aime24": Benchmark(
        hub="HuggingFaceH4/aime_2024",
        config=None,
        split="train",
        counts={30: "AIME I and II"},
        names=("aime24", "aime2024", "aimovalidationaime"),
        answers=integers,
        exclude=other_years_than("2024"),
        partial_counts=ONE_OF_TWO,
    ),
    "aime25": Benchmark(
        hub="math-ai/aime25",
        config=None,
        split="test",
        counts={30: "AIME I and II"},
        names=("aime25", "aime2025", "aime2025i", "aime2025ii"),
        answers=integers,
        exclude=other_years_than("2025"),
        partial_counts=ONE_OF_TWO,
        parts=("aime2025i", "aime2025ii"),
    ),
    "amc23": Benchmark(
        hub="math-ai/amc23",
        config=None,
        split="test",
        counts={
            40: "the AMC 12 of 2023, as in Qwen2.5-Math",
            83: "the AMC 12 of 2022 and 2023, as in AI-MO/aimo-validation-amc",
        },
        names=("amc23", "amc2023", "aimovalidationamc"),
        answers=integers,
    ),
    "minerva_math": Benchmark(
        hub="math-ai/minervamath",
        config=None,
        split="test",
        counts={272: "MIT OpenCourseWare"},
        names=("minervamath", "minerva", "ocw"),
        quotes_solutions=True,
    ),
    "olympiadbench": Benchmark(
        hub="Hothan/OlympiadBench",
        config="OE_TO_maths_en_COMP",
        split="train",
        counts={674: "the hub's", 675: "the first release's, as in Qwen2.5-Math"},
        names=("olympiadbench", "oetomathsencomp"),
        exclude=not_open_ended_english_text,
    ),
}
