"""The flags of Sampling, Hardware and caching, and the end, of the commands that sample."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, NoReturn

from recipe import machine
from recipe.judge.reward_function import JUDGE, RewardFunction, is_judge
from recipe.machine.cpus import usable_cpus
from recipe.sampling.engine import Hardware, Sampling
from recipe.sampling.prompts import RENDER
from recipe.sampling.run_settings import run_settings

# the defaults of the flags; the model is each command's own argument
SAMPLING = dataclasses.asdict(Sampling(""))
del SAMPLING["model"]
DTYPES = ("auto", "bfloat16", "float16", "half", "float32", "float")  # vLLM's

Range = tuple[Callable[[Any], bool], str]  # whether a value is allowed, and what is
COUNT: Range = (lambda x: x >= 1, "1 or more")
# of the flags of the commands that sample
RANGES: dict[str, Range] = {
    "samples": COUNT,
    "temperature": (lambda x: 0 <= x <= 100, "0 to 100"),
    "top_p": (lambda x: 0 < x <= 1, "a number above 0, at most 1"),
    "top_k": (lambda x: x == -1 or x >= 1, "-1 for all tokens, or 1 or more"),
    "max_prompt_length": COUNT,
    "max_response_length": COUNT,
    "replicas": COUNT,
    "tensor_parallel": COUNT,
    "gpu_memory_utilization": (lambda x: 0 < x <= 1, "a number above 0, at most 1"),
    "dtype": (lambda x: x in DTYPES, f"one of {', '.join(DTYPES)}"),
    "chunk": COUNT,
    "workers": COUNT,
    "max_prompts": (lambda x: x >= 0, "0 for all, or 1 or more"),
    "time_limit": (lambda x: 0.1 <= x <= 3600, "0.1 to 3600 seconds"),  # as recipe.judge.pool
}


def json_mapping(text: str, example: str = '{"threshold": 0.5}') -> dict[str, Any]:
    """Reads a flag; raises argparse's error for what is no JSON mapping."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(constant)  # NaN and the like, which are not JSON

    try:
        mapping = json.loads(text, parse_constant=refuse)
    except ValueError:
        mapping = None
    if not isinstance(mapping, dict):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not allowed: use a JSON mapping, '{example}'"
        )
    return mapping


def template_kwargs(text: str) -> dict[str, Any]:
    """Reads --chat-template-kwargs; raises argparse's error for what is no JSON mapping, or sets
    what is no setting of a prompt."""
    kwargs = json_mapping(text, '{"enable_thinking": false}')
    if fixed := [key for key in kwargs if key in RENDER]:
        raise argparse.ArgumentTypeError(f"{fixed[0]} is not allowed: it is no setting of a prompt")
    return kwargs


def add_sampling(parser: argparse.ArgumentParser, more: str = "") -> None:
    """Adds a flag for each field of Sampling but the model, and for how responses are judged
    (`add_judging`); `more` continues the help's default."""
    for name, default in SAMPLING.items():
        parser.add_argument(
            "--" + name.replace("_", "-"),
            type=template_kwargs if name == "chat_template_kwargs" else type(default),
            metavar="X",
            help=f"default: {default}{more}",
        )
    add_judging(parser)


def add_judging(parser: argparse.ArgumentParser) -> None:
    """Adds the flags for how responses are judged."""
    parser.add_argument(
        "--reward",
        type=RewardFunction.parse,
        metavar="PATH:NAME",
        help="a function of verl's reward.custom_reward_function, which says what is correct and, "
        f"by its pred, what the answers are; default: the one of the model's run, or {JUDGE}",
    )
    parser.add_argument(
        "--reward-kwargs",
        type=json_mapping,
        metavar="JSON",
        help="verl's reward_kwargs of that function; default: those of the model's run, or {}",
    )
    parser.add_argument(
        "--boxed-only",
        action=argparse.BooleanOptionalAction,
        help="only \\boxed{} answers count; default: as the run of the model was trained, or no",
    )


