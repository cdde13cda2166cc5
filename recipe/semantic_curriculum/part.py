"""SENT's two halves in the trainer: the token rule, and the curriculum."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from tensordict import TensorDict
from verl.utils.config import omega_conf_to_dataclass

from recipe.core import config as run_config
from recipe.core.part import START_ANEW, Part, PromptOrder
from recipe.core.prompts_in_flight import PromptsInFlight
from recipe.core.settings import plain
from recipe.core.step import Step
from recipe.sampling.prompts import prompt_id
from recipe.semantic_curriculum import token_rule
from recipe.semantic_curriculum.config import CURRICULUM, LOSS_MODE, CurriculumConfig, TokenRule
from recipe.semantic_curriculum.curriculum import (
    Curriculum,
    Draws,
    curriculum_for,
    steps_of_plan,
)
from recipe.semantic_curriculum.register import CLASS_FIELD, MEANS, class_metrics
from recipe.semantic_curriculum.selection import (
    class_means,
    classify_batch,
    mini_batch_of_rows,
)


class TokenRulePart(Part):
    """Chooses the tokens of `loss_mode=sent` once a step, before the update, from the entropies and
    log-probs that verl has computed for the old policy: no forward pass of its own. By thresholds
    there is nothing to choose here: the loss is told the covariance's two means over the batch.

    Metrics below `sent/`: the constrained share of the tokens; of each class its share of tokens,
    mean entropy, mean covariance and summed KL (over the number of tokens).
    """

    name = "token_rule"
    reads_step_in_loss = True

    def __init__(self, rule: TokenRule):
        self.rule = rule

    @classmethod
    def from_config(cls, config: DictConfig) -> TokenRulePart | None:
        node = config.actor_rollout_ref.actor.policy_loss
        return (
            cls(omega_conf_to_dataclass(node).token_rule) if node.loss_mode == LOSS_MODE else None
        )

    def before_update(self, step: Step) -> None:
        if self.rule.by_thresholds:
            means = self.batch_means(step)
            step.tell_loss(**{MEANS: [float(mean) for mean in means]})
        elif self.rule.scope != "micro_batch":
            self.choose(step)

    def batch_means(self, step: Step) -> token_rule.Means:
        """Returns the means of the covariance over the batch's response tokens, or over L."""
        log_prob_N, advantages_N = step.values("old_log_probs"), step.values("advantages")
        over_N = step.mask_N
        if self.rule.cov_mean_over == "selected":
            class_N, _ = token_rule.classify(
                entropy_N=step.values("entropy"),
                log_prob_N=log_prob_N,
                advantages_N=advantages_N,
                mask_N=step.mask_N,
                **self.rule.selection,
            )
            over_N = class_N != token_rule.UNSELECTED
        return token_rule.means_over(log_prob_N, advantages_N, over_N)

    def choose(self, step: Step) -> None:
        """Puts each token's class into the batch."""
        actor = step.config.actor_rollout_ref.actor
        if self.rule.scope == "batch":
            mini_batch_B = torch.zeros(len(step.batch), dtype=torch.long)
        else:
            mini_batch_B = mini_batch_of_rows(
                len(step.batch),
                step.ranks,
                actor.ppo_mini_batch_size * step.config.actor_rollout_ref.rollout.n,
                actor.shuffle,
                actor.data_loader_seed,
            )
        class_N, cov_N = classify_batch(
            self.rule,
            entropy_N=step.values("entropy"),
            log_prob_N=step.values("old_log_probs"),
            advantages_N=step.values("advantages"),
            mask_N=step.mask_N,
            length_B=step.length_B,
            mini_batch_B=mini_batch_B,
            order_B=step.order_B,
        )
        step.write(**{CLASS_FIELD: class_N})
        values = {"entropy": step.values("entropy"), "covariance": cov_N}
        means = class_means(class_N, step.mask_N, values, self.rule.classes)
        step.metrics.update({f"sent/{name}": value for name, value in means.items()})

    def after_update(self, step: Step) -> None:
        step.metrics.update(class_metrics(step.metrics, self.rule))


