"""The clipped term with the variant that the settings name. A variant is a class here, which reads
the settings and the batch for its formulas in `recipe.clip_entropy.variants`, and its row in
`config.VARIANTS`.

Axes: B rows (rollouts), T response tokens.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from omegaconf import DictConfig
from torch import Tensor

from recipe.clip_entropy import variants as V
from recipe.clip_entropy.config import ClipSettings
from recipe.clip_entropy.regions import PREFIX
from recipe.core.actor_loss import MicroBatch
from recipe.core.clip import Clipped, TokenBounds
from recipe.core.clipped_term import bounds_of, clipped_term
from recipe.core.diagnostics import row_tokens
from recipe.core.policy_loss import NODE
from recipe.core.step import Step

if TYPE_CHECKING:
    from verl.workers.config import ActorConfig

STEER_RATE, LOW_SHARE = "steer_rate", "low_entropy_share"  # in MicroBatch.settings
NO_ENTROPY = (
    f"{NODE}.variant=erc reads the current policy's entropies: set "
    "actor_rollout_ref.actor.calculate_entropy=true."
)


class Tokens(NamedTuple):
    """A micro-batch in the loss; tensors are (B, T)."""

    old_log_prob: Tensor
    log_prob: Tensor
    advantages: Tensor
    mask: Tensor  # bool, response tokens
    config: ActorConfig  # the actor's
    settings: ClipSettings
    micro_batch: MicroBatch | None  # None outside the recipes' trainer

    def of_trainer(self) -> MicroBatch:
        """Returns the micro-batch with the old policy's entropies; raises ValueError without."""
        if self.micro_batch is None or "entropy" not in self.micro_batch.fields:
            raise ValueError(
                f"{NODE}.variant={self.settings.variant} reads the old policy's entropies, which "
                "reach the loss only through trainer.v1.trainer_mode=recipe_sync, with algorithm."
                "rollout_correction.bypass_mode=false: use both, or another variant."
            )
        return self.micro_batch


class Variant:
    """PPO's clipped term; a variant overrides what it changes."""

    changes_gradient = False  # `changed` is used, and how many tokens it touches is logged

    def check(self, settings: ClipSettings, actor: DictConfig) -> None:
        """Raises ValueError where the actor's config leaves the variant without what it reads."""

    def of_step(self, step: Step, settings: ClipSettings) -> dict[str, float]:
        """Returns what the loss must know of the whole step, for MicroBatch.settings."""
        return {}

    def bounds_and_term(self, tokens: Tokens) -> tuple[TokenBounds | None, Tensor | None]:
        """Returns bounds in the place of those of the update, and (B, T) a term beside the clipped
        one; None where there is none."""
        return None, None

    def changed(self, clipped: Clipped, tokens: Tokens) -> Clipped:
        """Returns what becomes of PPO's objective."""
        return clipped


class Up(Variant):
    changes_gradient = True

    def changed(self, clipped: Clipped, tokens: Tokens) -> Clipped:
        return V.unbounded_positive(clipped, tokens.log_prob, tokens.advantages)


class NoUpperBound(Variant):
    changes_gradient = True

    def changed(self, clipped: Clipped, tokens: Tokens) -> Clipped:
        return V.without_upper_bound(
            clipped, tokens.log_prob, tokens.old_log_prob, tokens.advantages
        )


class CEGPPO(Variant):
    changes_gradient = True

    def changed(self, clipped: Clipped, tokens: Tokens) -> Clipped:
        bounds = bounds_of(tokens.config, tokens.micro_batch)
        return V.preserved_gradient(
            clipped,
            tokens.log_prob,
            tokens.advantages,
            bounds.epsilons(tokens.log_prob.detach().exp()),
            tokens.settings.ce_low,
            tokens.settings.ce_high,
        )


class DCPO(Variant):
    def bounds_and_term(self, tokens: Tokens) -> tuple[TokenBounds, None]:
        eps = tokens.config.clip_ratio_low, tokens.config.clip_ratio_high
        ratio_max = tokens.settings.dcpo_ratio_max
        return V.old_probability_bounds(tokens.old_log_prob, *eps, ratio_max), None


class ERC(Variant):
    changes_gradient = True

    def check(self, settings: ClipSettings, actor: DictConfig) -> None:
        if not actor.calculate_entropy:
            raise ValueError(NO_ENTROPY)

    def changed(self, clipped: Clipped, tokens: Tokens) -> Clipped:
        batch, settings = tokens.of_trainer(), tokens.settings
        entropy_BT = batch.entropy()
        if entropy_BT is None:
            raise ValueError(NO_ENTROPY)
        return V.within_entropy_ratio(
            clipped, entropy_BT, batch.padded("entropy"), settings.erc_low, settings.erc_high
        )


