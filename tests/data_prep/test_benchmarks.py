"""`data_prep/benchmarks.py` on small files in the field layouts that the sources publish.

The layouts were read off the published files of Qwen2.5-Math, simpleRL-reason and
math-evaluation-harness, and off dataset cards and loaders for those of the hub. The problems are
made up.
"""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import benchmarks
from data_prep.benchmarks import build, contains_solution, ground_truth
from data_prep.eval_sets import BENCHMARKS, Benchmark, published_answers, spellings
from recipe.judge.reward import accepted_answers, compute_score

SCRIPT = Path(benchmarks.__file__)
REAL = SCRIPT.parents[2] / "shared" / "data" / "gsm8k" / "test.jsonl"
URL = "https://artofproblemsolving.com/wiki/index.php"
WRAPPER = (
    "Solve the following math problem step by step. The last line of your response should be of "
    "the form Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n"
    '{}\n\nRemember to put your answer on its own line after "Answer:".'
)
OLYMPIAD = {  # Hothan/OlympiadBench; Qwen2.5-Math has no image_*, modality … language
    "id": 1606,
    "question": "What is $1+1$?",
    "solution": ["It is 2."],
    "final_answer": ["2"],
    "context": None,
    "image_1": None,
    "modality": "Text-only",
    "difficulty": "Competition",
    "is_multiple_answer": False,
    "unit": None,
    "answer_type": "Numerical",
    "error": None,
    "question_type": "Open-ended",
    "subfield": "Algebra",
    "subject": "Math",
    "language": "English",
}

