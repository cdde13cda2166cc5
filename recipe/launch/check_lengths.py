"""How many prompts fit into `data.max_prompt_length`, as far as it must be known before a run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from recipe.core import config as run_config
from recipe.core.settings import plain
from recipe.launch.check_data import VARIABLES, Prompt, files_of, local_prompts
from recipe.launch.check_model import tokenizer_folder
from recipe.sampling import rows

BATCH = 500  # prompts that are tokenized together
TEMPLATE_KWARGS = "data.apply_chat_template_kwargs"


def prompt_lengths(config: DictConfig) -> None:
    """Enough prompts fit, or where verl leaves none out, all of them.

    verl leaves out what is too long with `data.filter_overlong_prompts`, shortest prompts are
    therefore tokenized first, until a batch of them fits. Else it cuts the beginning of a long
    prompt off, whatever `data.truncation` says, so the longest are tokenized.
    """
    kwargs = plain(config.data.get("apply_chat_template_kwargs", {}))
    if not isinstance(kwargs, Mapping):
        raise ValueError(f"{TEMPLATE_KWARGS}={kwargs} is not allowed: give its settings, or {{}}.")
    why_not = not_checked(config)
    if why_not:
        print(f"[preflight] the lengths of the prompts are not checked: {why_not}")
        return
    tokenizer = make_tokenizer(config)
    for key in VARIABLES:
        prompts = local_prompts(config, key)
        if prompts is None:
            continue  # `data` has said so
        texts = rendered(prompts, tokenizer, kwargs, config.actor_rollout_ref.model.path)
        if config.data.filter_overlong_prompts:
            check_enough_fit(config, key, texts, tokenizer)
        elif config.data.truncation == "error":
            check_longest(config, prompts, texts, tokenizer)


def not_checked(config: DictConfig) -> str | None:
    """Returns why the prompts' tokens cannot be known from their messages, or None."""
    if not tokenizer_folder(config).is_dir():
        return "the model is not a local folder"
    if config.data.get("tool_config_path") or config.data.get("function_tool_path"):
        return "tools are a part of them"
    for key in VARIABLES:
        for path in files_of(config, key):
            if "://" not in path and rows.media_in(Path(path), f"data.{key}={path}"):
                return f"data.{key} has images, videos or audios"
    return None


def make_tokenizer(config: DictConfig) -> Any:
    """Returns the model's tokenizer with the chat template that verl gives it."""
    from transformers import AutoTokenizer

    model = config.actor_rollout_ref.model
    tokenizer = AutoTokenizer.from_pretrained(
        tokenizer_folder(config), trust_remote_code=bool(model.get("trust_remote_code", False))
    )
    if model.get("custom_chat_template") is not None:
        tokenizer.chat_template = model.custom_chat_template
    if not tokenizer.chat_template:
        raise ValueError(
            f"actor_rollout_ref.model.path={model.path} has no chat template, and verl makes a "
            "prompt of chat messages with it: set actor_rollout_ref.model.custom_chat_template, or "
            "use a model that has one."
        )
    return tokenizer


def rendered(
    prompts: Sequence[Prompt], tokenizer: Any, kwargs: Mapping[str, Any], model: str
) -> list[str]:
    """Returns each prompt's text; raises ValueError for one that the chat template refuses."""
    taken = ("tokenize", "return_dict", "return_tensors", "add_generation_prompt")
    kwargs = {name: value for name, value in kwargs.items() if name not in taken}
    texts = []
    for prompt in prompts:
        try:
            text = tokenizer.apply_chat_template(
                prompt.messages, add_generation_prompt=True, tokenize=False, **kwargs
            )
        except Exception as error:  # whatever a template raises
            raise ValueError(
                f"{prompt.place}: the chat template of actor_rollout_ref.model.path={model} does "
                f"not take its prompt ({' '.join(str(error).split()):.160}): change the roles of "
                f"its messages, {TEMPLATE_KWARGS}, or the template."
            ) from error
        texts.append(text)
    return texts


def lengths(texts: Sequence[str], order: Sequence[int], tokenizer: Any) -> Iterator[dict[int, int]]:
    """Yields the tokens of some texts by their index, in that order, a batch at a time."""
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        batch = tokenizer([texts[index] for index in part], add_special_tokens=False)["input_ids"]
        yield {index: len(tokens) for index, tokens in zip(part, batch, strict=True)}


def check_enough_fit(config: DictConfig, key: str, texts: Sequence[str], tokenizer: Any) -> None:
    """Raises ValueError if verl's filter would leave fewer prompts than a batch, or than the
    planned steps take; a curriculum has a length of its own."""
    limit, batch = config.data.max_prompt_length, config.data.train_batch_size
    steps, epochs = config.trainer.total_training_steps or 1, config.trainer.total_epochs
    # verl draws train_max_samples at random where it shuffles, and these are the first
    drawn = config.data.get("train_max_samples", -1) > 0 and config.data.shuffle
    ordered = run_config.has_curriculum(config)
    batches = 1 if ordered or drawn else math.ceil(steps / epochs)
    needed = batches * batch if key == "train_files" else 1
    fit, shortest = 0, None
    for length in lengths(texts, sorted(range(len(texts)), key=lambda i: len(texts[i])), tokenizer):
        fit += sum(tokens <= limit for tokens in length.values())
        shortest = min(length.values()) if shortest is None else min(shortest, *length.values())
        if fit >= needed:
            return
    needs = f"data.train_batch_size={batch} needs {batch}" if needed > 1 else "one is needed"
    if fit >= batch:
        needs = (
            f"the {steps} steps of trainer.total_training_steps (STEPS) take {needed} in trainer."
            f"total_epochs={epochs}, after which verl ends"
        )
    raise ValueError(
        f"data.max_prompt_length={limit} leaves {fit} of the {len(texts)} prompts of data.{key} "
        f"(the shortest has {shortest} tokens), and {needs}: raise it, or give shorter prompts."
    )


def check_longest(
    config: DictConfig, prompts: Sequence[Prompt], texts: Sequence[str], tokenizer: Any
) -> None:
    """Raises ValueError for a prompt beyond the limit. A token is at least a byte, so that a text
    of fewer bytes fits without being tokenized."""
    limit = config.data.max_prompt_length
    size = [len(text.encode("utf-8", "replace")) for text in texts]
    order = sorted((i for i in range(len(texts)) if size[i] >= limit), key=lambda i: -size[i])
    for length in lengths(texts, order, tokenizer):
        index = max(length, key=length.__getitem__)
        if length[index] > limit:
            raise ValueError(
                f"{prompts[index].place}: its prompt has {length[index]} tokens, more than "
                f"data.max_prompt_length={limit}, and verl would cut its beginning off: set "
                "data.filter_overlong_prompts=true to leave such rows out, raise "
                "data.max_prompt_length, or accept the cut with data.truncation=left."
            )
