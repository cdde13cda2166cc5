"""recipe.compare without training: what runs is a stand-in that writes what a run would write."""

import errno
import fcntl
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from ray_head import ray_cluster
from safetensors.torch import save_file

from recipe import machine
from recipe.compare import __main__ as compare
from recipe.compare import checks, plan, slots, supervise
from recipe.compare.plan import PlannedRun
from recipe.compare.slots import run_slots
from recipe.compare.supervise import Processes
from recipe.experiment import provenance
from recipe.experiment.evaluation import COLUMNS
from recipe.experiment.matrix import Arm, Matrix, read_matrix
from recipe.experiment.provenance import fingerprint
from recipe.experiment.run import RunFolder
from recipe.launch import nodes

ROOT = Path(__file__).resolve().parents[2]
ARM = Arm("grpo", "semantic_curriculum", "grpo", "GRPO", "run_cpu.sh")
STAND_IN = textwrap.dedent("""
    import json, os, shutil, signal, sys, time
    from pathlib import Path
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))  # as ray.init does
    folder, steps, crash_at, pause = Path(sys.argv[1]), *map(int, sys.argv[2:4]), float(sys.argv[4])
    (folder / "metrics").mkdir(parents=True, exist_ok=True)
    with (folder / "starts").open("a") as starts:
        print(os.environ.get("CUDA_VISIBLE_DEVICES", "-"), file=starts)
    number = len(list(folder.glob("metrics/*.jsonl")))
    shutil.copy(sys.argv[5], folder / f"metrics/{number:03d}.yaml")
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
        "ray_kwargs": {"ray_init": {"num_cpus": None}},
        "transfer_queue": {
            "backend": {
                "storage_backend": "SimpleStorage",
                "SimpleStorage": {"num_data_storage_units": 1},
            }
        },
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
    recorded = recorded or record()
    file = tmp_path / f"{arm.name}-{seed}.yaml"
    file.write_text(yaml.safe_dump(recorded))
    command = [sys.executable, stand_in, folder, steps, crash_at, pause, file]
    return PlannedRun(arm, seed, RunFolder(folder), list(map(str, command)), recorded, steps)


def starts(run):
    return (run.folder.path / "starts").read_text().splitlines()


# ---- fair, and never mixed -----------------------------------------------------------------------


def test_runs_of_a_seed_must_share_what_a_comparison_shares(tmp_path):
    other = Arm("other", "asymgrpo", "asymgrpo", "other", "run_cpu.sh")
    base = run_of(tmp_path)

    def check(arm=other, **config):
        checks.check_fair([base, run_of(tmp_path, arm, recorded=record(**config))], "grpo")

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
        checks.check_fair([base, run_of(tmp_path, other, recorded=different_model)], "grpo")
    # another seed may begin with other weights
    checks.check_fair([base, run_of(tmp_path, other, seed=1, recorded=different_model)], "grpo")


@pytest.mark.parametrize(
    "key",
    [
        "actor_rollout_ref.rollout.temperature",
        "actor_rollout_ref.rollout.dtype",
        "algorithm.filter_groups.enable",
        "algorithm.rollout_correction.rollout_is",
        "algorithm.use_kl_in_reward",
        "data.apply_chat_template_kwargs.enable_thinking",
        "data.curriculum.order",
        "reward.custom_reward_function.name",
        "actor_rollout_ref.model.lora_rank",
        "actor_rollout_ref.actor.ppo_epochs",
        "trainer.n_gpus_per_node",
    ],
)
def test_what_is_no_method_s_may_not_differ_unless_an_arm_names_it(tmp_path, key):
    """The other way round than a list of what is shared: what nobody thought of is refused."""
    other = Arm("other", "asymgrpo", "asymgrpo", "other", "run_cpu.sh")
    changed = record()
    node, (*path, last) = changed["config"], key.split(".")
    for part in path:
        node = node.setdefault(part, {})
    node[last] = "changed"
    base = run_of(tmp_path)
    with pytest.raises(ValueError, match=re.escape(f"differ in {key} ")):
        checks.check_fair([base, run_of(tmp_path, other, recorded=changed)], "grpo")
    named = replace(other, may_differ=(key,))
    checks.check_fair([base, run_of(tmp_path, named, recorded=changed)], "grpo")


def test_the_content_of_a_file_differs_where_its_key_may(tmp_path):
    key = "reward.custom_reward_function.path"
    other = Arm("other", "asymgrpo", "asymgrpo", "other", "run_cpu.sh")
    changed = record()
    changed["files"] = {**changed.get("files", {}), f"content of {key}": "changed"}
    runs = [run_of(tmp_path), run_of(tmp_path, other, recorded=changed)]
    with pytest.raises(ValueError, match=f"differ in content of {re.escape(key)} "):
        checks.check_fair(runs, "grpo")
    named = replace(other, may_differ=("reward.custom_reward_function",))
    checks.check_fair([runs[0], run_of(tmp_path, named, recorded=changed)], "grpo")


def test_a_method_is_what_presets_and_the_recipes_settings_are():
    keys = checks.method_keys()
    loss = "actor_rollout_ref.actor.policy_loss"
    assert {"algorithm.adv_estimator", "algorithm.asymgrpo", loss} <= set(keys)
    assert "actor_rollout_ref.actor.use_kl_loss" in keys  # a preset of SENT's sets it
    assert not checks.is_below("algorithm.filter_groups.enable", keys)
    assert not any(key.startswith("data") for key in keys)


def seeds_of(tmp_path, *configs, arm=ARM):
    return [
        run_of(tmp_path, arm, seed, recorded=record(**config))
        for seed, config in enumerate(configs)
    ]


SAMPLING_SEED = "actor_rollout_ref__rollout__seed"
ORDERED = {"order": "semantic_entropy", "shuffle": True}


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        ({}, {}, "are the same run, since no setting"),
        # the sampling's seed alone is no other run
        ({SAMPLING_SEED: 0}, {SAMPLING_SEED: 1}, "same order of prompts, data.seed=0: leave"),
        (
            {SAMPLING_SEED: 0, "data__seed": None},
            {SAMPLING_SEED: 1, "data__seed": None},
            "same order of prompts, data.seed=null: leave data.seed to the script's SEED",
        ),
        (
            {"data__seed": 0, "data__curriculum": ORDERED | {"seed": 0}},
            {"data__seed": 1, "data__curriculum": ORDERED | {"seed": 0}},
            "same order of prompts, data.curriculum.seed=0",
        ),
    ],
)
def test_two_seeds_that_are_one_run_are_refused(tmp_path, first, second, sentence):
    with pytest.raises(ValueError, match=f"seeds 0 and 1 of arm grpo .*{sentence}"):
        checks.check_seeds(seeds_of(tmp_path, first, second))
    # also where the two are not neighbours
    other = {"data__seed": 7, "data__curriculum": ORDERED | {"seed": 7}}
    with pytest.raises(ValueError, match="seeds 0 and 2 of arm grpo"):
        checks.check_seeds(seeds_of(tmp_path, first, other, second))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"data__seed": 1}),
        ({"data__seed": None}, {"data__seed": 1}),
        # a curriculum's own seed decides
        ({"data__curriculum": ORDERED}, {"data__curriculum": ORDERED | {"seed": 1}}),
        # one order for all is meant where nothing is shuffled; the sampling differs
        (
            {"data__shuffle": False, SAMPLING_SEED: 0},
            {"data__shuffle": False, SAMPLING_SEED: 1},
        ),
    ],
)
def test_two_seeds_that_differ_are_not(tmp_path, first, second):
    checks.check_seeds(seeds_of(tmp_path, first, second))
    other = Arm("other", "asymgrpo", "asymgrpo", "other", "run_cpu.sh")
    checks.check_seeds([*seeds_of(tmp_path, first), *seeds_of(tmp_path, first, arm=other)])


def test_arms_of_one_config_are_named(tmp_path):
    arms = [Arm(name, "asymgrpo", name, name, "run_cpu.sh") for name in ("a", "b", "c")]
    runs = [
        run
        for arm in arms
        for run in seeds_of(
            tmp_path, {"data__seed": 0}, {"data__seed": 2 if arm.name == "c" else 1}, arm=arm
        )
    ]
    assert checks.equal_arms(runs) == [["a", "b"]]


def test_a_seed_that_the_matrix_has_not_is_refused(small_matrix, capsys):
    """The report and the watch read the matrix: they would not show its run."""
    assert compare.main([*small_matrix(), "--seeds", "-1"]) == 2
    assert "--seeds -1 is not of the matrix, whose seeds are " in capsys.readouterr().err


def test_the_environment_of_a_run_is_the_matrix_s_then_the_user_s_then_the_default(
    tmp_path, monkeypatch
):
    def save_freq(**environment):
        matrix = Matrix((ARM,), (0,), "grpo", "t", tmp_path, environment)
        return plan.run_environment(matrix, ARM, 0, RunFolder(tmp_path))["SAVE_FREQ"]

    monkeypatch.delenv("SAVE_FREQ", raising=False)
    assert save_freq() == "10"
    monkeypatch.setenv("SAVE_FREQ", "200")
    assert save_freq() == "200" and save_freq(SAVE_FREQ="5") == "5"


def test_a_folder_with_a_run_of_another_config_is_refused(tmp_path):
    run = run_of(tmp_path)
    checks.check_folder(run)  # nothing there
    (run.folder.path / "metrics").mkdir(parents=True)
    file = run.folder.path / "metrics/000.yaml"
    file.write_text(yaml.safe_dump(record(trainer__save_freq=9)))
    checks.check_folder(run)
    for other in (record(data__seed=1), {**record(), "packages": {"verl": "0.9.2"}}):
        file.write_text(yaml.safe_dump(other))
        with pytest.raises(ValueError, match="another config"):
            checks.check_folder(run)
    for unreadable in ("", "config: ["):
        file.write_text(unreadable)
        with pytest.raises(ValueError, match="without a record"):
            checks.check_folder(run)
    file.unlink()
    (run.folder.path / "metrics/000.jsonl").write_text('{"step": 1, "data": {}}\n')
    with pytest.raises(ValueError, match="without a record"):
        checks.check_folder(run)


def test_a_run_whose_files_an_older_version_has_named_goes_on(tmp_path):
    """By the first 20 digits, which is all that its record has."""
    now = "0123456789" * 4
    key = "data.train_files[0]"

    def check(before):
        planned, recorded = record(), record()
        planned["files"][key], recorded["files"][key] = now, before
        run = run_of(tmp_path, recorded=planned)
        (run.folder.path / "metrics").mkdir(parents=True, exist_ok=True)
        (run.folder.path / "metrics/000.yaml").write_text(yaml.safe_dump(recorded))
        checks.check_folder(run)

    check(now)
    check(now[:20])
    for other in ("9" * 20, now[:20] + "9" * 20):
        with pytest.raises(ValueError, match=r"another config \(data\.train_files\[0\]"):
            check(other)


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
            checks.check_folder(run)


def test_prompts_that_were_not_the_same_are_told(tmp_path):
    runs = [run_of(tmp_path, Arm(n, "asymgrpo", n, n, "run_cpu.sh")) for n in ("a", "b")]
    for run in runs:
        assert supervise.run_once(run, {}, Processes()) == "finished"
    assert checks.differing_prompts(runs) == []
    file = runs[1].folder.path / "metrics/000.jsonl"
    lines = file.read_text().splitlines()
    lines[2] = lines[2].replace("3.0", "3.5")
    file.write_text("\n".join(lines))
    assert checks.differing_prompts(runs) == [
        "b, seed 0 and a, seed 0 did not train on the same prompts at step 3"
    ]
    # but where a run's own pass rates decide which they are
    for run in runs:
        run.config["data"]["prompt_sampling"] = {"order": "variance"}
    assert checks.differing_prompts(runs) == []
    for run in runs:
        run.config["data"]["prompt_sampling"] = {"order": "none"}
    assert len(checks.differing_prompts(runs)) == 1
    for run in runs:
        run.config["algorithm"] = {"filter_groups": {"enable": True}}
    assert checks.differing_prompts(runs) == []


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


def test_a_run_that_another_comparison_has_started_otherwise_is_not_taken_for_this_one(
    tmp_path, capsys
):
    """Since the folder was looked at: the other runs go on."""
    other = run_of(tmp_path, recorded=record(actor_rollout_ref__actor__optim__lr=2e-6))
    assert supervise.run_once(other, {}, Processes()) == "finished"
    run, good = run_of(tmp_path), run_of(tmp_path, seed=1)
    with pytest.raises(ValueError, match="holds a run of another config"):
        supervise.run_once(run, {}, Processes())
    matrix = Matrix((ARM,), (0, 1), "grpo", "t", tmp_path / "out")
    results = supervise.run_all(matrix, [run, good], [{}])
    assert results == {"finished": [good], "skipped": [], "failed": [run]}
    assert "grpo, seed 0: " in (printed := capsys.readouterr().out) and "another config" in printed
    assert len(starts(run)) == 1


def test_the_baseline_s_folder_is_looked_at_although_it_is_not_chosen(tmp_path, monkeypatch):
    monkeypatch.setattr("recipe.launch.preflight.check", lambda config: None)
    before = run_of(tmp_path, recorded=record(actor_rollout_ref__actor__optim__lr=2e-6))
    assert supervise.run_once(before, {}, Processes()) == "finished"
    other = Arm("other", "asymgrpo", "asymgrpo", "other", "run_cpu.sh")
    base, run = run_of(tmp_path), run_of(tmp_path, other)
    matrix = Matrix((ARM, other), (0,), "grpo", "t", tmp_path / "out")
    with pytest.raises(ValueError, match=r"out/grpo/seed0 holds a run of another config .*lr"):
        checks.check_plan(plan.Plan(matrix, (run,), (base,)))


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


def test_a_run_that_is_killed_is_noted_as_killed_in_its_folder(tmp_path):
    """Its console, which does that elsewhere, is not started under a comparison."""
    run = run_of(tmp_path)
    die = "import os, sys; open(sys.argv[1], 'w').close(); os.kill(os.getpid(), 9)"
    record_file = run.folder.path / "metrics/000.yaml"
    record_file.parent.mkdir(parents=True)
    killed = replace(run, command=[sys.executable, "-c", die, str(record_file)])
    assert supervise.run_once(killed, {}, Processes()) == "failed"
    assert run.folder.last_end() == "killed: by SIGKILL"


def refused(run, message):
    """A start that the launcher's checks refuse: nothing of it in the run's folder but the log."""
    return replace(run, command=[sys.executable, "-c", f"import sys; sys.exit({message!r})"])


def test_a_start_that_was_refused_does_not_name_a_former_one_s_end(tmp_path, capsys):
    run = run_of(tmp_path)
    (run.folder.path / "metrics").mkdir(parents=True)
    (run.folder.path / "metrics/000.yaml").write_text(yaml.safe_dump(run.record))
    (run.folder.path / "metrics/000.end").write_text("failed: OutOfMemoryError: CUDA out of memory")
    assert supervise.run_once(refused(run, "error: another model"), {}, Processes()) == "failed"
    said = capsys.readouterr().out
    assert f"{run.name} failed, see {run.folder.log}" in said and "OutOfMemory" not in said
    file = run.folder.path / "metrics/001.end"
    write = f"open({str(file)!r}, 'w').write('failed: x')"
    failing = replace(run, command=[sys.executable, "-c", f"{write}; raise SystemExit(1)"])
    assert supervise.run_once(failing, {}, Processes()) == "failed"
    assert f"{run.name} failed: x, see" in capsys.readouterr().out


def test_a_comparison_that_waits_for_a_run_left_behind_can_be_stopped(tmp_path):
    run = run_of(tmp_path)
    run.folder.path.mkdir(parents=True)
    matrix = Matrix((ARM,), (0,), "grpo", "t", tmp_path / "out")
    with run.folder.lock.open("w") as lock:  # as that run holds it
        fcntl.flock(lock, fcntl.LOCK_EX)
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        begin = time.monotonic()
        with supervise.interrupted_by_signals(), pytest.raises(KeyboardInterrupt):
            supervise.run_all(matrix, [run], [{}])
    assert time.monotonic() - begin < 10 and not (run.folder.path / "starts").exists()


def test_a_folder_that_cannot_take_the_note_ends_no_comparison(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    run = run_of(tmp_path)
    monkeypatch.setattr(type(run.folder), "note_killed", full)
    die = "import os; os.kill(os.getpid(), 9)"
    killed = replace(run, command=[sys.executable, "-c", die])
    assert supervise.run_once(killed, {}, Processes()) == "failed"


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
    benchmark = tmp_path / "x/b.parquet"
    benchmark.parent.mkdir()
    benchmark.write_bytes(b"truths")
    reward = tmp_path / "own.py"
    reward.write_text("compute_score = 1")
    settings = {"benchmarks": [str(benchmark)], "samples": 3, "boxed_only": True, "again": False}
    settings["reward"] = str(reward)
    words = plan.evaluation_arguments(run, settings)
    assert words[2:4] == ["--out", str(run.folder.evaluation)]
    flags = ["--samples", "3", "--boxed-only", "--reward", str(reward), "--replicas", "1"]
    assert words[4:] == flags

    def is_evaluated(**change):
        return supervise.is_evaluated(run, settings | change)

    assert not is_evaluated()
    run.folder.evaluation.mkdir()
    recorded = evaluate.settings(evaluate.parse(words)) | {"model": fingerprint(model)}
    record = {"settings": recorded, "content": fingerprint(benchmark)}
    (run.folder.evaluation / "b.json").write_text(json.dumps(record))
    assert not is_evaluated()
    table = run.folder.evaluation / "b.parquet"
    pd.DataFrame(columns=[name for name in COLUMNS if name != "cluster"]).to_parquet(table)
    assert not is_evaluated()  # an older version's
    pd.DataFrame(columns=list(COLUMNS)).to_parquet(table)
    assert is_evaluated() and not is_evaluated(samples=4) and not is_evaluated(boxed_only=False)
    assert not is_evaluated(benchmarks=[str(benchmark), "x/c.parquet"])
    # another file of the same name, and the same file with other truths
    other = tmp_path / "y/b.parquet"
    other.parent.mkdir()
    other.write_bytes(b"others")
    assert not is_evaluated(benchmarks=[str(other)])
    benchmark.write_bytes(b"others")
    assert not is_evaluated()
    benchmark.write_bytes(b"truths")
    reward.write_text("compute_score = 2")
    assert not is_evaluated()
    reward.write_text("compute_score = 1")
    assert is_evaluated()
    # an older version has named the weights and the benchmark by half of what is known of them now
    older = {"settings": {**recorded, "model": recorded["model"][:20]}, "content": "0" * 20}
    (run.folder.evaluation / "b.json").write_text(json.dumps(older))
    assert not is_evaluated()
    older["content"] = fingerprint(benchmark)[:20]
    (run.folder.evaluation / "b.json").write_text(json.dumps(older))
    assert is_evaluated()
    save_file({"weight": torch.ones(1)}, weights)
    assert not is_evaluated()


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_before_a_run_starts(
    small_matrix, tmp_path, monkeypatch, capsys, code
):
    """Lustre without -o flock, some NFS: a fake, which this machine has not."""

    def flock(file, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    command = [word for word in small_matrix() if word != "--dry-run"]
    assert compare.main([*command, "--gpus", "0"]) == 2  # where this machine has none, too
    sentence = capsys.readouterr().err.strip().splitlines()[-1]
    assert sentence.startswith(f"error: --out {tmp_path / 'out'} is on a file system that cannot")
    assert not list((tmp_path / "out").glob("*/*"))


def test_a_file_system_with_locks_is_fine_also_for_two_comparisons(tmp_path):
    supervise.check_locking(tmp_path / "out")
    with (tmp_path / "out/.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        supervise.check_locking(tmp_path / "out")


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
        [
            str(run.folder.path),
            "x/b.parquet",
            "--out",
            str(out / preset),
            *samples,
            preset,
            "--replicas",
            "1",
            "--again-if-changed",
        ]
        for preset in ("asymgrpo", "sent")
    ]
    started.clear()
    there.append("asymgrpo")
    assert supervise.evaluate_run(run, settings, {}, processes)
    assert [command[command.index("--preset") + 1] for command in started] == ["sent"]
    monkeypatch.setattr(processes, "call", lambda *_: 1)
    assert not supervise.evaluate_run(run, settings, {}, processes)


def test_an_evaluation_holds_the_run_s_lock_and_another_one_waits_for_it(tmp_path, monkeypatch):
    """Of two comparisons of one folder, or of one after another that was killed."""
    run, evaluated, started = run_of(tmp_path), tmp_path / "evaluated", []
    monkeypatch.setattr(supervise, "is_evaluated", lambda *_: evaluated.exists())
    left_behind = [
        sys.executable,
        "-c",
        f"import time; time.sleep(1); open({str(evaluated)!r}, 'w')",
    ]
    processes = Processes()
    call = processes.call

    def start(command, log, environment, pass_fds):
        started.append(pass_fds)
        return call(left_behind, log, environment, pass_fds)

    monkeypatch.setattr(processes, "call", start)
    arguments = (run, {"benchmarks": ["b.parquet"]}, None, processes)
    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(lambda _: supervise.evaluate_run(*arguments), range(2)))
    assert len(started) == 1 and len(started[0]) == 1  # the lock's file
    # stopped while another one holds it
    run.folder.path.mkdir(parents=True, exist_ok=True)
    with run.folder.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        processes.ended = True
        assert not supervise.evaluate_run(*arguments)


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
    devices = [{"CUDA_VISIBLE_DEVICES": "0,1"}, {"CUDA_VISIBLE_DEVICES": "2,3"}]
    results = supervise.run_all(matrix, runs, devices)
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
    with pytest.raises(slots.TooFewDevices, match=r"2 runs at once need 2 GPUs .* which has 1"):
        run_slots([small], 2, None)
    assert run_slots([large], 1, "4,5") == [{"CUDA_VISIBLE_DEVICES": "4,5"}]
    with pytest.raises(ValueError, match="--gpus=3 names fewer than the 2 GPUs that a run needs"):
        run_slots([large], None, "3")
    with pytest.raises(slots.TooFewDevices, match="needs 2 GPUs of this machine, which has 1"):
        run_slots([small, large], None, None)  # the largest run decides
    monkeypatch.setattr(machine, "device_slots", lambda: 2)
    assert run_slots([small, large], None, None) == [{}]


def test_jobs_without_a_cluster_share_this_machine(tmp_path, monkeypatch):
    """Each gets its part of the cores, and all the GPUs that were named: Ray lends them."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine.cpus, "usable_cpus", lambda: 12)
    run = on_devices(run_of(tmp_path), 2)
    monkeypatch.setattr(machine.platform, "active", lambda: True)
    assert run_slots([run], 3, None) == [{"OMP_NUM_THREADS": "2"}] * 3
    monkeypatch.setattr(machine.platform, "active", lambda: False)
    assert run_slots([run], 2, "0,1,2,3") == [{"CUDA_VISIBLE_DEVICES": "0,1,2,3"}] * 2
    with pytest.raises(ValueError, match=r"--gpus=0,1 names fewer than the 4 GPUs that 2 runs at"):
        run_slots([run], 2, "0,1")


@pytest.mark.ray
def test_jobs_start_a_cluster_that_their_runs_join(tmp_path, monkeypatch):
    """With what each would have started Ray with; another process finds it as a run does."""
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    run = run_of(tmp_path)
    run.record["config"]["ray_kwargs"] = {"ray_init": {"num_cpus": 5, "num_gpus": 2}}
    look = "import ray; ray.init(logging_level='ERROR'); print(ray.cluster_resources())"
    with slots.cluster([run], [{}, {}]):
        slots.wait_for_devices(run, lambda: pytest.fail("they are free"))
        seen = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True)
    assert "'CPU': 10.0" in seen.stdout and "'GPU': 4.0" in seen.stdout, seen.stderr
    assert "RAY_ADDRESS" not in os.environ


