"""What can be known to be wrong with the model before Ray starts: its files alone are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from recipe.core.recipe import TRAINER
from recipe.sampling.prompts import resolve_model

TRAINER_MODE = TRAINER.rpartition(".")[2]
MODEL = "actor_rollout_ref.model.path"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")


def model(config: DictConfig) -> None:
    """A local model folder: config and tokenizer present, and made for each other."""
    path = config.actor_rollout_ref.model.path
    folder = resolve_model(
        path, f"{MODEL}=", "set MODEL_PATH to a checkpoint folder or a model's name on the hub"
    )
    if folder is None:
        print(f"[preflight] model {path} is not a local folder: its files are not checked")
        return
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{MODEL}={path} has no config.json: set MODEL_PATH to a Hugging Face checkpoint "
            "folder."
        )
    from transformers import AutoConfig, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder(config))
    hf_config = AutoConfig.from_pretrained(folder)
    check_newline(path, hf_config.model_type, tokenizer)
    allow_padding = config.trainer.v1[TRAINER_MODE].allow_padded_vocab
    check_vocabulary(path, hf_config.vocab_size, len(tokenizer), allow_padding)


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
