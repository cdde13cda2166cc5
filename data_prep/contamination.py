"""Evaluation problems in training data: `python data_prep/contamination.py TRAIN EVAL [EVAL ...]`.

Compares each problem of the training parquet with those of the evaluation parquets and prints, for
each evaluation file, how many problems it has in common and examples. Two problems are a pair if
their words are the same (exact), or if at least --threshold of the evaluation problem's n-grams of
words also occur in the training problem (n-gram; 0 means that a single n-gram is enough, which also
finds many problems that only share a phrase).

Words: NFKC, lower case, LaTeX's dollars, spacing and \\left \\right dropped, no blanks around
operators and brackets, split at blanks, without punctuation at their ends. The problem of a row is
`extra_info.question`, else `problem` or `question`, else the last user message, from which the
first and last words that all rows of its file share (an instruction) are removed. An evaluation
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep import cli, rows, sources
from recipe.core.files import atomic_write

EXAMPLES, WIDTH = 3, 100  # printed per file; characters of each
AFFIX = 4  # words: a shorter beginning or end that all rows share is no instruction
COMMON = 100  # an n-gram in more problems of one file is a phrase and makes no candidates
NOISE = re.compile(r"\\(?:left|right|displaystyle|quad|qquad)(?![a-z])|\\[,;:!()\[\]]|[$~]|\\ ")
JOINED = re.compile(r" ?([-+*/^_=<>{}()\[\]|]) ?")

Words = tuple[str, ...]


class Pair(NamedTuple):
    """An evaluation problem and a training problem that overlap."""

    eval_file: str
    eval_row: int
    train_row: int
    kind: str  # "exact" or "n-gram"
    overlap: float  # share of the evaluation problem's n-grams, 0 to 1; 1 if exact
    shared: str  # the longest sequence of words in common
    eval_text: str
    train_text: str


class Problems(NamedTuple):
    """The problems of one file."""

    path: Path
    texts: list[str]
    words: list[Words]


def split_words(text: str) -> Words:
    """Returns the words by which problems are compared, as the module's docstring defines them."""
    text = unicodedata.normalize("NFKC", text).lower()
    text = re.sub(r"\\[dt]frac(?![a-z])", r"\\frac", text)
    text = JOINED.sub(r"\1", " ".join(NOISE.sub(" ", text).split()))
    stripped = (word.strip(".,;:?!'\"`") for word in text.split())
    return tuple(word for word in stripped if word)


def ngrams(words: Words, size: int) -> set[Words]:
    """Returns all sequences of `size` words; none if there are fewer words."""
    return {words[i : i + size] for i in range(len(words) - size + 1)}


def problem_of(row: dict[str, Any]) -> tuple[str, bool] | None:
    """Returns a problem's text and whether it is a prompt, with its instruction; None if it has
    neither."""
    extra = row.get("extra_info") or {}
    for text in (extra.get("question"), row.get("problem"), row.get("question")):
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
    """Returns how many words all texts begin with; 0 if too few for an instruction."""
    first, last = min(texts), max(texts)
    equal = (a == b for a, b in zip(first, last, strict=False))
    length = next((i for i, same in enumerate(equal) if not same), len(first))
    return length if length >= AFFIX else 0


def without_instruction(texts: list[Words]) -> list[Words]:
    """Removes the words that all prompts begin or end with; equal prompts stay as they are."""
    if len(set(texts)) < 2:
        return texts
    start = shared_start(texts)
    end = shared_start([text[::-1] for text in texts])
    return [text[start : len(text) - end] for text in texts]


