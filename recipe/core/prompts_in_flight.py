"""The training prompts of a step, from their draw to its updates."""

from __future__ import annotations

from typing import Any

import numpy as np

from recipe.core.part import DATASET_ROW
from recipe.core.step import Step


class PromptsInFlight:
    """Which row of the training data each prompt of the step is, by the uid that verl gives it.

    A step may draw several times (verl replaces groups) and update several times (verl's
    parameter_sync_step). A prompt of which an update has no rollout stays for the step's later
    updates and leaves with the step: its rollouts have failed, or verl has dropped them.
    """

    def __init__(self) -> None:
        # uid: (step, or None before the first one; row of the training data)
        self.row_of: dict[str, tuple[int | None, int]] = {}
        self._next_step: int | None = None
        self._drawn_for: int | None = -1  # the step of the last draw

    def draw(self, batch: Any) -> bool:
        """Takes the prompts of a draw, as `Part.on_prompts` is given them; returns whether it is
        the first draw of a step."""
        is_first = self._next_step != self._drawn_for
        self._drawn_for = self._next_step
        for uid, row in zip(batch["uid"], batch[DATASET_ROW], strict=True):
            self.row_of[str(uid)] = self._next_step, int(row)
        return is_first

    def rows_of_update(self, step: Step) -> np.ndarray:
        """Returns the row of the training data of each rollout of an update, verl's padding left
        out, and forgets these prompts."""
        uids = [uid for uid, real in zip(step.uid_B, step.real_B.tolist(), strict=True) if real]
        taken = set(uids)
        rows = np.array([self.row_of[uid][1] for uid in uids], dtype=np.int64)
        self.row_of = {
            uid: (step.number, row)
            for uid, (number, row) in self.row_of.items()
            if uid not in taken and number in (None, step.number)
        }
        self._next_step = step.number + 1
        return rows
