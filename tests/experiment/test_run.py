"""The files of a run's folder, over several starts and in any state of repair."""

import json
import subprocess
import sys
import tracemalloc
import zipfile

import pytest
import yaml

from recipe.experiment.matrix import Arm, Matrix
from recipe.experiment.run import (
    LOCK,
    Run,
    RunFolder,
    drop_unstarted,
    finished_runs,
    read_run,
    read_runs,
    statuses,
)


def log(folder, start, steps, tail="", record=None):
    metrics = folder.path / "metrics"
    metrics.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"step": step, "data": data}) for step, data in steps.items()]
    (metrics / f"{start:03d}.jsonl").write_text("".join(f"{line}\n" for line in lines) + tail)
    if record is not None:
        (metrics / f"{start:03d}.yaml").write_text(yaml.safe_dump(record))


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def test_a_folder_that_does_not_exist_is_empty(folder):
    assert (folder.metrics(), folder.records(), folder.last_record()) == ({}, [], None)
    assert (folder.steps_done(), folder.checkpoint_step(), folder.checkpoint()) == (0, 0, None)
    assert (folder.evaluations(), folder.log_end()) == ([], "")
    assert folder.next_metrics_file() == folder.path / "metrics/000.jsonl"
    assert not folder.is_complete(1)


def test_a_later_start_s_steps_win_and_a_cut_last_line_is_left_out(folder):
    log(folder, 0, {1: {"a": 1.0}, 2: {"a": 2.0}, 3: {"a": 3.0, "b": 1.0}}, '{"step": 4, "da')
    log(folder, 1, {3: {"a": 30.0}, 4: {"a": 4.0}})
    assert folder.metrics() == {
        **{1: {"a": 1.0}, 2: {"a": 2.0}},
        **{3: {"a": 30.0, "b": 1.0}, 4: {"a": 4.0}},
    }


@pytest.mark.parametrize(
    "line",
    [
        *("3", "null", '"text"', "[1]", "{}", '{"step": 9}', '{"data": {}}'),
        *('{"step": 9, "data": 3}', '{"step": "9", "data": {}}', '{"step": null, "data": {}}'),
        "\x00\x00",
    ],
)
def test_a_line_that_is_no_row_is_left_out(folder, line):
    log(folder, 0, {1: {"a": 1.0}}, f'{line}\n{{"step": 2, "data": {{"a": 2.0}}}}\n')
    assert folder.metrics() == {1: {"a": 1.0}, 2: {"a": 2.0}}


def test_starts_are_in_the_order_of_their_numbers(folder):
    for start in (9, 999, 1000):
        log(folder, start, {1: {"a": start}}, record={"start": start})
    (folder.path / "metrics/000.old.jsonl").write_text('{"step": 1, "data": {"a": -1}}')
    assert folder.metrics() == {1: {"a": 1000}}
    assert folder.last_record() == {"start": 1000}
    assert folder.next_metrics_file().name == "1001.jsonl"


def test_each_start_gets_a_metrics_file_of_its_own(folder):
    first = folder.next_metrics_file()
    assert first.name == "000.jsonl"
    first.parent.mkdir(parents=True)
    first.touch()
    assert folder.next_metrics_file().name == "001.jsonl"


def test_steps_done_are_those_of_complete_lines(folder):
    log(folder, 0, {}, '{"step": 8, "data": {}}\n{"step":9,"data":{}}\n{"step": 10, "da')
    assert folder.steps_done() == 9
    long = json.dumps({"a": "x" * 200_000})  # the end of the file alone is read
    log(folder, 0, {}, f'{{"step": 8, "data": {long}}}\n{{"step": 9, "data": {{}}}}\n')
    assert folder.steps_done() == 9


@pytest.mark.parametrize("characters", [10, 65_000, 70_000, 500_000])
def test_steps_done_are_read_of_a_last_line_of_any_length(folder, characters):
    """One of 64 KiB and more has been taken for none: many validation sets make such rows."""
    log(folder, 0, {1: {"a": 1.0}, 2: {"a": "x" * characters}})
    assert folder.steps_done() == 2
    log(folder, 0, {1: {"a": "x" * characters}}, tail='{"step": 2, "data": "' + "x" * characters)
    assert folder.steps_done() == 1


def test_broken_records_stand_as_empty_ones(folder):
    log(folder, 0, {}, record={"commit": "a"})
    for start, text in enumerate(("config: [", "", "- a", "3"), start=1):
        (folder.path / f"metrics/{start:03d}.yaml").write_text(text)
    assert folder.records() == [{"commit": "a"}, {}, {}, {}, {}]
    assert folder.last_record() == {}


