"""MATH (Hendrycks) as verl's parquet files: `python data_prep/hendrycks_math.py [--source FOLDER]`.

Writes train.parquet and test.parquet, and beside each a .json with source, options, counts and
hash. Every row is checked. A row without `problem`, or whose `solution` has no complete \\boxed{},
ends the run; the last box is the answer. Dropped, and counted: a problem that stood before in its
split ("duplicate"), a training problem that is also in the test split, and rows beyond
--max_samples. The original has 7,500 and 5,000 rows.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

if not __package__:  # run as a script: find the project, not this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data_prep import common
from recipe.judge.reward import extract_answer

HUB = "DigitalLearningGmbH/MATH-lighteval"
INSTRUCTION = "Think step by step, and put the final answer in \\boxed{}."  # ours
BARE_BOX = re.compile(r"\\boxed\s*([0-9A-Za-z]+)")
COLUMNS = common.schema("question", "solution", "level", "type")


def to_row(record: common.Record, split: str, index: int, instruction: str) -> dict:
    problem = common.text_field(record, "problem").strip()
    solution = common.text_field(record, "solution")
    answer = extract_answer(solution, boxed_only=True)
    if not answer:  # a few solutions have \boxed 5, without braces
        bare = BARE_BOX.findall(solution)
        answer = bare[-1] if bare else ""
    if not answer:
        raise ValueError(
            f"{record[0]} has no complete \\boxed{{}} in its solution: give the original files."
        )
    about = {name: str(record[1].get(name) or "") for name in ("level", "type")}
    return {
        "data_source": HUB,
        "prompt": [{"role": "user", "content": f"{problem}\n{instruction}".strip()}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": answer},
        "extra_info": {
            **{"split": split, "index": index, "question": problem, "solution": solution},
            **about,
        },
    }


MATH = common.Dataset(HUB, None, "~/data/hendrycks_math", INSTRUCTION, COLUMNS, "problem", to_row)

if __name__ == "__main__":
    common.run(lambda: common.prepare(MATH, __doc__))
