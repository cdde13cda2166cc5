"""What can be known to be wrong with the data before Ray starts: every row is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from omegaconf import DictConfig

from recipe.core import config as run_config
from recipe.launch.check_reward import judges
from recipe.sampling import rows

VARIABLES = {"train_files": "TRAIN_FILE", "val_files": "TEST_FILE"}


def data(config: DictConfig) -> None:
    """The files of the training and the validation data, and each row of them."""
    dataset_class = custom_dataset(config)
    for key in VARIABLES:
        files = files_of(config, key)
        for path in files:
            what = f"data.{key}={path}"
            if "://" in path:
                print(f"[preflight] {what} is not on this machine: it is not checked")
            elif dataset_class is not None:
                print(f"[preflight] {what} is read by data.custom_cls: its rows are not checked")
            else:
                check_file(config, key, path)
        if dataset_class is None and len(files) > 1:
            check_one_table(key, [path for path in files if "://" not in path])
    train = local_prompts(config, "train_files")
    if train is not None and len(train) < config.data.train_batch_size:
        raise ValueError(
            f"data.train_batch_size={config.data.train_batch_size} is larger than the training "
            f"data ({len(train)} rows), so no step would ever run: set TRAIN_BATCH_SIZE to at "
            f"most {len(train)}."
        )
    if train is not None and not run_config.has_curriculum(config):
        check_epochs(config, len(train))


def check_epochs(config: DictConfig, prompts: int) -> None:
    """Raises ValueError where verl would end before the last planned step, with neither its
    checkpoint nor its validation."""
    trainer, batch = config.trainer, config.data.train_batch_size
    steps = run_config.steps_of_epochs(config, prompts)
    if (trainer.total_training_steps or 0) > steps:
        raise ValueError(
            f"trainer.total_training_steps={trainer.total_training_steps} (STEPS) is more than the "
            f"{steps} steps of trainer.total_epochs={trainer.total_epochs} ({prompts} prompts in "
            f"batches of {batch}), after which verl ends: raise trainer.total_epochs, or set STEPS "
            f"to at most {steps}."
        )


class Prompt(NamedTuple):
    """A row's chat messages, and where it is."""

    messages: list[dict[str, Any]]
    place: str


def local_prompts(config: DictConfig, key: str) -> list[Prompt] | None:
    """Returns as many of a set's prompts as verl draws from; None where its own dataset does not
    read them, or they are on another machine."""
    files = files_of(config, key)
    if custom_dataset(config) is not None or any("://" in path for path in files):
        return None
    prompts = []
    for path in files:
        what = f"data.{key}={path}"
        columns = rows.read_columns(Path(path), what, [config.data.prompt_key])
        for row, messages in enumerate(columns[config.data.prompt_key], 1):
            prompts.append(Prompt(messages, f"{what} row {row}"))
    limit = config.data.get("train_max_samples" if key == "train_files" else "val_max_samples", -1)
    return prompts[:limit] if limit > 0 else prompts


def custom_dataset(config: DictConfig) -> type | None:
    """Returns the class that `data.custom_cls` names; None for verl's own.

    Raises:
        ValueError: If verl could not load it, or if it lacks what an order of the prompts needs.
    """
    from verl.utils.dataset.rl_dataset import RLHFDataset
    from verl.utils.import_utils import load_extern_object

    node = config.data.get("custom_cls") or {}
    if node.get("path") is None:
        return None
    try:
        loaded = load_extern_object(node.path, node.name)
    except Exception as error:
        raise ValueError(
            f"data.custom_cls (path={node.path}, name={node.name}) cannot be loaded ({error}): "
            "name a file or pkg://module, and a class in it."
        ) from error
    has_table = isinstance(loaded, type) and issubclass(loaded, RLHFDataset)
    for key, order in {} if has_table else run_config.prompt_orders(config).items():
        raise ValueError(
            f"{key}={order} reads the prompts of the dataset's table, which "
            f"data.custom_cls.name={node.name} need not have: derive it from verl's RLHFDataset, "
            f"or set {key}=none."
        )
    return loaded


def files_of(config: DictConfig, key: str) -> list[str]:
    """Returns the files of `data.<key>`; raises ValueError unless they are one path or several."""
    files = run_config.data_files(config, key)
    if not files or not all(isinstance(path, str) and path.strip() for path in files):
        value = "null" if config.data[key] is None else config.data[key]
        raise ValueError(
            f"data.{key}={value} is not allowed: name one file, or a list of files, with "
            f"{VARIABLES[key]}."
        )
    return files


def check_file(config: DictConfig, key: str, path: str) -> None:
    """Raises, in one sentence, for a file that verl does not read, or a row of it that cannot be
    trained on."""
    what, file, prompt_key = f"data.{key}={path}", Path(path), config.data.prompt_key
    if path.startswith("~"):
        raise ValueError(
            f"{what} begins with ~, which verl does not expand: write {file.expanduser()}."
        )
    if not file.exists():
        raise FileNotFoundError(
            f"{what} does not exist: write it with a script of data_prep/ "
            "(python data_prep/gsm8k.py --help) or set TRAIN_FILE and TEST_FILE."
        )
    if file.is_file() and file.suffix not in (".parquet", *rows.JSON):
        raise ValueError(
            f"{what} ends in {file.suffix or file.name}, and verl reads files that end in "
            ".parquet, .json or .jsonl: convert it."
        )
    needed = ("data_source", prompt_key, "reward_model")
    columns = rows.read_columns(file, what, (*needed, "extra_info"))
    for name in needed:
        if name not in columns:
            raise ValueError(
                f"{what} lacks the column {name}: verl wants data_source, {prompt_key}, ability, "
                "reward_model, extra_info, as data_prep/ writes."
            )
    truth_fault = partial(rows.truth_fault, judged=judges(config))
    rows.check_rows(what, columns[prompt_key], rows.prompt_fault, rows.PROMPT_CURE)
    rows.check_rows(what, columns["reward_model"], truth_fault, rows.TRUTH_CURE)
    rows.check_rows(what, columns["data_source"], source_fault, "give its dataset's name")
    rows.check_rows(
        what,
        columns.get("extra_info", []),
        extra_fault,
        "give a mapping, such as {index: 0}, or leave the column out",
    )


def source_fault(source: Any) -> str | None:
    """Returns what is wrong with a row's data_source, by which verl groups validation figures."""
    return "its data_source is null or blank" if source is None or source == "" else None


def extra_fault(extra: Any) -> str | None:
    """Returns what is wrong with a row's extra_info, whose index verl reads."""
    if extra is None or isinstance(extra, Mapping):
        return None
    return f"its extra_info is {rows.kind_of(extra)}, not a mapping"


def check_one_table(key: str, paths: list[str]) -> None:
    """verl puts the files one below the other, which needs the same type of each column."""
    import datasets

    parquet = [Path(path) for path in paths if Path(path).suffix not in rows.JSON]
    tables = []
    for file in parquet:  # a row of nulls each: the library leaves out a table without rows
        nulls = {field.name: pa.nulls(1, field.type) for field in rows.schema_of(file, str(file))}
        tables.append(datasets.Dataset(pa.table(nulls)))
    for file, table in zip(parquet[1:], tables[1:], strict=True):
        try:
            datasets.concatenate_datasets([tables[0], table])
        except ValueError as error:
            raise ValueError(
                f"data.{key}: verl cannot put {file} below {parquet[0]}, since a column is of "
                f"another type ({' '.join(str(error).split()):.300}): write them with one script "
                "and the same options."
            ) from None