@pytest.mark.parametrize(("text", "step"), [("7", 7), ("7\n", 7), ("", 0), ("\n", 0), ("x", 0)])
def test_the_last_checkpoint(folder, text, step):
    folder.path.mkdir()
    (folder.path / "latest_checkpointed_iteration.txt").write_text(text)
    assert folder.checkpoint_step() == step
    assert folder.checkpoint() == (folder.path / "global_step_7" if step else None)


def checkpoint(folder, step, data="whole", actor=True):
    """A checkpoint's files: data.pt is the last that verl writes, actor/ what it removes of an old
    one."""
    path = folder.path / f"global_step_{step}"
    path.mkdir(parents=True)
    if actor:
        (path / "actor").mkdir()
        (path / "actor/model_world_size_1_rank_0.pt").touch()
    if data:
        with zipfile.ZipFile(path / "data.pt", "w") as file:
            file.writestr("data.pkl", b"x" * 1000)
    if data == "cut":
        (path / "data.pt").write_bytes((path / "data.pt").read_bytes()[:500])


def test_the_checkpoints_that_are_whole(folder):
    checkpoint(folder, 2, actor=False)  # removed: max_actor_ckpt_to_keep
    checkpoint(folder, 9)
    checkpoint(folder, 10)
    checkpoint(folder, 11, data="cut")
    checkpoint(folder, 12, data=None)
    (folder.path / "global_step_last").mkdir()
    assert folder.complete_steps() == [9, 10]


@pytest.mark.parametrize("text", ["", "\n", "x", "7", "12"])
def test_a_marker_at_fault_is_repaired_to_the_last_whole_checkpoint(folder, text):
    """Empty: verl's int("") is a traceback on the driver. Of a checkpoint that is gone: verl trains
    again from step 1, without a word, over what is there."""
    checkpoint(folder, 9)
    checkpoint(folder, 10)
    checkpoint(folder, 12, data="cut", actor=False)
    folder.marker.write_text(text)
    if not text.strip().isdecimal():
        assert folder.checkpoint_step() == 10  # as recipe.evaluate and recipe.compare read it
    assert folder.repair_marker().startswith(f"{folder.marker} names ")
    assert folder.marker.read_text() == "10" and folder.checkpoint_step() == 10
    assert sorted(file.name for file in folder.path.iterdir()) == [
        *("global_step_10", "global_step_12", "global_step_9", folder.marker.name)
    ]
    assert folder.repair_marker() is None and folder.marker_fault() is None


@pytest.mark.parametrize(("text", "problem"), [("", "names no checkpoint"), ("7", "step 7, which")])
def test_a_marker_without_any_whole_checkpoint_is_refused_and_left_as_it_is(folder, text, problem):
    checkpoint(folder, 3, data=None)
    folder.marker.write_text(text)
    with pytest.raises(ValueError, match=f"{problem}.*no other is whole: restore it, remove .*or"):
        folder.repair_marker()
    assert folder.marker.read_text() == text


def test_a_sound_marker_and_a_missing_one_are_left_alone(folder):
    assert folder.repair_marker() is None and not folder.path.exists()
    checkpoint(folder, 9)
    checkpoint(folder, 10)
    assert folder.repair_marker() is None and folder.checkpoint_step() == 0
    folder.marker.write_text("9")  # killed before the marker of step 10
    assert folder.repair_marker() is None and folder.checkpoint_step() == 9


def test_steps_beyond_where_a_later_start_went_on_are_not_of_the_run(folder):
    """One that was killed before it came as far again, or that began anew in the same folder."""
    log(folder, 0, {step: {"a": 0.0} for step in range(1, 10)})
    log(folder, 1, {5: {"val": 1.0}, 6: {"a": 1.0}})  # resumed after step 5, validation first
    assert sorted(folder.metrics()) == [1, 2, 3, 4, 5, 6] and folder.steps_done() == 6
    assert folder.metrics()[5] == {"a": 0.0, "val": 1.0}
    log(folder, 2, {})  # had nothing to do
    assert folder.steps_done() == 6 and len(folder.metrics()) == 6
    log(folder, 3, {1: {"a": 3.0}, 2: {"a": 3.0}})  # began anew, of an older version
    assert folder.metrics() == {1: {"a": 3.0}, 2: {"a": 3.0}} and folder.steps_done() == 2


def test_validating_an_earlier_checkpoint_leaves_the_run_as_it_was(folder):
    """resume_mode=resume_path and val_only=true, in the run's own folder."""
    log(folder, 0, {step: {"training/global_step": step} for step in range(1, 6)})
    checkpoint(folder, 5)
    folder.marker.write_text("5")
    log(folder, 1, {2: {"val-core/x": 0.5}}, record={"config": {"trainer": {"val_only": True}}})
    assert sorted(folder.metrics()) == [1, 2, 3, 4, 5]
    assert folder.metrics()[2] == {"training/global_step": 2, "val-core/x": 0.5}
    assert folder.steps_done() == 5 and folder.is_complete(5)