def read(path: Path) -> Problems:
    """Reads the problems of a parquet file.

    Raises:
        ValueError: It is no parquet file, or a row has no problem (the message names the first).
    """
    if not path.is_file():
        raise ValueError(f"{path} is no file: give a parquet file that data_prep wrote.")
    table = sources.read_parquet(path, ["extra_info", "prompt", "problem", "question"])
    problems = [problem_of(row) for row in table.to_pylist()]
    if None in problems or not problems:
        where = f"row {problems.index(None)}" if problems else "no row"
        raise ValueError(
            f"{path} has no problem ({where}): give a file in verl's schema, with a user message "
            "in `prompt` or a text in `extra_info.question`, `problem` or `question`."
        )
    words = [split_words(text) for text, _ in problems]
    if all(is_prompt for _, is_prompt in problems):
        words = without_instruction(words)
    return Problems(path, [text for text, _ in problems], words)


def longest_shared(eval_words: Words, train_ngrams: set[Words], size: int) -> str:
    """Returns the longest sequence of the evaluation problem's words of which every n-gram is
    among `train_ngrams`; the first of equally long ones."""
    best, start = (0, 0), None
    for i in range(len(eval_words) - size + 2):
        if i <= len(eval_words) - size and eval_words[i : i + size] in train_ngrams:
            start = i if start is None else start
        elif start is not None:
            best, start = max(best, (i - start, -start)), None
    length, start = best
    return " ".join(eval_words[-start : -start + length + size - 1]) if length else ""


def find_pairs(train: Problems, evals: Problems, ngram: int, threshold: float) -> list[Pair]:
    """Finds the pairs, in the order of the evaluation file.

    An index over the n-grams finds the candidates, so the time does not grow with the product of
    the two sizes. Equal problems of a file are compared once.

    Args:
        train: The training problems.
        evals: The evaluation problems.
        ngram: Words of an n-gram.
        threshold: Share of an evaluation problem's n-grams, 0 to 1, from which on it makes a pair.
    """
    eval_rows, train_rows = defaultdict(list), defaultdict(list)
    for places, problems in ((eval_rows, evals), (train_rows, train)):
        for row, words in enumerate(problems.words):
            places[words].append(row)
    index: dict[Words, list[Words]] = defaultdict(list)
    eval_ngrams = {words: ngrams(words, ngram) for words in eval_rows}
    for words, grams in eval_ngrams.items():
        for gram in grams:
            index[gram].append(words)

    pairs: list[Pair] = []

    def add(eval_words: Words, train_words: Words, kind: str, overlap: float, shared: str) -> None:
        for eval_row in eval_rows[eval_words]:
            for train_row in train_rows[train_words]:
                texts = evals.texts[eval_row], train.texts[train_row]
                place = evals.path.name, eval_row, train_row
                pairs.append(Pair(*place, kind, round(overlap, 4), shared, *texts))

    for train_words in train_rows:
        if train_words and train_words in eval_rows:
            add(train_words, train_words, "exact", 1.0, " ".join(train_words))
        grams = ngrams(train_words, ngram)
        hits = [index[gram] for gram in grams if gram in index]
        candidates = Counter(words for hit in hits if len(hit) <= COMMON for words in hit)
        for eval_words in candidates:
            overlap = len(eval_ngrams[eval_words] & grams) / len(eval_ngrams[eval_words])
            if eval_words != train_words and overlap >= threshold:
                shared = longest_shared(eval_words, grams, ngram)
                add(eval_words, train_words, "n-gram", overlap, shared)
    return sorted(pairs, key=lambda pair: (pair.eval_row, -pair.overlap, pair.train_row))


def shorten(text: str) -> str:
    """Returns a text on a single line of at most WIDTH characters."""
    text = " ".join(text.split())
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 2]} …"


def report(evals: Problems, pairs: list[Pair], ngram: int, threshold: float) -> None:
    """Prints how many problems of an evaluation file are in pairs, with the first EXAMPLES."""
    exact = {pair.eval_row for pair in pairs if pair.kind == "exact"}
    close = {pair.eval_row for pair in pairs} - exact
    tiny = sum(len(words) < ngram for words in evals.words)
    also = f"; {tiny} of fewer than {ngram} words only compared exactly" if tiny else ""
    print(
        f"{evals.path}: {len(evals.words)} problems, {len(exact)} exactly in the training data, "
        f"{len(close)} more with an overlap of {threshold:g} or more in {ngram}-grams{also}"
    )
    first: dict[int, Pair] = {}
    for pair in pairs:
        first.setdefault(pair.eval_row, pair)
    for pair in list(first.values())[:EXAMPLES]:
        print(
            f"    {pair.kind} {pair.overlap:.2f}, row {pair.eval_row} and training row "
            f"{pair.train_row}\n        {shorten(pair.eval_text)}\n        "
            f"{shorten(pair.train_text)}"
        )


