"""The flags of Sampling, Hardware and caching, and the end, of the commands that sample."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any, NoReturn

import numpy as np

from recipe import machine
from recipe.machine.cpus import usable_cpus
from recipe.sampling.engine import Hardware, Sampling

SAMPLING = dataclasses.fields(Sampling)[1:]  # the flags; the model is each command's own argument


def add_sampling(parser: argparse.ArgumentParser, more: str = "") -> None:
    """Adds a flag for each field of Sampling but the model; `more` continues the help's default."""
    for field in SAMPLING:
        name = "--" + field.name.replace("_", "-")
        default = f"default: {field.default}{more}"
        parser.add_argument(name, type=type(field.default), metavar="X", help=default)


def add_hardware(parser: argparse.ArgumentParser, chunk: int, what: str) -> None:
    """Adds the flags of Hardware and of caching; `chunk`: the default size, in `what`."""
    defaults = machine.engine_defaults()
    utilization = defaults.gpu_memory_utilization
    add = partial(parser.add_argument, metavar="X")
    add("--replicas", type=int, help="engines; default: as many as fit")
    add("--tensor-parallel", type=int, default=1, help="GPUs per engine; default: %(default)s")
    add("--gpu-memory-utilization", type=float, default=utilization, help="default: %(default)s")
    add("--dtype", default=defaults.dtype, help="default: %(default)s")
    add("--chunk", type=int, default=chunk, help=f"{what} between two saves; default: %(default)s")
    add("--workers", type=int, default=usable_cpus(), help="cores; default: %(default)s")
    parser.add_argument("--again", action="store_true", help="sample anew, not from the cache")


def check(parser: argparse.ArgumentParser, args: argparse.Namespace, **ranges: tuple) -> None:
    """Ends with an error for a value out of its range, which is (lowest, highest) of a flag.

    Args:
        ranges: of the command's own flags; those of the flags above are known here.
    """
    for name in ("samples", "chunk", "workers", "tensor_parallel", "replicas"):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} {value} is not allowed: use 1 or more")
    ranges = {
        "temperature": (0, 100),
        "max_prompt_length": (1, np.inf),
        "max_response_length": (1, np.inf),
        **ranges,
    }
    for name, (low, high) in ranges.items():
        value = getattr(args, name)
        if value is not None and not low <= value <= high:
            option = name.replace("_", "-")
            parser.error(f"--{option} {value} is not allowed: use {low} to {high}")


def sampling_of(
    args: argparse.Namespace, model: str, preset: Mapping[str, Any] | None = None
) -> Sampling:
    """Returns the sampling of the flags; where one was not given, of the preset or the default."""
    given = {field.name: getattr(args, field.name) for field in SAMPLING}
    return Sampling(
        model=model,
        **{**(preset or {}), **{name: value for name, value in given.items() if value is not None}},
    )


def hardware_of(args: argparse.Namespace, **more: Any) -> Hardware:
    """Returns the hardware of the flags, and `more` of its fields."""
    names = ("replicas", "tensor_parallel", "gpu_memory_utilization", "dtype")
    return Hardware(**{name: getattr(args, name) for name in names}, **more)


def leave(code: int) -> NoReturn:
    """Ends the process without running exit handlers, in which vLLM's libraries would print a page
    about leaks of their own."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