def add_hardware(parser: argparse.ArgumentParser, chunk: int, what: str) -> None:
    """Adds the flags of Hardware and of caching; `chunk`: the default size, in `what`."""
    defaults = machine.engine_defaults()
    utilization = defaults.gpu_memory_utilization
    add = partial(parser.add_argument, metavar="X")
    add("--replicas", type=int, help="engines; default: as many as fit")
    add("--tensor-parallel", type=int, default=1, help="GPUs per engine; default: %(default)s")
    add("--gpu-memory-utilization", type=float, default=utilization, help="default: %(default)s")
    add("--dtype", help=f"default: of the run's rollouts, or {defaults.dtype}")
    add("--chunk", type=int, default=chunk, help=f"{what} between two saves; default: %(default)s")
    add("--workers", type=int, default=usable_cpus(), help="cores; default: %(default)s")
    parser.add_argument("--again", action="store_true", help="sample anew, not from the cache")


def check(parser: argparse.ArgumentParser, args: argparse.Namespace, **ranges: Range) -> None:
    """Ends with an error for a value out of its range.

    Args:
        ranges: of the command's own flags, or narrower than in RANGES, of whose flags a command
            need not have all.
    """
    for name, (allows, allowed) in {**RANGES, **ranges}.items():
        value = getattr(args, name, None)
        if value is not None and not allows(value):
            option = name.replace("_", "-")
            parser.error(f"--{option} {value} is not allowed: use {allowed}")


def check_sampling(parser: argparse.ArgumentParser, sampling: Sampling) -> None:
    """Ends with an error for settings that no engine samples with, wherever they are from."""
    if sampling.temperature == 0 and sampling.samples > 1:
        parser.error(
            f"--temperature 0 with --samples {sampling.samples} is not allowed, as it gives the "
            "same response each time: use --samples 1, or a temperature above 0"
        )


class Resolved(NamedTuple):
    """What a command line asks for, where flags leave it to a preset, a run or the defaults."""

    sampling: Sampling
    dtype: str
    boxed_only: bool
    reward: RewardFunction | None  # None: recipe.judge
    sources: str  # in a line: where each value comes from


def resolve(
    args: argparse.Namespace, model: str, preset: str = "", values: Mapping[str, Any] | None = None
) -> Resolved:
    """Returns each setting as the flags say it; where they do not, as the preset, else as the
    record of the run that the model is of, else by default.

    Args:
        args: of the flags above, or some of them.
        model: as the command line names it: a run, a checkpoint of one, or any model.
        preset: its name.
        values: the preset's.

    Raises:
        ValueError: if the run's record cannot be read, or there is no function for the
            --reward-kwargs.
    """
    of_run, record = run_settings(model)
    defaults = SAMPLING | {
        "dtype": machine.engine_defaults().dtype,
        "boxed_only": False,
        "reward": None,
    }
    given = {name: getattr(args, name, None) for name in defaults}
    if (kwargs := getattr(args, "reward_kwargs", None)) is not None:
        function = given["reward"] or of_run.get("reward")
        if function is None:
            raise ValueError(
                f"--reward-kwargs {kwargs} is for a reward function of your own: give --reward too."
            )
        given["reward"] = dataclasses.replace(function, kwargs=kwargs)
    layers: dict[str, Mapping[str, Any]] = {
        "flags": {name: value for name, value in given.items() if value is not None},
        f"preset {preset}": values or {},
        f"the run ({record})": of_run,
        "default": defaults,
    }
    chosen = {name: next(x for x in layers if name in layers[x]) for name in defaults}
    value_of = {name: layers[layer][name] for name, layer in chosen.items()}
    texts = {
        layer: ", ".join(f"{name} {value_of[name]}" for name in defaults if chosen[name] == layer)
        for layer in layers
    }
    sources = "; ".join(f"by {layer}: {text}" for layer, text in texts.items() if text)
    dtype, boxed_only, reward = (value_of.pop(name) for name in ("dtype", "boxed_only", "reward"))
    if reward is not None and is_judge(reward.path, reward.name):
        reward = None
    sampling = Sampling(model=model, **value_of)
    return Resolved(sampling, dtype, boxed_only, reward, f"[settings] {sources}")


def hardware_of(args: argparse.Namespace, dtype: str, **more: Any) -> Hardware:
    """Returns the hardware of the flags, and `more` of its fields."""
    names = ("replicas", "tensor_parallel", "gpu_memory_utilization")
    return Hardware(**{name: getattr(args, name) for name in names}, dtype=dtype, **more)


def leave(code: int) -> NoReturn:
    """Ends the process without running exit handlers, in which vLLM's libraries would print a page
    about leaks of their own."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