NODES = {  # GPUs and CPUs of each
    "one": [(8, 96)],
    "two": [(4, 96), (4, 96)],
    "odd": [(3, 96), (3, 96)],
    "few CPUs": [(8, 16)],
    "no GPU": [(0, 8), (1, 8)],
}


@pytest.mark.parametrize(
    ("names", "shape", "slots"),
    [
        ("one", (1, 2), 4),
        ("one", (2, 4), 1),  # verl lets a large node stand for two of a run's
        ("two", (1, 4), 2),
        ("two", (2, 4), 1),
        ("two", (1, 8), 0),  # no node has 8
        ("odd", (1, 2), 2),  # not 3: a device of each node stays over
        ("few CPUs", (1, 4), 1),  # verl takes 3 CPUs beside each device
        ("few CPUs", (1, 5), 0),  # and TransferQueue two
        ("few CPUs", (1, 8), 0),
        ("no GPU", (1, 1), 1),
    ],
)
def test_in_a_cluster_as_many_as_fit_node_by_node(tmp_path, monkeypatch, names, shape, slots):
    ray = pytest.importorskip("ray")
    resources = [{"GPU": float(gpus), "CPU": float(cpus)} for gpus, cpus in NODES[names]]
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:6379")
    monkeypatch.setattr(ray, "init", lambda address, **_: address == "somewhere:6379" or 1 / 0)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    down = {"Alive": False, "Resources": {"GPU": 64.0, "CPU": 64.0}}
    up = [{"Alive": True, "Resources": node} for node in resources]
    monkeypatch.setattr(ray, "nodes", lambda: [down, *up])
    run = on_devices(run_of(tmp_path), devices=shape[1], nodes=shape[0])
    small = on_devices(run_of(tmp_path), devices=1)
    with pytest.raises(ValueError, match="--gpus=0 cannot be kept to in the Ray cluster"):
        run_slots([run], None, "0")
    if slots:
        assert run_slots([small, run], None, None) == [{}] * slots
        assert run_slots([run], 1, None) == [{}]
    sentence = (
        rf"{slots + 1} runs at once, each with trainer.nnodes={shape[0]} x "
        rf"n_gpus_per_node={shape[1]} GPUs .* do not fit"
    )
    with pytest.raises(ValueError, match=sentence):
        run_slots([run], slots + 1, None)


