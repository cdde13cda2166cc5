"""Real training on CPUs: Ray, verl's trainer, two FSDP ranks over gloo, two vLLM replicas.

One run, of all three recipes together, is killed with -9 in the middle, started again by the same
command, and compared bit by bit with what it had saved; another one has an error on one rank; the
semantic entropies are measured by a command that is killed too. Minutes each.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
import yaml
from marks import TRAINING_RUN

from recipe.cpu import segments
from recipe.experiment.provenance import config_identity, differences

ROOT = Path(__file__).parent.parent.parent
HERE = Path(__file__).parent
AGENT = re.compile("ray::[A-Za-z]+Agent$")  # of Ray: they outlive their driver by a minute or so
LIMIT = 480  # seconds for any one start; the slowest seen took a third of it
PROMPTS = 48

pytestmark = TRAINING_RUN


class Run:
    """`run_cpu.sh` on two ranks and a few prompts, in a folder and a process session of its own."""

    def __init__(self, folder: Path, steps: int, model: Path, data: Path, scores: Path):
        self.folder, self.steps = folder, steps
        (folder / "classes").mkdir()
        self.env = {
            **os.environ,
            "PYTHON": sys.executable,
            "CKPTS_DIR": str(folder / "run"),
            "MODEL_PATH": str(model),
            "DATA_DIR": str(data),
            "NGPUS_PER_NODE": "2",
            "TRAIN_BATCH_SIZE": "8",
            "ROLLOUT_N": "8",
            "STEPS": str(steps),
            "SAVE_FREQ": "2",
            "TEST_FREQ": "-1",
            "PYTHONPATH": f"{HERE}:{os.environ.get('PYTHONPATH', '')}",
            "VERL_USE_EXTERNAL_MODULES": "record_classes",
            "RECIPE_TEST_CLASSES": str(folder / "classes"),
        }
        self.screen = folder / "screen.txt"
        self.overrides = [
            "trainer.val_before_train=false",
            "actor_rollout_ref.actor.ppo_mini_batch_size=4",
            # AsymGRPO's estimator, a schedule whose state must survive the kill, and SENT
            "actor_rollout_ref.actor.policy_loss.loss_mode=sent",
            "actor_rollout_ref.actor.policy_loss.schedule=od",
            "actor_rollout_ref.actor.policy_loss.exact_contribution_freq=2",
            "actor_rollout_ref.actor.policy_loss.token_rule.preset=as_described",
            "actor_rollout_ref.actor.policy_loss.token_rule.high_cov_fraction=0.1",
            "actor_rollout_ref.actor.use_kl_loss=true",
            "actor_rollout_ref.actor.kl_loss_coef=0",
            # two stages of 24 prompts: three steps each
            "data.curriculum.order=semantic_entropy",
            f"data.curriculum.scores={scores}",
            "data.curriculum.epochs_per_stage=1",
            f"data.train_max_samples={PROMPTS}",
            "data.shuffle=false",
        ]

    def start(self, *overrides: str, **env: str) -> subprocess.Popen:
        with self.screen.open("a") as screen:
            return subprocess.Popen(
                ["bash", str(ROOT / "recipe/asymgrpo/run_cpu.sh"), *self.overrides, *overrides],
                env={**self.env, **env},
                stdout=screen,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def finish(self, *overrides: str, **env: str) -> int:
        process = self.start(*overrides, **env)
        try:
            return process.wait(LIMIT)
        finally:
            stop(process)

    def steps_of(self, start: int) -> dict[int, dict[str, float]]:
        file = self.folder / "run/metrics" / f"{start:03d}.jsonl"
        if not file.is_file():
            return {}
        lines = [line for line in file.read_text().splitlines() if line.endswith("}")]
        return {row["step"]: row["data"] for row in map(json.loads, lines)}

    def tail(self) -> str:
        files = [self.folder / "run/log.txt", self.screen]
        return "\n".join(file.read_text()[-4000:] for file in files if file.is_file())


def family(root: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(root)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def stop(process: subprocess.Popen) -> None:
    for member in family(process.pid):
        member.kill()
    process.wait(60)


def wait_until(condition, seconds: float, what: str, run: Run) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen in {seconds} s:\n{run.tail()}"
        time.sleep(0.2)


def measure(small: tuple[Path, Path], out: Path, *more: str) -> subprocess.Popen:
    model, data = small
    command = [sys.executable, "-m", "recipe.semantic_curriculum.measure", "--out", out]
    command += ["--model", model, "--data", data / "train.parquet", "--max-prompts", str(PROMPTS)]
    command += ["--max-response-length", "24", "--chunk", "16", *more]
    return subprocess.Popen(list(map(str, command)), cwd=ROOT, start_new_session=True)


@pytest.fixture(scope="module")
def scores(tmp_path_factory, small) -> Path:
    """Semantic entropies, measured by a command that was killed with -9 once and started again."""
    out = tmp_path_factory.mktemp("scores") / "killed.parquet"
    first = measure(small, out)
    end = time.monotonic() + LIMIT
    while not list(out.parent.glob("killed.parquet.responses/0*.parquet")):
        assert first.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    stop(first)
    assert not out.exists()
    assert measure(small, out).wait(LIMIT) == 0
    return out


@pytest.fixture(scope="module")
def resumed(tmp_path_factory, small, scores) -> Run:
    """Killed with -9 in step 4 (the checkpoint is of step 2), then the same command to step 6."""
    run = Run(tmp_path_factory.mktemp("resume"), 6, *small, scores)
    process = run.start()
    try:
        wait_until(lambda: 3 in run.steps_of(0), LIMIT, "step 3", run)
        members = family(process.pid)
        agents = {m for m in members if AGENT.search(" ".join(m.cmdline()))}
        os.kill(members[0].pid, signal.SIGKILL)  # bash has exec'ed python: this is the driver
        process.wait()
        psutil.wait_procs([m for m in members if m not in agents], timeout=30)
        run.survivors = [m for m in members if alive(m)]
        run.latest = (run.folder / "run/latest_checkpointed_iteration.txt").read_text()
    finally:
        for member in family(process.pid):
            member.kill()
    assert run.finish() == 0, run.tail()
    return run


def test_a_run_goes_to_its_last_step_and_logs_the_paper_s_diagnostics(resumed):
    last = resumed.steps_of(1)[6]
    for name in (
        "diagnostics/groups/all_correct",
        "diagnostics/groups/all_incorrect",
        "actor/entropy",
        "actor/pg_clipfrac",
        "critic/rewards/mean",
    ):
        assert 0 <= last[name] < 10, name
    assert "diagnostics/log_prob_gain/correct" in resumed.steps_of(0)[1] or (
        resumed.steps_of(0)[1]["critic/rewards/mean"] == 0
    )
    assert (resumed.folder / "run/curve.png").stat().st_size > 10_000


def test_each_start_records_what_it_was_and_a_resume_is_the_same_run(resumed):
    files = sorted((resumed.folder / "run/metrics").glob("*.yaml"))
    records = [yaml.safe_load(file.read_text()) for file in files]
    assert [file.stem for file in files] == ["000", "001"]
    assert differences(*map(config_identity, records)) == []
    assert "recipe.launch" in records[0]["command"]
    assert records[0]["config"]["trainer"]["total_training_steps"] == 6


def test_a_step_that_is_made_again_after_the_kill_is_the_same(resumed):
    """From the checkpoint, on two ranks: rollouts, selection of tokens, bounds and update. Only the
    rollout's own log-probs depend on what vLLM happens to decode together."""
    before, again = resumed.steps_of(0)[3], resumed.steps_of(1)[3]
    of_the_machine = ("timing", "perf/", "actor/perf/", "training/rollout_", "rollout_corr/")
    names = [name for name in before if not name.startswith(of_the_machine)]
    assert len(names) > 80
    assert {name: again[name] for name in names} == {name: before[name] for name in names}


