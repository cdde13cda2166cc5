"""Evaluation sets as verl's parquet files: `python data_prep/benchmarks.py [--sets aime24 ...]`.

Writes <set>.parquet for GSM8K (test), MATH-500, AIME 2024 and 2025, AMC 2023, Minerva Math and
OlympiadBench (text-only, open-ended, English, maths), and beside each a .json with source, options,
counts, notes and hash. `data_source` is the set's name. All sets have the same columns.

From the Hugging Face hub, or with --source from .jsonl, .json or .parquet files as the hub or the
evaluation repositories have them (Qwen2.5-Math `evaluation/data`, simpleRL-reason,
math-evaluation-harness, prm800k `math_splits`): a folder in which the sets are found by name, or
one file.

Dropped, and counted: copies of a problem, AIME problems of another year, OlympiadBench problems
that have images, want a proof, or are Chinese or physics. Said in a note: how often each problem
stood there, which AMC it is, a row count that no publication has. A problem that contains its own
solution, or stands there with two answers, ends the run.

The ground truth is the published answer. Where the judge could not read its spelling (4.5e33,
np.arcsin), or several answers are accepted, it is a JSON list of texts of which each is right
(`recipe.judge`). Each is checked against itself in a box.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

if not __package__:  # run as a script: find the project, not this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data_prep import common, dapo_math, gsm8k
from data_prep.contamination import runs_of, words_of
from recipe.judge.reward import accepted_answers, compute_score, extract_answer, normalise

INSTRUCTION = "Think step by step, and put the final answer in \\boxed{}."  # ours
COLUMNS = common.schema("id", "question", "subject", "level")
SUFFIXES = (".jsonl", ".parquet", ".json")  # of two files with one name, the first is read
COPY, OTHER_YEAR = "copies", "of another year"
ONE_OF_TWO = {15: "this is only one of AIME I and II"}
NAME = re.compile(r"[A-Za-z]_(\{[^{}]*\}|\w)(\([^()]*\))?|\\d?frac\{d ?\w\}\{d ?\w\}")
PAPERS = {"aime2025i", "aime2025ii"}  # two files that make one set


class Benchmark(NamedTuple):
    """A set as published."""

    hub: str
    config: str | None
    split: str
    counts: dict[int, str]  # right numbers of problems -> what has so many
    names: tuple[str, ...]  # of its files or folders, in small letters without punctuation
    year: str = ""  # the only one of its problems
    wrong_counts: dict[int, str] | None = None  # numbers seen elsewhere -> what that is
    integers: bool = False  # all answers are integers
    has_train: bool = False  # a train file beside it is training data
    quotes_solutions: bool = False  # some problems quote the solution of an earlier part


BENCHMARKS = {
    "gsm8k": Benchmark(
        "openai/gsm8k",
        "main",
        "test",
        {1319: "the test split"},
        ("gsm8k",),
        has_train=True,
    ),
    "math500": Benchmark(
        "HuggingFaceH4/MATH-500",
        None,
        "test",
        {500: "the test split of prm800k"},
        ("math500", "mathoai", "mathsplits"),
        wrong_counts={5000: "this is the whole test split of MATH"},
        has_train=True,
    ),
    "aime24": Benchmark(
        "HuggingFaceH4/aime_2024",
        None,
        "train",
        {30: "AIME I and II"},
        ("aime24", "aime2024", "aimovalidationaime"),
        year="2024",
        wrong_counts=ONE_OF_TWO,
        integers=True,
    ),
    "aime25": Benchmark(
        "math-ai/aime25",
        None,
        "test",
        {30: "AIME I and II"},
        ("aime25", "aime2025", "aime2025i", "aime2025ii"),
        year="2025",
        wrong_counts=ONE_OF_TWO,
        integers=True,
    ),
    "amc23": Benchmark(
        "math-ai/amc23",
        None,
        "test",
        {
            40: "the AMC 12 of 2023, as in Qwen2.5-Math",
            83: "the AMC 12 of 2022 and 2023, as in AI-MO/aimo-validation-amc",
        },
        ("amc23", "amc2023", "aimovalidationamc"),
        integers=True,
    ),
    "minerva_math": Benchmark(
        "math-ai/minervamath",
        None,
        "test",
        {272: "MIT OpenCourseWare"},
        ("minervamath", "minerva", "ocw"),
        quotes_solutions=True,
    ),
    "olympiadbench": Benchmark(
        "Hothan/OlympiadBench",
        "OE_TO_maths_en_COMP",
        "train",
        {674: "the hub's", 675: "the first release's, as in Qwen2.5-Math"},
        ("olympiadbench", "oetomathsencomp"),
    ),
}


def field(record: common.Record, *names: str) -> Any:
    """The first of these fields that is there and not blank, whatever the case of its name."""
    fields = {name.lower(): value for name, value in record[1].items()}
    for name in names:
        if (value := fields.get(name)) is not None and str(value).strip() and value != []:
            return value
    return None


def question_of(record: common.Record) -> str:
    """The problem, with its context, without what a published prompt wraps around it."""
    messages = field(record, "prompt")
    if isinstance(messages, list) and isinstance(messages[-1], dict):  # in verl's schema
        extra = field(record, "extra_info")
        extra = extra if isinstance(extra, dict) else {}
        raw = extra.get("raw_problem") or extra.get("question")
        return raw or dapo_math.problem(common.text_field((record[0], messages[-1]), "content"))
    texts = [record[1].get(name) for name in ("problem", "question", "Problem", "Question")]
    text = next((text for text in texts if isinstance(text, str) and text.strip()), None)
    if text is None:
        raise ValueError(
            f"{record[0]} has no text in a field `problem` or `question` but "
            f"{', '.join(map(repr, record[1])) or 'none'}: give the original files."
        )
    context = field(record, "context")
    return f"{str(context).strip()}\n\n{text.strip()}" if context else text.strip()


def published_answers(record: common.Record) -> list[Any]:
    """The answers as they stand there: of several in a list each is right."""
    answer = field(record, "answer", "final_answer", "expected_answer")
    truth = field(record, "reward_model")
    if answer is None and isinstance(truth, dict):
        answer = truth.get("ground_truth")
    if answer is None:  # Qwen2.5-Math's minerva_math and math-ai/aime24 have only a solution
        solution = field(record, "solution")
        answer = extract_answer(solution, boxed_only=True) if isinstance(solution, str) else None
    if isinstance(answer, list) and field(record, "is_multiple_answer"):
        answer = ", ".join(map(str, answer))  # all of them are asked for
    answers = answer if isinstance(answer, list) else [answer]
    if not answers or any(str("" if a is None else a).strip() == "" for a in answers):
        raise ValueError(
            f"{record[0]} has no answer: neither in `answer` or `final_answer` nor in a complete "
            "\\boxed{} of `solution`; give the original files."
        )
    return answers


def spellings(text: str) -> list[str]:
    """An answer as the judge reads it, as published if that differs, and without a name before it.

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
    if equals and "=" not in value and NAME.fullmatch(name.strip()):
        forms.append(value.strip())
    return forms


