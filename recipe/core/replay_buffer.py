"""verl's replay buffer: two patches of one buffer of the trainer, where verl 0.9.1 has no hook.

`observed` stands between sampling a validation batch and clearing its rows. `keep_order` decides
which prompts a batch takes where more are ready than it needs (dynamic sampling): verl takes them
in the order of a set of random names, so that one seed would train on other prompts each time.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from transfer_queue import KVBatchMeta

VERSION = "0.9.1"  # of verl
SELECTION = "key=lambda key: prompt_global_steps_snapshot.get(key, 0)"  # a stable sort by the step


@contextmanager
def observed(replay_buffer: Any, observe: Callable[[KVBatchMeta], None]) -> Iterator[None]:
    """Calls `observe` with each batch that is sampled of a replay buffer, before its rows are used
    and cleared."""
    sample = replay_buffer.sample
    before = vars(replay_buffer).get("sample")  # of another patch (recipe.cpu.runner)

    def sample_and_observe(*args: Any, **kwargs: Any) -> tuple[KVBatchMeta, dict]:
        batch, metrics = sample(*args, **kwargs)
        observe(batch)
        return batch, metrics

    replay_buffer.sample = sample_and_observe
    try:
        yield
    finally:
        del replay_buffer.sample
        if before is not None:
            replay_buffer.sample = before


def keep_order(replay_buffer: Any, place: Callable[[str], int]) -> None:
    """Lets a batch take the oldest prompts, and of one step's those of the lowest place.

    Args:
        replay_buffer: verl's, or a user's own, which is left alone where it selects otherwise.
        place: Of a prompt, by its uid.
    """
    from verl.trainer.ppo.v1 import replay_buffer as verls

    if SELECTION not in inspect.getsource(verls.ReplayBuffer):
        raise RuntimeError(
            f"recipe.core.replay_buffer was written for verl {VERSION}, whose replay buffer takes "
            "prompts by a stable sort of their steps; that is no longer so: install the versions "
            "of requirements/, or adapt the patch."
        )
    select = getattr(replay_buffer, "_select_prompt_uids", None)
    if select is None:
        return

    def select_in_order(partition_id: str, uids: set[str], batch_size: int) -> Any:
        return select(partition_id, sorted(uids, key=place), batch_size)

    replay_buffer._select_prompt_uids = select_in_order