# source -> (set, one row, the problem, the ground truth)
SHAPES = {
    "openai/gsm8k": (
        "gsm8k",
        {"question": "Two dozens?", "answer": "2*12=<<2*12=24>>24\n#### 1,024"},
        "Two dozens?",
        "1024",
    ),
    "Qwen2.5-Math gsm8k": (
        "gsm8k",
        {"question": "Two dozens?", "answer": "#### 24", "idx": 0},
        "Two dozens?",
        "24",
    ),
    "HuggingFaceH4/MATH-500, prm800k, simpleRL-reason math500, harness math_oai": (
        "math500",
        {
            "problem": "Convert $(0,3)$.",
            "solution": "It is $\\boxed{\\left( 3, \\frac{\\pi}{2} \\right)}$.",
            "answer": "\\left( 3, \\frac{\\pi}{2} \\right)",
            "subject": "Precalculus",
            "level": 2,
            "unique_id": "test/precalculus/807.json",
        },
        "Convert $(0,3)$.",
        "\\left( 3, \\frac{\\pi}{2} \\right)",
    ),
    "HuggingFaceH4/aime_2024": (
        "aime24",
        {
            **{"id": 60, "problem": "Find $n$.", "solution": "Then $n=\\boxed{025}$."},
            **{"answer": "025", "url": f"{URL}/2024_AIME_I_Problems/Problem_1", "year": "2024"},
        },
        "Find $n$.",
        "25",
    ),
    "Qwen2.5-Math aime24": (
        "aime24",
        {
            **{"id": 60, "problem": "Find $n$.", "solution": "s", "answer": "204"},
            **{"url": f"{URL}/2024_AIME_I_Problems/Problem_1", "question": "Find $n$."},
        },
        "Find $n$.",
        "204",
    ),
    "Maxwell-Jia/AIME_2024": (
        "aime24",
        {"ID": "2024-II-4", "Problem": "Find $n$.", "Solution": "So 33.", "Answer": 33},
        "Find $n$.",
        "33",
    ),
    "math-ai/aime24": (
        "aime24",
        {"id": 60, "problem": "Find $n$.", "solution": "\\boxed{204}", "url": "…"},
        "Find $n$.",
        "204",
    ),
    "BytedTsinghua-SIA/AIME-2024": (
        "aime24",
        {
            "data_source": "math_dapo",
            "prompt": [{"role": "user", "content": WRAPPER.format("Find\n\n$n$.")}],
            "ability": "MATH",
            "reward_model": {"style": "rule-lighteval/MATH_v2", "ground_truth": "33"},
            "extra_info": {"index": 0, "raw_problem": "Find\n\n$n$.", "split": None},
        },
        "Find\n\n$n$.",
        "33",
    ),
    "a verl file without raw_problem": (
        "aime24",
        {
            "prompt": [{"role": "user", "content": WRAPPER.format("Find\n\n$n$.")}],
            "reward_model": {"style": "rule", "ground_truth": "033"},
        },
        "Find\n\n$n$.",
        "33",
    ),
    "math-ai/aime25": (
        "aime25",
        {"problem": "Find $n$.", "answer": "70", "id": "0"},
        "Find $n$.",
        "70",
    ),
    "opencompass/AIME2025": (
        "aime25",
        {"question": "Find $n$.", "answer": "70"},
        "Find $n$.",
        "70",
    ),
    "yentinglin/aime_2025": (
        "aime25",
        {
            **{"id": 0, "problem": "Find $n$.", "answer": "070", "solution": ""},
            **{"url": f"{URL}/2025_AIME_I_Problems/Problem_1", "year": 2025},
        },
        "Find $n$.",
        "70",
    ),
    "MathArena/aime_2025": (
        "aime25",
        {"problem_idx": 1, "answer": 70, "problem": "Find $n$.", "problem_type": ["Algebra"]},
        "Find $n$.",
        "70",
    ),
    "Qwen2.5-Math amc23, AI-MO/aimo-validation-amc": (
        "amc23",
        {
            **{"id": 0, "problem": "Find $n$.", "answer": 27.0, "question": "Find $n$."},
            "url": f"{URL}/2023_AMC_12A_Problems/Problem_1",
        },
        "Find $n$.",
        "27",
    ),
    "math-ai/amc23": (
        "amc23",
        {"id": 0, "question": "Find $n$.", "answer": "-1.0", "url": "…"},
        "Find $n$.",
        "-1",
    ),
    "Qwen2.5-Math minerva_math, harness ocw": (
        "minerva_math",
        {
            "problem": "Preamble: a star.\n\nSolution: \\boxed{7e37}\n\nFind its mass.",
            "solution": "Thus $m = \\boxed{-4.50e+33} \\mathrm{~g}$.",
            "type": "Introduction to Astronomy (8.282J Spring 2006)",
            "idx": 0,
        },
        "Preamble: a star.\n\nSolution: \\boxed{7e37}\n\nFind its mass.",
        '["-4.50 \\\\times 10^{33}", "-4.50e+33"]',
    ),
    "math-ai/minervamath": (
        "minerva_math",
        {"question": "Find the mass.", "answer": "1.6"},
        "Find the mass.",
        "1.6",
    ),
    "Hothan/OlympiadBench": ("olympiadbench", OLYMPIAD, "What is $1+1$?", "2"),
    "Hothan/OlympiadBench with a context": (
        "olympiadbench",
        {**OLYMPIAD, "context": "A number has a square."},
        "A number has a square.\n\nWhat is $1+1$?",
        "2",
    ),
    "Qwen2.5-Math olympiadbench": (
        "olympiadbench",
        {
            **{"id": 1, "subfield": "Algebra", "context": None, "question": "Find them."},
            **{"solution": ["s"], "final_answer": ["$69$,$84$"], "is_multiple_answer": True},
            **{"unit": None, "answer_type": "Numerical", "error": None},
        },
        "Find them.",
        "69,84",
    ),
}


def one(name: str, fields: dict, **options) -> dict:
    (row,) = build(name, [("x:1", fields)], **options).rows
    return row


