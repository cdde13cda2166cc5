"""Sampling from a small causal language model in plain torch, with the entropy of each token.

`generate` of transformers, which `recipe.sampling.engine` uses, would have to return the logits of
all tokens for that: responses x tokens x vocabulary at a time. It also draws from torch's one
global generator, and a warm start is to be repeatable beside whatever else draws.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


class Samples(NamedTuple):
    """B responses of up to T tokens."""

    tokens_BT: Tensor
    entropies_BT: Tensor  # nats, of the distribution that each token was drawn from
    mask_BT: Tensor  # bool, true up to and including the end token


@torch.no_grad()
def sample(
    model: torch.nn.Module,
    prompts: list[list[int]],
    max_tokens: int,
    end: int,
    generator: torch.Generator,
) -> Samples:
    """Samples one response to each prompt at temperature 1, from the full vocabulary.

    Args:
        model: a Hugging Face causal language model with a KV cache.
        prompts: B lists of token ids; shorter ones are padded on the left.
        max_tokens: responses are cut off there.
        end: the id of the token that ends a response.
        generator: decides the draws.

    Returns:
        B responses, T the length of the longest.
    """
    left = {"batch_first": True, "padding_side": "left"}
    ids = pad_sequence([torch.tensor(prompt) for prompt in prompts], padding_value=end, **left)
    attended = pad_sequence([torch.ones(len(p), dtype=torch.long) for p in prompts], **left)
    positions = (attended.cumsum(1) - 1).clamp(min=0)
    alive = torch.ones(len(prompts), dtype=torch.bool)
    cache, tokens, entropies, mask = None, [], [], []
    for _ in range(max_tokens):
        out = model(
            input_ids=ids,
            attention_mask=attended,
            position_ids=positions,
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
        attended = torch.cat([attended, attended.new_ones(len(prompts), 1)], 1)
        positions = positions[:, -1:] + 1
    return Samples(torch.stack(tokens, 1), torch.stack(entropies, 1), torch.stack(mask, 1))
