"""A comparison: which methods are run at which seeds, from a small yaml.

The yaml calls each method an arm. `recipe.compare` reads the user's yaml (its format:
`python -m recipe.compare --help`) and writes it, every default filled in, to OUT/matrix.yaml, where
`recipe.report` reads it. Both files have the same format.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Annotated, Any, cast

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from recipe.core.settings import check_choice
from recipe.experiment.provenance import write_yaml

FILE = "matrix.yaml"
RESERVED = (FILE, "report")  # in OUT, beside the arms' folders
DEFAULT_SEEDS = (0, 1, 2)
DEFAULT_SCRIPT = "run_cpu.sh"
CONFIG = ConfigDict(extra="forbid", coerce_numbers_to_str=True)


def _distinct(seeds: Any) -> Any:
    if isinstance(seeds, list | tuple) and len(set(map(repr, seeds))) < len(seeds):
        raise ValueError("a seed is given twice")
    return seeds


def _names_benchmarks(settings: Any) -> Any:
    if settings and not isinstance(settings.get("benchmarks"), list):
        raise ValueError("no benchmarks")
    if not isinstance(settings.get("presets", []), list):
        raise ValueError("no list of presets")
    return settings


# Each description says what is allowed; it ends the sentence of an error.
FolderName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="a folder's name: letters, digits, _, - and dots",
    ),
]
Text = Annotated[str, Field(min_length=1, description="a text")]
Texts = Annotated[
    tuple[Annotated[str, Field(strict=True)], ...],
    Field(description="a list of texts, such as [key=value]"),
]
ConfigKeys = Annotated[
    tuple[Annotated[str, Field(strict=True)], ...],
    Field(description="a list of dotted config keys"),
]
Seeds = Annotated[
    tuple[Annotated[int, Field(strict=True, ge=0)], ...],
    BeforeValidator(_distinct),
    Field(min_length=1, description="a list of different whole numbers from 0 up"),
]
Environment = Annotated[
    dict[str, Annotated[str, BeforeValidator(lambda x: str(x) if isinstance(x, bool) else x)]],
    Field(description="a mapping of environment variables to texts or numbers"),
]
Evaluation = Annotated[
    dict[str, Any],
    Field(
        description="settings of recipe.evaluate, with a list of benchmarks; presets is a list too"
    ),
    BeforeValidator(lambda x: _names_benchmarks(x) if isinstance(x, Mapping) else x),
]


@dataclass(frozen=True, config=CONFIG)
class Arm:
    """One method of a comparison: a recipe with a preset and overrides."""

    name: FolderName
    recipe: Text
    preset: Text
    label: Text
    script: Text = DEFAULT_SCRIPT  # in the recipe's folder, or an absolute path
    overrides: Texts = ()
    may_differ: ConfigKeys = ()  # config keys in which it may differ from the other arms, by design


@dataclass(frozen=True, config=CONFIG)
class Matrix:
    """A comparison of arms x seeds, all under the folder `out`."""

    arms: tuple[Arm, ...]
    seeds: Seeds
    baseline: Text  # the arm that the others are compared with
    title: Text
    out: Annotated[Path, Field(description="a folder")]
    environment: Environment = Field(default_factory=dict)  # of the run scripts
    overrides: Texts = ()  # of every arm
    evaluate: Evaluation = Field(default_factory=dict)  # settings of recipe.evaluate; {}: none

    def baseline_first(self) -> tuple[Arm, ...]:
        """Returns the arms, the baseline before the others."""
        return tuple(sorted(self.arms, key=lambda arm: arm.name != self.baseline))

    def with_baseline(self, name: str | None) -> Matrix:
        """Returns the same comparison with another baseline; None keeps the matrix's.

        Raises:
            ValueError: no arm has this name.
        """
        if name is None:
            return self
        check_choice(f"--baseline {name}", name, [arm.name for arm in self.arms])
        return replace(self, baseline=name)


def read_matrix(file: Path, out: Path | None = None) -> Matrix:
    """Reads a comparison from the user's yaml, or from OUT/matrix.yaml.

    Args:
        file: the yaml, or OUT, the folder of a comparison that has one.
        out: the folder of the runs; default: OUT, else the yaml's `out`, else outputs/<its name>.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is no matrix; one sentence says why.
    """
    if file.is_dir():
        file, out = file / FILE, out or file
        if not file.is_file():
            raise ValueError(f"{out} has no {FILE}: is it the folder of a comparison?")
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: give the yaml of a comparison.")
    values = _extended(file, _load(file))
    specs = values.get("arms") if isinstance(values, dict) else None
    if not isinstance(specs, dict) or not specs:
        raise ValueError(f"{file} names no arms: see `python -m recipe.compare --help`.")
    _check_keys(f"{file}: ", values, Matrix, "script", "extends")
    values = _without_nulls(values)
    _check_evaluation(f"{file}: ", values.get("evaluate"))
    script = values.pop("script", DEFAULT_SCRIPT)
    arms = [_arm_values(f"{file}: arms.{name}", name, spec, script) for name, spec in specs.items()]
    names = [arm["name"] for arm in arms]
    _check_folders(f"{file}: ", names)
    defaults = {"seeds": DEFAULT_SEEDS, "baseline": names[0], "title": file.stem}
    values = {**defaults, "out": f"outputs/{file.stem}", **values, "arms": arms}
    if out is not None:
        values["out"] = out
    try:
        matrix = TypeAdapter(Matrix).validate_python(values)
    except ValidationError as error:
        raise ValueError(_sentence(file, values, error)) from None
    check_choice(f"{file}: baseline={matrix.baseline}", matrix.baseline, names)
    return replace(matrix, out=matrix.out.expanduser().absolute())


def _load(file: Path) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.load(file), resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} is not a yaml file of settings: {reason}") from None


def _extended(file: Path, values: Any) -> Any:
    """Returns the values with those of the matrix that the file extends, for the keys that it does
    not give itself, without its `out`: each comparison has a folder of its own."""
    name = values.pop("extends", None) if isinstance(values, dict) else None
    if name is None:
        return values
    other = file.parent / str(name)
    base = _load(other) if other.is_file() else None
    if not isinstance(base, dict) or "extends" in base:
        raise ValueError(
            f"{file}: extends={name} is not allowed: use the path, from here, of a matrix that "
            "extends no other."
        )
    base.pop("out", None)
    return base | values


def write_matrix(matrix: Matrix) -> Path:
    """Writes OUT/matrix.yaml, from which `read_matrix` returns the same matrix.

    Returns:
        The file.
    """
    values = _plain(asdict(matrix))
    del values["out"]
    values["arms"] = {arm.pop("name"): arm for arm in values.pop("arms")}
    file = matrix.out / FILE
    write_yaml(file, values)
    return file


def _without_nulls(values: Mapping[str, Any]) -> dict[str, Any]:
    """A key without a value has its default."""
    return {key: value for key, value in values.items() if value is not None}


def _check_folders(where: str, names: Sequence[str]) -> None:
    """Raises ValueError for arms whose folders would be one, or one of OUT's own files, on a file
    system that ignores case."""
    taken = {name: f"{name}, which a comparison has beside its arms" for name in RESERVED}
    for name in names:
        if other := taken.get(name.casefold()):
            raise ValueError(
                f"{where}arms.{name} would have the folder of {other}, on some file systems or on "
                "all: give it another name."
            )
        taken[name.casefold()] = f"arms.{name}"


def _check_evaluation(where: str, settings: Any) -> None:
    """Raises ValueError for a setting of recipe.evaluate that a comparison gives itself."""
    settings = settings if isinstance(settings, dict) else {}
    for key in ("checkpoint", "out"):
        if key in settings:
            raise ValueError(
                f"{where}evaluate.{key}={settings[key]} is not allowed, as a comparison gives each "
                "run its own: leave it out."
            )
    if settings.get("presets") and "preset" in settings:
        raise ValueError(
            f"{where}evaluate.preset={settings['preset']} is not allowed beside presets, each of "
            "which is an evaluation: add it there, or leave one of the two out."
        )


def _check_keys(where: str, values: Mapping[Any, Any], owner: type, *more: str) -> None:
    allowed = [field.name for field in fields(owner) if field.name != "name"]
    for key in values:
        check_choice(f"{where}{key}", key, [*allowed, *more])


def _arm_values(where: str, name: Any, spec: Any, script: Any) -> dict[str, Any]:
    if not isinstance(spec, dict) or not {"recipe", "preset"} <= _without_nulls(spec).keys():
        raise ValueError(f"{where} must name its recipe and its preset.")
    _check_keys(f"{where}.", spec, Arm)
    return {"script": script, "label": str(name), **_without_nulls(spec), "name": str(name)}


def _sentence(file: Path, values: Mapping[str, Any], error: ValidationError) -> str:
    """Says in one sentence where the first value is that is not allowed, what it is and what is."""
    path = error.errors()[0]["loc"]
    where, owner = f"{file}: ", cast(Any, Matrix)
    if path[0] == "arms":
        values = values["arms"][path[1]]
        where, owner, path = f"{file}: arms.{values['name']}", Arm, path[2:]
        if path[0] == "name":
            return f"{where} is not {_allowed(Arm, 'name')}."
        where += "."
    key = str(path[0])
    return f"{where}{key}={values[key]} is not allowed: use {_allowed(owner, key)}."


def _allowed(owner: Any, key: str) -> str:
    return owner.__pydantic_fields__[key].description or "a value of another type"


def _plain(value: Any) -> Any:
    """Returns plain containers; a `${` that is no interpolation any more is escaped."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", value)
    return value
