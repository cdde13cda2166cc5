"""Runs the planned runs and their evaluations: processes, progress."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from recipe.compare.checks import check_folder
from recipe.compare.plan import (
    ROOT,
    PlannedRun,
    evaluation_arguments,
    evaluations_of,
    run_environment,
)
from recipe.compare.slots import Slot, wait_for_devices
from recipe.core import cli
from recipe.experiment import provenance
from recipe.experiment.evaluation import has_all_columns
from recipe.experiment.matrix import Matrix
from recipe.experiment.run import LOCK, lock

CRASHES, REFUSALS = 2, 5  # starts of a run, after which it has failed
REFUSAL = b"is less than total desired GPUs"  # of verl's ResourcePoolManager

# ---- processes -----------------------------------------------------------------------------------


class Processes:
    """The processes of runs and evaluations, each in a session of its own."""

    def __init__(self) -> None:
        self.running: set[subprocess.Popen] = set()
        self.ended = False
        self.starting = threading.Lock()

    def call(
        self,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None,
        pass_fds: Sequence[int] = (),
    ) -> int:
        """Runs a command to its end, and appends it and what it prints to the log.

        Returns:
            Its exit code; -SIGTERM without starting it, after `end`.
        """
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
                self.running.add(process)
            code = process.wait()
            self.running.discard(process)
        return code

    def end(self) -> None:
        """Ends all of them; none starts afterwards. Each one's Ray processes end with it."""
        with self.starting:
            self.ended = True
            for process in list(self.running):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)


