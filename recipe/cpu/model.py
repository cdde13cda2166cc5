"""The small model of the CPU runs: a qwen2 model of about a million parameters, and its tokenizer
of one token per character of a task (`recipe.cpu.tasks`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from recipe.cpu.tasks import Problem, Task
from recipe.cpu.tasks.signed_sums import SIGNED_SUMS

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
ROLES = ("system", "user", "assistant")
# verl's Qwen message builder looks for <|im_end|> and for a newline of one token
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class ModelShape:
    """The model's sizes; ours, found by trial."""

    hidden_size: int = 128
    layers: int = 4
    heads: int = 4  # head size 32, the smallest that vLLM's CPU attention has
    mlp_size: int = 512


def make_tokenizer(task: Task = SIGNED_SUMS) -> Qwen2Tokenizer:
    """Returns a tokenizer of one token per character of a task and per role, and three special
    tokens.

    It is Qwen2's own tokenizer without merges, because AutoTokenizer takes that class for every
    qwen2 model, whatever its files say. It drops characters that the task does not use.
    """
    special = [PAD, START, END, *ROLES]
    # byte-level pieces stand for characters; only the newline's looks different
    pieces = [piece.replace("\n", "Ċ") for piece in task.alphabet]
    tokenizer = Qwen2Tokenizer(
        vocab={token: i for i, token in enumerate([*special, *pieces])},
        merges=[],
        pad_token=PAD,
        unk_token=PAD,
        bos_token=START,
        eos_token=END,
        extra_special_tokens=list(ROLES),
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(shape: ModelShape, tokenizer: Qwen2Tokenizer, seed: int) -> Qwen2ForCausalLM:
    """Returns a model with new weights.

    Args:
        shape: its sizes.
        tokenizer: its tokens are the model's vocabulary.
        seed: decides the weights; sets torch's own.
    """
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.mlp_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=256,
        # ours: 0.02, the default, is small for such a narrow model and slows the start
        initializer_range=0.06,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )
    return Qwen2ForCausalLM(config)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, problem: Problem) -> list[int]:
    """Returns the tokens of a problem's prompt, up to where the response begins."""
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": problem.prompt}],
        add_generation_prompt=True,
        return_dict=False,
    )
