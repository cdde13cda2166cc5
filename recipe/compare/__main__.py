"""Run a comparison, arms x seeds, from a small yaml: `python -m recipe.compare MATRIX.yaml`.

    title: what the report is called           # optional
    seeds: [0, 1, 2]
    baseline: grpo                             # the arm that the others are compared with
    script: run_cpu.sh                         # of each arm's recipe; an arm may name its own
    environment: {STEPS: 30}                   # of the scripts: STEPS, MODEL_PATH, TRAIN_FILE …
    overrides: [trainer.test_freq=10]          # Hydra overrides of every arm
    evaluate: {benchmarks: [...], samples: 32} # optional: recipe.evaluate of each last checkpoint
    arms:
      grpo: {recipe: semantic_curriculum, preset: grpo}
      asymgrpo: {recipe: asymgrpo, preset: asymgrpo, label: AsymGRPO, overrides: [...]}
      curriculum: {recipe: semantic_curriculum, preset: curriculum, own: [data.curriculum]}

Each run goes to OUT/<arm>/seed<k> and is the recipe's own run script with SEED, PRESET and
CKPTS_DIR set, so it can be repeated by hand. A finished run is not repeated, one that was stopped
goes on from its checkpoint, one that crashes is started once more. Before anything runs all
configs are checked: those of one seed must agree in what a fair comparison shares (SHARED), except
for what an arm calls its `own`; a folder that holds a run of another config is refused.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from tqdm import tqdm

from recipe.core.settings import check_choice, check_number
from recipe.experiment import provenance
from recipe.experiment.provenance import config_identity, differences, is_below
from recipe.experiment.run import RunFolder
from recipe.launch import __main__ as launch

RECIPES = Path(__file__).resolve().parents[1]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
STEP = re.compile(rb'^\{"step": ?(\d+),.*\}$', re.MULTILINE)  # a whole line of verl's file logger
TAIL = 1 << 16  # bytes; a line has about 8,000
# What runs of one seed have in common in a fair comparison. Paths are compared by content.
SHARED = (
    "actor_rollout_ref.model.path",
    "actor_rollout_ref.rollout.n",
    "actor_rollout_ref.rollout.seed",
    "actor_rollout_ref.rollout.val_kwargs",
    "actor_rollout_ref.actor.ppo_mini_batch_size",
    "actor_rollout_ref.actor.ppo_epochs",
    "actor_rollout_ref.actor.data_loader_seed",
    "actor_rollout_ref.actor.optim",
    "data.train_files",
    "data.val_files",
    "data.train_batch_size",
    "data.train_max_samples",
    "data.shuffle",
    "data.seed",
    "data.max_prompt_length",
    "data.max_response_length",
    "data.curriculum",
    "trainer.total_training_steps",
)


@dataclass(frozen=True)
class Arm:
    name: str
    recipe: str
    preset: str
    label: str
    script: str
    overrides: tuple[str, ...] = ()
    own: tuple[str, ...] = ()  # settings in which it may differ from the others, by design


@dataclass(frozen=True)
class Matrix:
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    baseline: str
    title: str
    out: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    evaluate: Mapping[str, Any] = field(default_factory=dict)


class Run(NamedTuple):
    arm: Arm
    seed: int
    folder: Path
    command: list[str]
    record: dict[str, Any]  # provenance.record of what it will be
    steps: int

    @property
    def name(self) -> str:
        return f"{self.arm.name}, seed {self.seed}"


# ---- the matrix ----------------------------------------------------------------------------------


def read_matrix(file: Path, out: Path | None = None) -> Matrix:
    """Raises ValueError or FileNotFoundError in one sentence."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: give the yaml of a comparison.")
    try:
        values = OmegaConf.to_container(OmegaConf.load(file), resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"{file} is not a yaml file of settings: {error}") from None
    keys = ("title", "out", "seeds", "baseline", "script", "environment", "overrides", "evaluate")
    arms = values.get("arms") if isinstance(values, dict) else None
    if not isinstance(arms, dict) or not arms:
        raise ValueError(f"{file} names no arms: see `python -m recipe.compare --help`.")
    for key in values:
        check_choice(f"{file}: {key}", key, (*keys, "arms"))
    seeds = values.get("seeds", [0, 1, 2])
    if not isinstance(seeds, list) or not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"{file}: seeds={seeds} is not allowed: give different whole numbers.")
    for seed in seeds:
        check_number(f"{file}: seeds", seed, "whole numbers from 0 up", lambda x: x >= 0, int)
    script = values.get("script", "run_cpu.sh")
    arms = tuple(_arm(file, name, arm, script) for name, arm in arms.items())
    baseline = values.get("baseline", arms[0].name)
    check_choice(f"{file}: baseline={baseline}", baseline, [arm.name for arm in arms])
    out = out or Path(values.get("out", f"outputs/{file.stem}"))
    return Matrix(
        arms=arms,
        seeds=tuple(seeds),
        baseline=baseline,
        title=str(values.get("title", file.stem)),
        out=out.expanduser().absolute(),
        environment={key: str(x) for key, x in (values.get("environment") or {}).items()},
        overrides=_words(f"{file}: overrides", values.get("overrides") or []),
        evaluate=_evaluate(file, values.get("evaluate") or {}),
    )


