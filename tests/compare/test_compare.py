"""recipe.compare without training: what runs is a stand-in that writes what a run would write."""

import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
import yaml

from recipe.compare import __main__ as compare
from recipe.compare.__main__ import Arm, Matrix, Run

ROOT = Path(__file__).resolve().parents[2]
ARM = Arm("grpo", "semantic_curriculum", "grpo", "GRPO", "run_cpu.sh")
STAND_IN = textwrap.dedent("""
    import json, os, signal, sys, time
    from pathlib import Path
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))  # as ray.init does
    folder, steps, crash_at, pause = Path(sys.argv[1]), *map(int, sys.argv[2:4]), float(sys.argv[4])
    (folder / "metrics").mkdir(parents=True, exist_ok=True)
    with (folder / "starts").open("a") as starts:
        print(os.environ.get("CUDA_VISIBLE_DEVICES", "-"), file=starts)
    number = len(list(folder.glob("metrics/*.jsonl")))
    saved = folder / "latest_checkpointed_iteration.txt"
    first = int(saved.read_text()) + 1 if saved.exists() else 1
    with (folder / f"metrics/{number:03d}.jsonl").open("w", buffering=1) as metrics:
        for step in range(first, steps + 1):
            print(json.dumps({"step": step, "data": {"prompt_length/mean": 3.0}}), file=metrics)
            saved.write_text(str(step))
            time.sleep(pause)
            if step == crash_at and number == 0 or crash_at < 0:
                sys.exit(1)
""")


def record(**config):
    settings = {
        "actor_rollout_ref": {"model": {"path": "m"}, "rollout": {"n": 8}},
        "data": {"train_files": "t", "val_files": "v", "seed": 0, "curriculum": {"order": "none"}},
        "trainer": {"device": "cpu", "nnodes": 1, "n_gpus_per_node": 1, "save_freq": 5},
    }
    for key, value in config.items():
        node, *path = key.split("__")
        target = settings[node]
        for part in path[:-1]:
            target = target[part]
        target[path[-1]] = value
    files = {"actor_rollout_ref.model.path": "aa", "data.train_files[0]": "bb"}
    return {"config": settings, "files": files, "packages": {"verl": "0.9.1"}}


def run_of(tmp_path, arm=ARM, seed=0, steps=4, crash_at=0, pause=0.0, recorded=None):
    folder = tmp_path / "out" / arm.name / f"seed{seed}"
    stand_in = tmp_path / "stand_in.py"
    stand_in.write_text(STAND_IN)
    command = [sys.executable, str(stand_in), str(folder), str(steps), str(crash_at), str(pause)]
    return Run(arm, seed, folder, command, recorded or record(), steps)


def starts(run):
    return (run.folder / "starts").read_text().splitlines()


# ---- the matrix ----------------------------------------------------------------------------------

GOOD = {"arms": {"a": {"recipe": "asymgrpo", "preset": "grpo"}}}


def test_a_small_matrix_gets_its_defaults(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(GOOD))
    matrix = compare.read_matrix(file)
    assert matrix.seeds == (0, 1, 2) and matrix.baseline == "a" and matrix.title == "mine"
    assert matrix.out == Path.cwd() / "outputs/mine"
    assert matrix.arms == (Arm("a", "asymgrpo", "grpo", "a", "run_cpu.sh"),)