def test_the_screen_has_a_line_a_step_and_the_log_all_else(resumed):
    """Two starts in a pipe, of which the first was killed with -9 and its console said so."""
    screen = resumed.screen.read_text().splitlines()
    killed = next(i for i, line in enumerate(screen) if line.startswith("error: killed"))
    first, second = screen[: killed + 1], screen[killed + 1 :]
    for lines, steps in ((first, [1, 2, 3]), (second, [3, 4, 5, 6])):
        assert len(lines) <= 40  # 20 steps would be 60 at most
        shown = [line.split()[0] for line in lines if re.match(r" +\d+/6 ", line)]
        assert shown == [f"{step}/6" for step in steps]
    assert "after step 3 of 6" in first[-1]
    assert any("resumed after step 2" in line for line in second)
    assert any("finished: step 6 of 6" in line for line in second[-3:])
    log = (resumed.folder / "run/log.txt").read_text()
    for noise in ("'policy_loss': {", "Training Progress", "step:6 - "):
        assert noise in log and not any(noise in line for line in screen)
    assert log.count("[recipe] estimator ") == 2  # of two starts: nothing is overwritten


def test_rollout_and_actor_agree_on_the_probabilities(resumed):
    """Weights, vocabulary and masks are the same on both sides (design: 7e-9; here fp32 noise)."""
    for row in resumed.steps_of(1).values():
        assert row["training/rollout_probs_diff_max"] < 1e-4