def _evaluate(file: Path, settings: Any) -> dict[str, Any]:
    if settings and not (
        isinstance(settings, dict) and isinstance(settings.get("benchmarks"), list)
    ):
        raise ValueError(f"{file}: evaluate={settings} is not allowed: name a list of benchmarks.")
    return settings


def _words(what: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ValueError(f"{what}={value} is not allowed: give a list of texts, key=value.")
    return tuple(value)


def _arm(file: Path, name: Any, values: Any, script: str) -> Arm:
    where = f"{file}: arms.{name}"
    if not NAME.fullmatch(str(name)):
        raise ValueError(f"{where} is not a folder's name: use letters, digits, _, - and dots.")
    if not isinstance(values, dict) or not {"recipe", "preset"} <= set(values):
        raise ValueError(f"{where} must name its recipe and its preset.")
    for key in values:
        check_choice(
            f"{where}.{key}", key, ("recipe", "preset", "label", "script", "overrides", "own")
        )
    script = values.get("script", script)
    if not (RECIPES / values["recipe"] / script).is_file():
        known = sorted(path.parent.name for path in RECIPES.glob(f"*/{script}"))
        raise ValueError(
            f"{where}: recipe/{values['recipe']}/{script} does not exist; {script} is there for "
            f"{', '.join(known) or 'no recipe'}."
        )
    return Arm(
        name=str(name),
        recipe=values["recipe"],
        preset=str(values["preset"]),
        label=str(values.get("label", name)),
        script=script,
        overrides=_words(f"{where}.overrides", values.get("overrides") or []),
        own=_words(f"{where}.own", values.get("own") or []),
    )


# ---- what each run will be -----------------------------------------------------------------------


def environment_of(matrix: Matrix, arm: Arm, seed: int, folder: Path) -> dict[str, str]:
    return {
        "PYTHON": sys.executable,
        **os.environ,
        "SAVE_FREQ": "10",
        **matrix.environment,
        "PRESET": arm.preset,
        "SEED": str(seed),
        "PROJECT_NAME": matrix.out.name,
        "EXPERIMENT_NAME": f"{arm.name}-seed{seed}",
        "CKPTS_DIR": str(folder),
    }


def plan_run(matrix: Matrix, arm: Arm, seed: int) -> Run:
    """What the run script would start, and its resolved config. The script prepares its data and
    model first where they are missing."""
    folder = matrix.out / arm.name / f"seed{seed}"
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "command"
        done = subprocess.run(
            [
                "bash",
                str(RECIPES / arm.recipe / arm.script),
                *matrix.overrides,
                *arm.overrides,
                "actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]",
            ],
            env={**environment_of(matrix, arm, seed, folder), "COMMAND_FILE": str(file)},
            stdin=subprocess.DEVNULL,
        )
        if done.returncode or not file.is_file():
            raise RuntimeError(
                f"{arm.recipe}/{arm.script} failed for arm {arm.name}: what it printed says why."
            )
        command = file.read_bytes().decode().rstrip("\0").split("\0")
    config = launch.compose(arm.recipe, command[command.index(arm.recipe) + 1 :])
    steps = config.trainer.total_training_steps
    if steps is None:
        raise ValueError(
            f"arm {arm.name}: trainer.total_training_steps=null has no end that a comparison could "
            "wait for: set it (STEPS for run_cpu.sh)."
        )
    record = provenance.record(OmegaConf.to_container(config, resolve=True), command)
    return Run(arm, seed, folder, command, record, int(steps))


def check_shared(runs: Iterable[Run], baseline: str) -> None:
    """Raises ValueError unless the runs of each seed agree with the baseline's in all of SHARED
    that is not an arm's own."""
    runs = list(runs)
    for seed in dict.fromkeys(run.seed for run in runs):
        mine = [run for run in runs if run.seed == seed]
        first = next((run for run in mine if run.arm.name == baseline), mine[0])
        expected = config_identity(first.record)
        for run in mine:
            found = config_identity(run.record)
            for key in differences(expected, found):
                if is_below(key, SHARED) and not is_below(key, (*first.arm.own, *run.arm.own)):
                    raise ValueError(
                        f"arms {first.arm.name} and {run.arm.name} differ in {key} "
                        f"({expected.get(key)} and {found.get(key)}), so that their difference "
                        f"would not be the method's: make them equal, or add {key} to the arm's "
                        "`own`."
                    )


# ---- what is there -------------------------------------------------------------------------------


def last_record(folder: Path) -> dict[str, Any] | None:
    """Of the run's last start."""
    files = sorted(folder.glob("metrics/[0-9]*.yaml"))
    return yaml.safe_load(files[-1].read_text()) if files else None


def steps_done(folder: Path) -> int:
    """Training steps that its metrics show; reads their ends only."""
    steps = [0]
    for file in folder.glob("metrics/[0-9]*.jsonl"):
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - TAIL))
            steps += [int(step) for step in STEP.findall(stream.read())]
    return max(steps)


