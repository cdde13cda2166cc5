"""What can be known to be wrong with the model before Ray starts: its files alone are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipe.core.recipe import TRAINER
from recipe.core.settings import plain
from recipe.sampling.prompts import resolve_model

MODEL = "actor_rollout_ref.model.path"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")


def model(config: DictConfig) -> None:
    """A local model folder: config and tokenizer present, and made for each other."""
    path = config.actor_rollout_ref.model.path
    hf_config = model_config(config)
    if hf_config is None:
        print(f"[preflight] model {path} is not a local folder: its files are not checked")
        return
    check_architecture(path, hf_config)
    from transformers import AutoTokenizer

    trust = bool(config.actor_rollout_ref.model.get("trust_remote_code"))
    folder = tokenizer_folder(config)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)
    except Exception as error:  # whatever a tokenizer's own code raises
        raise ValueError(
            f"{MODEL}={path} has a tokenizer that transformers cannot read ({first_line(error)}): "
            "copy the model's tokenizer files again, or set actor_rollout_ref.model.tokenizer_path."
        ) from error
    check_newline(path, hf_config.model_type, tokenizer)
    vocabulary = getattr(text_config(hf_config), "vocab_size", None)
    if vocabulary is None:
        print(f"[preflight] model {path} states no vocab_size: its vocabulary is not checked")
    else:
        allow_padding = OmegaConf.select(config, TRAINER).allow_padded_vocab
        check_vocabulary(path, vocabulary, len(tokenizer), allow_padding)
    note_end_of_turn(config, hf_config, tokenizer)


def model_config(config: DictConfig) -> Any | None:
    """Returns the Hugging Face config of a run's model, with verl's overrides; None for a name on
    the hub.

    Raises:
        FileNotFoundError, ValueError: For a folder without config.json, or one that transformers
            does not understand.
    """
    node = config.actor_rollout_ref.model
    folder = resolve_model(
        node.path, f"{MODEL}=", "set MODEL_PATH to a checkpoint folder or a model's name on the hub"
    )
    if folder is None:
        return None
    if node.get("hf_config_path"):
        folder = Path(os.path.expanduser(node.hf_config_path))
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{MODEL}={node.path} has no config.json: set MODEL_PATH to a Hugging Face checkpoint "
            "folder."
        )
    trust = bool(node.get("trust_remote_code"))
    overrides = plain(node.get("override_config") or {})
    overrides = overrides.get("model_config", overrides)
    from transformers import AutoConfig
    from verl.utils.model import update_model_config

    try:
        hf_config = AutoConfig.from_pretrained(folder, trust_remote_code=trust)
        update_model_config(
            hf_config, {k: v for k, v in overrides.items() if k != "attn_implementation"}
        )
    except Exception as error:  # whatever a config class makes of a file that is not its own
        cure = "set MODEL_PATH to a complete checkpoint folder of a model that this version knows"
        if not trust:
            cure += ", or, if you trust its code, actor_rollout_ref.model.trust_remote_code=true"
        raise ValueError(
            f"{MODEL}={node.path} has a config.json that transformers cannot read "
            f"({first_line(error)}): {cure}."
        ) from error
    return hf_config


def first_line(error: Exception) -> str:
    """Returns what an error says first, without a full stop."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(". ")[:200] if lines else type(error).__name__


def text_config(hf_config: Any) -> Any:
    """Returns the part of a model's config that describes its language model: the config itself,
    unless the model also sees or hears."""
    return hf_config.get_text_config()


def tokenizer_folder(config: DictConfig) -> Path:
    """Returns the folder of the model's tokenizer, which may be a hub's name; raises
    FileNotFoundError if it is a local folder without one."""
    path = config.actor_rollout_ref.model.get("tokenizer_path")
    path = path or config.actor_rollout_ref.model.path
    folder = Path(os.path.expanduser(path))
    if folder.is_dir() and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise FileNotFoundError(
            f"{MODEL}={path} has no tokenizer (tokenizer.json): copy the model's tokenizer files "
            "there or set actor_rollout_ref.model.tokenizer_path."
        )
    return folder


