"""The class of the node `actor_rollout_ref.actor.policy_loss`: verl's settings and each recipe's.

verl has one such node. A recipe brings a mixin dataclass for it (`Recipe.policy_loss`), and the
class is made of all of them here, so that no recipe inherits another.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from verl.workers.config import PolicyLossConfig

from recipe.core.recipe import recipes

MIXINS: tuple[type, ...] = tuple(
    record.load(record.policy_loss) for record in recipes() if record.policy_loss is not None
)


def _check_disjoint() -> None:
    owner: dict[str, type] = {
        field.name: PolicyLossConfig for field in dataclasses.fields(PolicyLossConfig)
    }
    for mixin in MIXINS:
        for field in dataclasses.fields(mixin):
            if field.name in owner:
                raise ValueError(
                    f"{mixin.__module__}.{mixin.__qualname__}.{field.name} is also a setting of "
                    f"{owner[field.name].__module__}: give one of them another name."
                )
            owner[field.name] = mixin


def _post_init(self: Any) -> None:
    for mixin in MIXINS:
        check = vars(mixin).get("__post_init__")
        if check is not None:
            check(self)


_check_disjoint()
RecipePolicyLoss = dataclasses.make_dataclass(
    "RecipePolicyLoss",
    [],
    bases=(*MIXINS, PolicyLossConfig),
    namespace={
        "__doc__": "verl's policy-loss settings with those of every recipe.",
        "__module__": __name__,
        "__post_init__": _post_init,
    },
)
