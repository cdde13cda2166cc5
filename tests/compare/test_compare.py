"""recipe.compare without training: what runs is a stand-in that writes what a run would write."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import save_file

from recipe import machine
from recipe.compare import __main__ as compare
from recipe.compare import plan, supervise
from recipe.compare.plan import PlannedRun
from recipe.compare.slots import run_slots
from recipe.compare.supervise import Processes
from recipe.experiment.evaluation import COLUMNS
from recipe.experiment.matrix import Arm, Matrix, read_matrix
from recipe.experiment.provenance import fingerprint
from recipe.experiment.run import RunFolder

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
        "actor_rollout_ref": {
            "model": {"path": "m"},
            "rollout": {"n": 8},
            "actor": {"optim": {"lr": 1e-6}, "policy_loss": {"loss_mode": "vanilla"}},
        },
        "data": {"train_files": "t", "val_files": "v", "seed": 0, "curriculum": {"order": "none"}},
        "trainer": {"device": "cpu", "nnodes": 1, "n_gpus_per_node": 1, "save_freq": 5},
        "algorithm": {"adv_estimator": "grpo"},
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
    return PlannedRun(arm, seed, RunFolder(folder), command, recorded or record(), steps)


def starts(run):
    return (run.folder.path / "starts").read_text().splitlines()


# ---- fair, and never mixed -----------------------------------------------------------------------


def test_runs_of_a_seed_must_share_what_a_comparison_shares(tmp_path):
    other = Arm("other", "asymgrpo", "asymgrpo", "other", "run_cpu.sh")
    base = run_of(tmp_path)

    def check(arm=other, **config):
        plan.check_fair([base, run_of(tmp_path, arm, recorded=record(**config))], "grpo")

    check(trainer__save_freq=7)  # does not change a run's results
    check(algorithm__adv_estimator="asymgrpo", actor_rollout_ref__actor__policy_loss={"new": 1})
    with pytest.raises(ValueError, match=r"actor\.optim\.lr \(1e-06 and 2e-06\)"):
        check(actor_rollout_ref__actor__optim__lr=2e-6)
    with pytest.raises(ValueError, match=r"trainer\.anything_else .None and 1."):
        check(trainer__anything_else=1)
    with pytest.raises(ValueError, match=r"rollout\.n"):
        check(actor_rollout_ref__rollout__n=4)
    with pytest.raises(ValueError, match=r"data\.curriculum\.order"):
        check(data__curriculum__order="reversed")
    with_curriculum = replace(other, may_differ=("data.curriculum",))
    check(with_curriculum, data__curriculum__order="reversed")
    with pytest.raises(ValueError, match=r"rollout\.n"):
        check(with_curriculum, actor_rollout_ref__rollout__n=4)
    different_model = record()
    different_model["files"]["actor_rollout_ref.model.path"] = "zz"
    with pytest.raises(ValueError, match=r"model\.path"):
        plan.check_fair([base, run_of(tmp_path, other, recorded=different_model)], "grpo")
    # another seed may begin with other weights
    plan.check_fair([base, run_of(tmp_path, other, seed=1, recorded=different_model)], "grpo")


def test_a_folder_with_a_run_of_another_config_is_refused(tmp_path):
    run = run_of(tmp_path)
    plan.check_folder(run)  # nothing there
    (run.folder.path / "metrics").mkdir(parents=True)
    file = run.folder.path / "metrics/000.yaml"
    file.write_text(yaml.safe_dump(record(trainer__save_freq=9)))
    plan.check_folder(run)
    for other in (record(data__seed=1), {**record(), "packages": {"verl": "0.9.2"}}):
        file.write_text(yaml.safe_dump(other))
        with pytest.raises(ValueError, match="another config"):
            plan.check_folder(run)
    for unreadable in ("", "config: ["):
        file.write_text(unreadable)
        with pytest.raises(ValueError, match="without a record"):
            plan.check_folder(run)
    file.unlink()
    (run.folder.path / "metrics/000.jsonl").write_text('{"step": 1, "data": {}}\n')
    with pytest.raises(ValueError, match="without a record"):
        plan.check_folder(run)


def test_the_settings_of_a_recipe_that_came_later_are_no_other_config(tmp_path):
    """Every recipe's defaults are in every config; the example's are here or not, then its own."""
    run = run_of(tmp_path)
    (run.folder.path / "metrics").mkdir(parents=True)
    file = run.folder.path / "metrics/000.yaml"
    for value, refused in ((0.3, False), (0.5, True)):
        with_example = record()
        actor = with_example["config"].setdefault("actor_rollout_ref", {}).setdefault("actor", {})
        actor.setdefault("policy_loss", {})["target_entropy"] = value
        file.write_text(yaml.safe_dump(with_example))
        with pytest.raises(ValueError, match="target_entropy") if refused else nullcontext():
            plan.check_folder(run)


def test_prompts_that_were_not_the_same_are_told(tmp_path):
    runs = [run_of(tmp_path, Arm(n, "asymgrpo", n, n, "run_cpu.sh")) for n in ("a", "b")]
    for run in runs:
        assert supervise.run_once(run, {}, Processes()) == "finished"
    assert plan.differing_prompts(runs) == []
    file = runs[1].folder.path / "metrics/000.jsonl"
    lines = file.read_text().splitlines()
    lines[2] = lines[2].replace("3.0", "3.5")
    file.write_text("\n".join(lines))
    assert plan.differing_prompts(runs) == [
        "b, seed 0 and a, seed 0 did not train on the same prompts at step 3"
    ]


# ---- running -------------------------------------------------------------------------------------


def test_an_empty_marker_of_the_last_checkpoint_is_none(tmp_path):
    """verl writes it in place, so that a run which is killed can leave it empty."""
    run = run_of(tmp_path, steps=2)
    assert supervise.run_once(run, {}, Processes()) == "finished"
    (run.folder.path / "latest_checkpointed_iteration.txt").write_text("")
    assert not run.finished


def test_a_finished_run_is_not_repeated(tmp_path):
    run = run_of(tmp_path)
    assert supervise.run_once(run, {}, Processes()) == "finished"
    assert supervise.run_once(run, {}, Processes()) == "skipped"
    assert len(starts(run)) == 1


def test_a_run_that_crashes_goes_on_once(tmp_path):
    run = run_of(tmp_path, crash_at=2)
    assert supervise.run_once(run, {}, Processes()) == "finished"
    assert len(starts(run)) == 2 and run.folder.steps_done() == 4
    assert (run.folder.path / "metrics/001.jsonl").read_text().startswith('{"step": 3')


def test_a_run_that_crashes_twice_has_failed_and_the_others_go_on(tmp_path):
    bad = run_of(tmp_path, Arm("bad", "asymgrpo", "x", "bad", "run_cpu.sh"), crash_at=-1)
    good = run_of(tmp_path)
    matrix = Matrix((bad.arm, good.arm), (0,), "grpo", "t", tmp_path / "out")
    results = supervise.run_all(matrix, [bad, good], [{}])
    assert results == {"finished": [good], "skipped": [], "failed": [bad]}
    assert len(starts(bad)) == 2


def test_a_run_left_behind_is_waited_for_and_not_doubled(tmp_path):
    run = run_of(tmp_path, steps=3, pause=0.5)
    run.folder.path.mkdir(parents=True)
    with run.folder.lock.open("w") as lock:  # as a comparison that is then killed with -9
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(run.command, pass_fds=(lock.fileno(),))
    assert supervise.run_once(run, {}, Processes()) == "skipped"
    assert process.wait() == 0 and len(starts(run)) == 1


def test_an_evaluation_is_not_repeated_unless_something_has_changed(tmp_path):
    pytest.importorskip("math_verify")
    from recipe.evaluate import __main__ as evaluate

    run = run_of(tmp_path, steps=2)
    assert supervise.run_once(run, {}, Processes()) == "finished"
    model = run.folder.checkpoint() / "actor/huggingface"
    model.mkdir(parents=True)
    weights = model / "model.safetensors"
    save_file({"weight": torch.zeros(1)}, weights)
    settings = {"benchmarks": ["x/b.parquet"], "samples": 3, "boxed_only": True, "again": False}
    words = plan.evaluation_arguments(run, settings)
    assert words[2:] == ["--out", str(run.folder.evaluation), "--samples", "3", "--boxed-only"]

    def is_evaluated(**change):
        return supervise.is_evaluated(run, settings | change)

    assert not is_evaluated()
    run.folder.evaluation.mkdir()
    recorded = evaluate.settings(evaluate.parse(words)) | {"model": fingerprint(model)}
    (run.folder.evaluation / "b.json").write_text(json.dumps({"settings": recorded}))
    assert not is_evaluated()
    table = run.folder.evaluation / "b.parquet"
    pd.DataFrame(columns=[name for name in COLUMNS if name != "cluster"]).to_parquet(table)
    assert not is_evaluated()  # an older version's
    pd.DataFrame(columns=list(COLUMNS)).to_parquet(table)
    assert is_evaluated() and not is_evaluated(samples=4) and not is_evaluated(boxed_only=False)
    assert not is_evaluated(benchmarks=["x/b.parquet", "x/c.parquet"])
    save_file({"weight": torch.ones(1)}, weights)
    assert not is_evaluated()


def test_a_run_is_evaluated_once_with_each_preset(tmp_path, monkeypatch):
    run = run_of(tmp_path)
    settings = {"benchmarks": ["x/b.parquet"], "presets": ["asymgrpo", "sent"], "samples": 3}
    started, there = [], []
    monkeypatch.setattr(supervise, "is_evaluated", lambda run, one: one["preset"] in there)
    processes = Processes()
    monkeypatch.setattr(processes, "call", lambda command, *_: started.append(command) or 0)
    assert supervise.evaluate_run(run, settings, {}, processes)
    out = run.folder.evaluation
    samples = ["--samples", "3", "--preset"]
    assert [command[3:] for command in started] == [
        [str(run.folder.path), "x/b.parquet", "--out", str(out / preset), *samples, preset]
        for preset in ("asymgrpo", "sent")
    ]
    started.clear()
    there.append("asymgrpo")
    assert supervise.evaluate_run(run, settings, {}, processes)
    assert [command[-1] for command in started] == ["sent"]
    monkeypatch.setattr(processes, "call", lambda *_: 1)
    assert not supervise.evaluate_run(run, settings, {}, processes)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_comparison_that_is_stopped_stops_its_runs(tmp_path, number):
    run, later = run_of(tmp_path, steps=400, pause=0.05), run_of(tmp_path, seed=1)
    threading.Timer(1.5, os.kill, (os.getpid(), number)).start()
    with supervise.interrupted_by_signals(), pytest.raises(KeyboardInterrupt):
        supervise.run_all(Matrix((ARM,), (0, 1), "grpo", "t", tmp_path / "out"), [run, later], [{}])
    with supervise.run_lock(run):  # which the run held while it lived
        assert 0 < run.folder.steps_done() < 400
    assert len(starts(run)) == 1
    assert not (later.folder.path / "starts").exists()


def test_a_process_that_is_just_being_started_is_ended_too(tmp_path, monkeypatch):
    popen, reached, go_on = subprocess.Popen, threading.Event(), threading.Event()

    def slow(*args, **kwargs):
        reached.set()
        assert go_on.wait(20)
        return popen(*args, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", slow)
    processes = Processes()
    with ThreadPoolExecutor(2) as pool:
        code = pool.submit(processes.call, ["sleep", "20"], tmp_path / "log", None)
        assert reached.wait(20)
        end = pool.submit(processes.end)
        wait([end], timeout=0.3)
        go_on.set()
        assert code.result(10) == -signal.SIGTERM
    assert processes.call(["sleep", "20"], tmp_path / "log", None) == -signal.SIGTERM


def test_the_run_itself_holds_the_lock(tmp_path, monkeypatch):
    """So that it outlives a comparison that is killed."""
    run = run_of(tmp_path, steps=2, pause=0.4)
    popen, seen = subprocess.Popen, []

    def watched(*args, **kwargs):
        process = popen(*args, **kwargs)
        held = [Path(fd).resolve() for fd in Path(f"/proc/{process.pid}/fd").iterdir()]
        seen.append(run.folder.lock.resolve() in held)
        return process

    monkeypatch.setattr(subprocess, "Popen", watched)
    assert supervise.run_once(run, {}, Processes()) == "finished"
    assert seen == [True]


def test_side_by_side_each_has_its_own_gpus(tmp_path):
    runs = [run_of(tmp_path, seed=seed, steps=2, pause=0.2) for seed in range(4)]
    matrix = Matrix((ARM,), (0, 1, 2, 3), "grpo", "t", tmp_path / "out")
    slots = [{"CUDA_VISIBLE_DEVICES": "0,1"}, {"CUDA_VISIBLE_DEVICES": "2,3"}]
    results = supervise.run_all(matrix, runs, slots)
    assert len(results["finished"]) == 4
    used = [starts(run) for run in runs]
    assert sorted({slot for slots_of_run in used for slot in slots_of_run}) == ["0,1", "2,3"]


def on_devices(run, devices, nodes=1):
    run.record["config"]["trainer"] |= {"n_gpus_per_node": devices, "nnodes": nodes}
    return run


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_one_at_a_time_without_a_cluster(tmp_path, monkeypatch, device):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(machine, "device_slots", lambda: 1)
    small = run_of(tmp_path, recorded=record(trainer__device=device))
    large = on_devices(run_of(tmp_path, seed=1, recorded=record(trainer__device=device)), 2)
    assert run_slots([small], None, None) == [{}]
    with pytest.raises(ValueError, match="--jobs=2 needs one Ray cluster"):
        run_slots([small], 2, None)
    assert run_slots([large], 1, "4,5") == [{"CUDA_VISIBLE_DEVICES": "4,5"}]
    with pytest.raises(ValueError, match="needs 2 GPUs of this machine and 1 may be used"):
        run_slots([large], None, "3")
    with pytest.raises(ValueError, match="needs 2 GPUs of this machine and 1 may be used"):
        run_slots([small, large], None, None)  # the largest run decides
    monkeypatch.setattr(machine, "device_slots", lambda: 2)
    assert run_slots([small, large], None, None) == [{}]


@pytest.mark.parametrize(("available", "jobs", "slots"), [(8, None, 4), (9, 2, 2), (1, None, 0)])
def test_in_a_cluster_as_many_as_fit(tmp_path, monkeypatch, available, jobs, slots):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:6379")
    monkeypatch.setattr(ray, "init", lambda address, **_: address == "somewhere:6379" or 1 / 0)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"GPU": float(available)})
    run = on_devices(run_of(tmp_path), devices=1, nodes=2)
    if slots:
        assert run_slots([run], jobs, None) == [{}] * slots
        return
    with pytest.raises(ValueError, match="RAY_ADDRESS has 1"):
        run_slots([run], jobs, None)


def test_a_cluster_that_cannot_be_joined_is_one_sentence(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")

    def init(**_):
        raise ConnectionError("Failed to connect")  # after two minutes of trying

    monkeypatch.setenv("RAY_ADDRESS", "somewhere:6379")
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ValueError, match="RAY_ADDRESS=somewhere:6379 cannot be joined"):
        run_slots([run_of(tmp_path)], None, None)


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
    ("change", "sentence"),
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
def test_a_run_with_a_mistake_is_reported_before_any_starts(
    small_matrix, tmp_path, capsys, change, sentence
):
    assert compare.main(small_matrix(**change)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "error: " in error and sentence in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"recipe": "asymgpro"}, "a: recipe asymgpro does not exist: did you mean asymgrpo"),
        ({"script": "run.sh"}, "a: recipe asymgrpo has no script run.sh; no recipe has it"),
        ({"script": "run_qwen3_14b.sh"}, "run_qwen3_14b.sh; semantic_curriculum has it"),
    ],
)
def test_a_recipe_or_script_that_does_not_exist_is_told(small_matrix, capsys, change, sentence):
    arms = {"a": {"recipe": "asymgrpo", "preset": "grpo", **change}}
    assert compare.main(small_matrix(arms=arms)) == 2
    assert sentence in capsys.readouterr().err


def test_a_script_may_lie_anywhere(small_matrix, tmp_path, capsys):
    script = tmp_path / "run_it.sh"
    script.write_text(f'exec bash {ROOT}/recipe/asymgrpo/run_cpu.sh "$@" trainer.test_freq=7\n')
    arm = {"recipe": "asymgrpo", "preset": "grpo", "script": str(script)}
    command = small_matrix(arms={"a": arm, "b": arm}, overrides=["trainer.nnodes=3"])
    matrix = read_matrix(Path(command[0]), tmp_path / "out")
    (run,) = plan.make_plan(matrix, ["b"], [5]).runs
    trainer = run.record["config"]["trainer"]
    assert (trainer["test_freq"], trainer["nnodes"], run.devices) == (7, 3, 3)
    assert (run.name, run.steps) == ("b, seed 5", 3)


def test_the_study_is_fair(tmp_path, monkeypatch):
    """One arm of each kind: the whole study takes half a minute to compose."""
    pytest.importorskip("verl")
    study = read_matrix(ROOT / "studies/study_cpu.yaml", tmp_path / "out")
    for name in ("train.parquet", "test.parquet", "scores.parquet", "model/config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    environment = {"MODEL_PATH": tmp_path / "model", "DATA_DIR": tmp_path}
    environment |= {"SCORES": tmp_path / "scores.parquet"}
    environment = {key: str(value) for key, value in environment.items()}
    study = replace(study, environment=study.environment | environment)
    planned = plan.make_plan(study, ["sent", "entropy_bonus", "asymgrpo", "od"], [0])
    runs = [*planned.baselines, *planned.runs]
    assert [run.arm.name for run in runs] == ["grpo", "sent", "entropy_bonus", "asymgrpo", "od"]
    plan.check_fair(runs, study.baseline)
    sent = replace(runs[1], arm=replace(runs[1].arm, may_differ=()))
    with pytest.raises(ValueError, match=r"grpo and sent differ in data\.curriculum\.stages"):
        plan.check_fair([runs[0], sent], study.baseline)
