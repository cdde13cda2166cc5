"""The fast form of the token selection, for the driver, where a step's whole batch is on one core.

At 9 million tokens the stable sort of `token_rule.k_smallest_mask` takes more than a second, twice
per step; this takes a tenth of that (perf/driver.py). A test holds the two forms together.
"""

from __future__ import annotations

import torch
from torch import Tensor


def k_smallest_mask(values_N: Tensor, member_N: Tensor, k: Tensor) -> Tensor:
    """Marks the k smallest values: `token_rule.k_smallest_mask`, by selection in place of sorting.

    It reads k and the number of equal values, so on an accelerator it would copy to the host.
    """
    count = int(k)
    if count == 0:
        return torch.zeros_like(member_N)
    values_N = torch.where(member_N, values_N, torch.inf)
    threshold = values_N.kthvalue(count).values
    chosen_N = values_N <= threshold
    if excess := int(chosen_N.count_nonzero()) - count:  # of equal values the earlier ones stay
        chosen_N[(values_N == threshold).nonzero().squeeze(1)[-excess:]] = False
    return chosen_N
