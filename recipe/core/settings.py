"""What the checks of the recipes' settings share."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def check_known(what: str, word: Any, known: Iterable[str]) -> None:
    """Raises ValueError unless `word` is one of `known`; `what` names the setting and its value."""
    known = tuple(known)
    if word not in known:
        close = difflib.get_close_matches(str(word), known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ValueError(f"{what} does not exist: {hint}It is one of {', '.join(known)}.")


def check_number(
    what: str, value: Any, allowed: str, holds: Callable[[Any], bool], kind: type = float
) -> None:
    """Raises ValueError unless `value` is a finite number of which `holds` is true; kind=int: a
    whole one. `what` names the setting, `allowed` says what to use."""
    number = isinstance(value, int | kind) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not holds(value):
        raise ValueError(f"{what}={value} is not allowed: use {allowed}.")


def check_free(kind: str, name: str, registry: Mapping[str, Any], owner: str) -> None:
    """Raises ValueError if a module other than `owner` has registered `name`: verl's registries
    overwrite silently."""
    taken = registry.get(name)
    if taken is not None and taken.__module__ != owner:
        raise ValueError(f"{kind} {name!r} is already registered by {taken.__module__}.")
