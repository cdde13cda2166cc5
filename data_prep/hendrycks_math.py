"""MATH (Hendrycks) as verl's parquet files: `python data_prep/hendrycks_math.py [--source FOLDER]`.

Writes train.parquet and test.parquet, and beside each a .json with source, options, counts and
hash. Every row is checked. A row without `problem`, or whose `solution` has no complete \\boxed{},
ends the run. Of several boxes that differ, all are the answer where the problem asks for several,
each is accepted where problem or solution say so, else the last one is the answer. Dropped, and
counted: a problem that occurred before in its split ("duplicate"), a training problem that is also
in the test split, boxes that are part of a problem's notation, and rows beyond --max_samples. The
original has 7,500 and 5,000 rows.
"""

from __future__ import annotations

import json
import re
import sys
from functools import partial
from typing import Any

from data_prep import cli, rows, sources
from data_prep.dataset import Dataset
from recipe.judge.equivalence import Equivalence
from recipe.judge.reward import boxes

HUB = "DigitalLearningGmbH/MATH-lighteval"
INSTRUCTION = "Think step by step, and put the final answer in \\boxed{}."  # ours
BARE_BOX = re.compile(r"\\boxed\s*([0-9A-Za-z]+)")
NOTATION = "boxes that are notation"  # a reason to drop a row
BLANK = re.compile(r"\\h?phantom\{[^{}]*\}")  # in a box to be filled
ASKS_FOR_ONE_OF = re.compile(r"enter only one|one of the (?:foci|vert)|either of", re.IGNORECASE)
ACCEPTS = re.compile(
    r"also (?:be )?accepted|acceptable answer|either\b[^.]{0,40}\bis (?:a )?correct", re.IGNORECASE
)
ASKS_FOR_ALL = re.compile(
    r"separated by commas|find all|all (?:the )?(?:possible|real|solutions|values)|find the angles"
    r"|multiple (?:solutions|answers|values)|what are the",
    re.IGNORECASE,
)
EQUIVALENCE = Equivalence()
COLUMNS = rows.schema("question", "solution", "level", "type")


def boxed_answer(problem: str, solution: str) -> str:
    """Returns the answer that a solution's boxes give, as `recipe.judge` takes it; "" without one.

    Raises:
        rows.Dropped: The boxes are part of the problem's notation.
    """
    texts = [text for text in boxes(solution) if not BLANK.fullmatch(text)]
    read = [EQUIVALENCE.read(text) for text in texts]
    different = [
        text
        for i, text in enumerate(texts)
        if not any(EQUIVALENCE.equivalent(read[i], later) for later in read[i + 1 :])
    ]  # of equal ones the last
    if len(different) < 2:
        return texts[-1] if texts else ""
    if boxes(problem):
        raise rows.Dropped(NOTATION)
    if ASKS_FOR_ONE_OF.search(problem) or ACCEPTS.search(solution):
        return json.dumps(different)
    return ", ".join(different) if ASKS_FOR_ALL.search(problem) else different[-1]


def to_row(record: sources.Record, split: str, index: int, instruction: str) -> dict[str, Any]:
    """Makes the row of a record."""
    problem = sources.text_field(record, "problem").strip()
    solution = sources.text_field(record, "solution")
    answer = boxed_answer(problem, solution)
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
