"""For perf/step.py: a trainer whose odd steps are the recipe's and whose even steps are plain verl
with `grpo`, so that both kinds are timed in one run, side by side.

Loaded by `VERL_USE_EXTERNAL_MODULES` in place of `recipe_sync`. In an even step the recipe's hooks
are not called, the estimator is verl's `grpo`, and the workers' loss is verl's `vanilla`, without a
KL term; the workers get the same fields in both. It also times what an odd step spends on the
driver outside verl's own two methods: `timing_s/recipe`.
"""

import time
from functools import partial

import wrapt


def replace(trainer):
    from omegaconf import OmegaConf, open_dict
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.utils.losses import ppo_loss

    from recipe.core import transfer_queue

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

    class Interleaved(trainer.RecipeTrainerSync):
        verl_seconds = 0.0

        @property
        def is_recipe_step(self) -> bool:
            return self.global_steps % 2 == 1

        def on_init_end(self):
            actor = self.config.actor_rollout_ref.actor
            plain = OmegaConf.create(OmegaConf.to_container(actor, resolve=True))
            with open_dict(plain):
                plain.policy_loss.loss_mode = "vanilla"
                plain.use_kl_loss, plain.entropy_coeff = False, 0.0
            self.plain_loss, self.recipe_loss = (
                partial(ppo_loss, config=omega_conf_to_dataclass(config))
                for config in (plain, actor)
            )
            group = self.actor_rollout_wg
            set_loss_fn = group.set_loss_fn

            def remember(loss):  # the trainer sets a loss here if a part needs one
                self.recipe_loss = loss
                return set_loss_fn(loss)

            group.set_loss_fn = remember
            super().on_init_end()
            group.set_loss_fn = set_loss_fn

        def on_sample_begin(self):
            super().on_sample_begin()
            # both kinds of step set it, so that its price is in both
            self.actor_rollout_wg.set_loss_fn(
                self.recipe_loss if self.is_recipe_step else self.plain_loss
            )

        def _outside_verl(self, method, batch, metrics):
            start, self.verl_seconds = time.perf_counter(), 0.0
            batch = method(batch, metrics)
            spent = time.perf_counter() - start - self.verl_seconds
            metrics["timing_s/recipe"] = metrics.get("timing_s/recipe", 0.0) + spent
            return batch

        def _compute_advantage(self, batch, metrics):
            if self.is_recipe_step:
                return self._outside_verl(super()._compute_advantage, batch, metrics)
            algorithm = self.config.algorithm
            estimator, algorithm.adv_estimator = algorithm.adv_estimator, "grpo"
            try:
                return PPOTrainerSync._compute_advantage(self, batch, metrics)
            finally:
                algorithm.adv_estimator = estimator

        def _update_actor(self, batch, metrics):
            if self.is_recipe_step:
                return self._outside_verl(super()._update_actor, batch, metrics)
            batch = transfer_queue.for_workers(batch)
            return PPOTrainerSync._update_actor(self, batch, metrics)

    TRAINER_REGISTRY["recipe_sync"] = Interleaved


wrapt.register_post_import_hook(replace, "recipe.trainer")
