"""Writes, on each rank, what the token rule by thresholds got of each micro-batch: the values of
its tokens, the means that it was told, and how many tokens of each class it counted.

Loaded by `VERL_USE_EXTERNAL_MODULES`; writes to the folder RECIPE_TEST_CLASSES.
"""

import json
import os
from pathlib import Path

import wrapt


def replace(register):
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY

    stock = POLICY_LOSS_REGISTRY["sent"]

    def recording(**arguments):
        result = stock(**arguments)
        micro_batch = register.actor_loss.current()
        mask = arguments["response_mask"].bool()
        values = {
            "entropy": micro_batch.padded("entropy"),
            "log_prob": arguments["old_log_prob"],
            "advantage": arguments["advantages"],
        }
        prefix, suffix = register.PREFIX, "/tokens"
        row = {
            "means": micro_batch.settings[register.MEANS],
            **{name: x[mask].double().tolist() for name, x in values.items()},
            "counts": {
                name.removeprefix(prefix).removesuffix(suffix): int(x)
                for name, x in micro_batch.sums.items()
                if name.startswith(prefix) and name.endswith(suffix)
            },
        }
        file = Path(os.environ["RECIPE_TEST_CLASSES"]) / f"{os.environ['RANK']}.jsonl"
        with file.open("a") as out:
            out.write(json.dumps(row) + "\n")
        return result

    POLICY_LOSS_REGISTRY["sent"] = recording


wrapt.register_post_import_hook(replace, "recipe.semantic_curriculum.register")