def test_as_many_cpus_beside_a_device_as_verl_takes():
    base = pytest.importorskip("verl.single_controller.ray.base")
    assert base.ResourcePoolManager.max_colocate_count == nodes.CPUS_PER_DEVICE


def test_as_many_cpus_as_transfer_queue_takes():
    """One for each of its actors."""
    controller = pytest.importorskip("transfer_queue.controller")
    storage = pytest.importorskip("transfer_queue.storage.simple_storage")
    actors = (controller.TransferQueueController, storage.SimpleStorageUnit)
    assert [actor._default_options["num_cpus"] for actor in actors] == [1, 1]
    assert nodes.cpus_of(record()["config"]) == 3 + 2


def test_the_sentence_by_which_a_refused_start_is_known_is_verl_s():
    base = pytest.importorskip("verl.single_controller.ray.base")
    source = inspect.getsource(base.ResourcePoolManager._check_resource_available)
    assert supervise.REFUSAL.decode() in source


def test_a_start_that_verl_refuses_for_want_of_devices_is_no_crash(tmp_path):
    """Three such refusals, then a crash, then a start that goes on to the end."""
    run, waits = run_of(tmp_path, crash_at=2), []
    refusing = (
        "import subprocess, sys; from pathlib import Path; file = Path(sys.argv[1]);"
        "n = int(file.read_text()) if file.exists() else 0; file.write_text(str(n + 1));"
        "n < 3 and sys.exit('ValueError: Total available GPUs 0.0 is less than total desired GPUs"
        " 2'); sys.exit(subprocess.call(sys.argv[2:]))"
    )
    count = tmp_path / "count"
    run = replace(run, command=[sys.executable, "-c", refusing, str(count), *run.command])
    assert supervise.run_once(run, {}, Processes(), waits.append) == "finished"
    assert count.read_text() == "5" and waits == [run] * 5 and len(starts(run)) == 2
    always = run_of(tmp_path, seed=1)
    script = f"import sys; sys.exit({supervise.REFUSAL.decode()!r})"
    always = replace(always, command=[sys.executable, "-c", script])
    assert supervise.run_once(always, {}, Processes(), waits.append) == "failed"
    assert len(waits) == 5 + supervise.REFUSALS


