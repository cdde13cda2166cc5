"""GSM8K as verl's parquet files: `python data_prep/gsm8k.py [--source FOLDER]`.

Writes train.parquet and test.parquet, and beside each a .json with source, options, counts and
hash. Every row is checked. A row without `question`, `answer` or a number after `####` ends the
run. Dropped, and counted: a question that occurred before in its split ("duplicate"), a training
question that is also in the test split, and rows beyond --max_samples. Questions are compared
without outer blanks. The original files lose none: 7,473 and 1,319 rows.
"""

from __future__ import annotations

import re
import sys
from functools import partial
from typing import Any

from data_prep import cli, rows, sources
from data_prep.dataset import Dataset
from recipe.judge.reward import normalise

HUB = "openai/gsm8k"
INSTRUCTION = "Think step by step, and put the final answer as a plain number in \\boxed{}."  # ours
COLUMNS = rows.schema("answer", "question")


def final_answer(where: str, answer: str) -> str:
    """Returns what follows the last `####`, as a number without separators: "1,234" is "1234"."""
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


def to_row(record: sources.Record, split: str, index: int, instruction: str) -> dict[str, Any]:
    """Makes the row of a record."""
    question = sources.text_field(record, "question").strip()
    answer = sources.text_field(record, "answer")
    number = final_answer(record[0], answer)
    extra = {"split": split, "index": index, "answer": answer, "question": question}
    return rows.make_row(HUB, question, instruction, number, **extra)


GSM8K = Dataset(HUB, "main", "~/data/gsm8k", INSTRUCTION, COLUMNS, "question", to_row)
main = partial(GSM8K.prepare, __doc__)

if __name__ == "__main__":
    sys.exit(cli.run(main))