def finished(run: Run) -> bool:
    """Whether the last step's checkpoint is whole and its metrics are there."""
    marker = run.folder / "latest_checkpointed_iteration.txt"
    saved = int(marker.read_text()) if marker.is_file() else 0
    return saved >= run.steps and steps_done(run.folder) >= run.steps


def check_folder(run: Run) -> None:
    """Raises ValueError if the folder holds a run of another config."""
    there = last_record(run.folder)
    if there is None:
        if steps_done(run.folder):
            raise ValueError(
                f"{run.folder} holds a run without a record of its config: give another --out."
            )
        return
    old, new = config_identity(there), config_identity(run.record)
    if keys := differences(old, new):
        key = keys[0]
        more = f", and {len(keys) - 1} more" if len(keys) > 1 else ""
        raise ValueError(
            f"{run.folder} holds a run of another config ({key}: {old.get(key)} there, "
            f"{new.get(key)} now{more}): remove it, or give another --out."
        )


def check_order(runs: Iterable[Run]) -> list[str]:
    """Sentences about finished runs that should have drawn the same prompts and did not, by the
    lengths of their prompts at each step."""
    first: dict[tuple, tuple[Run, dict]] = {}
    said = []
    for run in runs:
        settings = {k: v for k, v in config_identity(run.record).items() if k.startswith("data.")}
        key = (run.seed, repr(sorted(settings.items(), key=str)))
        drawn = {
            step: tuple(row.get(f"prompt_length/{x}") for x in ("mean", "min", "max"))
            for step, row in RunFolder(run.folder).metrics().items()
            if step > 0
        }
        other, expected = first.setdefault(key, (run, drawn))
        both = sorted(set(drawn) & set(expected))
        if step := next((s for s in both if drawn[s] != expected[s]), None):
            said.append(
                f"{run.name} and {other.name} did not train on the same prompts at step {step}"
            )
    return said