@pytest.mark.ray
def test_a_run_waits_until_its_devices_are_free(tmp_path, monkeypatch):
    """In a real cluster of two nodes with 2 virtual GPUs each, of which another job holds some."""
    ray = pytest.importorskip("ray")
    with ray_cluster(*[{"num_gpus": 2, "num_cpus": 8}] * 2) as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        two_nodes = on_devices(run_of(tmp_path), devices=2, nodes=2)
        one_node = on_devices(run_of(tmp_path), devices=2)
        too_wide = on_devices(run_of(tmp_path), devices=4)
        assert len(run_slots([two_nodes], None, None)) == 1
        assert len(run_slots([one_node], None, None)) == 2
        with pytest.raises(ValueError, match="2 GPUs and 8 CPUs, 2 GPUs and 8 CPUs"):
            run_slots([too_wide], None, None)  # 4 are there, but on no node
        monkeypatch.setattr(slots, "DEVICE_WAIT", 1)
        with slots.cluster():
            slots.wait_for_devices(two_nodes, lambda: pytest.fail("they are free"))
            other = ray.remote(num_gpus=1, num_cpus=0)(type("OtherJob", (), {})).remote()
            ray.get(other.__ray_ready__.remote())
            slots.wait_for_devices(one_node, lambda: pytest.fail("those of a node are free"))
            with pytest.raises(TimeoutError, match=r"2 x 2 GPUs .* have not been free for"):
                slots.wait_for_devices(two_nodes, lambda: False)
            slots.wait_for_devices(two_nodes, lambda: None)  # the comparison is stopped
            patient = iter([True] * 4)

            def as_long_as_others_run():
                if next(patient, None) is None:
                    ray.kill(other)
                return True

            slots.wait_for_devices(two_nodes, as_long_as_others_run)
            assert next(patient, None) is None