def test_what_an_interrupted_evaluation_leaves_is_no_benchmark(folder):
    """Of an atomic write, and of a cache that was being removed."""
    names = ["b.parquet", ".7.b.parquet", "p/c.parquet", "p/.7.c.parquet"]
    names += ["b.responses/000000.parquet", ".b.responses.removed/000000.parquet"]
    for name in names:
        (folder.evaluation / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.evaluation / name).touch()
    assert folder.evaluations() == [folder.evaluation / n for n in ("b.parquet", "p/c.parquet")]


def test_a_step_that_was_trained_again_has_the_later_start_s_values_alone(folder):
    """verl logs some metrics only where they are not 0."""
    trained = {"training/global_step": 3}
    log(folder, 0, {2: {"a": 0.0}, 3: {"a": 0.0, "evicted": 5.0, **trained}, 4: {"a": 0.0}})
    log(folder, 1, {3: {"a": 1.0, **trained}})
    assert folder.metrics() == {2: {"a": 0.0}, 3: {"a": 1.0, **trained}}


def end(folder, number, text):
    (folder.path / f"metrics/{number:03d}.end").write_text(f"{text}\n")


def test_the_end_is_of_the_last_start_and_not_of_a_former_one(folder):
    assert folder.last_end() == "" and folder.end_written() is None
    log(folder, 0, {1: {}})
    (folder.path / "metrics/000.yaml").write_text("{}")
    end(folder, 0, "finished")
    assert folder.last_end() == "finished"
    before = folder.end_written()
    end(folder, 1, "failed: OSError: No space left on device")  # before it could write its record
    assert folder.last_end() == "failed: OSError: No space left on device"
    assert folder.end_written() != before
    (folder.path / "metrics/002.yaml").write_text("{}")  # runs
    assert folder.last_end() == "" and folder.end_written() is None
    folder.note_killed("by SIGKILL")
    assert folder.last_end() == "killed: by SIGKILL"
    assert (folder.path / "metrics/002.end").is_file()


@pytest.mark.parametrize("before", ["stopped: by Ctrl-C", "finished", "failed: memory"])
def test_a_start_that_only_validated_leaves_the_run_as_it_was(folder, before):
    planned = record(10)["config"]
    for number, (val_only, how) in enumerate([(False, before), (True, "finished")] * 2):
        trainer = {**planned["trainer"], "val_only": val_only}
        log(folder, number, {4: {}}, record={"config": {**planned, "trainer": trainer}})
        end(folder, number, how)
    assert folder.last_end() == before
    end(folder, 3, "failed: no data")  # its own end, unless it went well
    assert folder.last_end() == "failed: no data"


def test_where_nothing_was_trained_a_validation_ends_as_its_own(folder):
    log(folder, 0, {0: {}}, record={"config": {"trainer": {"val_only": True}}})
    end(folder, 0, "finished")
    assert folder.last_end() == "finished"


def test_a_run_that_found_nothing_left_to_do_is_complete(folder):
    """Killed between its last checkpoint and its last line: verl then has no step to log."""
    log(folder, 0, {1: {}, 2: {}})
    (folder.path / "metrics/000.yaml").write_text("{}")
    folder.marker.write_text("3")
    assert not folder.is_complete(3)
    end(folder, 1, "finished")
    assert folder.is_complete(3) and not folder.is_complete(4)


def test_a_folder_is_held_by_one_start(folder, monkeypatch):
    held = folder.hold()
    with pytest.raises(ValueError, match="holds a run that is running now: wait for its end"):
        folder.hold()
    monkeypatch.setenv(LOCK, "7")  # recipe.compare holds it for the start
    assert folder.hold() is None
    monkeypatch.delenv(LOCK)
    held.close()
    folder.hold().close()


def test_a_run_is_complete_with_both_its_last_checkpoint_and_its_metrics(folder):
    log(folder, 0, {1: {}, 2: {}, 3: {}})
    marker = folder.path / "latest_checkpointed_iteration.txt"
    assert not folder.is_complete(3)
    marker.write_text("2")
    assert folder.is_complete(2) and not folder.is_complete(3)
    marker.write_text("4")
    assert folder.is_complete(3) and not folder.is_complete(4)


def test_the_end_of_the_log_is_its_last_line_that_says_something(folder):
    folder.path.mkdir()
    folder.log.write_bytes(b"first\nlast \xff" + b"x" * 400 + b"\n \n\n")
    assert folder.log_end() == "x" * 300
    folder.log.write_bytes(b"first\n\x1b[31mlast\x1b[0m\x1b]0;title\x07 line\x07\r\n")
    assert folder.log_end() == "last line"


