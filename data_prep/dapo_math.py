"""DAPO-Math-17k as verl's parquet files: `python data_prep/dapo_math.py [--source FOLDER]`.

Writes train.parquet and test.parquet, and beside each a .json with source, options, counts and
hash. The published file holds about 100 copies of each problem (1,791,700 rows): they are counted
and dropped. A problem that occurs with different answers is dropped, since at most one of them is
correct. There is no test split: --test_size problems are held out, chosen by the hash of their
text, so that another order or another copy of the file holds out the same ones.

The wrapper around each problem ("Solve the following … Answer: $Answer …") is removed and
--instruction put after it, as all data here asks for \\boxed{}.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from data_prep import cli, rows, sources

HUB = "BytedTsinghua-SIA/DAPO-Math-17k"
FILE = "dapo-math-17k.parquet"
BEFORE = "Solve the following math problem step by step."
AFTER = 'Remember to put your answer on its own line after "Answer:".'
INSTRUCTION = "Think step by step, and put the final answer in \\boxed{}."  # ours
COLUMNS = rows.schema("question")
COPIES, DISAGREE = "copies", "answers disagree"  # reasons to drop a row


def without_wrapper(text: str) -> str:
    """Returns the problem of a published prompt; a text without the wrapper stays as it is."""
    text = text.strip()
    if text.startswith(BEFORE) and "\n\n" in text:
        text = text.partition("\n\n")[2]
    return text.removesuffix(AFTER).strip()


def as_text(where: str, row: int, answer: Any) -> str:
    """Returns a published answer as a text; "" for none.

    Raises:
        ValueError: It is neither a text nor a whole number.
    """
    if answer is None or (isinstance(answer, float) and math.isnan(answer)):
        return ""
    if isinstance(answer, float) and answer.is_integer():  # whole numbers in a column with a null
        answer = int(answer)
    if isinstance(answer, bool) or not isinstance(answer, str | int):
        raise ValueError(
            f"{where} row {row + 1} has reward_model.ground_truth={answer!r:.80}, which is neither "
            "a text nor a whole number: give the original."
        )
    return str(answer).strip()


def read_table(where: str, table: pa.Table) -> pd.DataFrame:
    """Reads question and answer of each row, in order.

    Raises:
        ValueError: The table is not of the published form; the message names `where` and the
            first bad row.
    """
    try:
        messages = table["prompt"].combine_chunks()
        answers = pc.struct_field(table["reward_model"].combine_chunks(), "ground_truth")
        lengths = pc.list_value_length(messages)
    except (KeyError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(
            f"{where} lacks `prompt` (a list of messages) or `reward_model.ground_truth`: give the "
            f"original file, {FILE}."
        ) from error
    if not len(table):
        raise ValueError(f"{where} has no rows: give the original file, {FILE}.")
    if pc.any(pc.not_equal(pc.fill_null(lengths, 0), 1)).as_py():
        row = pc.index(pc.equal(pc.fill_null(lengths, 0), 1), False).as_py()
        raise ValueError(f"{where} row {row + 1} has not one prompt message: give the original.")
    texts = pc.struct_field(pc.list_element(messages, 0), "content")
    # nearly all rows are copies, so each distinct text is looked at once
    pairs = pd.DataFrame({"text": texts.to_pandas(), "answer": answers.to_pylist()})
    questions = {text: without_wrapper(text or "") for text in pairs["text"].unique()}
    pairs["question"] = pairs["text"].map(questions)
    pairs["answer"] = [as_text(where, i, answer) for i, answer in enumerate(pairs["answer"])]
    for name, source in (("question", "prompt"), ("answer", "reward_model.ground_truth")):
        blank = pairs.index[pairs[name] == ""]
        if len(blank):
            raise ValueError(f"{where} row {blank[0] + 1} has a blank {source}: give the original.")
    return pairs[["question", "answer"]]


def build(
    pairs: pd.DataFrame,
    test_size: int,
    instruction: str = INSTRUCTION,
    max_samples: int | None = None,
) -> dict[str, rows.Split]:
    """Builds both splits; `index` counts distinct problems in the source's order.

    Args:
        pairs: question and answer of each published row, copies included.
        test_size: Number of problems that are held out.
        instruction: Put after each question.
        max_samples: At most so many training rows; None for all.

    Raises:
        ValueError: No training problem would be left.
    """
    distinct = pairs.drop_duplicates()
    ambiguous = distinct["question"].duplicated(keep=False)
    taken = distinct[~ambiguous].reset_index(drop=True)
    dropped = {COPIES: len(pairs) - len(distinct), DISAGREE: int(ambiguous.sum())}
    if test_size >= len(taken):
        raise ValueError(
            f"--test_size {test_size} leaves no training problem of {len(taken)}: use less."
        )
    digests = taken["question"].map(lambda text: hashlib.sha256(text.encode()).hexdigest())
    held_out = set(digests.sort_values().index[:test_size])
    train, test = [], []
    for index, (question, answer) in enumerate(taken.itertuples(index=False)):
        split = "test" if index in held_out else "train"
        extra = {"split": split, "index": index, "question": question}
        row = rows.make_row(HUB, question, instruction, answer, **extra)
        rows.check_row(f"problem {index}", row, COLUMNS)
        (test if index in held_out else train).append(row)
    dropped[rows.BEYOND] = len(train[max_samples:]) if max_samples is not None else 0
    return {
        "train": rows.Split(train[:max_samples], len(pairs) - test_size, dropped),
        "test": rows.Split(test, test_size, {}),
    }


def find_file(source: str) -> Path:
    """Finds the published file: `source` itself, or in that folder or its `data`."""
    path = Path(source).expanduser()
    candidates = (path, path / FILE, path / "data" / FILE)
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        raise ValueError(f"--source {source} has no {FILE}: give that file or its folder.")
    return file


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command; `arguments` None means those of this process."""
    parser = cli.make_parser(
        __doc__,
        source=f"{FILE} or its folder; without it {HUB} is loaded from the Hugging Face hub",
        folder="~/data/dapo_math",
        samples="the first N training problems",
        instruction=INSTRUCTION,
    )
    parser.add_argument("--test_size", type=int, default=500, help="default (ours): %(default)s")
    args = cli.parse(parser, arguments)
    folder = Path(args.local_save_dir).expanduser()
    if args.source is None:
        where, table = HUB, sources.load_hub(HUB, None, "train").with_format("arrow")[:]
        origin = {"hub": HUB}
    else:
        path = find_file(args.source)
        where, table, origin = str(path), sources.read_parquet(path), sources.origin([path])
    pairs = read_table(where, table)
    splits = build(pairs, args.test_size, args.instruction, args.max_samples)
    options = {name: getattr(args, name) for name in ("instruction", "test_size", "max_samples")}
    rows.write(folder, splits, COLUMNS, {"options": options}, dict.fromkeys(splits, origin))
    for name, split in splits.items():
        cli.report(name, split, folder / f"{name}.parquet")


if __name__ == "__main__":
    sys.exit(cli.run(main))
