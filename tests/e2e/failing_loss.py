"""A policy loss that raises on FSDP rank 1 only, while rank 0 goes on into a collective.

Loaded by `VERL_USE_EXTERNAL_MODULES`, chosen by `policy_loss.loss_mode`.
"""

import os

import wrapt


def register(core_algos):
    @core_algos.register_policy_loss("recipe_test_failing")
    def failing(**kwargs):
        if os.environ["RANK"] == "1":
            raise ValueError("recipe_test: rank 1 refuses this batch")
        return core_algos.compute_policy_loss_vanilla(**kwargs)


wrapt.register_post_import_hook(register, "verl.trainer.ppo.core_algos")
