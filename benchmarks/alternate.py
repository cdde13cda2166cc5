"""For benchmarks/step.py: a trainer whose odd steps are the recipe's and whose even steps are plain
verl with `grpo`, so that both kinds are timed in one run, side by side.

Loaded by `VERL_USE_EXTERNAL_MODULES` in place of `recipe_sync`.
"""

import wrapt


def replace(trainer):
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    class Alternate(trainer.RecipeTrainerSync):
        def _compute_advantage(self, batch, metrics):
            if self.global_steps % 2:
                return super()._compute_advantage(batch, metrics)
            ours, self.config.algorithm.adv_estimator = self.config.algorithm.adv_estimator, "grpo"
            batch = PPOTrainerSync._compute_advantage(self, batch, metrics)
            self.config.algorithm.adv_estimator = ours
            return batch

        def _update_actor(self, batch, metrics):
            if self.global_steps % 2:
                return super()._update_actor(batch, metrics)
            return PPOTrainerSync._update_actor(self, batch, metrics)

    TRAINER_REGISTRY["recipe_sync"] = Alternate


wrapt.register_post_import_hook(replace, "recipe.trainer")