class Steer(Variant):
    changes_gradient = True

    def of_step(self, step: Step, settings: ClipSettings) -> dict[str, float]:
        """k, by the policy that sampled."""
        log_prob_N = step.values("old_log_probs")
        change_N = V.entropy_change(
            log_prob_N, log_prob_N, step.values("advantages"), step.values("entropy")
        )
        largest = torch.where(step.mask_N, change_N, 0.0).max().item()
        return {STEER_RATE: V.steer_rate(largest, settings.steer_weight_min)}

    def changed(self, clipped: Clipped, tokens: Tokens) -> Clipped:
        batch = tokens.of_trainer()
        change_BT = V.entropy_change(
            tokens.log_prob, tokens.old_log_prob, tokens.advantages, batch.padded("entropy")
        )
        rate, weight_min = batch.settings[STEER_RATE], tokens.settings.steer_weight_min
        return V.reweighted(clipped, change_BT, rate, weight_min)


class Archer(Variant):
    def check(self, settings: ClipSettings, actor: DictConfig) -> None:
        if settings.archer_kl > 0 and not actor.use_kl_loss:
            raise ValueError(
                f"{NODE}.archer_kl={settings.archer_kl} needs the reference's log-probs: set "
                "actor_rollout_ref.actor.use_kl_loss=true (kl_loss_coef=0 adds no other KL), or 0."
            )
        if settings.archer_kl == 0 and (
            settings.archer_clip == actor.clip_ratio_low == actor.clip_ratio_high
        ):
            raise ValueError(
                f"{NODE}.archer_clip={settings.archer_clip} is the bound of all other tokens too, "
                "and archer_kl=0, which leave variant=archer as PPO's clip: change one, or use "
                "variant=ppo."
            )

    def of_step(self, step: Step, settings: ClipSettings) -> dict[str, float]:
        tokens_B = row_tokens(step.mask_N, step.length_B)
        return {LOW_SHARE: V.low_entropy_share(tokens_B, settings.archer_quantile)}

    def bounds_and_term(self, tokens: Tokens) -> tuple[TokenBounds, Tensor | None]:
        """Its bounds, and the KL to the reference, a mean over the tokens up to the quantile."""
        batch, settings = tokens.of_trainer(), tokens.settings
        high_BT = V.high_entropy(batch.padded("entropy"), tokens.mask, settings.archer_quantile)
        eps = tokens.config.clip_ratio_high, tokens.config.clip_ratio_low
        bounds = V.dual_bounds(high_BT, eps, settings.archer_clip)
        if settings.archer_kl == 0:
            return bounds, None
        kl_BT = _reference_kl(batch, tokens.log_prob, tokens.config)
        coefficient = settings.archer_kl / batch.settings[LOW_SHARE]
        return bounds, torch.where(high_BT, 0.0, coefficient * kl_BT)


TERMS: dict[str, Variant] = {
    "ppo": Variant(),
    "up": Up(),
    "no_upper_bound": NoUpperBound(),
    "ce_gppo": CEGPPO(),
    "dcpo": DCPO(),
    "erc": ERC(),
    "steer": Steer(),
    "archer": Archer(),
}


def variant_term(
    old_log_prob_BT: Tensor,
    log_prob_BT: Tensor,
    advantages_BT: Tensor,
    mask_BT: Tensor,
    config: ActorConfig,
    micro_batch: MicroBatch | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the loss (B, T) of the settings' variant, and verl's metrics of it as scalars.

    Args:
        old_log_prob_BT, log_prob_BT, advantages_BT: (B, T).
        mask_BT: (B, T) bool, response tokens.
        config: The actor's.
        micro_batch: None outside the recipes' trainer, where variant=erc, steer and archer are
            refused.
    """
    ppo = (old_log_prob_BT, log_prob_BT, advantages_BT, mask_BT, config)
    settings = config.policy_loss
    if not isinstance(settings, ClipSettings):
        return clipped_term(*ppo, micro_batch)
    variant, tokens = TERMS[settings.variant], Tokens(*ppo, settings, micro_batch)
    bounds, term_BT = variant.bounds_and_term(tokens)
    loss_BT, metrics = clipped_term(
        *ppo,
        micro_batch,
        bounds=bounds,
        change=partial(_measured, variant, tokens) if variant.changes_gradient else None,
    )
    return loss_BT if term_BT is None else loss_BT + term_BT, metrics


def _measured(variant: Variant, tokens: Tokens, ppo: Clipped) -> Clipped:
    """Returns what the variant makes of PPO's objective, and counts the tokens whose gradient it
    changed."""
    changed = variant.changed(ppo, tokens)
    if tokens.micro_batch is not None:
        with torch.no_grad():
            touched_BT = (changed.weight() != ppo.weight()) & tokens.mask
        tokens.micro_batch.sums[f"{PREFIX}variant_share"] = touched_BT.sum()
    return changed


def _reference_kl(micro_batch: MicroBatch, log_prob_BT: Tensor, config: ActorConfig) -> Tensor:
    """Returns (B, T): verl's estimate of KL(pi_theta || reference) at each token."""
    from verl.trainer.ppo.core_algos import kl_penalty

    return kl_penalty(log_prob_BT, micro_batch.padded("ref_log_prob"), config.kl_loss_type)