def jsonl(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def aime(count: int, **fields) -> list[dict]:
    return [
        {"id": i, "problem": f"Find ${i}$.", "answer": str(i), "solution": "So it is.", **fields}
        for i in range(count)
    ]


@pytest.fixture
def run(run_main, tmp_path):
    def run(*args):
        out = [] if "--local_save_dir" in args else ["--local_save_dir", tmp_path / "out"]
        return run_main(SCRIPT, benchmarks.main, *args, *out)

    return run


def refused(done, out: Path, *sentences: str) -> None:
    assert done.returncode == 2, done
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ") and line.endswith("."), line
    for sentence in sentences:
        assert sentence in line, line
    assert not out.exists()


@pytest.mark.parametrize("source", SHAPES)
def test_each_source_makes_a_row(source):
    name, fields, problem, truth = SHAPES[source]
    row = one(name, fields)
    assert row["data_source"] == name
    assert row["ability"] == "math"
    assert row["prompt"] == [
        {"role": "user", "content": f"{problem}\n{benchmarks.INSTRUCTION}"},
    ]
    assert row["reward_model"] == {"style": "rule", "ground_truth": truth}
    assert row["extra_info"]["question"] == problem
    assert row["extra_info"]["split"] == "test"
    assert row["extra_info"]["index"] == 0


@pytest.mark.parametrize("source", SHAPES)
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_each_source_in_each_kind_of_file(run, tmp_path, source, suffix):
    name, fields, _, truth = SHAPES[source]
    path = tmp_path / name / f"test{suffix}"
    if suffix == ".jsonl":
        jsonl(path, [fields])
    else:
        path.parent.mkdir()
        pd.DataFrame([fields]).to_parquet(path) if suffix == ".parquet" else path.write_text(
            json.dumps([fields], indent=1)
        )
    done = run("--source", tmp_path)
    assert done.returncode == 0, done.stderr
    (row,) = pq.read_table(tmp_path / "out" / f"{name}.parquet").to_pylist()
    assert row["reward_model"]["ground_truth"] == truth


def test_what_is_kept_about_a_problem():
    row = one("math500", SHAPES[list(SHAPES)[2]][1], instruction="")
    assert row["prompt"][0]["content"] == "Convert $(0,3)$."
    assert row["extra_info"] == {
        **{"split": "test", "index": 0, "id": "test/precalculus/807.json"},
        **{"question": "Convert $(0,3)$.", "subject": "Precalculus", "level": "2"},
    }


def test_all_sets_have_one_schema_and_files_of_their_name(run, tmp_path):
    for name, fields, _, _ in SHAPES.values():
        jsonl(tmp_path / "in" / name / "test.jsonl", [fields])
    done = run("--source", tmp_path / "in")
    assert done.returncode == 0, done.stderr
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == sorted(f"{name}{end}" for name in BENCHMARKS for end in (".parquet", ".json"))
    schemas = [pq.read_schema(path) for path in (tmp_path / "out").glob("*.parquet")]
    assert all(schema == schemas[0] for schema in schemas)
    table = pa.concat_tables(map(pq.read_table, (tmp_path / "out").glob("*.parquet")))
    assert table.num_rows == 7


def test_the_same_input_gives_the_same_bytes(run, tmp_path):
    source = jsonl(tmp_path / "aime24.jsonl", aime(30))
    for out in ("a", "b"):
        run("--source", source, "--local_save_dir", tmp_path / out)
    for file in ("aime24.parquet", "aime24.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


# --- answers ---


@pytest.mark.parametrize(
    ("text", "forms"),
    [
        ("\\$32,\\!348", ["\\$32,\\!348"]),
        ("$\\frac{1}{2}$", ["\\frac{1}{2}"]),
        ("$221,$8$", ["221,8"]),
        ("$(-\\infty, 0) \\cup\\{1\\}$.", ["(-\\infty, 0) \\cup\\{1\\}"]),
        ("$a$, where $b$ is any integer", ["$a$, where $b$ is any integer"]),
        ("1e-5", ["1 \\times 10^{-5}", "1e-5"]),
        ("-1./3", ["-1/3", "-1./3"]),
        ("np.arcsin(10/13)", ["\\arcsin(10/13)", "np.arcsin(10/13)"]),
        ("$m_{\\max }=n^{2}-n-1$", ["m_{\\max }=n^{2}-n-1", "n^{2}-n-1"]),
        ("\\frac{d x}{d t}=k x-a", ["\\frac{d x}{d t}=k x-a", "k x-a"]),
        ("MR=SRMC", ["MR=SRMC"]),
        ("y^{\\prime}+r y=0", ["y^{\\prime}+r y=0"]),
        (".35625", [".35625"]),
        ("e", ["e"]),
    ],
)
def test_spellings(text, forms):
    assert spellings(text)[: len(forms)] == forms
    assert set(spellings(text)) <= {*forms, text}


@pytest.mark.parametrize(
    ("answer", "many", "correct", "incorrect"),
    [
        (["1.5", "2.5"], False, ["1.5", "2.5", "\\frac{5}{2}"], ["1.5, 2.5"]),
        (["1", "120"], True, ["1, 120", "120, 1"], ["1", "1120"]),
        (["(3,4]"], False, ["(3,4]", "(3, 4]"], ["(3,4)", "[3,4]"]),
        (["4.5e33"], False, ["4.5 \\times 10^{33}", "4.5e33"], ["4.5 \\times 10^{32}"]),
        (["864 \\mbox{ inches}^2"], False, ["864", "864 \\text{ in}^2"], ["865"]),
        (["$8 \\%$"], False, ["8\\%", "8"], ["9\\%"]),
        (["$f(x)=2 x$"], False, ["f(x)=2x", "2x"], ["3x"]),
        (["$m_{\\max }=n-1$"], False, ["n-1", "m_{\\max }=n-1"], ["n"]),
        (["1 \\pm \\sqrt{19}"], False, ["1-\\sqrt{19}, 1+\\sqrt{19}"], ["1+\\sqrt{19}"]),
    ],
)
def test_the_judge_accepts_each_form_and_no_other(answer, many, correct, incorrect):
    fields = {**OLYMPIAD, "final_answer": answer, "is_multiple_answer": many}
    truth = ground_truth("olympiadbench", ("x:1", fields))
    verdicts = {
        text: compute_score("", f"\\boxed{{{text}}}", truth)["acc"] for text in correct + incorrect
    }
    assert verdicts == dict.fromkeys(correct, True) | dict.fromkeys(incorrect, False)


# no braces or backslashes: an incomplete brace is refused, as tested below
published = st.text(st.characters(codec="utf-8", exclude_characters="{}\\"), max_size=20)


@settings(max_examples=50, deadline=None)
@given(published.filter(str.strip))
def test_every_answer_without_braces_survives_the_trip(answer):
    fields = {"problem": "p", "answer": answer}
    try:
        truth = ground_truth("math500", ("x:1", fields))
    except ValueError as error:  # blank for the judge: such as "**"
        assert "blank" in str(error) or "does not accept" in str(error)
        return
    for form in accepted_answers(truth):
        assert compute_score("", f"\\boxed{{{form}}}", truth)["acc"]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 999), st.sampled_from(["{}", "{}.0", "{:03d}", " {} "]))