class CurriculumPart(Part):
    """The order of the training prompts by `data.curriculum`: a run ends with its plan.

    Where verl replaces groups (dynamic sampling), a step draws as many prompts as it takes to fill
    its batch; all of them count, so that a stage ends when its prompts have been drawn.

    Metrics below `curriculum/`: the stage (1 …) of the step's first draw, the prompts drawn up to
    now, the batch's mean semantic entropy and pass rate as measured beforehand, and the accuracy of
    each stage's prompts.
    """

    name = "curriculum"

    def __init__(
        self,
        settings: CurriculumConfig,
        batch_size: int,
        total_steps: int | None,
        replaces: bool = False,
    ):
        self.settings, self.batch_size, self.total_steps = settings, batch_size, total_steps
        self.replaces = replaces
        self.curriculum: Curriculum | None = None
        self.drawn = self.first_draw = 0  # prompts up to now; up to the present step
        self.in_flight = PromptsInFlight()

    @classmethod
    def from_config(cls, config: DictConfig) -> CurriculumPart | None:
        node = config.data.get("curriculum")
        if node is None:
            return None
        settings = CurriculumConfig.from_mapping(plain(node))
        if settings.order == "none":
            return None
        return cls(
            settings,
            config.data.train_batch_size,
            config.trainer.total_training_steps,
            run_config.replaces_groups(config),
        )

    def prompt_order(self, prompts: Sequence[Any]) -> PromptOrder:
        self.curriculum = curriculum_for([prompt_id(prompt) for prompt in prompts], self.settings)
        plan = self.curriculum.plan
        steps = steps_of_plan(len(plan.prompt_D), self.batch_size, self.total_steps, self.replaces)
        first_S = np.unique(plan.stage_D, return_index=True)[1] // self.batch_size
        begins = ", ".join(str(step + 1) for step in first_S)
        at = "at steps" if not self.replaces else "at the latest at steps"
        print(f"[curriculum] {self.settings.order}: {steps} steps, stages begin {at} {begins}")
        return PromptOrder(Draws(plan) if self.replaces else plan.prompt_D.tolist(), steps)

    def on_prompts(self, batch: TensorDict) -> None:
        if self.in_flight.draw(batch):
            self.first_draw = self.drawn
        self.drawn += len(batch["uid"])

    def after_update(self, step: Step) -> None:
        assert self.curriculum is not None
        measured_B = self.curriculum.prompts.iloc[self.in_flight.rows_of_update(step)]
        stage_B, entropy_B, pass_rate_B = (
            measured_B[name].to_numpy(np.float64)
            for name in ("stage", "semantic_entropy", "pass_rate")
        )
        measured = {
            "curriculum/stage": self.curriculum.plan.stage_at(self.first_draw) + 1.0,
            "curriculum/drawn": float(self.drawn),
            "curriculum/semantic_entropy": entropy_B.mean(),
            "curriculum/pass_rate": pass_rate_B.mean(),
        }
        if step.correct_B is not None:
            correct_B = step.correct_B.numpy()[step.real_B.numpy()]
            for stage in np.unique(stage_B):
                name = f"curriculum/accuracy/stage_{int(stage)}"
                measured[name] = correct_B[stage_B == stage].mean()
        step.metrics.update(measured)

    def resume_settings(self) -> Mapping[str, Any]:
        settings = dataclasses.asdict(self.settings)
        for name in ("scores", "scores_from"):  # by content: the plan's digest, in the state
            del settings[name]
        return {
            **{f"{CURRICULUM}.{name}": value for name, value in settings.items()},
            "data.train_batch_size": self.batch_size,
        }

    def state_dict(self) -> Mapping[str, Any]:
        assert self.curriculum is not None
        return {"plan": self.curriculum.plan.digest(), "drawn": self.drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        assert self.curriculum is not None
        if state["plan"] != self.curriculum.plan.digest():
            raise ValueError(
                "data.curriculum, its scores or the training data are not those of the checkpoint, "
                f"so the run cannot resume: restore them, or {START_ANEW}."
            )
        if "drawn" not in state:
            raise ValueError(
                "The checkpoint's curriculum does not say how many prompts were drawn, so it is of "
                f"an older version: {START_ANEW}."
            )
        self.drawn = state["drawn"]
