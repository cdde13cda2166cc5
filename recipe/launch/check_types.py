"""Which types the values of verl's config may have, from what verl ships: the dataclass that a node
names as its `_target_`, and else the kind of verl's own default."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from pydantic import ConfigDict, TypeAdapter, ValidationError

from recipe.core.recipe import FOLDER, TRAINER, default_settings, recipes
from recipe.core.settings import KEY, plain

NAMES = ("project_name", "experiment_name")  # verl takes a number for a text here
TEXT_OR_LIST = ("data.train_files", "data.val_files", "trainer.logger")
MADE = "actor_rollout_ref."  # verl makes the dataclasses of the nodes below it, of known keys only
# may have any key, like the nodes that are empty by default; the second is in none of verl's yamls,
# but its reward managers read it
OPEN = ("ray_kwargs.", "reward.reward_kwargs")
WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    tuple: "a list",
    dict: "its settings, as key: value",
    type(None): "null",
}


class Defaults(NamedTuple):
    """verl's config and the recipes' settings as they are shipped, plain containers."""

    values: dict[str, Any]
    raw: dict[str, Any]  # with `${...}` where verl or common.yaml takes a value from another key


@functools.cache
def defaults(model_engine: str = "dp") -> Defaults:
    """Returns what is shipped for an engine of verl's (`model_engine`: dp is FSDP)."""
    import hydra

    with hydra.initialize_config_module("verl.trainer.config", version_base=None):
        config = hydra.compose("ppo_trainer", overrides=[f"model_engine={model_engine}"])
    raw = OmegaConf.to_container(config, resolve=False)
    resolved = OmegaConf.to_container(config, resolve=True)
    for containers in (resolved, raw):
        add(containers, default_settings())
    common = OmegaConf.to_container(OmegaConf.load(FOLDER / "common.yaml"), resolve=False)
    add(raw, {key: value for key, value in common.items() if key != "defaults"})
    return Defaults(resolved, raw)  # type: ignore[arg-type]


