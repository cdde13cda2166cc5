"""SENT's token selection over a whole batch, on the driver, before the update.

Axes: B rows (rollouts), N tokens of all rows, one row after another; R, M: the rows and the tokens
of one mini-batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu

from recipe.semantic_curriculum import _driver, token_rule
from recipe.semantic_curriculum.config import TokenRule


def mini_batch_of_rows(
    rows: int, ranks: int, mini_batch_rows: int, shuffle: bool, seed: int
) -> Tensor:
    """Returns (rows,): in which update verl will use each row of a batch, by its own iterator.

    Each rank holds an equal, contiguous share of the rows and takes an equal share of each
    mini-batch from it (`TrainingWorker.train_mini_batch` of verl 0.9.1).
    """
    share = rows // ranks
    mini_batch_B = torch.empty(rows, dtype=torch.long)
    for rank in range(ranks):
        numbers = TensorDict({"row": torch.arange(share)}, batch_size=[share])
        parts = tu.make_iterator(
            numbers,
            mini_batch_size=mini_batch_rows // ranks,
            epochs=1,
            seed=seed + rank,
            dataloader_kwargs={"shuffle": shuffle},
        )
        for number, part in enumerate(parts):
            mini_batch_B[rank * share + part["row"]] = number
    return mini_batch_B


def classify_batch(
    rule: TokenRule,
    *,
    entropy_N: Tensor,
    log_prob_N: Tensor,
    advantages_N: Tensor,
    mask_N: Tensor,
    length_B: Tensor,
    mini_batch_B: Tensor,
    order_B: Tensor,
) -> tuple[Tensor, Tensor]:
    """Chooses the class of each token of a batch within its mini-batch, or within the batch.

    Args:
        rule: Its scope is mini_batch, response or batch.
        entropy_N, log_prob_N: (N,), nats, of the policy that sampled.
        advantages_N: (N,).
        mask_N: (N,) bool, response tokens.
        length_B: (B,), tokens of each row; sums to N.
        mini_batch_B: (B,), the update that uses the row; all the same with scope=batch.
        order_B: (B,), the rows in an order that does not depend on how the batch is split, which
            decides between equal values.

    Returns:
        class_N: (N,) int8, an index of token_rule.CLASSES.
        cov_N: (N,), the covariance of the selected tokens, 0 elsewhere.
    """
    names = ("entropy_N", "log_prob_N", "advantages_N", "mask_N")
    lengths = length_B.tolist()
    rows = [x.split(lengths) for x in (entropy_N, log_prob_N, advantages_N, mask_N)]
    chosen: dict[int, tuple[Tensor, Tensor]] = {}  # by row
    for number in range(int(mini_batch_B.max()) + 1):
        row_R = order_B[mini_batch_B[order_B] == number].tolist()
        length_R = length_B[row_R]
        values: dict[str, Any] = {
            name: torch.cat([parts[row] for row in row_R])
            for name, parts in zip(names, rows, strict=True)
        }
        class_M, cov_M = token_rule.classify(
            **values,
            **rule.selection,
            length_R=length_R if rule.scope == "response" else None,
            k_smallest=_driver.k_smallest_mask,
        )
        parts = (x_M.split(length_R.tolist()) for x_M in (class_M, cov_M))
        chosen.update(zip(row_R, zip(*parts, strict=True), strict=True))
    class_B, cov_B = zip(*(chosen[row] for row in range(len(lengths))), strict=True)
    return torch.cat(class_B), torch.cat(cov_B)


def class_means(
    class_N: Tensor, mask_N: Tensor, values: dict[str, Tensor], classes: Sequence[str]
) -> dict[str, float]:
    """Averages values over the response tokens of each class, in float64.

    Args:
        class_N: (N,) int8, indices of token_rule.CLASSES.
        mask_N: (N,) bool, response tokens.
        values: Name to (N,).
        classes: The names of token_rule.CLASSES to average over.

    Returns:
        "<class>/<name>" to the mean; a class without a token is left out.
    """
    bins = len(token_rule.CLASSES) + 1  # the last one: not a response token
    bin_N = torch.where(mask_N, class_N, bins - 1).long()
    count_C = torch.bincount(bin_N, minlength=bins)
    means = {}
    for key, value_N in values.items():
        mean_C = torch.bincount(bin_N, weights=value_N.double(), minlength=bins) / count_C
        for name in classes:
            code = token_rule.CLASSES.index(name)
            if count_C[code]:
                means[f"{name}/{key}"] = mean_C[code].item()
    return means
