"""GSM8K as verl's parquet files: `python data_prep/gsm8k.py [--source FOLDER]`.

Writes train.parquet and test.parquet, and beside each a .json with source, options, counts and
hash. Every row is checked. A row without `question`, `answer` or a number after `####` ends the
run. Dropped, and counted: a question that stood before in its split ("duplicate"), a training
question that is also in the test split, and rows beyond --max_samples. Questions are compared
without outer blanks. The original files lose none: 7,473 and 1,319 rows.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

if not __package__:  # run as a script: find the project, not this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data_prep import common
from recipe.judge.reward import normalise

HUB = "openai/gsm8k"
INSTRUCTION = "Think step by step, and put the final answer as a plain number in \\boxed{}."  # ours
COLUMNS = common.schema("answer", "question")


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


def to_row(record: common.Record, split: str, index: int, instruction: str) -> dict:
    question = common.text_field(record, "question").strip()
    answer = common.text_field(record, "answer")
    return {
        "data_source": HUB,
        "prompt": [{"role": "user", "content": f"{question}\n{instruction}".strip()}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": final_answer(record[0], answer)},
        "extra_info": {"split": split, "index": index, "answer": answer, "question": question},
    }


GSM8K = common.Dataset(HUB, "main", "~/data/gsm8k", INSTRUCTION, COLUMNS, "question", to_row)

if __name__ == "__main__":
    common.run(lambda: common.prepare(GSM8K, __doc__))
