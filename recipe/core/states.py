"""The parts' states in a checkpoint: a file beside verl's own, written and read by the trainer.

    {"<part>": <state_dict()>, ..., "_settings": {"<part>": <resume_settings()>, ...}}

A state has a meaning under the settings that it was made with. These are kept beside it, and
compared before any state is restored: by `recipe.launch` before Ray starts, by the trainer for a
run that verl's own command started.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recipe.core.files import atomic_write
from recipe.core.part import START_ANEW, Part, changed

STATE_FILE = "recipe_state.json"  # in each checkpoint
SETTINGS = "_settings"


def save_states(parts: Sequence[Part], file: Path) -> None:
    """Writes the state, and the settings that it belongs to, of every part that may have a state:
    null for one that has none at this step."""
    states = {part.name: part.state_dict() for part in parts if may_have_state(part)}
    settings = {part.name: dict(part.resume_settings()) for part in parts if part.name in states}
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps({**states, SETTINGS: settings}, indent=1))


def load_states(parts: Sequence[Part], file: Path) -> None:
    """Restores the state of every part that has one.

    Raises:
        ValueError: If a part's state is missing, or belongs to other settings.
    """
    states = read_states(file)
    check_settings(parts, file)
    for part in parts:
        if (state := states.get(part.name)) is not None:
            part.load_state_dict(state)


def may_have_state(part: Part) -> bool:
    """Returns whether a part has a state of its own at some step."""
    return type(part).state_dict is not Part.state_dict


def check_settings(parts: Sequence[Part], file: Path) -> None:
    """Checks that the states in a checkpoint are of this run's parts under this run's settings.

    A checkpoint from before the settings were kept has none to compare: that is printed, and each
    part checks what its state itself says.

    Raises:
        ValueError: For the first setting that differs, a state that no part of this run has, or
            one that is missing.
    """
    states = read_states(file)
    saved = states.pop(SETTINGS, None)
    for part in parts:
        if may_have_state(part) and part.name not in states:
            raise ValueError(
                f"{file} holds no state of {part.name}: that checkpoint was written without it, so "
                f"{START_ANEW}."
            )
    by_name = {part.name: part for part in parts}
    for name in states:
        if name not in by_name:
            raise ValueError(
                f"{file} holds the state of {name}, which this run's settings do not use, so the "
                f"run would not continue as it was: restore them, or {START_ANEW}."
            )
    if states and saved is None:
        print(f"[resume] {file} does not say with which settings it was written: not compared")
    for name, old in (saved or {}).items():
        new = json.loads(json.dumps(dict(by_name[name].resume_settings())))
        for key in dict.fromkeys([*old, *new]):
            # a setting that only one of them has came, or went, with another version
            if key in old and key in new and old[key] != new[key]:
                raise ValueError(changed(key, old[key], new[key]))


def read_states(file: Path) -> dict[str, Mapping[str, Any]]:
    """Returns the content of the file, {} where there is none.

    Raises:
        ValueError: If it is cut off or is something else.
    """
    if not file.is_file():
        return {}
    try:
        states = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} cannot be read ({error}): {START_ANEW}.") from error
    if not isinstance(states, dict):
        raise ValueError(f"{file} is not a table of states: {START_ANEW}.")
    return states
