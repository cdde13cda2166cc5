"""For perf/step.py: a trainer whose odd steps are the recipe's and whose even steps are plain
verl with `grpo`, so that both kinds are timed in one run, side by side.

Loaded by `VERL_USE_EXTERNAL_MODULES` in place of `recipe_sync`. It also times what an odd step
spends outside verl's own two methods: `timing_s/recipe`.
"""

import time

import wrapt


def replace(trainer):
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    def timed(method):
        def call(self, batch, metrics):
            start = time.perf_counter()
            try:
                return method(self, batch, metrics)
            finally:
                self.verl_seconds += time.perf_counter() - start

        return call

    for name in ("_compute_advantage", "_update_actor"):
        setattr(PPOTrainerSync, name, timed(getattr(PPOTrainerSync, name)))

    class Alternate(trainer.RecipeTrainerSync):
        verl_seconds = 0.0

        def _outside_verl(self, method, batch, metrics):
            start, self.verl_seconds = time.perf_counter(), 0.0
            batch = method(batch, metrics)
            spent = time.perf_counter() - start - self.verl_seconds
            metrics["timing_s/recipe"] = metrics.get("timing_s/recipe", 0.0) + spent
            return batch

        def _compute_advantage(self, batch, metrics):
            if self.global_steps % 2:
                return self._outside_verl(super()._compute_advantage, batch, metrics)
            ours, self.config.algorithm.adv_estimator = self.config.algorithm.adv_estimator, "grpo"
            batch = PPOTrainerSync._compute_advantage(self, batch, metrics)
            self.config.algorithm.adv_estimator = ours
            return batch

        def _update_actor(self, batch, metrics):
            if self.global_steps % 2:
                return self._outside_verl(super()._update_actor, batch, metrics)
            return PPOTrainerSync._update_actor(self, batch, metrics)

    TRAINER_REGISTRY["recipe_sync"] = Alternate


wrapt.register_post_import_hook(replace, "recipe.trainer")
