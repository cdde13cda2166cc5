"""Settings of a recipe: each stands once, as a field of a dataclass, with its default, the values
that are allowed and the source of the default.

    @dataclass(frozen=True)
    class MySettings:
        strength: float = setting(0.1, "paper sec. 3", at_least=0)
        side: str = setting("low", "ours", choices=("low", "high"))

        def __post_init__(self) -> None:
            check_settings(self, "algorithm.my_recipe")

The Hydra node of the settings (`hydra_node`), the check of a command line (`build`) and the table
of a README (`markdown_table`) are made from these fields. A setting whose default is None may be
None (`null` in yaml).
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
KEY = "setting"  # of a field's metadata


class Setting(NamedTuple):
    """What is allowed for a field, and where its default comes from. Bounds None: no bound."""

    source: str = ""
    choices: Collection[Any] | None = None  # read when a value is checked: a registry may grow
    kind: type = float
    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    below: float | None = None

    def allowed(self, optional: bool) -> str:
        """Returns the allowed values in words, as an error message and a table give them."""
        if self.choices is not None:
            words = ", ".join(str(choice) for choice in self.choices)
        elif self.kind is str:
            words = "a text that is not blank"
        elif self.kind is tuple:
            words = "a list of numbers"
        else:
            words = "a whole number" if self.kind is int else "a number"
            lower = (
                f" above {self.above}"
                if self.above is not None
                else f" from {self.at_least}"
                if self.at_least is not None
                else ""
            )
            if self.at_most is not None:
                upper = (
                    f" to {self.at_most}"
                    if self.at_least is not None
                    else f", at most {self.at_most}"
                )
            elif self.below is not None:
                upper = f", below {self.below}"
            else:
                upper = " up" if self.at_least is not None else ""
            words = f"{words}{lower}{upper}" if lower or upper else f"a finite {words[2:]}"
        return f"{words}, or null" if optional else words

    def holds(self, value: float) -> bool:
        """Returns whether a number is within the bounds."""
        return (
            (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )


NO_SETTING = Setting(kind=str)


def setting(
    default: Any,
    source: str,
    *,
    choices: Collection[Any] | None = None,
    kind: type | None = None,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> Any:
    """Makes a field of a settings dataclass.

    Args:
        default: The default value; None makes null an allowed value.
        source: Where the default comes from: a paper's section, verl, or ours.
        choices: The allowed values of a setting that is not a number.
        kind: float, int, str or tuple; by default the type of `default`, float where that is None.
        above, at_least, at_most, below: Bounds of a number.
    """
    if isinstance(default, bool):
        choices = (True, False)
    if kind is None:
        kind = type(default) if isinstance(default, float | int | str | tuple) else float
    allowed = Setting(
        source,
        choices,
        kind,
        above,
        at_least,
        at_most,
        below,
    )
    return dataclasses.field(default=default, metadata={KEY: allowed})


def settings_of(cls: type) -> dict[str, dataclasses.Field]:
    """Returns the fields of a dataclass that `setting` made, by name."""
    return {field.name: field for field in dataclasses.fields(cls) if KEY in field.metadata}


def check_settings(instance: Any, node: str, cls: type | None = None) -> None:
    """Raises ValueError, in one sentence, unless every setting has an allowed value.

    Args:
        instance: A settings dataclass.
        node: Its place in the config, for the message.
        cls: The dataclass whose fields are checked; by default the instance's own.
    """
    for name, field in settings_of(cls or type(instance)).items():
        value, allowed = getattr(instance, name), field.metadata[KEY]
        what = f"{node}.{name}"
        if value is None and field.default is None:
            continue
        if allowed.choices == (True, False):
            if not isinstance(value, bool):
                raise ValueError(f"{what}={value} is not allowed: use true or false.")
        elif allowed.choices is not None:
            check_choice(f"{what}={value}", value, allowed.choices)
        elif allowed.kind is tuple:  # its length depends on other settings
            if not isinstance(value, tuple | list):
                raise ValueError(f"{what}={value} is not allowed: use {allowed.allowed(False)}.")
        elif allowed.kind is str:
            if not isinstance(value, str) or not value.strip():
                raise ValueError(
                    f"{what}={value} is not allowed: use {allowed.allowed(field.default is None)}."
                )
        else:
            words = allowed.allowed(field.default is None)
            check_number(what, value, words, allowed.holds, allowed.kind)


def plain(node: Any) -> Any:
    """Returns a resolved config node as plain containers; what is no node, as it is."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def build(cls: type[T], mapping: Mapping[str, Any], node: str) -> T:
    """Makes a settings dataclass of a config node.

    Args:
        cls: The dataclass; a field whose default is itself a dataclass is built in the same way.
        mapping: The resolved node as plain containers. Hydra's `_target_` is left out.
        node: The node's place in the config, for messages.

    Raises:
        ValueError: For a key that the dataclass does not have, or a value that is not allowed.
    """
    if not isinstance(mapping, Mapping):
        raise ValueError(f"{node}={mapping} is not allowed: give its settings, as key: value.")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.name != "_target_"}  # type: ignore[arg-type]
    values = {key: value for key, value in mapping.items() if key != "_target_"}
    for key, value in values.items():
        check_choice(f"{node}.{key}", key, fields)
        factory = fields[key].default_factory
        if dataclasses.is_dataclass(factory):
            values[key] = build(factory, value, f"{node}.{key}")
        elif isinstance(value, list) and fields[key].metadata.get(KEY, NO_SETTING).kind is tuple:
            values[key] = tuple(value)
    return cls(**values)