def test_integers_in_any_spelling(number, spelling):
    for answer in (spelling.format(number), number, float(number)):
        truth = ground_truth("aime24", ("x:1", {"problem": "p", "answer": answer}))
        assert truth == str(number)


def test_a_list_as_text_is_the_list_that_it_says():
    record = ("x:1", {"problem": "p", "final_answer": "['2', '\\\\frac{1}{2}']"})
    assert published_answers(record) == ["2", r"\frac{1}{2}"]
    assert published_answers(("x:1", {"problem": "p", "answer": "[1, 2]"})) == ["[1, 2]"]


@pytest.mark.parametrize("answer", ["['2'", "['2', 3]", "['2'] or 3"])
def test_what_only_begins_like_a_list_is_one_sentence(answer):
    with pytest.raises(ValueError, match=r"x:1 has the answer .* begins like a list of texts"):
        published_answers(("x:1", {"problem": "p", "answer": answer}))


def test_several_accepted_answers_from_a_parquet_list(run, tmp_path):
    rows = [{"problem": "Find it.", "answer": ["0.01\n", "0.02\n"]}]
    pd.DataFrame(rows).to_parquet(tmp_path / "minerva.parquet")
    assert run("--source", tmp_path).returncode == 0
    (row,) = pq.read_table(tmp_path / "out" / "minerva_math.parquet").to_pylist()
    assert row["reward_model"]["ground_truth"] == '["0.01", "0.02"]'


# --- traps ---


def test_thirty_two_copies_are_counted_and_dropped(run, tmp_path):
    source = jsonl(tmp_path / "aime-2024.jsonl", aime(30) * 32)
    done = run("--source", source)
    assert "aime24: 960 rows read, 30 taken, 930 dropped (930 copies)" in done.stdout
    assert "30 problems: AIME I and II" in done.stdout
    assert "the source holds each problem 32 times" in done.stdout
    report = json.loads((tmp_path / "out" / "aime24.json").read_text())
    assert report["rows"] == {"read": 960, "taken": 30, "dropped": {"copies": 930}}
    assert "the source holds each problem 32 times" in report["notes"]
    rows = pq.read_table(tmp_path / "out" / "aime24.parquet").to_pylist()
    assert [row["extra_info"]["index"] for row in rows] == list(range(30))


