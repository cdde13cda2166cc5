"""Evaluation problems in training data: `python data_prep/contamination.py TRAIN EVAL [EVAL ...]`.

Compares each problem of the training parquet with those of the evaluation parquets and prints, for
each evaluation file, how many problems it has in common and examples. Two problems are a pair if
their words are the same (exact), or if at least --threshold of the evaluation problem's runs of
--ngram words also stand in the training problem (n-gram; 0 means one run is enough, which also
finds many problems that only share a phrase).

Words: NFKC, small letters, LaTeX's dollars, spacing and \\left \\right dropped, no blanks around
operators and brackets, split at blanks, without punctuation at their ends. The problem of a row is
`extra_info.question`, else `problem` or `question`, else the last user message, from which the
first and last words that all rows of its file share (an instruction) are taken off. An evaluation
problem of fewer than --ngram words is only compared exactly.

--out writes the pairs as .csv or .parquet. --clean writes the training data without the rows of
any pair. Rows are counted from 0.
"""

from __future__ import annotations

import argparse
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

if not __package__:  # run as a script: find the project, not this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data_prep import common
from recipe.core.files import whole

EXAMPLES, WIDTH = 3, 100  # printed a file; characters of each
AFFIX = 4  # words: a shorter beginning or end that all rows share is no instruction
COMMON = 100  # a run of words in more problems of one file is a phrase and makes no candidates
NOISE = re.compile(r"\\(?:left|right|displaystyle|quad|qquad)(?![a-z])|\\[,;:!()\[\]]|[$~]|\\ ")
JOINED = re.compile(r" ?([-+*/^_=<>{}()\[\]|]) ?")

Words = tuple[str, ...]


class Pair(NamedTuple):
    eval_file: str
    eval_row: int
    train_row: int
    kind: str  # "exact" or "n-gram"
    overlap: float  # share of the evaluation problem's runs of words; 1 if exact
    shared: str  # the longest run of words in common
    eval_text: str
    train_text: str


def words_of(text: str) -> Words:
    """The words by which problems are compared, as the module docstring defines them."""
    text = unicodedata.normalize("NFKC", text).lower()
    text = re.sub(r"\\[dt]frac(?![a-z])", r"\\frac", text)
    text = JOINED.sub(r"\1", " ".join(NOISE.sub(" ", text).split()))
    stripped = (word.strip(".,;:?!'\"`") for word in text.split())
    return tuple(word for word in stripped if word)


def runs_of(words: Words, size: int) -> set[Words]:
    return {words[i : i + size] for i in range(len(words) - size + 1)}


def problem_of(row: dict[str, Any]) -> tuple[str, bool] | None:
    """The problem's text, and whether it is a whole prompt with the instruction."""
    fields = [
        (row.get("extra_info") or {}).get("question"),
        row.get("problem"),
        row.get("question"),
    ]
    for text in fields:
        if isinstance(text, str) and text.strip():
            return text, False
    messages = row.get("prompt") or []
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    for message in reversed(messages):
        if message.get("role") == "user" and message.get("content"):
            return message["content"], True
    return None


def shared_start(texts: list[Words]) -> int:
    """How many words all texts begin with; 0 if too few for an instruction."""
    first, last = min(texts), max(texts)
    same = (a == b for a, b in zip(first, last, strict=False))
    length = next((i for i, equal in enumerate(same) if not equal), len(first))
    return length if length >= AFFIX else 0


def without_instruction(texts: list[Words]) -> list[Words]:
    """Prompts without the words that all of them begin or end with."""
    if len(set(texts)) < 2:
        return texts
    start = shared_start(texts)
    end = shared_start([text[::-1] for text in texts])
    return [text[start : len(text) - end] for text in texts]


class Problems(NamedTuple):
    """The problems of one file."""

    path: Path
    texts: list[str]
    words: list[Words]


def read(path: Path) -> Problems:
    """The problems of a parquet file; errors name the first row that has none."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist: give a parquet file that data_prep wrote.")
    try:
        names = pq.read_schema(path).names
        columns = [n for n in ("extra_info", "prompt", "problem", "question") if n in names]
        rows = pq.read_table(path, columns=columns).to_pylist()
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a parquet file: give a whole one.") from error
    found = [problem_of(row) for row in rows]
    if None in found or not found:
        where = f"row {found.index(None)}" if found else "no row"
        raise ValueError(
            f"{path} has no problem ({where}): give a file in verl's schema, with a user message "
            "in `prompt` or a text in `extra_info.question`, `problem` or `question`."
        )
    words = [words_of(text) for text, _ in found]
    if all(is_prompt for _, is_prompt in found):
        words = without_instruction(words)
    return Problems(path, [text for text, _ in found], words)


def longest_shared(eval_words: Words, runs: set[Words], size: int) -> str:
    """The longest run of the evaluation problem's words of which every part is among `runs`."""
    best, start = (0, 0), None
    for i in range(len(eval_words) - size + 2):
        if i <= len(eval_words) - size and eval_words[i : i + size] in runs:
            start = i if start is None else start
        elif start is not None:
            best, start = max(best, (i - start, -start)), None
    length, start = best
    return " ".join(eval_words[-start : -start + length + size - 1]) if length else ""


