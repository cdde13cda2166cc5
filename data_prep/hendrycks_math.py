"""MATH (Hendrycks) as verl's parquet files: `python data_prep/hendrycks_math.py [--source FOLDER]`.

Writes train.parquet and test.parquet, and beside each a .json with source, options, counts and
hash. Every row is checked. A row without `problem`, or whose `solution` has no complete \\boxed{},
ends the run; the last box is the answer. Dropped, and counted: a problem that occurred before in
its split ("duplicate"), a training problem that is also in the test split, and rows beyond
--max_samples. The original has 7,500 and 5,000 rows.
"""

from __future__ import annotations

import re
import sys
from functools import partial
from typing import Any

from data_prep import cli, rows, sources
from data_prep.dataset import Dataset
from recipe.judge.reward import extract_answer

HUB = "DigitalLearningGmbH/MATH-lighteval"
INSTRUCTION = "Think step by step, and put the final answer in \\boxed{}."  # ours
BARE_BOX = re.compile(r"\\boxed\s*([0-9A-Za-z]+)")
COLUMNS = rows.schema("question", "solution", "level", "type")


def to_row(record: sources.Record, split: str, index: int, instruction: str) -> dict[str, Any]:
    """Makes the row of a record."""
    problem = sources.text_field(record, "problem").strip()
    solution = sources.text_field(record, "solution")
    answer = extract_answer(solution, boxed_only=True)
    if not answer:  # a few solutions have \boxed 5, without braces
        bare = BARE_BOX.findall(solution)
        answer = bare[-1] if bare else ""
    if not answer:
        raise ValueError(
            f"{record[0]} has no complete \\boxed{{}} in its solution: give the original files."
        )
    extra = {"split": split, "index": index, "question": problem, "solution": solution}
    extra |= {name: str(record[1].get(name) or "") for name in ("level", "type")}
    return rows.make_row(HUB, problem, instruction, answer, **extra)


MATH = Dataset(HUB, None, "~/data/hendrycks_math", INSTRUCTION, COLUMNS, "problem", to_row)
main = partial(MATH.prepare, __doc__)

if __name__ == "__main__":
    sys.exit(cli.run(main))