# ---- running -------------------------------------------------------------------------------------


@contextlib.contextmanager
def lock_of(run: Run):
    """Held by the run's own process too, so that a comparison which is started again does not
    start a run that its killed predecessor has left behind. Waits for it."""
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tqdm.write(f"{run.name}: still running from an earlier start, waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


class Processes(set):
    """Of runs and evaluations, each in a session of its own."""

    def __init__(self):
        super().__init__()
        self.ended = False
        self.starting = threading.Lock()

    def call(self, command: list[str], log: Path, environment, pass_fds=()) -> int:
        """Its exit code; the command and what it says go to the log."""
        with log.open("a") as file:
            with self.starting:
                if self.ended:
                    return -signal.SIGTERM
                print(f"$ {shlex.join(command)}", file=file, flush=True)
                process = subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    pass_fds=pass_fds,
                    start_new_session=True,
                )
                self.add(process)
            code = process.wait()
            self.discard(process)
        return code

    def end(self) -> None:
        """Ends them with their Ray processes' parent, which ends the rest. None starts after it."""
        with self.starting:
            self.ended = True
            for process in list(self):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)


def run_once(run: Run, environment: Mapping[str, str], processes: Processes) -> str:
    """ "skipped", "finished", or "failed" after a second try."""
    with lock_of(run) as lock:
        if finished(run):
            return "skipped"
        for _ in range(2):
            log = run.folder / "log.txt"
            code = processes.call(run.command, log, environment, (lock.fileno(),))
            if finished(run):
                return "finished"
            # one that a signal ended is not started again; Ray turns SIGTERM into another exit code
            if processes.ended or -code in (signal.SIGINT, signal.SIGTERM):
                break
        return "failed"


def evaluation(run: Run, settings: Mapping[str, Any]) -> list[str]:
    """The arguments of recipe.evaluate for a run's last checkpoint."""
    words = [str(run.folder), *map(str, settings["benchmarks"])]
    words += ["--out", str(run.folder / "evaluation")]
    for key, value in settings.items():
        if key != "benchmarks" and value is not False:
            words.append(f"--{key.replace('_', '-')}")
            if value is not True:
                words += map(str, value if isinstance(value, list) else [value])
    return words


def evaluated(run: Run, settings: Mapping[str, Any]) -> bool:
    """Whether each benchmark's figures are of the last checkpoint and of these settings."""
    from recipe.evaluate import __main__ as evaluate

    known = evaluate.parse(evaluation(run, settings))
    files = [run.folder / f"evaluation/{file.stem}.json" for file in known.benchmarks]
    if not all(file.is_file() for file in files):
        return False
    model = provenance.fingerprint(evaluate.model_of(str(run.folder))[0])
    wanted = evaluate.settings(known) | {"model": model}
    return all(
        {key: json.loads(file.read_text())["settings"].get(key) for key in wanted} == wanted
        for file in files
    )


def evaluate_run(run: Run, settings: Mapping[str, Any], environment, processes: Processes) -> bool:
    if evaluated(run, settings):
        return True
    command = [sys.executable, "-m", "recipe.evaluate", *evaluation(run, settings)]
    return processes.call(command, run.folder / "evaluation.txt", environment) == 0


