"""A run on disk: the files of its folder, and what its metrics and records say.

verl's trainer, `recipe.launch`, `recipe.compare` and `recipe.evaluate` write into a run's folder:

    metrics/000.jsonl, 001.jsonl, ...     verl's file logger, one file per start
    metrics/000.yaml, 001.yaml, ...       the provenance record of the same start
    metrics/000.end, 001.end, ...         how the same start ended, one line: `finished`, or
                                          `failed: …`, `stopped: …`, `killed: …`; none while it
                                          runs, and none where its node is gone
    global_step_<N>/                      checkpoints
    latest_checkpointed_iteration.txt     the last one's N
    evaluation/<benchmark>.parquet, .json `recipe.evaluate`'s responses and figures; where a matrix
                                          has several presets, in a folder for each
    evaluation.txt                        what it printed, where `recipe.compare` started it
    log.txt                               what its starts printed, one after another
    .lock                                 held while it runs

Any of them may be missing or, where a process was killed, cut off.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import IO, Any
from zipfile import is_zipfile

import yaml
from omegaconf import DictConfig

from recipe.core.files import atomic_write
from recipe.experiment.matrix import Matrix
from recipe.experiment.metrics import TRAINED, Logged, Metrics, add_lines, merged
from recipe.experiment.provenance import flatten

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
STEP = re.compile(
    rb'^\{"step": ?(\d+),.*\}$', re.MULTILINE
)  # a complete line of verl's file logger
TAIL = 1 << 16  # bytes; a line has about 8,000
LOG_END = 300  # characters
FINISHED = "finished"  # how a start has ended, and a run
VAL_ONLY = re.compile(rb"^ *val_only: true$", re.MULTILINE)  # in a record
# what a terminal obeys: sequences that are closed in their line, such as a window's title; other
# sequences, such as colours; control characters but tab and the ends of lines
ESCAPES = re.compile(
    r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[ -/]*[0-~]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
)
LOCK = "RECIPE_RUN_LOCK"  # in a run's environment, where recipe.compare holds its lock


def lock(file: IO) -> bool:
    """Locks a file for this process and those that inherit it; returns whether it could be, which
    it cannot where another one holds the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def tail(file: Path, size: int, begin: int = 0) -> bytes:
    """Returns the end of a file, b"" where there is none.

    Args:
        file: It need not exist.
        size: Bytes that are read at most.
        begin: Byte before which nothing is read.
    """
    if not file.is_file():
        return b""
    with file.open("rb") as stream:
        stream.seek(max(begin, file.stat().st_size - size))
        return stream.read()


def printable(text: str) -> str:
    """Returns a text without what a terminal would obey: escape sequences and control characters
    but tab and the ends of lines."""
    return ESCAPES.sub("", text)


