"""A model's name by its content: what was sampled from it, or measured on it, is of no other.

Every byte of the weights is hashed. A sample of each file would not do: a merged LoRA adapter
leaves embeddings and norms, which may be all that a sample sees, as they were. Nor would sizes and
times: a stage that is trained again has the same sizes, and a copy keeps its times. One core hashes
1.4 GB/s, and each file has a thread of its own, so that a 7B model in four files takes 3 to 4 s
from memory, and what is read once is there when the engine reads it. So no hash is kept beyond a
process.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from tqdm import tqdm

# weights, config, tokenizer and chat template; no README, nor what a trainer leaves beside them
SUFFIXES = (".safetensors", ".bin", ".json", ".jinja", ".model", ".txt")
NO_CONTENT = ("built.json",)  # recipe.cpu.build_cache's times
LONG = 2e9  # bytes from which a bar is shown


def fingerprint(model: str | Path) -> str:
    """Names a model by the content of the files that decide its responses.

    Args:
        model: The folder of a Hugging Face model, or a name on the hub.

    Returns:
        20 hex digits; a name on the hub, whose content is not known before it is fetched, stands
        for itself.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return str(model)
    files = sorted(
        file
        for file in folder.iterdir()
        if file.suffix in SUFFIXES and file.name not in NO_CONTENT and file.is_file()
    )
    stats = [file.stat() for file in files]
    size = sum(stat.st_size for stat in stats)
    parts = []
    with (
        tqdm(total=size, unit="B", unit_scale=True, desc="hash", disable=size < LONG) as bar,
        ThreadPoolExecutor(8) as pool,
    ):
        seen = [x.st_size for x in stats], [x.st_mtime_ns for x in stats]
        hashes = pool.map(_hash, files, *seen)
        for file, stat, content in zip(files, stats, hashes, strict=True):
            parts.append(f"{file.name} {content}")
            bar.update(stat.st_size)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]


@cache
def _hash(file: Path, size: int, mtime_ns: int) -> str:
    """Returns the hash of a file's content, read once in a process while size and time stay."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
