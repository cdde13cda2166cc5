"""Another reward function than `recipe.judge`: one that a run's config names, called as verl does.

The commands that judge responses use a run's own function, so that they say correct of what the
run was rewarded for.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from recipe.judge import reward as judge

NODE = "reward.custom_reward_function"
DEFAULT_NAME = "compute_score"
JUDGE = "pkg://recipe.judge"


class Verdict(NamedTuple):
    """What a reward function says of a response."""

    correct: bool
    answer: str  # what the response answers; its own text where the function does not say


def is_judge(path: str, name: str) -> bool:
    """Returns whether a function is `recipe.judge`, by the name of its module or file."""
    module = path.removeprefix("pkg://").replace("/", ".")
    file = Path(path.removeprefix("file://"))
    return name == DEFAULT_NAME and (
        module in ("recipe.judge", judge.__name__)
        or (file.is_file() and file.samefile(judge.__file__))
    )


def load(path: str, name: str) -> Callable[..., Any]:
    """Returns the reward function as verl loads it; raises ValueError if it cannot."""
    from verl.utils.import_utils import load_extern_object

    try:
        loaded = load_extern_object(path, name)
    except Exception as error:  # whatever the file raises as it is imported
        why = " ".join(str(error.__cause__ or error).split())
        raise ValueError(
            f"{NODE} (path={path}, name={name}) cannot be loaded ({why:.160}): name a file or "
            "pkg://module, and a function in it; this repository's is pkg://recipe.judge and "
            "compute_score."
        ) from error
    if not callable(loaded):
        raise ValueError(f"{NODE}.name={name} of {path} is not a function: name one.")
    return loaded


@dataclass(frozen=True)
class RewardFunction:
    """A function of verl's setting `reward.custom_reward_function`.

    Args:
        path: a file or pkg://module.
        name: of the function.
        kwargs: `reward_kwargs`.
    """

    path: str
    name: str = DEFAULT_NAME
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        settings = ", ".join(f"{key}={value}" for key, value in self.kwargs.items())
        return f"{self.path}:{self.name}" + (f" ({settings})" if settings else "")

    @classmethod
    def of_run(cls, node: Mapping[str, Any]) -> RewardFunction | None:
        """Returns the function of a config's node NODE; None for `recipe.judge`, and where the node
        names none."""
        path, name = node.get("path") or "", node.get("name") or DEFAULT_NAME
        if not path or is_judge(path, name):
            return None
        return cls(path, name, node.get("reward_kwargs") or {})

    @classmethod
    def parse(cls, text: str) -> RewardFunction:
        """Returns the function of `PATH:NAME`, or of a PATH alone with the name compute_score."""
        path, _, name = text.rpartition(":")
        return cls(path, name) if path and name.isidentifier() else cls(text)

    @cached_property
    def _function(self) -> Callable[..., Any]:
        return load(self.path, self.name)

    def verdict(
        self, response: str, ground_truth: Any, data_source: str, extra_info: Mapping[str, Any]
    ) -> Verdict:
        """Judges one response.

        It is correct where the function's `acc`, or without one its score, is 1, and incorrect
        where it is 0 or -1. Its answer is the function's `pred`, over which verl votes in maj@N;
        without one, its own text.

        Raises:
            ValueError: `acc`, or the score, is another number.
        """
        result = self._function(
            data_source=data_source,
            solution_str=response,
            ground_truth=ground_truth,
            extra_info=dict(extra_info),
            **self.kwargs,
        )
        if inspect.isawaitable(result):
            result = asyncio.run(_awaited(result))
        values = result if isinstance(result, Mapping) else {"score": result}
        key = "acc" if "acc" in values else "score"
        if values[key] not in (-1, 0, 1):
            raise ValueError(
                f"{self} gave {key}={values[key]} to a response, which says neither correct nor "
                "incorrect: let it return acc, True or False, beside its score, or name another "
                "function with --reward."
            )
        answer = values.get("pred", response)
        return Verdict(values[key] == 1, "" if answer is None else str(answer))


async def _awaited(result: Any) -> Any:
    return await result
