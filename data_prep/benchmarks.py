"""Evaluation sets as verl's parquet files: `python data_prep/benchmarks.py [--sets aime24 ...]`.

Writes <set>.parquet for GSM8K (test), MATH-500, AIME 2024 and 2025, AMC 2023, Minerva Math and
OlympiadBench (text-only, open-ended, English, maths), and beside each a .json with source, options,
counts, notes and hash. `data_source` is the set's name. All sets have the same columns. The table
of sets is in `eval_sets.py`.

From the Hugging Face hub, or with --source from .jsonl, .json or .parquet files as the hub or the
evaluation repositories have them (Qwen2.5-Math `evaluation/data`, simpleRL-reason,
math-evaluation-harness, prm800k `math_splits`): a folder in which the sets are found by name, or
a single file.

Dropped, and counted: copies of a problem, AIME problems of another year, OlympiadBench problems
that have images, want a proof, or are Chinese or physics. Notes tell how often the source has each
problem, which AMC it is, and a row count that no publication has. A problem that contains its own
solution, or that occurs with two answers, ends the run.

The ground truth is the published answer. Where the judge could not read its spelling (4.5e33,
np.arcsin), or several answers are accepted, it is a JSON list of texts of which each is correct
(`recipe.judge`). Each is checked against itself in a box.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from data_prep import cli, rows, sources
from data_prep.contamination import ngrams, split_words
from data_prep.eval_sets import BENCHMARKS, Benchmark, first_field, question_of
from data_prep.sources import Record
from recipe.judge.reward import accepted_answers, compute_score

INSTRUCTION = "Think step by step, and put the final answer in \\boxed{}."  # ours
COLUMNS = rows.schema("id", "question", "subject", "level")
SUFFIXES = (".jsonl", ".parquet", ".json")  # of two files with the same name, the first is read
COPIES = "copies"  # a reason to drop a record

# --- the rows of a set ---


def ground_truth(name: str, record: Record) -> str:
    """Returns the accepted answer as a text, or several as a JSON list of texts.

    Raises:
        ValueError: There is no answer, it is not of the set's kind, or the judge would not accept
            it in a box.
    """
    forms = list(dict.fromkeys(BENCHMARKS[name].answers(record)))
    truth = json.dumps(forms, ensure_ascii=False) if len(forms) > 1 else forms[0]
    for form in accepted_answers(truth):
        if not compute_score(name, f"\\boxed{{{form}}}", truth, boxed_only=True)["acc"]:
            raise ValueError(
                f"{record[0]} has the answer {form!r:.80}, which the judge does not accept in a "
                "box: fix it (are its braces complete?)."
            )
    return truth


def contains_solution(record: Record, question: str) -> bool:
    """Tells whether a problem has a box, a heading "Solution", or most of its record's solution."""
    if re.search(r"\\boxed|\\fbox|(?im:^\W*solution\b)", question):
        return True
    solution = first_field(record, "solution")
    grams = ngrams(split_words(solution), 8) if isinstance(solution, str) else set()
    shared = grams & ngrams(split_words(question), 8)
    return len(grams) >= 20 and len(shared) > 0.7 * len(grams)


def is_copy(where: str, question: str, truth: str, truths: dict[str, str]) -> bool:
    """Tells whether a problem occurred before, and remembers it in `truths` if not.

    Raises:
        ValueError: It occurred with another answer.
    """
    key = " ".join(question.split())
    if key not in truths:
        truths[key] = truth
        return False
    if truths[key] != truth:
        raise ValueError(
            f"{where} is a problem that occurred before with the answer {truths[key]!r:.80}, "
            f"not {truth!r:.80}: at most one is correct, so give the original files."
        )
    return True


def about(record: Record) -> dict[str, str]:
    """Returns id, subject and level of a problem; "" for what its record does not have."""
    values = {
        "id": first_field(record, "unique_id", "id", "idx", "problem_idx"),
        "subject": first_field(record, "subfield", "subject", "type"),
        "level": first_field(record, "level"),
    }
    return {name: "" if value is None else str(value) for name, value in values.items()}