@pytest.mark.parametrize(
    ("count", "note"),
    [
        (40, "40 problems: the AMC 12 of 2023, as in Qwen2.5-Math"),
        (83, "83 problems: the AMC 12 of 2022 and 2023, as in AI-MO/aimo-validation-amc"),
        (25, "WARNING: 25 problems, not 40 (the AMC 12 of 2023, as in Qwen2.5-Math) or 83"),
    ],
)
def test_which_amc_it_is(run, tmp_path, count, note):
    rows = [{"id": i, "problem": f"Find ${i}$.", "answer": float(i)} for i in range(count)]
    done = run("--source", jsonl(tmp_path / "amc23.jsonl", rows))
    assert f"amc23: {count} rows read, {count} taken, 0 dropped" in done.stdout
    assert note in done.stdout


@pytest.mark.parametrize(
    ("name", "count", "note"),
    [
        ("aime24", 29, "WARNING: 29 problems, not 30 (AIME I and II)"),
        ("aime25", 15, "not 30 (AIME I and II); this is only one of AIME I and II"),
        ("math500", 5000, "not 500 (the test split of prm800k); this is the whole test split of"),
        ("minerva_math", 271, "WARNING: 271 problems, not 272"),
    ],
)
def test_an_unpublished_count_is_noted(name, count, note):
    notes = build(name, [(f"x:{row['id']}", row) for row in aime(count)]).notes
    assert note in notes[0]


def test_aime_problems_of_other_years_are_left_out():
    rows = aime(3)
    for row, year in zip(rows, (2022, 2023, 2024), strict=True):
        row["url"] = f"{URL}/{year}_AIME_I_Problems/Problem_1"
    split = build("aime24", [("x", row) for row in rows])
    assert [row["extra_info"]["id"] for row in split.rows] == ["2"]
    assert split.dropped == {"copies": 0, "of another year": 2}


STORY = " ".join(f"word{i}" for i in range(40))


@pytest.mark.parametrize(
    "leak",
    [
        {"problem": "Find $CE$.\n\nThen $CE = 107-3 = \\boxed{104}$."},
        {"problem": "Find $CE$.\n\n## Solution 1\nDraw a circle."},
        {"problem": f"Find $CE$. {STORY}", "solution": f"Well, {STORY}"},
    ],
)
def test_solutions_in_the_problems_end_the_run(run, tmp_path, leak):
    rows = aime(29)
    rows[4] |= {**leak, "id": "2024-I-5"}
    done = run("--source", jsonl(tmp_path / "aime24.jsonl", rows))
    refused(
        done,
        tmp_path / "out",
        "1 of 29 problems contain their own solution (2024-I-5)",
        BENCHMARKS["aime24"].hub,
    )


@pytest.mark.parametrize(
    ("words", "said", "is_leak"),
    [(27, 27, True), (27, 22, True), (27, 21, False), (26, 26, False)],
)
def test_more_than_0_7_of_a_solution_of_27_words_or_more_is_a_leak(words, said, is_leak):
    """27 words are 20 8-grams, of which 22 words in the problem are 15, and 21 are 14, 0.7."""
    solution, problem = (" ".join(STORY.split()[:n]) for n in (words, said))
    assert contains_solution(("x", {"solution": solution}), problem) == is_leak


def test_a_problem_may_say_some_words_of_its_solution():
    half = {**aime(1)[0], "problem": STORY, "solution": f"{STORY} {STORY[::-1]}"}
    word = {"problem": "What solution has $x=1$?", "answer": "1"}
    for name, record in (("aime24", half), ("math500", word)):
        (row,) = build(name, [("x", record)]).rows
        assert row["extra_info"]["question"] == record["problem"]


def test_problems_that_differ_in_blanks_alone_are_copies():
    records = [{"problem": text, "answer": "1"} for text in ("Find  $x$.", "Find\n$x$.")]
    split = build("math500", [(f"x:{i}", record) for i, record in enumerate(records)])
    assert (len(split.rows), split.dropped["copies"]) == (1, 1)


