"""What several tests build: an actor's config, a batch of tokens, verl's nested tensors."""

from typing import Any

import torch
from torch import Tensor
from verl.workers.config import FSDPActorConfig

from recipe.policy_loss import RecipePolicyLoss


def actor_config(
    loss_mode: str, mode: str = "token-mean", low: float = 0.2, high: float = 0.2, **settings: Any
) -> FSDPActorConfig:
    """verl's config of an actor, with the node policy_loss of all recipes."""
    return FSDPActorConfig(
        strategy="fsdp2",
        rollout_n=8,
        use_dynamic_bsz=True,
        clip_ratio_low=low,
        clip_ratio_high=high,
        loss_agg_mode=mode,
        policy_loss=RecipePolicyLoss(loss_mode=loss_mode, **settings),
    )


def random_tokens(
    seed: int = 0, rows: int = 16, tokens: int = 80, spread: float = 0.2
) -> dict[str, Tensor]:
    """The arguments (B, T) of a policy loss; among the rows a whole one and one of padding."""
    generator = torch.Generator().manual_seed(seed)
    old = -torch.randn(rows, tokens, generator=generator).abs()
    moved = spread * torch.randn(rows, tokens, generator=generator)
    lengths = torch.randint(0, tokens + 1, (rows,), generator=generator)
    lengths[0], lengths[1] = tokens, 0
    return dict(
        old_log_prob=old,
        log_prob=(old + moved).clamp(max=0),
        advantages=torch.randn(rows, 1, generator=generator).expand(rows, tokens).clone(),
        response_mask=torch.arange(tokens)[None] < lengths[:, None],
    )


def nested(padded: Tensor, lengths: Tensor) -> Tensor:
    """A padded (B, T) tensor as verl keeps it: jagged rows of these lengths."""
    rows = [row[:n] for row, n in zip(padded, lengths.tolist(), strict=True)]
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)