def test_of_a_log_the_end_alone_is_read(folder):
    folder.path.mkdir()
    with folder.log.open("wb") as file:
        file.seek(1 << 26)  # 64 MiB before it
        file.write(b"\nthe last line\n")
    tracemalloc.start()
    try:
        assert folder.log_end() == "the last line"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


# ---- the runs of a comparison --------------------------------------------------------------------


def matrix_of(out, names="ab", seeds=(0, 1)):
    arms = tuple(Arm(name, "r", "p", name.upper()) for name in names)
    return Matrix(arms, seeds, names[0], "t", out)


def record(steps):
    return {"config": {"trainer": {"total_training_steps": steps}}}


def test_a_run_is_read_with_all_that_it_has(tmp_path):
    folder = RunFolder(tmp_path / "a/seed1")
    log(folder, 0, {1: {"x": 1.0}}, record=record(2))
    log(folder, 1, {2: {"x": 2.0}}, record=record(4))
    folder.log.write_text("the end\n")
    run = read_run(tmp_path, "a", 1)
    assert run == Run(
        *("a", 1, folder, {1: {"x": 1.0}, 2: {"x": 2.0}}, [record(2), record(4)], "the end")
    )
    assert (run.name, run.last_step, run.planned(), run.started) == ("a/seed1", 2, 4, True)
    assert not read_run(tmp_path, "a", 2).started


def test_a_record_without_a_trainer_plans_nothing(tmp_path):
    for config in (None, {}, {"trainer": None}):
        assert Run("a", 0, RunFolder(tmp_path), records=[{"config": config}]).planned() is None


def test_statuses_by_the_config_or_else_by_the_longest_run(tmp_path):
    for seed, (steps, planned) in enumerate([(3, 3), (2, 3), (3, None), (2, None), (0, 3)]):
        folder = RunFolder(tmp_path / f"a/seed{seed}")
        log(folder, 0, {i: {} for i in range(1, steps + 1)}, record=planned and record(planned))
    matrix = matrix_of(tmp_path, "a", range(6))
    assert list(statuses(read_runs(matrix)).values()) == [
        *("finished", "unfinished", "finished", "unfinished", "unfinished", "missing")
    ]


def test_a_run_whose_last_start_ended_as_finished_is_finished(tmp_path):
    """Its curriculum may be shorter than the config's steps; a start that logged no step has no
    value to report."""
    cases = {
        (4, "finished"): "finished",
        (4, "failed: memory"): "unfinished",
        (4, None): "unfinished",
        (10, "failed: the last start found no device"): "finished",
        (0, "finished"): "unfinished",
    }
    for seed, (steps, how) in enumerate(cases):
        folder = RunFolder(tmp_path / f"a/seed{seed}")
        log(folder, 0, {i: {} for i in range(1, steps + 1)}, record=record(10))
        if how:
            end(folder, 0, how)
    matrix = matrix_of(tmp_path, "a", range(len(cases)))
    assert list(statuses(read_runs(matrix)).values()) == list(cases.values())
    assert [run.seed for run in finished_runs(matrix)] == [0, 3]
    assert not RunFolder(tmp_path / "a/seed0").is_complete(10)  # compare resumes by checkpoints


def test_arms_and_seeds_that_have_not_started_are_dropped(tmp_path):
    matrix = matrix_of(tmp_path, "abc", (0, 1, 2))
    assert drop_unstarted(matrix, read_runs(matrix))[::2] == (matrix, [])
    log(RunFolder(tmp_path / "b/seed1"), 0, {1: {}})
    left, runs, sentences = drop_unstarted(matrix, read_runs(matrix))
    assert [arm.name for arm in left.arms] == ["a", "b"] and left.seeds == (1,)
    assert [run.name for run in runs] == ["a/seed1", "b/seed1"]
    assert sentences == ["1 of 3 arms have no run yet: C.", "No run yet has seed 0, 2."]


def test_this_room_needs_neither_verl_nor_torch():
    modules = ("matrix", "run", "evaluation", "provenance", "statistics")
    code = f"import sys, {', '.join(f'recipe.experiment.{name}' for name in modules)}\n"
    code += "print(sorted({'torch', 'verl', 'ray', 'transformers', 'matplotlib'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_how_a_start_ended_is_one_line_that_a_terminal_does_not_obey(tmp_path):
    folder = RunFolder(tmp_path)
    log(folder, 0, {}, record={})
    end(folder, 0, "failed: \x1b]0;title\x07a\x1b[2Jb\nc")
    assert folder.last_end() == "failed: ab c"


@pytest.mark.parametrize("config", ["text", ["a"], {"trainer": "text"}, None])
def test_a_record_whose_config_is_none_says_nothing(tmp_path, config):
    log(RunFolder(tmp_path / "a/seed0"), 0, {1: {"x": 1}}, record={"config": config})
    run = read_run(tmp_path, "a", 0)
    assert run.planned() is None and run.logged == ({"x"}, True)