def hydra_node(cls: type) -> dict[str, Any]:
    """Returns the defaults of a settings dataclass as a Hydra node of plain containers."""
    node: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if KEY in field.metadata:
            value = field.default
            node[field.name] = list(value) if isinstance(value, tuple) else value
        elif dataclasses.is_dataclass(field.default_factory):
            nested: type = field.default_factory
            target = f"{nested.__module__}.{nested.__qualname__}"
            node[field.name] = {"_target_": target, **hydra_node(nested)}
    return node


def nodes_of(node: str, cls: type) -> dict[str, type]:
    """Returns the config nodes that a settings dataclass fills, each with the dataclass whose
    settings it holds: its own node, unless it only nests others, and those of what it nests."""
    nodes = {node: cls} if settings_of(cls) else {}
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(field.default_factory):
            nested: type = field.default_factory
            nodes |= nodes_of(f"{node}.{field.name}", nested)
    return nodes


def markdown_table(cls: type) -> str:
    """Returns the settings of a dataclass as a Markdown table: key, default, allowed, source."""
    rows = ["| key | default | allowed | source |", "| --- | --- | --- | --- |"]
    for name, field in settings_of(cls).items():
        default = "null" if field.default is None else str(field.default).replace("()", "[]")
        if isinstance(field.default, bool):
            default = default.lower()
        allowed = field.metadata[KEY]
        words = allowed.allowed(field.default is None).replace("True, False", "true, false")
        rows.append(f"| `{name}` | {default} | {words} | {allowed.source} |")
    return "\n".join(rows) + "\n"


def check_choice(what: str, value: Any, choices: Iterable[Any]) -> None:
    """Raises ValueError unless `value` is one of `choices`; `what` names the setting and value."""
    choices = tuple(choices)
    if value not in choices:
        close = difflib.get_close_matches(str(value), map(str, choices), n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        listed = ", ".join(map(str, choices))
        raise ValueError(f"{what} does not exist: {hint}It is one of {listed}.")


def check_number(
    what: str, value: Any, allowed: str, holds: Callable[[Any], bool], kind: type = float
) -> None:
    """Raises ValueError unless `value` is a finite number for which `holds` is true.

    Args:
        what: The setting, for the message.
        value: Its value, of any type.
        allowed: What is allowed, in words.
        holds: Whether a number is allowed.
        kind: int for whole numbers only.
    """
    is_number = isinstance(value, int | kind) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not holds(value):
        raise ValueError(f"{what}={value} is not allowed: use {allowed}.")


def check_free(kind: str, name: str, registry: Mapping[str, Any], owner: str) -> None:
    """Raises ValueError if a module other than `owner` has registered `name`: verl's registries
    overwrite silently."""
    taken = registry.get(name)
    if taken is not None and taken.__module__ != owner:
        raise ValueError(f"{kind} {name!r} is already registered by {taken.__module__}.")