@contextlib.contextmanager
def ended_by_signals():
    """SIGTERM, of `kill` or a batch system, ends the comparison and its runs as Ctrl-C does; SIGINT
    does also where a shell's `&` has switched it off."""

    def end(number, frame):
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def places_of(runs: list[Run], jobs: int | None, gpus: str | None) -> list[dict[str, str]]:
    """The environment of each place in which a run can go on at a time.

    Several only in one Ray cluster (RAY_ADDRESS), which gives out its GPUs; default: as many as
    fit. Runs with Ray instances of their own must not share a machine: verl 0.9.1 names the socket
    of its weight transfer by Ray's job id, which is 01000000 in each of them, so that two transfers
    at one time wait for each other forever.
    """
    trainers = [run.record["config"]["trainer"] for run in runs]
    need = max((t["nnodes"] * t["n_gpus_per_node"] for t in trainers), default=1)
    if os.environ.get("RAY_ADDRESS"):
        import ray

        try:
            ray.init(address=os.environ["RAY_ADDRESS"], logging_level="ERROR")
        except ConnectionError as error:
            raise ValueError(
                f"RAY_ADDRESS={os.environ['RAY_ADDRESS']} cannot be joined ({error}): start the "
                "cluster, and set RAY_AUTH_MODE=token if its `ray start` switched that on."
            ) from error
        there = int(ray.cluster_resources().get("GPU", 0))
        ray.shutdown()
        fit = there // need
        if not fit or (jobs or 1) > fit:
            raise ValueError(
                f"{jobs or 1} runs at once need {(jobs or 1) * need} GPUs and the Ray cluster of "
                f"RAY_ADDRESS has {there}: use fewer --jobs, or change NGPUS_PER_NODE."
            )
        return [{}] * (jobs or fit)
    if (jobs or 1) > 1:
        raise ValueError(
            f"--jobs={jobs} needs one Ray cluster for all runs: start it (ray start --head) and "
            "set RAY_ADDRESS."
        )
    if all(t["device"] == "cpu" for t in trainers):
        return [{}]
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = (gpus or visible or "").split(",") if gpus or visible else []
    there = len(names) or torch.cuda.device_count()
    here = trainers[0]["n_gpus_per_node"]
    if there < here:
        raise ValueError(
            f"a run needs {here} GPUs of this machine and {there} may be used: change "
            "NGPUS_PER_NODE or --gpus."
        )
    return [{"CUDA_VISIBLE_DEVICES": ",".join(names)}] if names else [{}]


class Progress:
    """A bar of all steps, and under it what is running."""

    def __init__(self, runs: list[Run]):
        self.runs, self.running = runs, {}
        done = sum(min(run.steps, steps_done(run.folder)) for run in runs)
        self.bar = tqdm(total=sum(run.steps for run in runs), initial=done, unit="step")
        self.over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self.over.wait(2):
            self.show()

    def show(self) -> None:
        done = sum(min(run.steps, steps_done(run.folder)) for run in self.runs)
        self.bar.update(done - self.bar.n)
        now = [f"{r.name} ({steps_done(r.folder)}/{r.steps})" for r in list(self.running.values())]
        self.bar.set_postfix_str("; ".join(now))

    def close(self) -> None:
        self.over.set()
        self.show()
        self.bar.close()


