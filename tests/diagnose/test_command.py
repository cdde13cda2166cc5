"""The command: text and JSON, and the folders of which nothing can be told."""

import json

import pytest
from diagnose.cases import CALM

from recipe.diagnose.__main__ import main


def write(folder, steps=(), end=None):
    """Writes a run that has logged these steps and, unless it runs, how it ended."""
    (folder / "metrics").mkdir(parents=True)
    lines = [json.dumps({"step": step, "data": CALM}) + "\n" for step in steps]
    if lines:
        (folder / "metrics/000.jsonl").write_text("".join(lines))
    (folder / "metrics/000.yaml").write_text("config: {}\n")
    if end is not None:
        (folder / "metrics/000.end").write_text(end + "\n")
    return str(folder)


def test_text_and_json(tmp_path, capsys):
    run = write(tmp_path / "run", (0, 1, 2))
    assert main([run]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(run) and "5.0 % of the tokens were clipped." in printed
    assert max(map(len, printed.splitlines()[1:])) <= 100
    assert main([run, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)[run]
    assert {row["topic"] for row in rows} >= {"entropy", "regions", "signal"}


@pytest.fixture
def runs(tmp_path):
    """One run with metrics, and four folders without."""
    return {
        "trained": write(tmp_path / "a", (1, 2)),
        "failed": write(tmp_path / "b", end="failed: CUDA out of memory"),
        "running": write(tmp_path / "c"),
        "validated": write(tmp_path / "d", (0,)),
        "no run": str(tmp_path / "e"),
    }


def test_folders_without_a_step_are_told_after_the_others_each_with_its_reason(runs, capsys):
    assert main(list(runs.values())) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(runs["trained"]) and "were clipped." in printed.out
    assert printed.err.splitlines() == [
        f"error: {runs['failed']} has logged no training step, as its last start has ended "
        "(failed: CUDA out of memory): correct that and start it again.",
        f"error: {runs['running']} has logged no training step yet: wait for the first.",
        f"error: {runs['validated']} has logged no training step yet: wait for the first.",
        f"error: {runs['no run']} has no metrics/*.jsonl: is it the folder of a run?",
    ]


def test_json_has_an_error_in_the_place_of_findings(runs, capsys):
    assert main([*runs.values(), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert set(table) == set(runs.values())
    assert table[runs["trained"]][0]["topic"] == "entropy"
    assert "CUDA out of memory" in table[runs["failed"]]["error"]


def test_the_exit_code_is_2_where_nothing_can_be_told(runs, capsys):
    assert main([runs["failed"], runs["running"]]) == 2
    printed = capsys.readouterr()
    assert not printed.out and len(printed.err.splitlines()) == 2
    assert main([runs["failed"], "--json"]) == 2
    assert "CUDA out of memory" in json.loads(capsys.readouterr().out)[runs["failed"]]["error"]
