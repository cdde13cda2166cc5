"""What can be known to be wrong with the data before Ray starts."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow.parquet as pq
from omegaconf import DictConfig

from recipe.core import config as run_config


def data(config: DictConfig) -> None:
    """The files of the training and the validation data."""
    for key in ("train_files", "val_files"):
        for path in run_config.data_files(config, key):
            where = Path(os.path.expanduser(path))
            if "://" in str(path):
                continue
            if not where.is_file():
                raise FileNotFoundError(
                    f"data.{key}={path} does not exist: write it with a script of data_prep/ "
                    "(python data_prep/gsm8k.py --help) or set TRAIN_FILE and TEST_FILE."
                )
            if where.suffix != ".parquet":
                continue
            missing = {"data_source", "prompt", "reward_model"} - set(pq.read_schema(where).names)
            if missing:
                raise ValueError(
                    f"data.{key}={path} lacks the column {sorted(missing)[0]}: verl wants "
                    "data_source, prompt, ability, reward_model, extra_info, as data_prep/ writes."
                )
    files = run_config.local_parquet_files(config, "train_files")
    if files is not None:
        rows = sum(pq.read_metadata(f).num_rows for f in files)
        limit = config.data.get("train_max_samples", -1)
        rows = min(rows, limit) if limit > 0 else rows
        if rows < config.data.train_batch_size:
            raise ValueError(
                f"data.train_batch_size={config.data.train_batch_size} is larger than the training "
                f"data ({rows} rows), so no step would ever run: set TRAIN_BATCH_SIZE to at most "
                f"{rows}."
            )