def test_a_run_whose_devices_others_hold_has_failed_and_the_others_go_on(
    tmp_path, monkeypatch, capsys
):
    """Also one that waits while another is at work does so patiently."""
    waiting, good = run_of(tmp_path, seed=1), run_of(tmp_path, pause=0.3)
    patience = []

    def wait_for_devices(run, patient):
        if run is waiting:
            while not good.finished:
                patience.append(patient())
            while patient():
                time.sleep(0.01)
            raise TimeoutError("grpo, seed 1: other jobs hold them")

    monkeypatch.setattr(supervise, "wait_for_devices", wait_for_devices)
    matrix = Matrix((ARM,), (0, 1), "grpo", "t", tmp_path / "out")
    results = supervise.run_all(matrix, [good, waiting], [{}, {}])
    assert results == {"finished": [good], "skipped": [], "failed": [waiting]}
    assert patience[-1] is True and not (waiting.folder.path / "starts").exists()
    assert "grpo, seed 1: other jobs hold them" in capsys.readouterr().out


def test_without_a_cluster_no_run_waits(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with slots.cluster():
        slots.wait_for_devices(run_of(tmp_path), lambda: pytest.fail("it waited"))


@pytest.mark.parametrize(
    ("settings", "shape", "replicas"),
    [
        ({}, (1, 2), 2),
        ({}, (2, 4), 8),
        ({"tensor_parallel": 2}, (2, 4), 4),
        ({"tensor-parallel": 2}, (1, 5), 2),
        ({"replicas": 1}, (1, 8), 1),
    ],
)
def test_an_evaluation_gets_the_devices_of_its_training(tmp_path, settings, shape, replicas):
    run = on_devices(run_of(tmp_path), devices=shape[1], nodes=shape[0])
    words = plan.evaluation_arguments(run, {"benchmarks": ["b.parquet"], **settings})
    assert words.count("--replicas") == 1
    assert words[words.index("--replicas") + 1] == str(replicas)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"replicas": 3}, "replicas=3 with tensor_parallel=1 takes more than the 1 x 2 GPUs"),
        ({"tensor_parallel": 4}, "replicas=1 with tensor_parallel=4 takes more than"),
        ({"replicas": 2, "tensor_parallel": 2}, "replicas=2 with tensor_parallel=2 takes more"),
        ({"replicas": 0}, "evaluate: replicas=0 is not allowed: use a whole number above 0"),
        ({"tensor_parallel": "x"}, "evaluate: tensor_parallel=x is not allowed"),
    ],
)
def test_an_evaluation_gets_no_more(tmp_path, settings, sentence):
    run = on_devices(run_of(tmp_path), devices=2)
    with pytest.raises(ValueError, match=sentence):
        plan.evaluation_arguments(run, {"benchmarks": ["b.parquet"], **settings})


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