def has_finished(last_step: int, planned: int | None, end: str) -> bool:
    """Says whether a run has finished: its last planned step is logged, or its last start, whose
    curriculum may be shorter, has ended as `finished`.

    Args:
        last_step: The last that is logged, 0 without any.
        planned: Its last step, None where it is not known.
        end: How its last start ended, "" where it has not.
    """
    return end == FINISHED or (planned is not None and last_step >= max(planned, 1))


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run; it need not exist."""

    path: Path

    @classmethod
    def from_config(cls, config: DictConfig) -> RunFolder:
        """Returns the folder of the run that has this config."""
        return cls(Path(config.trainer.default_local_dir).expanduser().absolute())

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    def hold(self) -> IO | None:
        """Locks the folder for this process, so that no other start trains in it meanwhile.

        Returns:
            What holds the lock as long as it is open; None where recipe.compare, which has started
            this process, does.

        Raises:
            ValueError: If another start holds it.
        """
        if LOCK in os.environ:
            return None
        self.path.mkdir(parents=True, exist_ok=True)
        file = self.lock.open("w")
        try:
            free = lock(file)
        except OSError:  # a file system without locks
            return file
        if not free:
            file.close()
            raise ValueError(
                f"{self.path} holds a run that is running now: wait for its end (python -m "
                "recipe.watch shows it), or give another folder (trainer.default_local_dir, "
                "CKPTS_DIR of a run script)."
            )
        return file

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation"

    @property
    def evaluation_log(self) -> Path:
        return self.path / "evaluation.txt"

    def evaluations(self) -> list[Path]:
        """Returns the tables of evaluated responses, one per benchmark, or per preset and
        benchmark; beside them are the folders of cached responses, and what an interrupted write
        or removal has left, whose names begin with a dot."""
        files = (*self.evaluation.glob("*.parquet"), *self.evaluation.glob("*/*.parquet"))
        return sorted(
            file
            for file in files
            if file.parent.suffix != ".responses"
            and not file.name.startswith(".")
            and not file.parent.name.startswith(".")
        )

    # one start's files

    def _starts(self, suffix: str) -> list[Path]:
        files = [f for f in self.path.glob(f"metrics/*{suffix}") if f.stem.isdecimal()]
        return sorted(files, key=lambda file: int(file.stem))

    def metrics_files(self) -> list[Path]:
        return self._starts(".jsonl")

    def next_metrics_file(self) -> Path:
        """Returns the next start's metrics file: verl's file logger truncates what it opens."""
        number = max((int(file.stem) for file in self.metrics_files()), default=-1) + 1
        return self.path / "metrics" / f"{number:03d}.jsonl"

    def metrics(self) -> Metrics:
        """Returns what was logged at each step, by the rule of `merged`."""
        starts: list[Metrics] = []
        for file in self.metrics_files():
            starts.append({})
            add_lines(starts[-1], file.read_text(errors="replace"))
        return merged(starts)

    def logged_metrics(self) -> Metrics:
        """Returns `metrics()`; raises FileNotFoundError where no start has a metrics file."""
        if not self.metrics_files():
            raise FileNotFoundError(
                f"{self.path} has no metrics/*.jsonl: is it the folder of a run?"
            )
        return self.metrics()

    def steps_done(self) -> int:
        """Returns the last step that the last start that has trained has logged, or, where no row
        says that its step was trained, the last start of all; 0 without any. Reads as much of the
        files' ends as holds a complete line."""
        unmarked = 0
        for file in reversed(self.metrics_files()):
            size = TAIL
            while not (rows := [*STEP.finditer(tail(file, size))]) and size < file.stat().st_size:
                size *= 2
            last = max((int(row[1]) for row in rows), default=0)
            if any(TRAINED.encode() in row[0] for row in rows):
                return last
            unmarked = unmarked or last
        return unmarked

    def records(self) -> list[dict[str, Any]]:
        """Returns the provenance record of each start; {} stands for one that cannot be read, or
        whose config is none."""
        records = []
        for file in self._starts(".yaml"):
            try:
                record = yaml.load(file.read_text(errors="replace"), LOADER)
            except yaml.YAMLError:
                record = None
            readable = isinstance(record, dict) and isinstance(record.get("config") or {}, dict)
            records.append(record if readable else {})
        return records

    def last_record_file(self) -> Path | None:
        """Returns the file of the last start's record; None where no start has left one."""
        return next(reversed(self._starts(".yaml")), None)

    def last_end_file(self) -> Path | None:
        """Returns where the last start writes how it ended; None where no start has left a record
        or an end. One that fails early leaves an end alone."""
        starts = [*self._starts(".yaml"), *self._starts(".end")]
        last = max(starts, key=lambda file: int(file.stem), default=None)
        return last.with_suffix(".end") if last else None

    def last_end(self) -> str:
        """Returns how the last start ended, "" where it runs or nobody was left to write it.

        A start that only validated, and finished that, leaves the run as an earlier one left it.
        """
        starts = {file.with_suffix("") for end in (".yaml", ".end") for file in self._starts(end)}
        ended = ""
        for start in sorted(starts, key=lambda start: int(start.name), reverse=True):
            file, record = start.with_suffix(".end"), start.with_suffix(".yaml")
            text = file.read_text(errors="replace") if file.is_file() else ""
            end = " ".join(printable(text).split())
            if not (end == FINISHED and record.is_file() and VAL_ONLY.search(record.read_bytes())):
                return end
            ended = ended or end
        return ended

    def end_written(self) -> tuple[Path, int] | None:
        """Returns the file of `last_end` and when it was written, None where there is none: whether
        a start has left an end of its own."""
        file = self.last_end_file()
        return (file, file.stat().st_mtime_ns) if file and file.is_file() else None

    def note_killed(self, how: str) -> None:
        """Writes of the last start that it was killed, unless it has written how it ended."""
        file = self.last_end_file()
        if file and not file.is_file():
            with atomic_write(file) as temporary:
                temporary.write_text(f"killed: {how}\n")

    def last_written(self) -> float:
        """Returns when a start has last written metrics, a record or its log (seconds since the
        epoch), 0 where none has."""
        files = [*self.metrics_files(), *self._starts(".yaml"), self.log]
        return max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)

    def last_record(self) -> dict[str, Any] | None:
        """Returns the last start's record; None where no start has left one."""
        records = self.records()
        return records[-1] if records else None

    # checkpoints

    @property
    def marker(self) -> Path:
        """verl's file that names the last checkpoint."""
        return self.path / "latest_checkpointed_iteration.txt"

    def marked_step(self) -> int:
        """Returns the step that verl's marker names, 0 where it names none.

        verl writes the number in place, so that a killed run may leave an empty file.
        """
        text = self.marker.read_text(errors="replace").strip() if self.marker.is_file() else ""
        return int(text) if text.isdecimal() else 0

    def complete_steps(self) -> list[int]:
        """Returns the steps of the checkpoints that are whole, the last one last.

        verl writes data.pt after everything else of a checkpoint, and of one that it removes
        deletes actor/ alone.
        """
        return sorted(
            int(folder.name.removeprefix("global_step_"))
            for folder in self.path.glob("global_step_*")
            if folder.name.removeprefix("global_step_").isdecimal()
            and is_zipfile(folder / "data.pt")  # torch writes its end last
            and any((folder / "actor").glob("*"))
        )

    def checkpoint_step(self) -> int:
        """Returns the step of the last complete checkpoint, 0 without one: the marker's, or where
        that is cut off, the last one's that is whole."""
        if self.marked_step() or not self.marker.is_file():
            return self.marked_step()
        return max(self.complete_steps(), default=0)

    def marker_fault(self) -> str | None:
        """Says what is wrong with verl's marker: it names no step, or a checkpoint that is gone.
        None where nothing is, and where there is no marker."""
        if not self.marker.is_file():
            return None
        step = self.marked_step()
        if not step:
            return f"{self.marker} names no checkpoint (a run that is killed may leave it empty)"
        if any(self.path.glob(f"global_step_{step}/actor/*")):
            return None
        return f"{self.marker} names the checkpoint of step {step}, which is not there"

    def repair_marker(self) -> str | None:
        """Lets verl's marker name the last checkpoint that is whole, where it is at fault: verl
        would end in a traceback, or, where the checkpoint is gone, begin anew without a word.

        Returns:
            A sentence on what was done, None if nothing was.

        Raises:
            ValueError: If no checkpoint is whole.
        """
        fault = self.marker_fault()
        if fault is None:
            return None
        steps = self.complete_steps()
        if not steps:
            raise ValueError(
                f"{fault}, and no other is whole: restore it, remove {self.marker} to begin again "
                "at step 1, or give another folder (trainer.default_local_dir)."
            )
        with atomic_write(self.marker) as temporary:
            temporary.write_text(str(steps[-1]))
        return f"{fault}: it now names step {steps[-1]}, the last whole one"

    def checkpoint(self) -> Path | None:
        """Returns the folder of the last complete checkpoint, None without one."""
        step = self.checkpoint_step()
        return self.path / f"global_step_{step}" if step else None

    def is_complete(self, steps: int) -> bool:
        """Says whether the run needs no further start: the checkpoint of its last step is complete
        and its metrics are there, or a start that found nothing left to do has finished."""
        logged = has_finished(self.steps_done(), steps, self.last_end())
        return self.checkpoint_step() >= steps and logged

    def log_end(self) -> str:
        """Returns the end of the last line that the run printed, "" without a log."""
        text = printable(tail(self.log, TAIL).decode(errors="replace"))
        lines = (line.strip() for line in reversed(text.splitlines()))
        return next(filter(None, lines), "")[-LOG_END:]