def count_note(benchmark: Benchmark, count: int) -> str:
    """Returns which publication has so many problems, or a warning that none has."""
    if count in benchmark.counts:
        return f"{count} problems: {benchmark.counts[count]}"
    published = " or ".join(f"{number} ({what})" for number, what in benchmark.counts.items())
    what = benchmark.partial_counts.get(count)
    return f"WARNING: {count} problems, not {published}{f'; {what}' if what else ''}"


def build(
    name: str,
    records: Iterable[Record],
    instruction: str = INSTRUCTION,
    max_samples: int | None = None,
) -> rows.Split:
    """Builds the rows of a set, with notes; `index` counts the set's problems from 0.

    Args:
        name: The set's key in BENCHMARKS.
        records: Its records, possibly with copies and others.
        instruction: Put after each problem.
        max_samples: At most so many rows; None for all.

    Raises:
        ValueError: A record is unusable, problems contain their own solutions, or no row is left.
    """
    benchmark = BENCHMARKS[name]
    truths: dict[str, str] = {}
    taken, leaks, tolerances, read = [], [], 0, 0
    dropped: Counter[str] = Counter({COPIES: 0})
    for record in records:
        where, read = record[0], read + 1
        if reason := benchmark.exclude(record):
            dropped[reason] += 1
            continue
        question, truth = question_of(record), ground_truth(name, record)
        if is_copy(where, question, truth, truths):
            dropped[COPIES] += 1
            continue
        if not benchmark.quotes_solutions and contains_solution(record, question):
            leaks.append(str(first_field(record, "id", "unique_id") or where))
        tolerances += first_field(record, "error") is not None
        extra = {"split": "test", "index": len(taken), "question": question, **about(record)}
        row = rows.make_row(name, question, instruction, truth, **extra)
        rows.check_row(where, row, COLUMNS)
        taken.append(row)
    if leaks:
        raise ValueError(
            f"{name}: {len(leaks)} of {len(taken)} problems contain their own solution "
            f"({', '.join(leaks[:3])}{' …' if len(leaks) > 3 else ''}), so a model could copy the "
            f"answers: use another copy of the set, such as {benchmark.hub}."
        )
    if not taken:
        raise ValueError(f"{name} has no row that can be taken of {read} read: give another file.")
    notes = [count_note(benchmark, len(taken))]
    if dropped[COPIES]:
        each = (len(taken) + dropped[COPIES]) / len(taken)
        notes.append(f"the source holds each problem {each:.3g} times")
    if tolerances:
        notes.append(f"answers with a tolerance (`error`), which the judge ignores: {tolerances}")
    if max_samples is not None:
        dropped[rows.BEYOND] = len(taken[max_samples:])
    return rows.Split(taken[:max_samples], read, dict(dropped), tuple(notes))


# --- the files of a set ---


def plain(name: str) -> str:
    """Returns a file's or folder's name in small letters without punctuation or shard number."""
    return re.sub(r"[^a-z0-9]", "", re.sub(r"-\d+-of-\d+$", "", name.lower()))


def belongs(path: Path, root: Path, benchmark: Benchmark) -> bool:
    """Tells whether a file is of the set, by its own name or by a folder's at or under `root`."""
    if plain(path.stem) in benchmark.names:
        return True
    folders = (root.name, *path.relative_to(root).parent.parts)
    stems = ("test",) if benchmark.has_train else ("test", "train")
    return plain(path.stem) in stems and any(plain(folder) in benchmark.names for folder in folders)


