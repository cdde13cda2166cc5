"""How far a run is by its folder, and the table and curves of it."""

import json
import os

import pytest
import yaml

from recipe.console import progress as module
from recipe.console import table
from recipe.console.progress import Progress, duration
from recipe.experiment.run import RunFolder, read_run, statuses

NOW = 1_000_000.0


def write(folder, steps, planned=10, end=None, age=0.0, start=0):
    """A start of a run: {step: metrics}, how it ended, and how long ago it has last written."""
    (folder / "metrics").mkdir(parents=True, exist_ok=True)
    record = folder / f"metrics/{start:03d}.yaml"
    record.write_text(yaml.safe_dump({"config": {"trainer": {"total_training_steps": planned}}}))
    lines = [json.dumps({"step": step, "data": data}) + "\n" for step, data in steps.items()]
    metrics = record.with_suffix(".jsonl")
    metrics.write_text("".join(lines))
    if end:
        record.with_suffix(".end").write_text(end + "\n")
    for file in (record, metrics):
        os.utime(file, (NOW - age, NOW - age))


def progress(folder) -> Progress:
    run = Progress("run", RunFolder(folder))
    run.refresh()
    return run


def timed(steps: int, seconds=10.0) -> dict:
    return {step: {"timing_s/step": seconds} for step in range(1, steps + 1)}


@pytest.mark.parametrize(
    ("steps", "end", "age", "state"),
    [
        (3, None, 5, "running"),
        (3, None, 119, "running"),
        (3, None, 121, "stalled"),  # a step takes 10 s: killed, or hanging
        (0, None, 800, "starting"),
        (0, None, 1000, "stalled"),
        (10, None, 9999, "finished"),  # killed after its last step
        (10, "finished", 9999, "finished"),
        (4, "finished", 9999, "finished"),  # the curriculum was shorter than the config's steps
        (3, "failed: rank 1 refuses", 5, "failed"),
        (3, "stopped: by Ctrl-C", 9999, "stopped"),
    ],
)
def test_the_state_of_a_run(tmp_path, steps, end, age, state):
    write(tmp_path, timed(steps), end=end, age=age)
    assert progress(tmp_path).state(NOW)[0] == state


def test_a_state_says_for_how_long_and_why(tmp_path):
    write(tmp_path / "a", timed(3), age=3700)
    assert progress(tmp_path / "a").state(NOW) == ("stalled", "nothing written for 1 h 01 min")
    write(tmp_path / "b", timed(3), end="failed: a: b")
    assert progress(tmp_path / "b").state(NOW) == ("failed", "a: b")
    assert progress(tmp_path / "none").state(NOW) == ("waiting", "")
    write(tmp_path / "c", timed(10), end="failed: no device")  # started again at its end
    assert progress(tmp_path / "c").state(NOW) == ("finished", "its last start failed: no device")


@pytest.mark.parametrize("end", [None, "finished", "failed: a", "stopped: by Ctrl-C"])
@pytest.mark.parametrize("steps", [1, 4, 10, 11])
def test_a_run_is_finished_here_where_it_is_for_the_report(tmp_path, steps, end):
    write(tmp_path / "a/seed0", timed(steps), end=end)
    (status,) = statuses([read_run(tmp_path, "a", 0)]).values()
    state = progress(tmp_path / "a/seed0").state(NOW)[0]
    assert (state == "finished") is (status == "finished")


def test_long_steps_are_waited_for_longer(tmp_path):
    write(tmp_path, timed(3, seconds=300.0), age=1400)
    assert progress(tmp_path).state(NOW)[0] == "running"


def test_a_run_that_was_resumed_is_judged_by_its_last_start(tmp_path):
    write(tmp_path, timed(3), end="failed: memory", age=500)
    write(tmp_path, {4: {"timing_s/step": 10.0}}, age=5, start=1)
    run = progress(tmp_path)
    assert run.state(NOW)[0] == "running" and list(run.steps) == [1, 2, 3, 4]


@pytest.mark.parametrize(("age", "state"), [(130, "running"), (1000, "stalled")])
def test_a_start_that_resumes_has_the_time_to_load_its_model(tmp_path, age, state):
    write(tmp_path, timed(3), end="failed: memory", age=5000)
    write(tmp_path, {}, age=age, start=1)
    assert progress(tmp_path).state(NOW)[0] == state


def test_the_time_left_is_that_of_the_last_steps_with_their_validations(tmp_path):
    steps = timed(4)
    steps[1]["timing_s/step"] = 100.0  # compiles and warms up
    steps[4]["timing_s/testing"] = 6.0
    write(tmp_path, {0: {"val-core/x/acc/mean@1": 0.1}, **steps})
    assert progress(tmp_path).seconds() == [100.0, 10.0, 10.0, 16.0]
    assert progress(tmp_path).seconds_left() == 6 * 12.0
    write(tmp_path / "one", {1: steps[1]})
    assert progress(tmp_path / "one").seconds_left() == 900.0
    write(tmp_path / "none", {})
    assert progress(tmp_path / "none").seconds_left() is None