def test_runs_that_save_nothing_are_refused(small_matrix, tmp_path, capsys):
    """They would be trained twice, and called failed."""
    arms = {"grpo": {"recipe": "asymgrpo", "preset": "grpo"}}
    arms["grpo"]["overrides"] = ["trainer.save_freq=-1"]
    assert compare.main(small_matrix(arms=arms)) == 2
    assert "arm grpo: trainer.save_freq=-1 (SAVE_FREQ) saves no" in capsys.readouterr().err


def test_a_dry_run_checks_all_and_starts_nothing(small_matrix, tmp_path, capsys):
    assert compare.main(small_matrix()) == 0
    printed = capsys.readouterr().out
    assert printed.count("0 of 3 steps") == 4 and "asymgrpo, seed 1" in printed
    assert "reruns of one method" not in printed
    assert not (tmp_path / "out").exists()


def test_a_dry_run_on_a_machine_without_enough_devices_says_so_beside_its_verdict(
    small_matrix, monkeypatch, capsys
):
    """As on a login node: what is checked is for another machine."""
    monkeypatch.setattr(slots.machine, "device_slots", lambda: 0)
    command = small_matrix()
    assert compare.main(command) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("[compare] dry run: the comparison is valid, but it cannot run here:")
    assert "a run needs 1 GPUs of this machine, which has 0" in last
    command.remove("--dry-run")
    assert compare.main(command) == 2
    assert "error: a run needs 1 GPUs of this machine, which has 0" in capsys.readouterr().err