def find_files(root: Path, name: str) -> list[Path]:
    """Finds the files of a set in a folder; [] if there is none.

    Raises:
        ValueError: More than one file could be the set.
    """
    benchmark = BENCHMARKS[name]
    paths = [p for p in root.rglob("*") if p.suffix in SUFFIXES and belongs(p, root, benchmark)]
    if any(benchmark.config in path.parts for path in paths):
        paths = [path for path in paths if benchmark.config in path.parts]
    if any(plain(path.stem) != "train" for path in paths):
        paths = [path for path in paths if plain(path.stem) != "train"]
    shards: dict[tuple[Path, str], list[Path]] = {}  # of each candidate
    for path in sorted(paths, key=lambda path: (SUFFIXES.index(path.suffix), path)):
        files = shards.setdefault((path.parent, plain(path.stem)), [])
        if not files or files[0].suffix == path.suffix:
            files.append(path)
    if len(shards) > 1 and not {stem for _, stem in shards} <= {*benchmark.parts}:
        first, second = (files[0].relative_to(root) for files in list(shards.values())[:2])
        raise ValueError(
            f"--source {root} has {first} and {second} for {name}: give one of them as "
            f"--source FILE --sets {name}."
        )
    return sorted(path for files in shards.values() for path in files)


def set_of(path: Path, names: list[str] | None) -> str:
    """Returns the name of the set that a single file is: the one asked for, else by its name or
    its folders'."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"--source {path} must be one of {', '.join(SUFFIXES)}: convert it.")
    parts = {plain(part) for part in (path.stem, *[folder.name for folder in path.parents][:3])}
    names = names or [name for name, row in BENCHMARKS.items() if parts & {*row.names}]
    if len(names) != 1:
        raise ValueError(
            f"--source {path} is one file and makes one set: say which with --sets, one of "
            f"{', '.join(BENCHMARKS)}."
        )
    return names[0]


def locate(source: str, names: list[str] | None) -> dict[str, list[Path]]:
    """Finds the files of the sets asked for, or (names None) of those that `source` has.

    Raises:
        ValueError: There is no such file or folder, or it lacks a set that was asked for.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return {set_of(path, names): [path]}
    if not path.is_dir():
        raise ValueError(f"--source {source} does not exist: give a folder or a file.")
    files = {name: find_files(path, name) for name in names or BENCHMARKS}
    missing = [name for name, paths in files.items() if not paths]
    if len(missing) == len(files) or (names and missing):
        wanted = ", ".join(f"{name} (as {' or '.join(BENCHMARKS[name].names)})" for name in missing)
        raise ValueError(
            f"--source {source} has no {' or '.join(s[1:] for s in SUFFIXES)} file named after "
            f"{wanted}: rename it, or give --source FILE --sets NAME."
        )
    if missing:
        print(f"not in {source}, so left out: {', '.join(missing)}")
    return {name: paths for name, paths in files.items() if paths}


# --- the command ---


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command; `arguments` None means those of this process."""
    parser = cli.make_parser(
        __doc__,
        source="folder with the sets' files, or one file; without it the Hugging Face hub",
        folder="~/data/benchmarks",
        samples="the first N problems of each set",
        instruction=INSTRUCTION,
    )
    parser.add_argument(
        "--sets", nargs="+", choices=list(BENCHMARKS), help="default: all, or those in --source"
    )
    args = cli.parse(parser, arguments)
    folder = Path(args.local_save_dir).expanduser()

    names = list(dict.fromkeys(args.sets)) if args.sets else None
    records: dict[str, list[Record]] = {}
    origins: dict[str, dict[str, Any]] = {}
    if args.source is None:
        for name in names or BENCHMARKS:
            benchmark = BENCHMARKS[name]
            place = {"hub": benchmark.hub, "config": benchmark.config, "split": benchmark.split}
            records[name], origins[name] = sources.read_hub(*place.values()), place
    else:
        for name, files in locate(args.source, names).items():
            if (folder / f"{name}.parquet").resolve() in [path.resolve() for path in files]:
                raise ValueError(
                    f"--local_save_dir {args.local_save_dir} is where --source has {name}.parquet: "
                    "choose another folder."
                )
            records[name] = list(sources.read_records(files))
            origins[name] = sources.origin(files)

    options = {"instruction": args.instruction, "max_samples": args.max_samples}
    splits = {name: build(name, taken, **options) for name, taken in records.items()}
    rows.write(folder, splits, COLUMNS, {"options": options}, origins)
    for name, split in splits.items():
        cli.report(name, split, folder / f"{name}.parquet")


if __name__ == "__main__":
    sys.exit(cli.run(main))
