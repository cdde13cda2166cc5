"""Whether the methods of a comparison differ at all, on values with known answers."""

from pathlib import Path

import pandas as pd
import pytest
from scripts import load_script

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def spread():
    return load_script("studies/arm_spread.py")


def rows(group: str, metric: str, values: dict[str, list[float]]) -> list[dict]:
    return [
        {"arm": arm, "seed": seed, "group": group, "metric": metric, "value": value}
        for arm, by_seed in values.items()
        for seed, value in enumerate(by_seed)
    ]


def printed(spread, capsys, tmp_path, table: list[dict]) -> list[str]:
    file = tmp_path / "results_by_run.csv"
    pd.DataFrame(table).to_csv(file, index=False)
    spread.command([str(file)])
    return capsys.readouterr().out.splitlines()


def test_benchmarks_that_have_a_metric_in_common_have_a_line_each(spread, tmp_path, capsys):
    same = {"a": [0.25, 0.25], "b": [0.25, 0.25]}
    # two methods that differ by 1 at both seeds: they do in half of the deals, else by 0
    other = {"a": [0.0, 0.0], "b": [1.0, 1.0]}
    table = rows("aime24", "avg@8", same) + rows("math500", "avg@8", other)
    first, second = printed(spread, capsys, tmp_path, table)
    assert first.startswith("aime24, avg@8: 2 methods, sd of their means 0.0000, ")
    assert first.endswith("as large by chance in 1.0000")
    assert second.startswith("math500, avg@8: 2 methods, sd of their means 0.7071, ")
    assert float(second.split()[-1]) == pytest.approx(0.5, abs=0.02)


def test_one_seed_says_nothing_of_chance(spread, tmp_path, capsys):
    """Dealt out in any way its values have the same spread, but for their rounding."""
    values = {f"m{k}": [0.1 + 0.37 * k % 0.29] for k in range(20)}
    (line,) = printed(spread, capsys, tmp_path, rows("test", "avg@8", values))
    assert line.endswith("as large by chance in 1.0000")


def test_the_document_s_numbers_are_those_of_the_committed_values(spread, capsys):
    def shares(*arguments: str) -> dict[str, str]:
        spread.command([str(ROOT / "docs/study_cpu.csv"), *arguments])
        lines = capsys.readouterr().out.splitlines()
        return {line.split(":")[0]: line.split()[-1] for line in lines}

    every = shares()
    assert (every["test, avg@32"], every["test, pass@8"]) == ("0.0001", "0.0063")
    left = shares("--without", "reversed", "high_entropy_mask")
    assert f"{float(left['test, avg@32']):.0%}" == "6%"
    assert f"{float(left['test, pass@8']):.0%}" == "10%"


def test_methods_that_lack_a_seed_are_named_and_one_alone_is_not_tested(spread, tmp_path, capsys):
    values = {"a": [0.0, 0.0], "b": [1.0, 1.0], "late": [0.5]}
    table = rows("x", "avg@8", values) + rows("y", "avg@8", {"a": [0.0, 0.0], "b": [1.0]})
    file = tmp_path / "results_by_run.csv"
    pd.DataFrame(table).to_csv(file, index=False)
    spread.command([str(file)])
    out, error = capsys.readouterr()
    assert len(out.splitlines()) == 1 and out.startswith("x, avg@8: 2 methods, ")
    assert error.splitlines() == [
        "x, avg@8: left out for a missing seed: late",
        "y, avg@8: left out for a missing seed: b",
        "y, avg@8: not tested, as it takes two methods with all seeds",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arm,group,metric,mean\na,x,y,1\n", "has no column seed, value: give a CSV file with"),
        ("arm,seed,group,metric,value\na,0,x,y,high\n", "cannot be read .*high.*: give a CSV file"),
        ("", "cannot be read .*: give a CSV file with the columns arm, seed .int., group, metric"),
        (None, "cannot be read .*No such file.*: give a CSV file with the columns arm"),
    ],
)
def test_another_file_is_one_sentence(spread, tmp_path, text, message):
    file = tmp_path / "results.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=f"results.csv {message}"):
        spread.command([str(file)])
