"""A trainer that loads a checkpoint and saves it again before any step: what a resume restores.

Loaded by `VERL_USE_EXTERNAL_MODULES` in place of `recipe_sync`; writes to RECIPE_TEST_RESAVE.
"""

import os

import wrapt


def replace(trainer):
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

    class Resave(trainer.RecipeTrainerSync):
        def on_init_end(self):
            self.config.trainer.default_local_dir = os.environ["RECIPE_TEST_RESAVE"]
            self._save_checkpoint()

        def fit(self, agent_loop_manager):
            pass

    TRAINER_REGISTRY["recipe_sync"] = Resave


wrapt.register_post_import_hook(replace, "recipe.trainer")