def test_another_reward_function_may_have_truths_that_are_no_answers(
    small_matrix, tmp_path, capsys
):
    """recipe.judge compares texts; any other function gets what the file has."""
    row = {"prompt": [{"role": "user", "content": "x"}], "reward_model": {"ground_truth": {"a": 1}}}
    pd.DataFrame([row]).to_parquet(tmp_path / "b.parquet")
    settings = {"benchmarks": [str(tmp_path / "b.parquet")], "samples": 2}
    assert compare.main(small_matrix(evaluate=settings)) == 2
    assert "evaluate: " in capsys.readouterr().err
    for reward, code in (("own.py:f", 0), ("pkg://recipe.judge:compute_score", 2)):
        assert compare.main(small_matrix(evaluate=settings | {"reward": reward})) == code


def test_a_repeated_baseline_is_said(small_matrix, capsys):
    arm = {"recipe": "asymgrpo", "preset": "grpo"}
    assert compare.main(small_matrix(arms={"grpo": arm, "grpo_again": arm})) == 0
    assert "note: grpo = grpo_again: one config" in capsys.readouterr().out


def test_a_run_keeps_no_hugging_face_copy_of_every_checkpoint(small_matrix, tmp_path):
    matrix = read_matrix(Path(small_matrix()[0]), tmp_path / "out")
    first, *_ = plan.make_plan(matrix, ["grpo"], [0]).runs
    saved = first.record["config"]["actor_rollout_ref"]["actor"]["checkpoint"]["save_contents"]
    assert saved == ["model", "optimizer", "extra"]
    # a folder of runs that did is no other config
    (first.folder.path / "metrics").mkdir(parents=True)
    saved.append("hf_model")
    provenance.write_yaml(first.folder.path / "metrics/000.yaml", first.record)
    again, *_ = plan.make_plan(matrix, ["grpo"], [0]).runs
    checks.check_folder(again)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"overrides": ["data.seed=0"]}, "same order of prompts, data.seed=0"),
        ({"overrides": ["data.seed=null"]}, "same order of prompts, data.seed=null"),
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


