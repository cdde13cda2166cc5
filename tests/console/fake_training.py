"""A training (a fake, for its console alone is tested) that logs a step every now and then:
`fake_training.py FOLDER STEPS END [--first N] [--pause SECONDS] [--verbose]`."""

import argparse
import atexit
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

from recipe.console import screen
from recipe.experiment.run import RunFolder

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path)
parser.add_argument("steps", type=int)
parser.add_argument("end", choices=("finished", "error", "kill", "exit", "wait"))
parser.add_argument("--first", type=int, default=1)
parser.add_argument("--pause", type=float, default=0.0)
parser.add_argument("--verbose", action="store_true")
args = parser.parse_args()
atexit.register(lambda: print("[W] 7 leaked objects at the end", file=sys.stderr))
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))  # as Ray does


def train() -> None:
    folder = RunFolder(args.folder)
    file = folder.next_metrics_file()
    file.parent.mkdir(exist_ok=True)
    record = {"config": {"trainer": {"total_training_steps": args.steps}}}
    file.with_suffix(".yaml").write_text(json.dumps(record))
    print("Started a local Ray instance.\nactor and ref model engine initialized")
    warnings.warn("megatron engine is not available", stacklevel=1)
    subprocess.run(["sh", "-c", "echo of a process in C++ >&2"], check=True)
    with file.open("ab", buffering=0) as stream:
        for step in range(args.first, args.steps + 1):
            print("target_num_threads 8 should not exceed the cores\n" * 10, end="")
            row = {"critic/rewards/mean": step / 100, "actor/entropy": 1 / step}
            row |= {"timing_s/step": 2.0, "response_length/mean": 14.5}
            stream.write(json.dumps({"step": step, "data": row}).encode() + b"\n")
            time.sleep(args.pause)
    if args.end == "error":
        print("(WorkerDict pid=7) CUDA out of memory on rank 1")
        raise RuntimeError("the worker\nray::Worker.step()\nValueError: rank 1 refuses this batch")
    if args.end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if args.end == "exit":
        os._exit(1)  # as Ray's C++ does when its cluster is gone
    while args.end == "wait":
        time.sleep(0.1)


print("[recipe] the header", flush=True)
with screen.followed(RunFolder(args.folder), args.verbose, b"of the checks\n"):
    train()
