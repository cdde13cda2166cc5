"""What a batch of rollouts says about itself: groups, padding, and which rollouts are correct.

Axes: B rows (rollouts), P prompts (groups), T response tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor


class CorrectnessRule(NamedTuple):
    """Which rollouts are correct; the formulas of the recipes know correct and incorrect only.

    Attributes:
        threshold: None: rewards are all in {0, 1} or all in {-1, 1}, and 1 is correct. A number c:
            correct if the reward is above c.
        field: A key of the reward function's result that says so in place of the reward.
        node: The config node of `correct_threshold` and `correct_field`, for messages; blank:
            there is none.
        required: Whether a batch without a clear answer is an error; else it has no correctness.
    """

    threshold: float | None = None
    field: str | None = None
    node: str = ""
    required: bool = False

    def from_rewards(self, reward_B: Tensor, valid_B: Tensor | None = None) -> Tensor:
        """Returns (B,) bool: which rollouts are correct by their rewards.

        Args:
            reward_B: (B,) rewards.
            valid_B: (B,) bool, rows to look at; None = all. Other rows may hold any number.

        Raises:
            ValueError: For a reward that is not finite, or, without a threshold, one that is
                neither correct nor incorrect.
        """
        cure = "return 1 or 0 from the reward function."
        if self.node:
            cure = (
                f"set {self.node}.correct_threshold (correct if the reward is above it) or "
                f"{self.node}.correct_field (a key of the reward function's result that says "
                "correct or incorrect)."
            )

        def refuse(bad_B: Tensor, problem: str) -> None:
            bad_B = bad_B if valid_B is None else bad_B & valid_B
            if bad_B.any():
                reward = reward_B[bad_B][0].item()
                raise ValueError(f"A rollout's reward is {reward:g}, {problem}")

        refuse(~reward_B.isfinite(), "not finite: correct the reward function.")
        if self.threshold is not None:
            return reward_B > self.threshold
        zero_B, minus_B = reward_B == 0, reward_B == -1
        neither_B = (reward_B != 1) & ~zero_B & ~minus_B
        refuse(neither_B, f"neither correct (1) nor incorrect (0 or -1): {cure}")
        some_zero = (zero_B if valid_B is None else zero_B & valid_B).any()
        refuse(
            minus_B & some_zero, f"another's is 0, and only one of them can mean incorrect: {cure}"
        )
        return reward_B == 1

    def from_fields(self, fields: Sequence[Mapping[str, Any]]) -> Tensor:
        """Returns (B,) bool: which rollouts are correct by `field` of the reward function's result.

        Raises:
            ValueError: If a result has no such key, or one that is neither correct nor incorrect.
        """
        # verl pads a short batch with copies that carry the source row's fields: nothing is missing
        values: list[Any] = [(row.get("reward_extra_info") or {}).get(self.field) for row in fields]
        missing = sum(value is None for value in values)
        if missing:
            raise ValueError(
                f"{self.node}.correct_field={self.field!r} is not among what the reward function "
                f"returned for {missing} of {len(values)} rollouts: return it from the reward "
                "function, or set correct_field=null."
            )
        plain = self._replace(threshold=None)
        return plain.from_rewards(torch.tensor([float(value) for value in values]))


def group_index(uids: Any) -> Tensor:
    """Returns (B,) long: rows of equal uid share a number 0..P-1, in the order of appearance.

    verl's `as_torch_index` is not used: it reads strings as integers where it can, so that uids
    "7" and "07" would fall into one group.
    """
    return torch.from_numpy(pd.factorize(np.asarray(uids), use_na_sentinel=False)[0]).long()


def real_rows(mask_BT: Tensor) -> Tensor:
    """Returns (B,) bool: rows with a response token. verl pads a batch with rows whose mask is all
    zero; within the recipes' trainer `Step.real_B` tells them apart by verl's own tag."""
    return (mask_BT != 0).any(-1)


def scalar_rewards(token_level_rewards_BT: Tensor) -> Tensor:
    """Returns (B,): r = sum_t r_t.

    The sum is not masked, as in verl: the reward stands on the response's last token, which in a
    multi-turn rollout may be a tool's, outside the response mask.
    """
    return token_level_rewards_BT.sum(-1)
