"""DAPO-Math-17k as verl's parquet files: `python data_prep/dapo_math.py [--source FOLDER]`.

Writes train.parquet and test.parquet, and beside each a .json with source, options, counts and
hash. The published file holds about 100 copies of each problem (1,791,700 rows): they are counted
and dropped. A problem that stands there with different answers is dropped, since one of them is
wrong. There is no test split: --test_size problems are held out, chosen by the hash of their text,
so that another order or another copy of the file holds out the same ones.

The wrapper around each problem ("Solve the following … Answer: $Answer …") is taken off and
--instruction put behind it, as all data here asks for \\boxed{}.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

if not __package__:  # run as a script: find the project, not this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data_prep import common

HUB = "BytedTsinghua-SIA/DAPO-Math-17k"
FILE = "dapo-math-17k.parquet"
BEFORE = "Solve the following math problem step by step."
AFTER = 'Remember to put your answer on its own line after "Answer:".'
INSTRUCTION = "Think step by step, and put the final answer in \\boxed{}."  # ours
COLUMNS = common.schema("question")
COPY, DISAGREE = "copies", "answers disagree"


def problem(text: str) -> str:
    """The problem without the published wrapper; a text without one stays as it is."""
    text = text.strip()
    if text.startswith(BEFORE) and "\n\n" in text:
        text = text.partition("\n\n")[2]
    return text.removesuffix(AFTER).strip()


def read_table(where: str, table: pa.Table) -> pd.DataFrame:
    """question, answer of each row, in order; errors name the first bad row."""
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
    rows = pd.DataFrame({"text": texts.to_pandas(), "answer": answers.to_pandas()})
    rows["question"] = rows["text"].map({t: problem(t or "") for t in rows["text"].unique()})
    rows["answer"] = rows["answer"].fillna("").str.strip()
    for name, source in (("question", "prompt"), ("answer", "reward_model.ground_truth")):
        blank = rows.index[rows[name] == ""]
        if len(blank):
            raise ValueError(f"{where} row {blank[0] + 1} has a blank {source}: mend it.")
    return rows[["question", "answer"]]


def build(
    rows: pd.DataFrame,
    test_size: int,
    instruction: str = INSTRUCTION,
    max_samples: int | None = None,
) -> dict[str, common.Split]:
    """Both splits in verl's schema; `index` counts distinct problems in the source's order."""
    distinct = rows.drop_duplicates()
    twice = distinct["question"].duplicated(keep=False)
    taken = distinct[~twice].reset_index(drop=True)
    dropped = {COPY: len(rows) - len(distinct), DISAGREE: int(twice.sum())}
    if test_size >= len(taken):
        raise ValueError(
            f"--test_size {test_size} leaves no training problem of {len(taken)}: use less."
        )
    digests = taken["question"].map(lambda text: hashlib.sha256(text.encode()).hexdigest())
    test = set(digests.sort_values().index[:test_size])
    splits = {"train": [], "test": []}
    for index, (question, answer) in enumerate(taken.itertuples(index=False)):
        split = "test" if index in test else "train"
        row = {
            "data_source": HUB,
            "prompt": [{"role": "user", "content": f"{question}\n{instruction}".strip()}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": answer},
            "extra_info": {"split": split, "index": index, "question": question},
        }
        common.check_row(f"problem {index}", row, COLUMNS)
        splits[split].append(row)
    beyond = len(splits["train"][max_samples:]) if max_samples is not None else 0
    kept = splits["train"][:max_samples]
    train = common.Split(kept, len(rows) - test_size, {**dropped, common.BEYOND: beyond})
    return {"train": train, "test": common.Split(splits["test"], test_size, {})}


def find_file(source: str) -> Path:
    path = Path(source).expanduser()
    if path.is_file():
        return path
    found = [p for p in (path / FILE, path / "data" / FILE) if p.is_file()]
    if not found:
        raise ValueError(f"--source {source} has no {FILE}: give that file or its folder.")
    return found[0]


def main() -> None:
    parser = common.parser_of(
        __doc__,
        source=f"{FILE} or its folder; without it {HUB} is loaded from the Hugging Face hub",
        folder="~/data/dapo_math",
        samples="the first N training problems",
        instruction=INSTRUCTION,
    )
    parser.add_argument("--test_size", type=int, default=500, help="default (ours): %(default)s")
    args = common.parse(parser)
    folder = Path(args.local_save_dir).expanduser()
    if args.source is None:
        where, table = HUB, common.hub_split(HUB, None, "train").with_format("arrow")[:]
        origin = {"hub": HUB}
    else:
        path = find_file(args.source)
        where = str(path)
        try:
            table = pq.read_table(path)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path} is not a parquet file: give a whole one.") from error
        origin = {"files": {path.name: common.sha256(path)}}
    splits = build(read_table(where, table), args.test_size, args.instruction, args.max_samples)
    options = {name: getattr(args, name) for name in ("instruction", "test_size", "max_samples")}
    facts = {
        split: {"dataset": HUB, "split": split, "source": origin, "options": options}
        for split in splits
    }
    common.write_splits(folder, splits, COLUMNS, facts)
    for split, result in splits.items():
        common.tell(split, result, folder / f"{split}.parquet")


if __name__ == "__main__":
    common.run(main)