@pytest.mark.parametrize("file", sorted((ROOT / "matrices").glob("*.yaml")), ids=lambda f: f.stem)
def test_the_matrices_here_can_be_read(file):
    matrix = compare.read_matrix(file)
    assert len(matrix.arms) > 1 and len(matrix.seeds) >= 2
    assert len({arm.label for arm in matrix.arms}) == len(matrix.arms)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"arms": {}}, "names no arms"),
        ({"arms": None}, "names no arms"),
        ({"sedes": [0]}, "did you mean seeds"),
        ({"seeds": [1, 1]}, "different whole numbers"),
        ({"seeds": [-1]}, "whole numbers from 0 up"),
        ({"seeds": 3}, "different whole numbers"),
        ({"baseline": "b"}, "baseline=b does not exist"),
        ({"overrides": "a=b"}, "give a list"),
        ({"arms": {"../x": {"recipe": "asymgrpo", "preset": "grpo"}}}, "not a folder's name"),
        ({"arms": {"a": {"recipe": "asymgrpo"}}}, "must name its recipe and its preset"),
        ({"arms": {"a": {"recipe": "asymgpro", "preset": "x"}}}, "does not exist; run_cpu.sh"),
        ({"arms": {"a": {"recipe": "asymgrpo", "preset": "x", "lable": 1}}}, "did you mean label"),
    ],
)
def test_a_wrong_matrix_ends_in_one_sentence(tmp_path, change, said):
    file = tmp_path / "m.yaml"
    file.write_text(yaml.safe_dump({**GOOD, **change}))
    with pytest.raises(ValueError, match=said):
        compare.read_matrix(file)


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.yaml"):
        compare.read_matrix(tmp_path / "none.yaml")
    (tmp_path / "m.yaml").write_text("arms: [")
    with pytest.raises(ValueError, match=r"m\.yaml is not a yaml file"):
        compare.read_matrix(tmp_path / "m.yaml")


# ---- fair, and never mixed -----------------------------------------------------------------------


def test_runs_of_a_seed_must_share_what_a_comparison_shares(tmp_path):
    other = Arm("other", "asymgrpo", "asymgrpo", "other", "run_cpu.sh")
    base = run_of(tmp_path)

    def check(arm=other, **config):
        compare.check_shared([base, run_of(tmp_path, arm, recorded=record(**config))], "grpo")

    check(trainer__save_freq=7)  # is nobody's business
    with pytest.raises(ValueError, match=r"rollout\.n"):
        check(actor_rollout_ref__rollout__n=4)
    with pytest.raises(ValueError, match=r"data\.curriculum\.order"):
        check(data__curriculum__order="reversed")
    check(other.__class__(**{**vars(other), "own": ("data.curriculum",)}),
          data__curriculum__order="reversed")  # fmt: skip
    different_model = record()
    different_model["files"]["actor_rollout_ref.model.path"] = "zz"
    with pytest.raises(ValueError, match=r"model\.path"):
        compare.check_shared([base, run_of(tmp_path, other, recorded=different_model)], "grpo")
    # another seed may begin with other weights
    compare.check_shared([base, run_of(tmp_path, other, seed=1, recorded=different_model)], "grpo")


def test_a_folder_with_a_run_of_another_config_is_refused(tmp_path):
    run = run_of(tmp_path)
    compare.check_folder(run)  # nothing there
    (run.folder / "metrics").mkdir(parents=True)
    file = run.folder / "metrics/000.yaml"
    file.write_text(yaml.safe_dump(record(trainer__save_freq=9)))
    compare.check_folder(run)
    for other in (record(data__seed=1), {**record(), "packages": {"verl": "0.9.2"}}):
        file.write_text(yaml.safe_dump(other))
        with pytest.raises(ValueError, match="another config"):
            compare.check_folder(run)
    file.unlink()
    (run.folder / "metrics/000.jsonl").write_text('{"step": 1, "data": {}}\n')
    with pytest.raises(ValueError, match="without a record"):
        compare.check_folder(run)


def test_prompts_that_were_not_the_same_are_told(tmp_path):
    runs = [run_of(tmp_path, Arm(n, "asymgrpo", n, n, "run_cpu.sh")) for n in ("a", "b")]
    for run in runs:
        assert compare.run_once(run, {}, compare.Processes()) == "finished"
    assert compare.check_order(runs) == []
    file = runs[1].folder / "metrics/000.jsonl"
    lines = file.read_text().splitlines()
    lines[2] = lines[2].replace("3.0", "3.5")
    file.write_text("\n".join(lines))
    assert compare.check_order(runs) == [
        "b, seed 0 and a, seed 0 did not train on the same prompts at step 3"
    ]


# ---- running -------------------------------------------------------------------------------------


def test_steps_are_those_of_whole_lines(tmp_path):
    (tmp_path / "metrics").mkdir()
    assert compare.steps_done(tmp_path) == 0
    file = tmp_path / "metrics/000.jsonl"
    file.write_text('{"step": 8, "data": {}}\n{"step":9,"data":{}}\n{"step": 10, "da')
    assert compare.steps_done(tmp_path) == 9


