"""Writes, on each rank, what the token rule saw of each micro-batch: the tokens of the whole
mini-batch, and how many of this micro-batch were in L.

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
        info = arguments["config"].global_batch_info
        classes = register.actor_loss.current().padded(register.CLASS_FIELD)
        low = (classes != 0) & arguments["response_mask"].bool()
        row = {"tokens": int(info["batch_num_tokens"]), "low": int(low.sum())}
        file = Path(os.environ["RECIPE_TEST_CLASSES"]) / f"{os.environ['RANK']}.jsonl"
        with file.open("a") as out:
            out.write(json.dumps(row) + "\n")
        return result

    POLICY_LOSS_REGISTRY["sent"] = recording


wrapt.register_post_import_hook(replace, "recipe.semantic_curriculum.register")