def planned_steps(record: Mapping[str, Any]) -> int | None:
    """Returns the steps of the config in a start's record, None where it does not say."""
    steps = flatten(record.get("config") or {}).get("trainer.total_training_steps")
    return steps if isinstance(steps, int) else None


@dataclass(frozen=True)
class Run:
    """What is on disk of one run of a comparison."""

    arm: str
    seed: int
    folder: RunFolder
    steps: Metrics = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)  # one per start
    log_end: str = ""
    end: str = ""  # how its last start ended

    @property
    def name(self) -> str:
        return f"{self.arm}/seed{self.seed}"

    @property
    def last_step(self) -> int:
        return max(self.steps, default=0)

    @property
    def record(self) -> dict[str, Any]:
        """The last start's record, {} without one."""
        return self.records[-1] if self.records else {}

    @property
    def started(self) -> bool:
        return bool(self.steps or self.records)

    @cached_property
    def logged(self) -> Logged:
        return Logged.from_run(self.steps, self.record)

    def planned(self) -> int | None:
        """Returns the steps of its config, None where no record has them."""
        return planned_steps(self.record)


def run_folder(out: Path, arm: str, seed: int) -> RunFolder:
    """Returns where a comparison keeps a run."""
    return RunFolder(out / arm / f"seed{seed}")