def test_a_finished_run_is_not_repeated(tmp_path):
    run = run_of(tmp_path)
    assert compare.run_once(run, {}, compare.Processes()) == "finished"
    assert compare.run_once(run, {}, compare.Processes()) == "skipped"
    assert len(starts(run)) == 1


def test_a_run_that_crashes_goes_on_once(tmp_path):
    run = run_of(tmp_path, crash_at=2)
    assert compare.run_once(run, {}, compare.Processes()) == "finished"
    assert len(starts(run)) == 2 and compare.steps_done(run.folder) == 4
    assert (run.folder / "metrics/001.jsonl").read_text().startswith('{"step": 3')


def test_a_run_that_crashes_twice_has_failed_and_the_others_go_on(tmp_path):
    bad = run_of(tmp_path, Arm("bad", "asymgrpo", "x", "bad", "run_cpu.sh"), crash_at=-1)
    good = run_of(tmp_path)
    matrix = Matrix((bad.arm, good.arm), (0,), "grpo", "t", tmp_path / "out")
    results = compare.run_all(matrix, [bad, good], [{}])
    assert results == {"finished": [good], "skipped": [], "failed": [bad]}
    assert len(starts(bad)) == 2


def test_a_run_left_behind_is_waited_for_and_not_doubled(tmp_path):
    run = run_of(tmp_path, steps=3, pause=0.5)
    run.folder.mkdir(parents=True)
    with (run.folder / ".lock").open("w") as lock:  # as a comparison that is then killed with -9
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(run.command, pass_fds=(lock.fileno(),))
    assert compare.run_once(run, {}, compare.Processes()) == "skipped"
    assert process.wait() == 0 and len(starts(run)) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_comparison_that_is_stopped_stops_its_runs(tmp_path, number):
    run, later = run_of(tmp_path, steps=400, pause=0.05), run_of(tmp_path, seed=1)
    threading.Timer(1.5, os.kill, (os.getpid(), number)).start()
    with compare.ended_by_signals(), pytest.raises(KeyboardInterrupt):
        compare.run_all(Matrix((ARM,), (0, 1), "grpo", "t", tmp_path / "out"), [run, later], [{}])
    with compare.lock_of(run):  # which the run held while it lived
        assert 0 < compare.steps_done(run.folder) < 400
    assert len(starts(run)) == 1
    assert not (later.folder / "starts").exists()