def test_olympiadbench_takes_text_only_open_ended_english_maths():
    rows = [
        {**OLYMPIAD, "question": "taken"},
        {**OLYMPIAD, "modality": "Multimodal", "question": "See the picture."},
        {**OLYMPIAD, "image_1": {"bytes": "…", "path": None}},
        {"question": "See <image_1>.", "final_answer": ["1"]},
        {**OLYMPIAD, "question_type": "Theorem proof", "final_answer": None},
        {"question": "Prove it.", "solution": ["…"]},
        {**OLYMPIAD, "language": "Chinese"},
        {"question": "求 $n$ 的值", "final_answer": ["1"]},
        {**OLYMPIAD, "subject": "Physics"},
    ]
    split = build("olympiadbench", [(f"x:{i}", row) for i, row in enumerate(rows)])
    assert [row["extra_info"]["question"] for row in split.rows] == ["taken"]
    assert split.dropped == {
        **{"copies": 0, "with images": 3, "theorem proofs": 2, "Chinese": 2, "physics": 1}
    }


def test_a_tolerance_is_noted():
    row = {**OLYMPIAD, "final_answer": ["4.2"], "unit": "%", "error": "1e-1"}
    notes = build("olympiadbench", [("x", row)]).notes
    assert "answers with a tolerance (`error`), which the judge ignores: 1" in notes


# --- where the files are ---


def test_the_folder_of_an_evaluation_repository(run, tmp_path):
    """Qwen2.5-Math evaluation/data: train files beside, olympiadbench twice, a README."""
    data = tmp_path / "data"
    jsonl(data / "aime24" / "test.jsonl", aime(30))
    jsonl(data / "gsm8k" / "train.jsonl", [{"question": "?", "answer": "#### 1"}])
    jsonl(data / "gsm8k" / "test.jsonl", [{"question": "?", "answer": "#### 2"}])
    jsonl(data / "olympiadbench" / "test.jsonl", [OLYMPIAD])
    (data / "olympiadbench" / "test.json").write_text(json.dumps([OLYMPIAD]))
    jsonl(data / "math" / "test.jsonl", aime(2))
    (data / "minerva_math").mkdir()
    (data / "minerva_math" / "README.md").write_text("MIT OpenCourseWare")
    done = run("--source", data)
    assert done.returncode == 0, done.stderr
    assert "so left out: math500, aime25, amc23, minerva_math" in done.stdout
    assert "olympiadbench: 1 rows read, 1 taken" in done.stdout
    (row,) = pq.read_table(tmp_path / "out" / "gsm8k.parquet").to_pylist()
    assert row["reward_model"]["ground_truth"] == "2"


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (["MATH-500/test.jsonl"], "math500"),
        (["math_splits/test.jsonl", "math_splits/train.jsonl"], "math500"),
        (["math_oai/test.jsonl"], "math500"),
        (["aime_2024/data/train-00000-of-00001.jsonl"], "aime24"),
        (["AIME2025/aime2025-I.jsonl", "AIME2025/aime2025-II.jsonl"], "aime25"),
        (["aimo-validation-amc/data/train-00000-of-00001.jsonl"], "amc23"),
        (["ocw/test.jsonl"], "minerva_math"),
        (["gsm8k/main/test-00000-of-00001.jsonl", "gsm8k/socratic/test-0.jsonl"], "gsm8k"),
        (
            [
                "OlympiadBench/OE_MM_maths_en_COMP/OE_MM_maths_en_COMP.jsonl",
                "OlympiadBench/OE_TO_maths_en_COMP/OE_TO_maths_en_COMP.jsonl",
            ],
            "olympiadbench",
        ),
    ],
)
def test_names_of_the_sources(tmp_path, files, name):
    for file in files:
        jsonl(tmp_path / file, [])
    files_by_set = {
        n: [str(p.relative_to(tmp_path)) for p in paths]
        for n, paths in benchmarks.locate(str(tmp_path), None).items()
    }
    wanted = [f for f in files if not f.endswith("/train.jsonl") and "MM" not in f]
    assert files_by_set == {name: [f for f in wanted if "socratic" not in f]}


def test_a_file_whose_set_is_named(run, tmp_path):
    source = jsonl(tmp_path / "some.jsonl", aime(30))
    assert run("--source", source, "--sets", "aime25").returncode == 0
    assert (tmp_path / "out" / "aime25.parquet").is_file()