def write_pairs(path: Path, pairs: list[Pair]) -> None:
    """Writes the pairs as .csv or .parquet, by the path's suffix."""
    table = pd.DataFrame(pairs, columns=Pair._fields)
    save = table.to_csv if path.suffix == ".csv" else table.to_parquet
    with rows.write_errors("--out", path), atomic_write(path) as file:
        save(file, index=False)


def check(args: argparse.Namespace) -> None:
    """Raises ValueError for values that are not allowed, and where a file would be replaced that
    is read."""
    if args.ngram < 1:
        raise ValueError(f"--ngram {args.ngram} is not allowed: use 1 or more words.")
    if not 0 <= args.threshold <= 1:
        raise ValueError(f"--threshold {args.threshold} is not allowed: use a share from 0 to 1.")
    if args.out and args.out.suffix not in (".csv", ".parquet"):
        raise ValueError(f"--out {args.out} is not allowed: end it in .csv or .parquet.")
    if args.clean and args.clean.suffix != ".parquet":
        raise ValueError(f"--clean {args.clean} is not allowed: end it in .parquet.")
    inputs = {path.resolve() for path in (args.train, *args.eval)}
    for option, path in (("--out", args.out), ("--clean", args.clean)):
        if path and path.resolve() in inputs:
            raise ValueError(f"{option} {path} is one of the files compared: choose another name.")
    if args.out and args.clean and args.out.resolve() == args.clean.resolve():
        raise ValueError(f"--out and --clean are both {args.out}: choose another name for one.")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses and checks the flags; `arguments` None means those of this process."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("train", type=Path, metavar="TRAIN.parquet")
    parser.add_argument("eval", type=Path, nargs="+", metavar="EVAL.parquet")
    parser.add_argument(
        "--ngram", type=int, default=8, help="words per n-gram; default: %(default)s"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.5,
        help="share of an evaluation problem's n-grams that makes a pair; "
        "default (ours): %(default)s",
    )
    parser.add_argument("--out", type=Path, help="the pairs, as .csv or .parquet")
    parser.add_argument(
        "--clean", type=Path, help="the training data without the rows of pairs, as .parquet"
    )
    args = parser.parse_args(arguments)
    check(args)
    return args


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command; `arguments` None means those of this process."""
    args = parse(arguments)
    train = read(args.train)
    pairs: list[Pair] = []
    for evals in [read(path) for path in args.eval]:
        new = find_pairs(train, evals, args.ngram, args.threshold)
        report(evals, new, args.ngram, args.threshold)
        pairs += new
    hit = {pair.train_row for pair in pairs}
    print(
        f"{args.train}: {len(hit)} of {len(train.words)} training rows "
        f"({len(hit) / len(train.words):.2%}) are in {len(pairs)} pairs"
    )
    if args.out:
        write_pairs(args.out, pairs)
        print(f"{len(pairs)} pairs -> {args.out}")
    if args.clean:
        if len(hit) == len(train.words):
            raise ValueError(
                f"--clean {args.clean} would have no row, as each training row is in a pair: leave "
                "it out, or give other training data."
            )
        table = pq.read_table(args.train)
        kept = table.filter(pa.array(row not in hit for row in range(len(table))))
        with rows.write_errors("--clean", args.clean), atomic_write(args.clean) as file:
            pq.write_table(kept, file)
        print(f"{len(kept)} training rows, {len(hit)} left out -> {args.clean}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