def test_killing_the_driver_leaves_no_process(resumed):
    """Ray's agents are the last, once they have missed their parent."""
    psutil.wait_procs(resumed.survivors, timeout=120)
    assert [str(member) for member in resumed.survivors if alive(member)] == []


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_the_same_command_resumes_after_the_last_checkpoint(resumed):
    assert resumed.latest == "2"
    assert sorted(resumed.steps_of(0)) == [1, 2, 3]
    assert sorted(resumed.steps_of(1)) == [3, 4, 5, 6]


def test_no_segment_of_the_killed_run_is_left(resumed):
    assert segments.orphaned_segments() == []


def equal(a, b) -> bool:
    """Bitwise, through containers and sharded tensors."""
    if isinstance(a, torch.Tensor):
        a = a.to_local() if hasattr(a, "to_local") else a
        b = b.to_local() if hasattr(b, "to_local") else b
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    if hasattr(a, "dtype"):
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()
    return a == b


def test_what_a_resume_restores_is_bit_identical_to_what_was_saved(resumed):
    """Model, optimizer, scheduler, RNG of both ranks, and the dataloader."""
    again = resumed.folder / "again"
    code = resumed.finish(VERL_USE_EXTERNAL_MODULES="resave", RECIPE_TEST_RESAVE=str(again))
    assert code == 0, resumed.tail()
    saved = resumed.folder / "run/global_step_6"
    files = sorted(p.relative_to(saved) for p in saved.rglob("*.pt"))
    names = {str(p) for p in files}
    for rank in (0, 1):
        for part in ("model", "optim", "extra_state"):
            assert f"actor/{part}_world_size_2_rank_{rank}.pt" in names
    assert "data.pt" in names
    for file in files:
        before = torch.load(saved / file, weights_only=False)  # written by this test's own run
        after = torch.load(again / "global_step_6" / file, weights_only=False)
        assert equal(before, after), file
    state = (saved / "recipe_state.json").read_text()
    assert (again / "global_step_6/recipe_state.json").read_text() == state
    assert json.loads(state)["clip_schedule"]["name"] == "od"


def test_the_schedule_goes_on_where_it_was(resumed):
    """Its own measurements of the first step, which the second start has not seen."""
    first, resumed_step = resumed.steps_of(0)[1], resumed.steps_of(1)[3]
    assert resumed_step["clip_entropy/entropy_start"] == first["clip_entropy/entropy"]
    low, start = resumed_step["clip_entropy/tau_low"], first["clip_entropy/entropy"]
    assert low == pytest.approx(0.2 * start)


def test_the_regions_of_the_tokens_are_measured(resumed):
    """Two ranks and mini-batches of several micro-batches: the shares still add up."""
    for row in resumed.steps_of(1).values():
        shares = [row[f"clip_entropy/E{i}/token_share"] for i in (1, 2, 3, 4)]
        assert sum(shares) <= 1 + 1e-6
        assert row["clip_entropy/bound_upper"] == pytest.approx(0.2)  # od lowers
        assert 0.17 <= row["clip_entropy/bound_lower"] <= 0.3


def test_the_exact_contribution_is_measured_every_second_step(resumed):
    """By a pass in which verl hands the logits to a loss."""
    rows = [*resumed.steps_of(0).items(), *resumed.steps_of(1).items()]
    agreements = []
    for step, row in rows:
        assert ("clip_entropy/exact/E1/entropy_change" in row) == (step % 2 == 1)
        agreement = row.get("clip_entropy/exact/sign_agreement")
        if step % 2 == 1:  # a step in which no group is mixed pushes no token
            pushed = any(row[f"clip_entropy/E{i}/token_share"] > 0 for i in (1, 2, 3, 4))
            assert (agreement is not None) == pushed
        if agreement is not None:
            agreements.append(agreement)
    # the small model solves 4 %: all four measured steps without a right answer has odds of 3e-5
    assert agreements
    assert all(0.5 < agreement <= 1 for agreement in agreements)


def test_the_curriculum_goes_from_stage_to_stage(resumed):
    """Steps 1 to 3 are stage 1, of lower semantic entropy, before and after the kill."""
    rows = resumed.steps_of(0) | resumed.steps_of(1)
    assert [rows[step]["curriculum/stage"] for step in range(1, 7)] == [1, 1, 1, 2, 2, 2]
    entropy = [rows[step]["curriculum/semantic_entropy"] for step in range(1, 7)]
    assert max(entropy[:3]) <= min(entropy[3:])


