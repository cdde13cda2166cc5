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