def test_a_setting_of_the_evaluation_that_is_out_of_range_is_refused_before_the_training(
    small_matrix, tmp_path, capsys
):
    for change, sentence in (
        ({"top_p": 0}, "--top-p 0.0 is not allowed: use a number above 0, at most 1"),
        ({"temperature": 0}, "--temperature 0 with --samples 8 is not allowed"),
    ):
        with pytest.raises(SystemExit) as stopped:
            compare.main(small_matrix(evaluate={"benchmarks": ["b.parquet"], **change}))
        assert stopped.value.code == 2 and sentence in capsys.readouterr().err
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
    (run,) = plan.make_plan(matrix, ["b"], [1]).runs
    trainer = run.record["config"]["trainer"]
    assert (trainer["test_freq"], trainer["nnodes"], run.devices) == (7, 3, 3)
    assert (run.name, run.steps) == ("b, seed 1", 3)


def test_a_script_that_ignores_its_seed_is_refused(small_matrix, tmp_path, capsys):
    script = tmp_path / "run_it.sh"
    script.write_text(f'SEED=0 exec bash {ROOT}/recipe/asymgrpo/run_cpu.sh "$@"\n')
    arm = {"recipe": "asymgrpo", "preset": "grpo", "script": str(script)}
    assert compare.main(small_matrix(arms={"a": arm})) == 2
    assert "seeds 0 and 1 of arm a are the same run" in capsys.readouterr().err


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
    checks.check_fair(runs, study.baseline)
    sent = replace(runs[1], arm=replace(runs[1].arm, may_differ=()))
    with pytest.raises(ValueError, match=r"grpo and sent differ in data\.curriculum\.stages"):
        checks.check_fair([runs[0], sent], study.baseline)