def test_the_low_entropy_tokens_are_chosen_in_each_mini_batch_over_both_ranks(resumed):
    """Exactly four fifths of each mini-batch, though its rows lie on two ranks."""
    ranks = []
    for rank in (0, 1):
        with (resumed.folder / f"classes/{rank}.jsonl").open() as lines:
            ranks.append([json.loads(line) for line in lines])
    assert len(ranks[0]) == len(ranks[1]) >= 12  # two mini-batches a step, of one micro-batch each
    for one, other in zip(*ranks, strict=True):
        assert one["tokens"] == other["tokens"]
        assert one["low"] + other["low"] == int(0.8 * one["tokens"])


def test_the_classes_of_the_tokens_are_measured(resumed):
    for row in (resumed.steps_of(0) | resumed.steps_of(1)).values():
        share = {name: row[f"sent/{name}/token_share"] for name in ("rest", "high_cov")}
        assert sum(share.values()) == pytest.approx(0.8, abs=0.02)
        assert share["high_cov"] == pytest.approx(0.08, abs=0.02)
        assert row["sent/rest/entropy"] < row["sent/unselected/entropy"]
        assert row["sent/rest/covariance"] < row["sent/high_cov/covariance"] or (
            row["sent/high_cov/covariance"] == 0  # no mixed group: no advantage
        )
    assert resumed.steps_of(0)[1]["sent/rest/kl"] >= 0
    assert resumed.steps_of(1)[6]["sent/rest/kl"] > 0  # the policy has left its reference


def test_measuring_in_one_go_gives_the_same_table(scores, small, tmp_path):
    """As the one that was killed, and as two replicas on Ray."""
    killed = pd.read_parquet(scores)
    assert len(killed) == PROMPTS
    assert (killed["responses"] == 8).all()
    assert killed["semantic_entropy"].between(0, 2.0795).all()
    out = tmp_path / "replicas.parquet"
    assert measure(small, out, "--replicas", "2").wait(LIMIT) == 0
    pd.testing.assert_frame_equal(pd.read_parquet(out), killed)


def test_the_checkpoint_can_be_evaluated(resumed, small):
    """Its FSDP shards of two ranks are merged; vLLM samples; transformers goes on from there."""
    command = [sys.executable, "-m", "recipe.evaluate", str(resumed.folder / "run")]
    command += [str(small[1] / "test.parquet"), "--max-prompts", "24", "--samples", "4"]
    command += ["--max-response-length", "24", "--max-prompt-length", "32"]
    done = {}
    for engine in ("vllm", "transformers"):
        out = resumed.folder / engine
        subprocess.run(
            [*command, "--engine", engine, "--out", out], check=True, cwd=ROOT, timeout=LIMIT
        )
        done[engine] = pd.read_parquet(out / "test.parquet")
    for table in done.values():
        assert len(table) == 24 * 4 and table["tokens"].between(1, 24).all()
        assert (table["tokens"][table["truncated"]] == 24).all()
        assert table["response"].str.len().mean() > 3
    # the same model: a badly warm-started one, but its answers are about as long
    lengths = [table["tokens"] for table in done.values()]
    error = (sum(x.var() / len(x) for x in lengths)) ** 0.5
    assert abs(lengths[0].mean() - lengths[1].mean()) < 5 * error


def test_an_error_on_one_rank_ends_the_run_with_its_message(tmp_path, small, scores):
    run = Run(tmp_path, 2, *small, scores)
    process = run.start(
        "actor_rollout_ref.actor.policy_loss.loss_mode=recipe_test_failing",
        "actor_rollout_ref.actor.policy_loss.schedule=static",
        "actor_rollout_ref.actor.policy_loss.exact_contribution_freq=0",
        VERL_USE_EXTERNAL_MODULES="failing_loss",
    )
    try:
        wait_until(lambda: "error: " in run.screen.read_text(), LIMIT, "the error", run)
        assert process.wait(60) != 0  # far below the collective's time-out of minutes
    finally:
        stop(process)
    *before, last = run.screen.read_text().splitlines()
    assert last.startswith("error: failed after step 0 of 2: ")
    assert last.endswith("recipe_test: rank 1 refuses this batch")
    assert len(before) < 40 and not any('File "' in line for line in before)
    assert "in failing" in (run.folder / "run/log.txt").read_text()  # the frames
