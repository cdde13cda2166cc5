"""Sampling from a small causal language model in plain torch, with a KV cache."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Samples(NamedTuple):
    """B rows of up to T tokens: `tokens_BT`, their `entropies_BT` in nats, and `mask_BT`, which is
    true up to and including the end token."""

    tokens_BT: Tensor
    entropies_BT: Tensor
    mask_BT: Tensor


@torch.no_grad()
def sample(
    model: torch.nn.Module,
    prompts: list[list[int]],
    max_tokens: int,
    end: int,
    generator: torch.Generator,
) -> Samples:
    """One response for each prompt at temperature 1, from the whole vocabulary.

    Args:
        model: a Hugging Face causal language model with a KV cache.
        prompts: token ids; shorter ones are padded on the left.
        max_tokens: responses are cut off there.
        end: the id of the token that ends a response.
        generator: decides the draws.
    """
    width = max(map(len, prompts))
    ids = torch.tensor([[end] * (width - len(p)) + p for p in prompts])
    seen = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    places = (seen.cumsum(1) - 1).clamp(min=0)
    alive = torch.ones(len(prompts), dtype=torch.bool)
    cache, tokens, entropies, mask = None, [], [], []
    for _ in range(max_tokens):
        out = model(
            input_ids=ids,
            attention_mask=seen,
            position_ids=places,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = out.past_key_values
        log_probs = out.logits[:, -1].log_softmax(-1)
        ids = torch.multinomial(log_probs.exp(), 1, generator=generator)
        tokens.append(torch.where(alive, ids[:, 0], end))
        entropies.append(-(log_probs.exp() * log_probs).sum(-1))
        mask.append(alive)
        alive = alive & (ids[:, 0] != end)
        if not alive.any():
            break
        seen = torch.cat([seen, seen.new_ones(len(prompts), 1)], 1)
        places = places[:, -1:] + 1
    return Samples(torch.stack(tokens, 1), torch.stack(entropies, 1), torch.stack(mask, 1))