def pairs_of(train: Problems, evals: Problems, ngram: int, threshold: float) -> list[Pair]:
    """The pairs in the order of the evaluation file.

    An index over the runs of words finds the candidates, so the time does not grow with the
    product of the two sizes. Equal problems of a file are looked at once.
    """
    eval_rows, train_rows = defaultdict(list), defaultdict(list)
    for rows, problems in ((eval_rows, evals), (train_rows, train)):
        for row, words in enumerate(problems.words):
            rows[words].append(row)
    index: dict[Words, list[Words]] = defaultdict(list)
    runs = {words: runs_of(words, ngram) for words in eval_rows}
    for words, its_runs in runs.items():
        for run in its_runs:
            index[run].append(words)

    found: list[Pair] = []

    def add(ours: Words, theirs: Words, kind: str, overlap: float, shared: str) -> None:
        for eval_row in eval_rows[ours]:
            for train_row in train_rows[theirs]:
                texts = evals.texts[eval_row], train.texts[train_row]
                place = evals.path.name, eval_row, train_row
                found.append(Pair(*place, kind, round(overlap, 4), shared, *texts))

    for theirs in train_rows:
        if theirs and theirs in eval_rows:
            add(theirs, theirs, "exact", 1.0, " ".join(theirs))
        its_runs = runs_of(theirs, ngram)
        hits = [index[run] for run in its_runs if run in index]
        candidates = Counter(ours for hit in hits if len(hit) <= COMMON for ours in hit)
        for ours in candidates:
            overlap = len(runs[ours] & its_runs) / len(runs[ours])
            if ours != theirs and overlap >= threshold:
                add(ours, theirs, "n-gram", overlap, longest_shared(ours, its_runs, ngram))
    return sorted(found, key=lambda pair: (pair.eval_row, -pair.overlap, pair.train_row))


def write(path: Path, writer: Callable[[Path], None], option: str) -> None:
    try:
        with whole(path) as temporary:
            writer(temporary)
    except OSError as error:
        raise ValueError(
            f"{option} {path} cannot be written ({error.strerror or error}): choose another file, "
            "or make room."
        ) from error


def short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 2]} …"


def tell(evals: Problems, pairs: list[Pair], ngram: int, threshold: float) -> None:
    exact = {pair.eval_row for pair in pairs if pair.kind == "exact"}
    close = {pair.eval_row for pair in pairs} - exact
    tiny = sum(len(words) < ngram for words in evals.words)
    also = f"; {tiny} of fewer than {ngram} words only compared exactly" if tiny else ""
    print(
        f"{evals.path}: {len(evals.words)} problems, {len(exact)} exactly in the training data, "
        f"{len(close)} more with an overlap of {threshold:g} or more in {ngram}-grams{also}"
    )
    seen: set[int] = set()
    for pair in pairs:
        if pair.eval_row not in seen and len(seen) < EXAMPLES:
            seen.add(pair.eval_row)
            print(
                f"    {pair.kind} {pair.overlap:.2f}, row {pair.eval_row} and training row "
                f"{pair.train_row}\n        {short(pair.eval_text)}\n        "
                f"{short(pair.train_text)}"
            )


def check(args: argparse.Namespace) -> None:
    if args.ngram < 1:
        raise ValueError(f"--ngram {args.ngram} is not allowed: use 1 or more words.")
    if not 0 <= args.threshold <= 1:
        raise ValueError(f"--threshold {args.threshold} is not allowed: use a share from 0 to 1.")
    if args.out and args.out.suffix not in (".csv", ".parquet"):
        raise ValueError(f"--out {args.out} is not allowed: end it in .csv or .parquet.")
    inputs = {path.resolve() for path in (args.train, *args.eval)}
    outputs = [("--out", args.out), ("--clean", args.clean)]
    for option, path in outputs:
        if path and path.resolve() in inputs:
            raise ValueError(f"{option} {path} is one of the files compared: choose another name.")
    if args.out and args.clean and args.out.resolve() == args.clean.resolve():
        raise ValueError(f"--out and --clean are both {args.out}: choose another name for one.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("train", type=Path, metavar="TRAIN.parquet")
    parser.add_argument("eval", type=Path, nargs="+", metavar="EVAL.parquet")
    parser.add_argument("--ngram", type=int, default=8, help="words a run; default: %(default)s")
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.5,
        help="share of an evaluation problem's runs that makes a pair; default (ours): %(default)s",
    )
    parser.add_argument("--out", type=Path, help="the pairs, as .csv or .parquet")
    parser.add_argument("--clean", type=Path, help="the training data without their rows")
    args = parser.parse_args()
    check(args)

    train = read(args.train)
    pairs: list[Pair] = []
    for evals in [read(path) for path in args.eval]:
        found = pairs_of(train, evals, args.ngram, args.threshold)
        tell(evals, found, args.ngram, args.threshold)
        pairs += found
    hit = {pair.train_row for pair in pairs}
    print(
        f"{args.train}: {len(hit)} of {len(train.words)} training rows "
        f"({len(hit) / len(train.words):.2%}) are in {len(pairs)} pairs"
    )
    if args.clean and len(hit) == len(train.words):
        raise ValueError(f"--clean {args.clean} would have no row: each is in a pair.")
    if args.out:
        table = pd.DataFrame(pairs, columns=Pair._fields)
        as_csv = args.out.suffix == ".csv"
        save = table.to_csv if as_csv else table.to_parquet
        write(args.out, lambda path: save(path, index=False), "--out")
        print(f"{len(pairs)} pairs -> {args.out}")
    if args.clean:
        table = pq.read_table(args.train)
        kept = table.filter(pa.array(row not in hit for row in range(len(table))))
        write(args.clean, lambda path: pq.write_table(kept, path), "--clean")
        print(f"{len(kept)} training rows, {len(hit)} left out -> {args.clean}")


if __name__ == "__main__":
    common.run(main)