def test_the_hub_is_the_default(run, tmp_path, monkeypatch):
    asked = []

    def load(name, config):
        asked.append((name, config))
        return {"test": [{"problem": "p", "answer": "1"}], "train": aime(30)}

    monkeypatch.setattr("datasets.load_dataset", load)
    done = run("--sets", "aime24", "aime25")
    assert done.returncode == 0, done.stderr
    assert asked == [("HuggingFaceH4/aime_2024", None), ("math-ai/aime25", None)]
    report = json.loads((tmp_path / "out" / "aime25.json").read_text())
    assert report["source"] == {"hub": "math-ai/aime25", "config": None, "split": "test"}


def test_an_entry_in_the_table_is_all_that_a_set_needs(run, tmp_path, monkeypatch):
    """Its name, files, filter, answers and count all come from the entry."""
    entry = Benchmark(
        hub="someone/riddles",
        config=None,
        split="test",
        counts={2: "the first release"},
        names=("riddles",),
        answers=lambda record: [answer.upper() for answer in published_answers(record)],
        exclude=lambda record: "too easy" if record[1]["easy"] else None,
    )
    monkeypatch.setitem(BENCHMARKS, "riddles", entry)
    rows = [{"question": f"Who is {i}?", "answer": "i", "easy": i == 2} for i in range(3)]
    jsonl(tmp_path / "data" / "riddles.jsonl", rows)
    done = run("--source", tmp_path / "data", "--sets", "riddles")
    assert done.returncode == 0, done.stderr
    assert "riddles: 3 rows read, 2 taken, 1 dropped (1 too easy)" in done.stdout
    assert "2 problems: the first release" in done.stdout
    taken = pq.read_table(tmp_path / "out" / "riddles.parquet").to_pylist()
    assert [row["reward_model"]["ground_truth"] for row in taken] == ["I", "I"]
    record = json.loads((tmp_path / "out" / "riddles.json").read_text())
    assert (record["dataset"], record["split"]) == ("riddles", "test")


def test_without_network_it_says_what_to_do(run, tmp_path, monkeypatch):
    def load(name, config):
        raise ConnectionError("no route")

    monkeypatch.setattr("datasets.load_dataset", load)
    refused(run(), tmp_path / "out", "openai/gsm8k could not be loaded", "pass --source")


def test_max_samples(run, tmp_path):
    source = jsonl(tmp_path / "aime24.jsonl", aime(30))
    done = run("--source", source, "--max_samples", "4")
    assert "4 taken, 26 dropped (26 beyond --max_samples)" in done.stdout
    assert "30 problems: AIME I and II" in done.stdout