def test_steps_that_no_config_states_are_those_of_verl_s_bar(tmp_path):
    write(tmp_path, timed(3), planned=None)
    (tmp_path / "log.txt").write_text(
        "Training Progress:  30%|███       | 3/9 [00:30<01:00, 10s/it]"
    )
    assert progress(tmp_path).seconds_left() == 60.0


def test_what_was_added_is_read_by_refresh(tmp_path):
    write(tmp_path, timed(3))
    run = progress(tmp_path)
    with (tmp_path / "metrics/000.jsonl").open("a") as file:
        file.write('{"step": 4, "data": {}}\n{"step": 5, "da')
    assert run.series("timing_s/step")[0] == [1, 2, 3]
    run.refresh()
    assert run.last_step == 4
    with (tmp_path / "metrics/000.jsonl").open("a") as file:
        file.write('ta": {"timing_s/step": 1.0}}\n')
    run.refresh()
    assert run.series("timing_s/step")[0] == [1, 2, 3, 5]


def test_of_a_run_s_metrics_those_are_kept_that_are_shown(tmp_path):
    """All of them take 20 MB for a run of 1,000 steps, and gigabytes for a comparison."""
    shown = {name.rstrip("/"): 0.5 for name in module.KEPT}
    shown["val-core/x/acc/mean@1"] = shown.pop("val-core")
    write(tmp_path, {1: {**shown, "actor/grad_norm": 1.0, "val-aux/x": 1.0}})
    run = progress(tmp_path)
    assert run.steps == {1: shown}
    assert all(run.series(column.metric) == ([1], [0.5]) for column in module.COLUMNS)


def test_a_run_s_values_are_looked_up_once_until_it_has_logged_more(tmp_path, monkeypatch):
    calls = []
    original = module.series
    monkeypatch.setattr(module, "series", lambda *args: calls.append(args) or original(*args))
    write(tmp_path, timed(3))
    run = progress(tmp_path)
    for _ in range(5):
        run.refresh()
        table.run_table([run], 200)
        run.state(NOW)
    assert 0 < len(calls) <= len(module.COLUMNS) + len(module.TIMES)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (86400 * 2 + 3600 * 5, "2 d 05 h"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_line_has_its_values_below_their_heads(tmp_path):
    steps = timed(2)
    steps[1] |= {"critic/rewards/mean": 0.25, "val-core/x/acc/mean@1": 0.5, "actor/entropy": None}
    steps[2] |= {"actor/pg_clipfrac": 0.0123, "response_length/mean": float("nan")}
    write(tmp_path, steps)
    run = progress(tmp_path)
    assert table.head() == (
        "     step   reward held-out  entropy  clipped   length   s/step  time left"
    )
    blank = " " * 9
    assert table.line(run, 1) == f"     1/10    0.250    0.500{blank * 3}     10.0"
    left = "  1 min 20 s"
    assert table.line(run, 2) == f"     2/10{blank * 3}    1.23%{blank}     10.0{left}"


def test_runs_side_by_side_have_one_benchmark_and_one_entropy_which_are_named(tmp_path):
    aime, math = "val-core/aime24/acc/mean@8", "val-core/math500/acc/mean@1"
    write(tmp_path / "a", {1: {aime: 0.05, math: 0.6, "actor/entropy": 0.5}})
    write(tmp_path / "b", {1: {math: 0.7, "actor/entropy": 0.25}})
    write(tmp_path / "c", {1: {aime.replace("24", "25"): 0.1, "actor/entropy": 40.0}})
    record = tmp_path / "c/metrics/000.yaml"
    config = {"actor_rollout_ref": {"actor": {"loss_agg_mode": "seq-mean-token-sum"}}}
    record.write_text(yaml.safe_dump({"config": config}))
    runs = [Progress(name, RunFolder(tmp_path / name)) for name in "abc"]
    for run in runs:
        run.refresh()
    columns = module.columns_of(runs)
    shown = {column.head: [run.column(column)[1] for run in runs] for column in columns}
    assert shown["held-out"] == [[0.6], [0.7], []] and shown["entropy"] == [[0.5], [0.25], []]
    note = "held-out: math500 (and 2 more, not shown); entropy: actor/entropy"
    assert module.note_of(columns) == note
    assert table.run_table(runs, 200).caption.plain == note
    assert table.step_table(runs[1], 5).caption.plain == "held-out: math500; entropy: actor/entropy"


def test_a_sparkline_goes_from_the_lowest_to_the_highest_value():
    assert table.sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert table.sparkline([7, 7, 0, 0], 2) == "█▁"  # means of two
    assert table.sparkline([3, 3, 3], 9) == "▄▄▄"
    assert table.sparkline([], 9) == ""


def test_a_curve_fills_its_rows_from_below():
    # two rows are 16 eighths, of which the lowest value has one and the highest all
    text = table.curve("t", [1, 2, 3], [0.0, 0.5, 1.0], ".1f", (3, 2)).plain.splitlines()
    assert text == ["     t", "1.0 ▕ ▁█", "0.0 ▕▁██", "     1 3"]
    level = table.curve("t", [5], [2.0], ".0f", (4, 2)).plain.splitlines()
    assert level[2] == "2 ▕████" and level[3].strip() == "5  5"
