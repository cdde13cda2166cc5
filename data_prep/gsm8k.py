"""GSM8K as verl's parquet files: `python data_prep/gsm8k.py [--source FOLDER]`.

Writes train.parquet and test.parquet, and beside each a .json with source, options, counts and
hash. Every row is checked. A row without `question`, `answer` or a number after `####` ends the
run. Dropped, and counted: a question that stood before in its split ("duplicate"), a training
question that is also in the test split, and rows beyond --max_samples. Questions are compared
without outer blanks. The original files lose none: 7,473 and 1,319 rows.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path

if not __package__:  # run as a script: find the project, not this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data_prep import common
from recipe.judge import normalise

HUB = "openai/gsm8k"
CONFIG = "main"
INSTRUCTION = "Think step by step, and put the final answer as a plain number in \\boxed{}."  # ours
COLUMNS = common.schema("answer", "question")
DUPLICATE, IN_TEST, BEYOND = "duplicate", "also in the test split", "beyond --max_samples"


def final_answer(where: str, answer: str) -> str:
    """What follows the last `####`, as a number without separators: "1,234" is "1234"."""
    _, mark, text = answer.rpartition("####")
    if not mark or not text.strip():
        raise ValueError(f"{where} has no final answer after `####`: give the original files.")
    number = normalise(text)
    if not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", number):
        raise ValueError(
            f"{where} has {text.strip()!r:.80} after `####`, which is not a number: "
            "give the original files."
        )
    return number


def build(
    records: Iterable[common.Record],
    split: str,
    instruction: str = INSTRUCTION,
    max_samples: int | None = None,
    held_out: frozenset[str] = frozenset(),
) -> common.Split:
    """The rows of a split in verl's schema; `index` counts the source's records from 0."""
    rows, seen, read = [], set(), 0
    dropped = {DUPLICATE: 0, IN_TEST: 0, BEYOND: 0}
    for index, record in enumerate(records):
        where, read = record[0], index + 1
        question = common.text_field(record, "question").strip()
        answer = common.text_field(record, "answer")
        row = {
            "data_source": HUB,
            "prompt": [{"role": "user", "content": f"{question}\n{instruction}".strip()}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": final_answer(where, answer)},
            "extra_info": {"split": split, "index": index, "answer": answer, "question": question},
        }
        common.check_row(where, row, COLUMNS)
        if question in seen:
            dropped[DUPLICATE] += 1
        elif question in held_out:
            dropped[IN_TEST] += 1
        elif max_samples is not None and len(rows) == max_samples:
            dropped[BEYOND] += 1
        else:
            rows.append(row)
        seen.add(question)
    if not rows:
        raise ValueError(f"The split `{split}` has no row that can be taken of {read} read.")
    return common.Split(rows, read, dropped)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--source",
        "--local_dataset_path",
        help="folder with train and test as .jsonl or .parquet, or one such file (only its split "
        f"is written); without it {HUB} is loaded from the Hugging Face hub",
    )
    parser.add_argument("--local_save_dir", default="~/data/gsm8k", help="default: %(default)s")
    parser.add_argument("--max_samples", type=int, help="the first N rows of each split")
    parser.add_argument(
        "--instruction",
        default=INSTRUCTION,
        help='after the question, on a line of its own; "" for none; default (ours): %(default)s',
    )
    args = parser.parse_args()
    if args.max_samples is not None and args.max_samples < 1:
        raise ValueError(f"--max_samples {args.max_samples} is not allowed: use 1 or more.")
    folder = Path(args.local_save_dir).expanduser()

    names = ["test", "train"]
    if args.source is None:
        records = common.read_hub(HUB, CONFIG, names)
        origin = {split: {"hub": HUB, "config": CONFIG} for split in names}
    else:
        if (file := Path(args.source).expanduser()).is_file():
            names = [split for split in names if re.match(rf"{split}\b", file.name)]
            if not names:
                raise ValueError(
                    f"--source {args.source} is a file of neither split: name it train.jsonl or "
                    "test.jsonl, or give its folder."
                )
        files = {split: common.find_files(args.source, split) for split in names}
        for path in (path for paths in files.values() for path in paths):
            if path.resolve().parent == folder.resolve() and path.suffix == ".parquet":
                raise ValueError(
                    f"--local_save_dir {args.local_save_dir} is where --source has {path.name}: "
                    "choose another folder."
                )
        records = {split: list(common.read_records(paths)) for split, paths in files.items()}
        origin = {
            split: {"files": {path.name: common.sha256(path) for path in paths}}
            for split, paths in files.items()
        }

    splits: dict[str, common.Split] = {}
    held_out: frozenset[str] = frozenset()
    for split in names:
        splits[split] = build(records[split], split, args.instruction, args.max_samples, held_out)
        held_out = frozenset(fields["question"].strip() for _, fields in records[split])
    options = {"instruction": args.instruction, "max_samples": args.max_samples}
    facts = {
        split: {"dataset": HUB, "split": split, "source": origin[split], "options": options}
        for split in names
    }
    common.write_splits(folder, splits, COLUMNS, facts)
    for split in sorted(names, reverse=True):
        common.tell(split, splits[split], folder / f"{split}.parquet")


if __name__ == "__main__":
    common.run(main)