def run_all(matrix: Matrix, runs: list[Run], places: list[dict[str, str]]) -> dict[str, list[Run]]:
    """{"finished", "skipped", "failed": runs}"""
    free = list(places)
    processes = Processes()
    progress = Progress(runs)
    results: dict[str, list[Run]] = {"finished": [], "skipped": [], "failed": []}

    def one(run: Run) -> str:
        place = free.pop()
        progress.running[run.name] = run
        try:
            environment = environment_of(matrix, run.arm, run.seed, run.folder)
            environment["PYTHONPATH"] = os.pathsep.join(
                filter(None, [str(RECIPES.parent), os.environ.get("PYTHONPATH")])
            )
            environment |= place
            result = run_once(run, environment, processes)
            if result == "failed" or not matrix.evaluate:
                return result
            if not evaluate_run(run, matrix.evaluate, environment, processes):
                tqdm.write(f"{run.name}: evaluation failed, see {run.folder}/evaluation.txt")
                return "failed"
            return result
        finally:
            progress.running.pop(run.name)
            free.append(place)

    with ThreadPoolExecutor(len(places)) as pool:
        pending = {pool.submit(one, run): run for run in runs}
        try:
            for done in as_completed(pending):
                run = pending[done]
                results[done.result()].append(run)
                if run in results["failed"]:
                    tqdm.write(f"{run.name} failed, see {run.folder / 'log.txt'}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            processes.end()
            raise
        finally:
            progress.close()
    return results


def write_matrix(matrix: Matrix) -> None:
    """What the report reads, in OUT."""
    arms = {
        arm.name: {
            "recipe": arm.recipe,
            "preset": arm.preset,
            "label": arm.label,
            "script": arm.script,
            "overrides": list(arm.overrides),
            "own": list(arm.own),
        }
        for arm in matrix.arms
    }
    values = {
        "title": matrix.title,
        "baseline": matrix.baseline,
        "seeds": list(matrix.seeds),
        "environment": dict(matrix.environment),
        "overrides": list(matrix.overrides),
        "evaluate": dict(matrix.evaluate),
        "arms": arms,
    }
    provenance.write(matrix.out / "matrix.yaml", values)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m recipe.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("matrix", type=Path)
    parser.add_argument("--out", type=Path, help="default: the matrix's out, or outputs/<its name>")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="these only")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="K", help="these only")
    parser.add_argument(
        "--jobs", type=int, help="runs at once, in a Ray cluster; default: as many as fit"
    )
    parser.add_argument("--gpus", help="ids of the GPUs to use, 0,1,…; default: all that are seen")
    parser.add_argument("--dry-run", action="store_true", help="check all configs and stop")
    known = parser.parse_args(arguments)

    from hydra.errors import HydraException

    from recipe.launch import preflight

    try:
        matrix = read_matrix(known.matrix, known.out)
        for arm in known.arms or []:
            check_choice(f"--arms {arm}", arm, [arm.name for arm in matrix.arms])
        if known.jobs is not None:
            check_number("--jobs", known.jobs, "a whole number above 0", lambda x: x > 0, int)
        chosen = [
            (arm, seed)
            for seed in (known.seeds or matrix.seeds)
            for arm in matrix.arms
            if not known.arms or arm.name in known.arms
        ]
        # the baseline first, chosen or not: its script may prepare what the others want
        first = next(arm for arm in matrix.arms if arm.name == matrix.baseline)
        seeds = dict.fromkeys(seed for _, seed in chosen)
        baselines = {seed: plan_run(matrix, first, seed) for seed in seeds}
        runs = []
        for arm, seed in tqdm(chosen, desc="checking", unit="run", leave=False):
            run = baselines[seed] if arm == first else plan_run(matrix, arm, seed)
            if not any(run.arm == arm for run in runs):
                preflight.check(OmegaConf.create(run.record["config"]))
            check_folder(run)
            runs.append(run)
        check_shared([*baselines.values(), *runs], matrix.baseline)
        if matrix.evaluate:
            from recipe.evaluate import __main__ as evaluate
            from recipe.sampling import responses

            # ends on a wrong flag
            for file in evaluate.parse(evaluation(runs[0], matrix.evaluate)).benchmarks:
                responses.read_prompts([file], 0, "evaluate: ")
        places = places_of(runs, known.jobs, known.gpus)
    except (
        *(ValueError, AssertionError, RuntimeError, OSError),
        *(HydraException, OmegaConfBaseException),
    ) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    for run in runs:
        state = "finished" if finished(run) else f"{steps_done(run.folder)} of {run.steps} steps"
        print(f"[compare] {run.name:<30} {state}")
    if known.dry_run:
        return 0
    write_matrix(matrix)
    start = time.monotonic()
    try:
        with ended_by_signals():
            results = run_all(matrix, runs, places)
    except KeyboardInterrupt:
        print("stopped, with its runs: the same command goes on", file=sys.stderr)
        return 130
    for sentence in check_order([r for r in runs if r not in results["failed"]]):
        print(f"warning: {sentence}", file=sys.stderr)
    minutes = (time.monotonic() - start) / 60
    print(
        f"[compare] {len(results['finished'])} runs finished in {minutes:.0f} minutes, "
        f"{len(results['skipped'])} had been before, {len(results['failed'])} failed: {matrix.out}"
    )
    return 1 if results["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