def run_labels(run_dirs: Sequence[Path], depth: int = 1) -> list[str]:
    """Returns the last `depth` names of the folders' paths, or as many more as tell them apart."""
    parts = [Path(os.path.abspath(folder)).parts for folder in run_dirs]
    while len({names[-depth:] for names in parts}) < len(set(parts)):
        depth += 1
    return ["/".join(names[-depth:]) for names in parts]


def run_of(path: Path) -> RunFolder | None:
    """Returns the run that a path belongs to: its folder, a global_step_N of it, or what lies in
    one; None for any other path."""
    path = path.expanduser().absolute()
    for folder in (path, *path.parents):
        if re.fullmatch(r"global_step_\d+", folder.name):
            return RunFolder(folder.parent)
    run = RunFolder(path)
    return run if run.last_record_file() else None


def read_run(out: Path, arm: str, seed: int) -> Run:
    """Reads a run of a comparison; one that has not started is empty.

    Args:
        out: the folder of the comparison.
    """
    folder = run_folder(out, arm, seed)
    metrics, records = folder.metrics(), folder.records()
    return Run(arm, seed, folder, metrics, records, folder.log_end(), folder.last_end())


def read_runs(matrix: Matrix) -> list[Run]:
    """Reads all runs of a comparison, arm by arm."""
    return [read_run(matrix.out, arm.name, seed) for arm in matrix.arms for seed in matrix.seeds]


def drop_unstarted(matrix: Matrix, runs: Iterable[Run]) -> tuple[Matrix, list[Run], list[str]]:
    """Leaves out the arms, except the baseline, and the seeds of which no run has started, so that
    the report of some arms of a large matrix is about those.

    Returns:
        The matrix and runs that are left, and a sentence on the arms and one on the seeds that
        were left out. Where nothing has started, everything is left.
    """
    runs = list(runs)
    started = [run for run in runs if run.started]
    if not started:
        return matrix, runs, []
    names, numbers = {run.arm for run in started} | {matrix.baseline}, {run.seed for run in started}
    sentences = []
    if absent := [arm.label for arm in matrix.arms if arm.name not in names]:
        sentences.append(
            f"{len(absent)} of {len(matrix.arms)} arms have no run yet: {', '.join(absent)}."
        )
    if absent := [str(seed) for seed in matrix.seeds if seed not in numbers]:
        sentences.append(f"No run yet has seed {', '.join(absent)}.")
    left = replace(
        matrix,
        arms=tuple(arm for arm in matrix.arms if arm.name in names),
        seeds=tuple(seed for seed in matrix.seeds if seed in numbers),
    )
    return left, [run for run in runs if run.arm in names and run.seed in numbers], sentences


def statuses(runs: Iterable[Run]) -> dict[str, str]:
    """Returns {run's name: "missing", "unfinished" or "finished"}.

    A run is finished by `has_finished`, with a step logged; planned are its config's
    total_training_steps, or without a record the steps of the longest run. Its checkpoints may be
    gone.
    """
    runs = list(runs)
    longest = max((run.last_step for run in runs), default=0)

    def status(run: Run) -> str:
        if not run.started:
            return "missing"
        finished = has_finished(run.last_step, run.planned() or longest, run.end)
        return FINISHED if finished and run.last_step else "unfinished"

    return {run.name: status(run) for run in runs}


def finished_runs(matrix: Matrix) -> list[Run]:
    """Reads the finished runs of a comparison, arm by arm."""
    runs = read_runs(matrix)
    status = statuses(runs)
    return [run for run in runs if status[run.name] == FINISHED]