def check_architecture(path: str, hf_config: Any) -> None:
    """verl takes the model's class from its one architecture."""
    names = getattr(hf_config, "architectures", None)
    if not names or len(names) != 1:
        raise ValueError(
            f"{MODEL}={path} has architectures={names} in its config.json, and verl needs exactly "
            'one: write the class of the model there, such as ["Qwen2ForCausalLM"].'
        )


def check_newline(path: str, model_type: str, tokenizer: Any) -> None:
    """verl's agent loop takes a newline of a Qwen model for one token."""
    newline = tokenizer.encode("\n", add_special_tokens=False)
    if model_type.startswith("qwen") and len(newline) != 1:
        raise ValueError(
            f"{MODEL}={path} is a {model_type} model whose tokenizer makes {len(newline)} tokens "
            "of a newline, and verl's agent loop needs exactly one: use the tokenizer that belongs "
            "to the model."
        )


def check_vocabulary(path: str, vocabulary: int, tokens: int, allow_padding: bool) -> None:
    """verl masks ids beyond the tokenizer in vLLM but not in the actor."""
    if vocabulary < tokens:
        raise ValueError(
            f"{MODEL}={path} has vocab_size {vocabulary}, less than the {tokens} tokens of its "
            "tokenizer, so some token would have no embedding: use the tokenizer that belongs to "
            "the model."
        )
    if vocabulary > tokens and not allow_padding:
        raise ValueError(
            f"{MODEL}={path} has vocab_size {vocabulary}, more than the {tokens} tokens of its "
            "tokenizer, and verl masks the rest in vLLM but not in the actor, so the two policies "
            "differ: resize the embeddings (model.resize_token_embeddings), or, for a model whose "
            f"padding rows have negligible probability, set {TRAINER}.allow_padded_vocab=true."
        )


def end_of_turn(tokenizer: Any, template_kwargs: dict[str, Any]) -> int | None:
    """Returns the token that the chat template puts after an assistant's text; None without one."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    answer = "The answer is 2."
    messages = [
        {"role": "user", "content": "What is 1+1?"},
        {"role": "assistant", "content": answer},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, **template_kwargs)
    _, matched, rest = text.rpartition(answer)
    tokens = tokenizer.encode(rest.strip(), add_special_tokens=False) if matched else []
    return tokens[0] if tokens else None


def end_tokens(config: DictConfig, hf_config: Any, tokenizer: Any) -> set[int]:
    """Returns the tokens at which vLLM ends a response: those of generation_config.json, or else
    of config.json, and the tokenizer's own."""
    from transformers import GenerationConfig

    folder = Path(os.path.expanduser(config.actor_rollout_ref.model.path))
    if (folder / "generation_config.json").is_file():
        ends = GenerationConfig.from_pretrained(folder).eos_token_id
    else:
        ends = getattr(text_config(hf_config), "eos_token_id", None)
    ends = ends if isinstance(ends, list | tuple) else [ends]
    return {token for token in (*ends, tokenizer.eos_token_id) if token is not None}


def note_end_of_turn(config: DictConfig, hf_config: Any, tokenizer: Any) -> None:
    """Says so if nothing ends a response where the model's chat template ends a turn: a base model
    then runs on, and the judge reads the last answer of all its text."""
    path = config.actor_rollout_ref.model.path
    try:
        end = end_of_turn(tokenizer, plain(config.data.get("apply_chat_template_kwargs") or {}))
        ends = end_tokens(config, hf_config, tokenizer)
    except Exception as error:  # templates raise their own errors, for roles that they do not know
        print(f"[preflight] model {path}: its end of turn is not checked ({first_line(error)})")
        return
    if end is not None and end not in ends:
        print(
            f"[preflight] model {path} ends a chat turn with {tokenizer.decode([end])!r}, at which "
            f"vLLM does not end a response (eos_token_id {sorted(ends)}): look at "
            "response_length/clip_ratio of the first step, and if responses run on, train a copy "
            f"whose generation_config.json has eos_token_id {sorted({*ends, end})}."
        )
