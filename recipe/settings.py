"""What the checks of the recipes' settings share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


def check_known(what: str, word: Any, known: Iterable[str]) -> None:
    """Raises ValueError unless `word` is one of `known`; `what` names the setting and its value."""
    known = tuple(known)
    if word not in known:
        close = difflib.get_close_matches(str(word), known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ValueError(f"{what} does not exist: {hint}It is one of {', '.join(known)}.")