def add(node: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Adds keys to nested dictionaries."""
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(node.get(key), dict):
            add(node[key], value)
        else:
            node[key] = value


def known_keys(node: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yields every key of plain containers, as a.b.c."""
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from known_keys(value, f"{prefix}{key}.")


def nodes(config: DictConfig) -> None:
    """Raises ValueError, in one sentence, where the place of a node has another value. To be called
    before a config is resolved: what refers to the node would fail first."""

    def walk(node: Mapping[str, Any], default: Mapping[str, Any], path: str) -> None:
        for key in default.keys() & node.keys():
            value = node[key]
            if not isinstance(default[key], Mapping) or str(value).startswith("${"):
                continue
            if isinstance(value, Mapping):
                walk(value, default[key], f"{path}{key}.")
            elif value is not None or not may_be_null(dataclass_of(node), key):
                raise ValueError(
                    f"{path}{key}={shown(value)} is not allowed: give its settings, as key: value."
                )

    plain_config = OmegaConf.to_container(config, resolve=False)
    walk(plain_config, defaults(engine_of(config)).raw, "")  # type: ignore[arg-type]


def engine_of(config: DictConfig) -> str:
    """Returns verl's name of the engine, which chooses its defaults."""
    return str(config.get("model_engine", "dp"))


def values(config: DictConfig) -> None:
    """Raises ValueError, in one sentence, for a number that is not finite, a value of a type that
    verl does not take, or a key that it does not have.

    One value may stand at several places, since verl's defaults refer to one another: the key at
    which it was set is named.
    """
    shipped = defaults(engine_of(config))
    referring = []
    for is_reference, sentence in problems(plain(config), shipped.values, shipped.raw, ""):
        if not is_reference:
            raise ValueError(sentence)
        referring.append(sentence)
    if referring:
        raise ValueError(referring[0])


def problems(
    node: Mapping[str, Any], default: Mapping[str, Any], raw: Mapping[str, Any], path: str
) -> Iterator[tuple[bool, str]]:
    """Yields (does verl's default refer to another key, sentence) for what is not allowed."""
    cls = dataclass_of(node)
    fields = {field.name: field for field in dataclasses.fields(cls)} if cls else {}
    hints = hints_of(cls) if cls else {}
    for key, value in node.items():
        where = f"{path}{key}"
        is_reference = str(raw.get(key)).startswith("${")
        if key == "_target_" or (key in fields and KEY in fields[key].metadata):
            continue  # a recipe's settings are checked by their own dataclass
        if isinstance(value, Mapping) and isinstance(default.get(key, {}), Mapping):
            references = raw.get(key) if isinstance(raw.get(key), Mapping) else {}
            yield from problems(value, default.get(key, {}), references, f"{where}.")
            if key in default or key in fields:
                continue
        numbers = value if isinstance(value, list) else [value]
        allowed = None
        if any(isinstance(x, float) and not math.isfinite(x) for x in numbers):
            allowed = "use a finite number"
        elif where.startswith(recipe_nodes()) or (key in default and same(value, default[key])):
            pass
        elif key in fields:
            if not (value is None and fields[key].default is None):
                allowed = against_hint(value, hints[key], key)
        elif key in default:
            allowed = against_default(value, default[key], where, key)
        elif not where.startswith(OPEN):
            close = similar(key, {*fields, *default}, 0.6 if cls else 0.85)
            if close or (cls and where.startswith(MADE)):
                hint = f"did you mean {close}?" if close else "remove it."
                yield False, f"{where} does not exist: {hint}"
        if allowed:
            yield is_reference, f"{where}={shown(value)} is not allowed: {allowed}."


@functools.cache
def recipe_nodes() -> tuple[str, ...]:
    """Returns the nodes whose settings the recipes check, as the beginnings of their keys."""
    return tuple(f"{node}." for node in (TRAINER, *(n for r in recipes() for n in r.settings)))


def same(value: Any, default: Any) -> bool:
    return type(value) is type(default) and value == default


def shown(value: Any) -> str:
    return f"{value!r:.200}" if isinstance(value, str) else f"{value!s:.200}"


def similar(key: str, keys: set[str], cutoff: float) -> str | None:
    """Returns the known key that is most like another; None if none is like it."""
    return next(iter(difflib.get_close_matches(key, sorted(keys), n=1, cutoff=cutoff)), None)


@functools.cache
def target_class(target: str) -> type | None:
    from hydra.utils import get_object

    cls = get_object(target)
    return cls if dataclasses.is_dataclass(cls) else None  # type: ignore[return-value]


def dataclass_of(node: Mapping[str, Any] | DictConfig) -> type | None:
    """Returns the dataclass that a node names, or None; raises ValueError if there is none of that
    name."""
    target = node.get("_target_")
    if target is None:
        return None
    try:
        return target_class(str(target))
    except Exception as error:  # whatever the import of that module raises
        raise ValueError(
            f"_target_={target} cannot be imported ({error}): name a class."
        ) from error


hints_of = functools.cache(typing.get_type_hints)


def may_be_null(cls: type | None, key: str) -> bool:
    """Returns whether a field of a dataclass takes None."""
    hint = hints_of(cls).get(key) if cls else None
    return type(None) in typing.get_args(hint)


def kinds(hint: Any) -> tuple[Any, ...]:
    """Returns the alternatives of a type."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def in_words(hint: Any) -> str:
    """Returns a type in words."""
    words = []
    for kind in kinds(hint):
        if typing.get_origin(kind) is typing.Literal:
            words.append(f"one of {', '.join(map(str, typing.get_args(kind)))}")
        elif dataclasses.is_dataclass(kind):
            words.append(WORDS[dict])
        else:
            words.append(WORDS.get(typing.get_origin(kind) or kind, str(kind)))
    return ", or ".join(words)


@functools.cache
def validator(kind: Any) -> Callable[[Any], Any]:
    if dataclasses.is_dataclass(kind):
        return TypeAdapter(dict).validate_python
    adapter = TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True))
    return functools.partial(adapter.validate_python, strict=True)


def against_hint(value: Any, hint: Any, key: str) -> str | None:
    """Returns what is allowed, in words, if a value is not of a type; an int is a float."""
    if key in NAMES and isinstance(value, int | float):
        return None
    for kind in kinds(hint):
        try:
            validator(kind)(tuple(value) if typing.get_origin(kind) is tuple else value)
        except (ValidationError, TypeError):
            continue
        return None
    return f"use {in_words(hint)}"


def against_default(value: Any, default: Any, where: str, key: str) -> str | None:
    """Returns what is allowed, in words, if a value is of another kind than verl's default; numbers
    are of one kind, and nothing is known of a default that is null or has to be set (`???`)."""
    if default is None or default == "???" or (key in NAMES and isinstance(value, int | float)):
        return None
    if where in TEXT_OR_LIST:
        is_text = isinstance(value, str) and bool(value)
        return None if is_text or isinstance(value, list) else "use a text, or a list of texts"
    kind = next(kind for kind in (bool, int, float, str, list, dict) if isinstance(default, kind))
    if kind in (int, float):
        holds = isinstance(value, int | float) and not isinstance(value, bool)
        return None if holds else f"use {WORDS[float]}"
    return None if isinstance(value, kind) else f"use {WORDS[kind]}"