def test_a_process_that_is_just_being_started_is_ended_too(tmp_path, monkeypatch):
    popen, reached, go_on = subprocess.Popen, threading.Event(), threading.Event()

    def slow(*args, **kwargs):
        reached.set()
        assert go_on.wait(20)
        return popen(*args, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", slow)
    processes = compare.Processes()
    with ThreadPoolExecutor(2) as pool:
        code = pool.submit(processes.call, ["sleep", "20"], tmp_path / "log", None)
        assert reached.wait(20)
        end = pool.submit(processes.end)
        wait([end], timeout=0.3)
        go_on.set()
        assert code.result(10) == -signal.SIGTERM
    assert processes.call(["sleep", "20"], tmp_path / "log", None) == -signal.SIGTERM


def test_the_run_itself_holds_the_lock(tmp_path):
    """So that it outlives a comparison that is killed."""
    run = run_of(tmp_path, steps=2, pause=0.4)
    seen = []

    class Processes(compare.Processes):
        def add(self, process):
            super().add(process)
            lock = (run.folder / ".lock").resolve()
            held = [Path(fd).resolve() for fd in Path(f"/proc/{process.pid}/fd").iterdir()]
            seen.append(lock in held)

    assert compare.run_once(run, {}, Processes()) == "finished"
    assert seen == [True]


def test_side_by_side_each_has_its_own_gpus(tmp_path):
    runs = [run_of(tmp_path, seed=seed, steps=2, pause=0.2) for seed in range(4)]
    matrix = Matrix((ARM,), (0, 1, 2, 3), "grpo", "t", tmp_path / "out")
    places = [{"CUDA_VISIBLE_DEVICES": "0,1"}, {"CUDA_VISIBLE_DEVICES": "2,3"}]
    results = compare.run_all(matrix, runs, places)
    assert len(results["finished"]) == 4
    used = [starts(run) for run in runs]
    assert sorted({place for one in used for place in one}) == ["0,1", "2,3"]


def test_one_at_a_time_without_a_cluster(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    cpu, gpu = run_of(tmp_path), run_of(tmp_path, recorded=record(trainer__device="cuda"))
    gpu.record["config"]["trainer"]["n_gpus_per_node"] = 2
    assert compare.places_of([cpu], None, None) == [{}]
    with pytest.raises(ValueError, match="--jobs=2 needs one Ray cluster"):
        compare.places_of([cpu], 2, None)
    assert compare.places_of([gpu], 1, "4,5") == [{"CUDA_VISIBLE_DEVICES": "4,5"}]
    with pytest.raises(ValueError, match="needs 2 GPUs of this machine and 1 may be used"):
        compare.places_of([gpu], None, "3")


@pytest.mark.parametrize(("there", "jobs", "places"), [(8, None, 4), (9, 2, 2), (1, None, 0)])
def test_in_a_cluster_as_many_as_fit(tmp_path, monkeypatch, there, jobs, places):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:6379")
    monkeypatch.setattr(ray, "init", lambda address, **_: address == "somewhere:6379" or 1 / 0)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"GPU": float(there)})
    gpu = run_of(tmp_path, recorded=record(trainer__device="cuda"))
    gpu.record["config"]["trainer"]["n_gpus_per_node"] = 2
    if places:
        assert compare.places_of([gpu], jobs, None) == [{}] * places
        return
    with pytest.raises(ValueError, match="RAY_ADDRESS has 1"):
        compare.places_of([gpu], jobs, None)


def test_a_cluster_that_cannot_be_joined_is_one_sentence(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")

    def init(**_):
        raise ConnectionError("Failed to connect")  # after two minutes of trying

    monkeypatch.setenv("RAY_ADDRESS", "somewhere:6379")
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ValueError, match="RAY_ADDRESS=somewhere:6379 cannot be joined"):
        compare.places_of([run_of(tmp_path)], None, None)


# ---- the whole, up to the start ------------------------------------------------------------------


@pytest.fixture
def small_matrix(tmp_path, monkeypatch):
    """run_cpu.sh of two recipes, with files that are there so that the scripts make none."""
    pytest.importorskip("verl")
    for name in ("train.parquet", "test.parquet", "model/config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    monkeypatch.setattr("recipe.launch.preflight.check", lambda config: None)  # wants real data

    def write(**change):
        values = {
            "seeds": [0, 1],
            "environment": {
                "STEPS": 3,
                "MODEL_PATH": str(tmp_path / "model"),
                "DATA_DIR": str(tmp_path),
            },
            "arms": {
                "grpo": {"recipe": "asymgrpo", "preset": "grpo"},
                "asymgrpo": {"recipe": "asymgrpo", "preset": "asymgrpo"},
            },
            **change,
        }
        (tmp_path / "m.yaml").write_text(yaml.safe_dump(values))
        return [str(tmp_path / "m.yaml"), "--out", str(tmp_path / "out"), "--dry-run"]

    return write


def test_a_dry_run_checks_all_and_starts_nothing(small_matrix, tmp_path, capsys):
    assert compare.main(small_matrix()) == 0
    printed = capsys.readouterr().out
    assert printed.count("0 of 3 steps") == 4 and "asymgrpo, seed 1" in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"overrides": ["data.seed=5", "trainer.total_training_steps=null"]}, "has no end"),
        ({"overrides": ["no_such_key=1"]}, "no_such_key"),
        (
            {
                "arms": {
                    "a": {"recipe": "asymgrpo", "preset": "grpo"},
                    "b": {"recipe": "asymgrpo", "preset": "grpo", "overrides": ["data.seed=7"]},
                }
            },
            "differ in data.seed",
        ),
    ],
)
def test_a_wrong_run_is_told_before_any_starts(small_matrix, tmp_path, capsys, change, said):
    assert compare.main(small_matrix(**change)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "error: " in error and said in error
    assert not (tmp_path / "out").exists()