def integer(where: str, answer: Any) -> str:
    """27.0, "27.0", "027" and 27 are "27"."""
    text = normalise(str(answer))
    text = re.sub(r"^(-?)0+(?=[0-9])", r"\1", text)
    if not re.fullmatch(r"-?[0-9]+", text):
        raise ValueError(
            f"{where} has the answer {answer!r:.80}, and in this set each is an integer: give the "
            "original files."
        )
    return text


def ground_truth(name: str, record: common.Record) -> str:
    """The answer as a text, or a JSON list of texts of which each is right."""
    answers = published_answers(record)
    if name == "gsm8k":
        forms = [gsm8k.final_answer(record[0], str(answer)) for answer in answers]
    elif BENCHMARKS[name].integers:
        forms = [integer(record[0], answer) for answer in answers]
    else:
        forms = [form for answer in answers for form in spellings(str(answer))]
    forms = list(dict.fromkeys(forms))
    truth = json.dumps(forms, ensure_ascii=False) if len(forms) > 1 else forms[0]
    for form in accepted_answers(truth):
        if not compute_score(name, f"\\boxed{{{form}}}", truth, boxed_only=True)["acc"]:
            raise ValueError(
                f"{record[0]} has the answer {form!r:.80}, which the judge does not accept in a "
                "box: mend it (are its braces complete?)."
            )
    return truth


def has_solution(record: common.Record, question: str) -> bool:
    """A box, a heading "Solution", or most of the row's own solution stands in the problem."""
    if re.search(r"\\boxed|\\fbox|(?im:^\W*solution\b)", question):
        return True
    solution = field(record, "solution")
    runs = runs_of(words_of(solution), 8) if isinstance(solution, str) else set()
    return len(runs) >= 20 and len(runs & runs_of(words_of(question), 8)) > 0.7 * len(runs)


def other_year(record: common.Record, year: str) -> bool:
    """The row says its year, and it is not this one."""
    said = [str(field(record, name) or "") for name in ("year", "url", "id")]
    found = [match[0] for text in said for match in re.finditer(r"(?<!\d)(19|20)\d\d(?!\d)", text)]
    return bool(year and found) and year not in found