def test_as_a_user_starts_it(tmp_path):
    source = jsonl(tmp_path / "aime24.jsonl", aime(30))
    command = [sys.executable, SCRIPT, "--source", source, "--local_save_dir", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "aime24: 30 rows read, 30 taken, 0 dropped" in done.stdout


@pytest.mark.skipif(not REAL.is_file(), reason="no original GSM8K at ../shared/data/gsm8k")
def test_the_original_gsm8k(run):
    done = run("--source", REAL)
    assert "gsm8k: 1319 rows read, 1319 taken, 0 dropped" in done.stdout


# --- bad input ---


@pytest.mark.parametrize(
    ("name", "bad", "sentence"),
    [
        ("aime24", {"answer": "1"}, "has no text in a field `problem` or `question` but 'answer'"),
        ("aime24", {"problem": " ", "answer": "1"}, "has no text in a field `problem`"),
        ("aime24", {"problem": "p"}, "aime24.jsonl:1 has no answer"),
        ("aime24", {"problem": "p", "answer": ""}, "aime24.jsonl:1 has no answer"),
        ("aime24", {"problem": "p", "answer": None, "solution": "\\boxed{1"}, "has no answer"),
        ("aime24", {"problem": "p", "answer": "1/2"}, "has the answer '1/2', and in this set each"),
        ("amc23", {"problem": "p", "answer": 27.5}, "has the answer 27.5, and in this set each is"),
        ("amc23", {"problem": "p", "answer": "(B)"}, "has the answer '(B)', and in this set"),
        ("gsm8k", {"question": "p", "answer": "5"}, "has no final answer after `####`"),
        ("math500", {"problem": "p", "answer": "\\frac{1}{2"}, "the judge does not accept in a"),
        ("olympiadbench", {**OLYMPIAD, "subject": "Physics"}, "no row that can be taken of 1"),
        ("olympiadbench", {**OLYMPIAD, "final_answer": ["1", ""]}, "has no answer"),
    ],
)
def test_a_bad_row_is_one_sentence_and_writes_nothing(run, tmp_path, name, bad, sentence):
    jsonl(tmp_path / "in" / "aime25.jsonl", aime(30))  # a good set beside it
    jsonl(tmp_path / "in" / f"{name}.jsonl", [bad])
    refused(run("--source", tmp_path / "in"), tmp_path / "out", sentence)


def test_one_problem_with_two_answers(run, tmp_path):
    source = jsonl(tmp_path / "aime24.jsonl", [*aime(3), {**aime(1)[0], "answer": "7"}])
    refused(run("--source", source), tmp_path / "out", "aime24.jsonl:4", "answer '0', not '7'")


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("aime24.jsonl", "{", "aime24.jsonl:1 is not JSON"),
        ("aime24.jsonl", "[1]", "aime24.jsonl:1 is not a JSON object"),
        ("aime24.json", "[{]", "aime24.json is not JSON: give a whole file"),
        ("aime24.json", "[{}, 1]", "aime24.json item 2 is not a JSON object"),
        ("aime24.json", "{", "aime24.json:1 is not JSON"),
        ("aime24.parquet", "{", "aime24.parquet is not a parquet file"),
        ("aime24.jsonl", "", "aime24 has no row that can be taken of 0 read"),
        ("some.jsonl", "", "has no jsonl or parquet or json file named after gsm8k (as gsm8k)"),
    ],
)
def test_a_bad_file_is_one_sentence_and_writes_nothing(run, tmp_path, file, content, sentence):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / file).write_text(content)
    refused(run("--source", tmp_path / "in"), tmp_path / "out", sentence)


def test_bad_options(run, tmp_path):
    out = tmp_path / "out"
    source = jsonl(tmp_path / "some.jsonl", aime(30))
    refused(run("--source", tmp_path / "none"), out, "does not exist")
    refused(run("--source", source), out, "some.jsonl is one file", "which with --sets")
    refused(run("--source", source, "--sets", "aime24", "aime25"), out, "makes one set")
    refused(run("--source", source, "--max_samples", "0"), out, "--max_samples 0 is not allowed")
    refused(run("--source", tmp_path, "--sets", "amc23"), out, "amc23 (as amc23 or amc2023 or")
    other = tmp_path / "some.csv"
    other.write_text("")
    refused(run("--source", other), out, "some.csv must be one of .jsonl, .parquet, .json")
    jsonl(tmp_path / "a" / "aime24.jsonl", aime(30))
    jsonl(tmp_path / "b" / "aime_2024" / "test.jsonl", aime(30))
    refused(run("--source", tmp_path), out, "a/aime24.jsonl and b/aime_2024/test.jsonl for aime24")


def test_it_does_not_write_over_its_source(run, tmp_path):
    source = tmp_path / "aime24.parquet"
    pd.DataFrame(aime(30)).to_parquet(source)
    before = source.read_bytes()
    done = run("--source", source, "--local_save_dir", tmp_path)
    refused(done, tmp_path / "out", "is where --source has aime24.parquet")
    assert source.read_bytes() == before


@pytest.mark.parametrize("field", ["problem", "answer", "unique_id"])
def test_half_of_a_surrogate_pair_is_one_sentence_with_its_row(run_main, tmp_path, field):
    record = {"problem": "Which?", "answer": "5", "unique_id": "a"}
    bad = record | {"problem": "And?"}
    bad[field] += "\ud83d"
    source = tmp_path / "math500.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in (record, bad)))
    done = run_main(SCRIPT, benchmarks.main, "--source", source, "--local_save_dir", tmp_path / "o")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert f"{source}:2 " in line and "\\ud83d" in line


def test_a_list_that_is_nested_too_deeply_is_one_sentence(run_main, tmp_path):
    source = tmp_path / "math500.json"
    source.write_text("[" * 9_000)
    done = run_main(SCRIPT, benchmarks.main, "--source", source, "--local_save_dir", tmp_path / "o")
    assert done.returncode == 2
    assert f"{source} has an item nested too deeply: give the original files." in done.stderr