def check_locking(out: Path) -> None:
    """Raises ValueError if the comparison's folder is on a file system without locks, where a run
    that was left behind could be started again beside itself."""
    out.mkdir(parents=True, exist_ok=True)
    try:
        with (out / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        raise ValueError(
            f"--out {out} is on a file system that cannot lock files ({error.strerror}): give a "
            "folder on another one, or have it mounted with locks (Lustre: -o flock)."
        ) from error


@contextlib.contextmanager
def run_lock(run: PlannedRun, ended: Callable[[], bool] = lambda: False) -> Iterator[IO | None]:
    """Holds the run's lock with a file that the run's process inherits on purpose: the lock
    outlives a comparison that is killed, so that the next one does not start the run again beside
    the process that was left behind, but waits for it.

    Args:
        ended: says that there is nothing to wait for any more; then None is yielded.
    """
    run.folder.path.mkdir(parents=True, exist_ok=True)
    with run.folder.lock.open("w") as file:
        is_told = False
        while not lock(file):
            if ended():
                yield None
                return
            if not is_told:
                tqdm.write(f"{run.name}: still running from an earlier start, waiting for it")
                is_told = True
            time.sleep(1)
        yield file


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """SIGTERM, from `kill` or a batch system, stops the comparison and its runs as Ctrl-C does, and
    so does SIGINT where a shell's `&` has switched it off."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = {s: signal.signal(s, interrupt) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---- one run -------------------------------------------------------------------------------------


def run_once(
    run: PlannedRun,
    environment: Mapping[str, str],
    processes: Processes,
    wait: Callable[[PlannedRun], None] = lambda run: None,
) -> str:
    """Runs a run that is not finished, and resumes it once if it crashes.

    Args:
        wait: returns when the run's devices are free. A start that verl refused all the same,
            because another job was faster, is no crash.

    Returns:
        "skipped" (it was finished before), "finished" or "failed".

    Raises:
        ValueError: its folder holds a run of another config.
    """
    with run_lock(run, lambda: processes.ended) as held:
        if held is None:
            return "failed"
        check_folder(run)  # another comparison may have started it since it was planned
        if run.finished:
            return "skipped"
        environment = {**environment, LOCK: str(held.fileno())}
        crashes, refusals, how = 0, 0, "failed"
        while crashes < CRASHES and refusals < REFUSALS:
            wait(run)
            begin = run.folder.log.stat().st_size if run.folder.log.is_file() else 0
            before = run.folder.end_written()
            code = processes.call(run.command, run.folder.log, environment, (held.fileno(),))
            if run.finished:
                return "finished"
            # after a signal it is not resumed; Ray turns SIGTERM into another exit code
            stopped = processes.ended or -code in (signal.SIGINT, signal.SIGTERM)
            if code < 0 and not stopped:
                with contextlib.suppress(OSError, ValueError):  # a full disk; a signal without name
                    run.folder.note_killed(f"by {signal.Signals(-code).name}")
            # a start that the launcher's checks refuse leaves no end: the last one is a former's
            how = run.folder.last_end() if run.folder.end_written() != before else "failed"
            if stopped:
                break
            if was_refused(run.folder.log, begin):
                refusals += 1
            else:
                crashes += 1
        if not processes.ended:
            tqdm.write(f"{run.name} {how}, see {run.folder.log}")
        return "failed"


def was_refused(log: Path, begin: int) -> bool:
    """Says whether verl found too few free devices, by what it printed from this byte on."""
    with log.open("rb") as stream:
        stream.seek(begin)
        return any(REFUSAL in line for line in stream)


def is_evaluated(run: PlannedRun, settings: Mapping[str, Any]) -> bool:
    """Says whether each benchmark's figures are of the last checkpoint, of the benchmark's content
    and of these settings."""
    from recipe.evaluate import __main__ as evaluate
    from recipe.sampling.checkpoints import model_of

    args = evaluate.parse(evaluation_arguments(run, settings))
    assert args.out is not None  # evaluation_arguments names it
    files = [args.out / f"{file.stem}.json" for file in args.benchmarks]
    tables = [file.with_suffix(".parquet") for file in files]
    if not all(file.is_file() for file in files) or not all(map(has_all_columns, tables)):
        return False
    model = provenance.fingerprint(model_of(str(run.folder.path))[0])
    wanted = evaluate.settings(args) | {"model": model}
    for benchmark, file in zip(args.benchmarks, files, strict=True):
        record = json.loads(file.read_text())
        recorded = {**record["settings"], "content": record.get("content")}
        current = {**wanted, "content": provenance.fingerprint(benchmark)}
        if not all(provenance.same_value(recorded.get(key), current[key]) for key in current):
            return False
    return True


def evaluate_run(
    run: PlannedRun,
    settings: Mapping[str, Any],
    environment: Mapping[str, str],
    processes: Processes,
    wait: Callable[[PlannedRun], None] = lambda run: None,
) -> bool:
    """Makes the evaluations of a finished run that are not there yet, each when the run's devices
    are free (`wait`); returns whether all are there now. It holds the run's lock meanwhile, as a
    training does. Responses of other settings, which were the matrix's before, are sampled anew."""
    with run_lock(run, lambda: processes.ended) as held:
        if held is None:
            return False
        for evaluation in evaluations_of(settings):
            if is_evaluated(run, evaluation):
                continue
            wait(run)
            words = [*evaluation_arguments(run, evaluation), "--again-if-changed"]
            command = [sys.executable, "-m", "recipe.evaluate", *words]
            log = run.folder.evaluation_log
            if processes.call(command, log, environment, (held.fileno(),)) != 0:
                return False
    return True


# ---- all runs ------------------------------------------------------------------------------------


class Progress:
    """A bar of all steps, and beside it the runs that are running."""

    def __init__(self, runs: Sequence[PlannedRun]) -> None:
        self.runs = runs
        self.running: dict[str, PlannedRun] = {}
        self.bar = tqdm(total=sum(run.steps for run in runs), initial=self.done(), unit="step")
        self.over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def done(self) -> int:
        return sum(min(run.steps, run.folder.steps_done()) for run in self.runs)

    def _watch(self) -> None:
        while not self.over.wait(2 if sys.stderr.isatty() else 60):  # seconds
            self.show()

    def show(self) -> None:
        self.bar.n = self.done()
        running = list(self.running.values())
        texts = [f"{run.name} ({run.folder.steps_done()}/{run.steps})" for run in running]
        self.bar.set_postfix_str("; ".join(texts))  # draws the bar

    def close(self) -> None:
        self.over.set()
        self.show()
        self.bar.close()


def run_all(
    matrix: Matrix, runs: Sequence[PlannedRun], slots: Sequence[Slot]
) -> dict[str, list[PlannedRun]]:
    """Runs and evaluates all runs, as many at the same time as there are slots.

    Returns:
        {"finished", "skipped", "failed": runs}.

    Raises:
        KeyboardInterrupt: it was stopped; the processes are ended.
    """
    free = list(slots)
    processes = Processes()
    progress = Progress(runs)
    results: dict[str, list[PlannedRun]] = {"finished": [], "skipped": [], "failed": []}

    at_work: set[str] = set()  # runs that do not wait for devices

    def wait(run: PlannedRun) -> None:
        """As long as others of the comparison run, whose devices it can have afterwards."""
        at_work.discard(run.name)
        wait_for_devices(run, lambda: None if processes.ended else bool(at_work))
        at_work.add(run.name)

    def run_and_evaluate(run: PlannedRun) -> str:
        slot = free.pop()
        progress.running[run.name] = run
        at_work.add(run.name)
        try:
            environment = run_environment(matrix, run.arm, run.seed, run.folder)
            environment["PYTHONPATH"] = os.pathsep.join(
                filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
            )
            environment |= slot
            result = run_once(run, environment, processes, wait)
            if result == "failed" or not matrix.evaluate:
                return result
            if not evaluate_run(run, matrix.evaluate, environment, processes, wait):
                tqdm.write(f"{run.name}: evaluation failed, see {run.folder.evaluation_log}")
                return "failed"
            return result
        except cli.ERRORS as error:  # of this run: the others go on
            tqdm.write(f"{run.name}: {error}")
            return "failed"
        finally:
            at_work.discard(run.name)
            progress.running.pop(run.name)
            free.append(slot)

    with ThreadPoolExecutor(len(slots)) as pool:
        pending = {pool.submit(run_and_evaluate, run): run for run in runs}
        try:
            for done in as_completed(pending):
                run = pending[done]
                results[done.result()].append(run)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            processes.end()
            raise
        finally:
            progress.close()
    return results