def not_olympiadbench(record: common.Record) -> str | None:
    """Why a row of OlympiadBench is not open-ended English maths without images, or None."""
    says = {
        name: str(field(record, name) or "").lower()
        for name in ("language", "subject", "modality", "question_type")
    }
    question = question_of(record)
    images = [value for name, value in record[1].items() if re.match(r"image(s|_\d+)$", name)]
    if says["language"].startswith(("chin", "zh")) or re.search(r"[一-鿿]", question):
        return "Chinese"
    if says["subject"].startswith("phys"):
        return "physics"
    if says["modality"].startswith("multi") or any(v is not None and v != [] for v in images):
        return "with images"
    if re.search(r"<image_\d+>", question):
        return "with images"
    answer = field(record, "final_answer", "answer", "reward_model")
    return "theorem proofs" if "theorem" in says["question_type"] or answer is None else None


def build(
    name: str,
    records: Iterable[common.Record],
    instruction: str = INSTRUCTION,
    max_samples: int | None = None,
) -> tuple[common.Split, list[str]]:
    """The rows of a set in verl's schema, and what there is to say about them.

    `index` counts the set's problems from 0.
    """
    set_ = BENCHMARKS[name]
    truths: dict[str, str] = {}
    rows, leaks, tolerant, read = [], [], 0, 0
    dropped: Counter[str] = Counter({COPY: 0})
    for record in records:
        where, read = record[0], read + 1
        if name == "olympiadbench" and (reason := not_olympiadbench(record)):
            dropped[reason] += 1
            continue
        if other_year(record, set_.year):
            dropped[OTHER_YEAR] += 1
            continue
        question = question_of(record)
        same = " ".join(question.split())
        truth = ground_truth(name, record)
        if same in truths:
            if truths[same] != truth:
                raise ValueError(
                    f"{where} is a problem that stood before with the answer {truths[same]!r:.80}, "
                    f"not {truth!r:.80}: one is wrong, so give the original files."
                )
            dropped[COPY] += 1
            continue
        truths[same] = truth
        if not set_.quotes_solutions and has_solution(record, question):
            leaks.append(str(field(record, "id", "unique_id") or where))
        tolerant += field(record, "error") is not None
        about = {
            "id": field(record, "unique_id", "id", "idx", "problem_idx"),
            "subject": field(record, "subfield", "subject", "type"),
            "level": field(record, "level"),
        }
        row = {
            "data_source": name,
            "prompt": [{"role": "user", "content": f"{question}\n{instruction}".strip()}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": truth},
            "extra_info": {
                **{"split": "test", "index": len(rows), "question": question},
                **{what: "" if said is None else str(said) for what, said in about.items()},
            },
        }
        common.check_row(where, row, COLUMNS)
        rows.append(row)
    if leaks:
        raise ValueError(
            f"{name}: {len(leaks)} of {len(rows)} problems contain their own solution "
            f"({', '.join(leaks[:3])}{' …' if len(leaks) > 3 else ''}), so their answers would be "
            f"read off: use another copy of the set, such as {set_.hub}."
        )
    if not rows:
        raise ValueError(f"{name} has no row that can be taken of {read} read: give another file.")
    notes = [count_note(set_, len(rows))]
    if dropped[COPY]:
        each = (len(rows) + dropped[COPY]) / len(rows)
        notes.append(f"the source holds each problem {each:.3g} times")
    if tolerant:
        notes.append(f"answers with a tolerance (`error`), which the judge ignores: {tolerant}")
    if max_samples is not None:
        dropped[common.BEYOND] = len(rows[max_samples:])
    return common.Split(rows[:max_samples], read, dict(dropped)), notes


def count_note(set_: Benchmark, count: int) -> str:
    """Which publication has so many problems, or that none has."""
    if count in set_.counts:
        return f"{count} problems: {set_.counts[count]}"
    right = " or ".join(f"{number} ({what})" for number, what in set_.counts.items())
    why = (set_.wrong_counts or {}).get(count)
    return f"WARNING: {count} problems, not {right}{f'; {why}' if why else ''}"


def key(name: str) -> str:
    """A file's or folder's name in small letters without punctuation or shard number."""
    return re.sub(r"[^a-z0-9]", "", re.sub(r"-\d+-of-\d+$", "", name.lower()))


def is_of(path: Path, root: Path, set_: Benchmark) -> bool:
    """Is it a file of the set, by its own name or by a folder's at or under `root`?"""
    if key(path.stem) in set_.names:
        return True
    folders = (root.name, *path.relative_to(root).parent.parts)
    stems = ("test",) if set_.has_train else ("test", "train")
    return key(path.stem) in stems and any(key(folder) in set_.names for folder in folders)


def find_files(root: Path, name: str) -> list[Path]:
    """The files of a set in a folder; [] if there is none."""
    set_ = BENCHMARKS[name]
    paths = [p for p in root.rglob("*") if p.suffix in SUFFIXES and is_of(p, root, set_)]
    if any(set_.config in path.parts for path in paths):
        paths = [path for path in paths if set_.config in path.parts]
    if any(key(path.stem) != "train" for path in paths):
        paths = [path for path in paths if key(path.stem) != "train"]
    groups: dict[tuple[Path, str], list[Path]] = {}
    for path in sorted(paths, key=lambda path: (SUFFIXES.index(path.suffix), path)):
        group = groups.setdefault((path.parent, key(path.stem)), [])
        if not group or group[0].suffix == path.suffix:
            group.append(path)
    if len(groups) > 1 and not {stem for _, stem in groups} <= PAPERS:
        first, second = (group[0].relative_to(root) for group in list(groups.values())[:2])
        raise ValueError(
            f"--source {root} has {first} and {second} for {name}: give one of them as "
            f"--source FILE --sets {name}."
        )
    return sorted(path for group in groups.values() for path in group)


def sources(source: str, sets: list[str] | None) -> dict[str, list[Path]]:
    """The files of each set: of those asked for, or of those that are there."""
    path = Path(source).expanduser()
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise ValueError(f"--source {source} must be one of {', '.join(SUFFIXES)}: convert it.")
        folders = [parent.name for parent in path.parents][:3]
        guess = [
            n for n, s in BENCHMARKS.items() if {*map(key, [path.stem, *folders])} & {*s.names}
        ]
        names = sets or guess
        if len(names) != 1:
            raise ValueError(
                f"--source {source} is one file and makes one set: say which with --sets, one of "
                f"{', '.join(BENCHMARKS)}."
            )
        return {names[0]: [path]}
    if not path.is_dir():
        raise ValueError(f"--source {source} does not exist: give a folder or a file.")
    found = {name: find_files(path, name) for name in sets or BENCHMARKS}
    missing = [name for name, files in found.items() if not files]
    if len(missing) == len(found) or (sets and missing):
        names = ", ".join(f"{name} (as {' or '.join(BENCHMARKS[name].names)})" for name in missing)
        raise ValueError(
            f"--source {source} has no {' or '.join(s[1:] for s in SUFFIXES)} file named after "
            f"{names}: rename it, or give --source FILE --sets NAME."
        )
    if missing:
        print(f"not in {source}, so left out: {', '.join(missing)}")
    return {name: files for name, files in found.items() if files}


def main() -> None:
    parser = common.parser_of(
        __doc__,
        source="folder with the sets' files, or one file; without it the Hugging Face hub",
        folder="~/data/benchmarks",
        samples="the first N problems of each set",
        instruction=INSTRUCTION,
    )
    parser.add_argument(
        "--sets", nargs="+", choices=list(BENCHMARKS), help="default: all, or those in --source"
    )
    args = common.parse(parser)
    folder = Path(args.local_save_dir).expanduser()

    sets = list(dict.fromkeys(args.sets)) if args.sets else None
    records: dict[str, list[common.Record]] = {}
    origin: dict[str, dict[str, Any]] = {}
    if args.source is None:
        for name in sets or BENCHMARKS:
            set_ = BENCHMARKS[name]
            records |= {name: common.read_hub(set_.hub, set_.config, [set_.split])[set_.split]}
            origin[name] = {"hub": set_.hub, "config": set_.config, "split": set_.split}
    else:
        for name, files in sources(args.source, sets).items():
            if (folder / f"{name}.parquet").resolve() in [path.resolve() for path in files]:
                raise ValueError(
                    f"--local_save_dir {args.local_save_dir} is where --source has {name}.parquet: "
                    "choose another folder."
                )
            records[name] = list(common.read_records(files))
            origin[name] = {"files": {path.name: common.sha256(path) for path in files}}

    options = {"instruction": args.instruction, "max_samples": args.max_samples}
    built = {name: build(name, rows, **options) for name, rows in records.items()}
    facts = {
        name: {"dataset": name, "source": origin[name], "options": options, "notes": notes}
        for name, (_, notes) in built.items()
    }
    common.write_splits(folder, {name: split for name, (split, _) in built.items()}, COLUMNS, facts)
    for name, (split, notes) in built.items():
        common.tell(name, split, folder / f"{name}.parquet")
        for note in notes:
            print(f"    {note}")


if __name__ == "__main__":
    common.run(main)
