"""What a recipe is, and which recipes there are.

A recipe is a folder with a record, `RECIPE`, in its `__init__.py` and a yaml of its name beside it.
It is found without a list to edit: as a folder of `recipe/`, or, in any other installed package, by
an entry point

    [project.entry-points."verl_entropy_recipes"]
    my_recipe = "my_package:RECIPE"

verl's plugin, the config, the checks before a run, the trainer and the evaluation iterate over
`recipes()`; none of them names a recipe. A record is read in every process that imports verl, so
its parts are references, `module:name` relative to the recipe's package, loaded when needed.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from recipe.core.settings import check_choice, hydra_node, nodes_of

GROUP = "verl_entropy_recipes"  # of entry points
FOLDER = Path(__file__).resolve().parents[1]  # recipe/
POLICY_LOSS = "actor_rollout_ref.actor.policy_loss"
POLICY_LOSS_TARGET = "recipe.policy_loss.RecipePolicyLoss"
TRAINER = "trainer.v1.recipe_sync"
NODE = "recipe_settings"  # of Hydra's config store: all recipes' settings at their defaults


@dataclass(frozen=True)
class Recipe:
    """The record of a recipe. References are `.module` or `.module:name`, relative to `package`.

    Attributes:
        name: The recipe's name: of its yaml, and what `python -m recipe.launch` takes.
        package: The importable package that holds it; `__name__` in its `__init__.py`.
        paper: The paper, for people.
        register: A module whose import registers estimators and policy losses with verl.
        estimators, losses: The names that it registers.
        settings: The config nodes that the recipe adds, each with its settings dataclass.
        policy_loss: A mixin dataclass (`core.policy_loss.PolicyLossSettings`) whose fields the
            node `actor_rollout_ref.actor.policy_loss` gets.
        presets: A mapping from a preset's name to what it sets. `grpo`, if there is one, sets
            what all others are compared with.
        preset_key: The setting that names the preset.
        parts: Trainer parts (`core.part.Part`), in the order in which they run.
        checks: A function of the resolved config that raises ValueError for what cannot work.
        summary: A function of the resolved config that returns {line of the summary: text}.
        panels: What `recipe.plot` draws where a run has logged it: (title, metric, y label).
        findings: A function of a run's `experiment.evidence.Evidence` that yields what the recipe's
            metrics tell of the run's entropy, for `recipe.diagnose`.
        evaluation: The sampling of the paper's own evaluation: {preset of `recipe.evaluate`:
            {flag: value}}.
    """

    name: str
    package: str
    paper: str
    register: str | None = None
    estimators: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    policy_loss: str | None = None
    presets: str | None = None
    preset_key: str | None = None
    parts: tuple[str, ...] = ()
    checks: str | None = None
    summary: str | None = None
    panels: tuple[tuple[str, str, str], ...] = ()
    findings: str | None = None
    evaluation: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The folder of its yaml and run scripts."""
        return Path(str(importlib.import_module(self.package).__file__)).parent

    def load(self, reference: str) -> Any:
        """Returns the module or object that a reference names."""
        module, _, name = reference.partition(":")
        loaded = importlib.import_module(module, self.package)
        return getattr(loaded, name) if name else loaded

    def taken_from_preset(self) -> dict[str, str]:
        """Returns the config keys whose value the recipe's yaml takes from the preset, each with
        its name there."""

        def walk(node: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
            for key, value in node.items():
                if isinstance(value, dict):
                    yield from walk(value, f"{path}{key}.")
                elif match := re.fullmatch(rf"\$\{{preset:{self.name},.*,(\w+)\}}", str(value)):
                    yield f"{path}{key}", match[1]

        yaml = OmegaConf.load(self.folder / f"{self.name}.yaml")
        return dict(walk(OmegaConf.to_container(yaml, resolve=False), ""))

    def settings_classes(self) -> dict[str, type]:
        """Returns the config nodes that the recipe adds to, each with its settings dataclass."""
        references = dict(self.settings)
        if self.policy_loss is not None:
            references[POLICY_LOSS] = self.policy_loss
        return {node: self.load(reference) for node, reference in references.items()}

    def settings_nodes(self) -> dict[str, type]:
        """Returns the same with the nodes that are nested in them, each with its own settings."""
        nodes: dict[str, type] = {}
        for node, cls in self.settings_classes().items():
            nodes |= nodes_of(node, cls)
        return nodes


@functools.cache
def recipes() -> tuple[Recipe, ...]:
    """Returns all recipes: those of this repository by name, then those of other packages.

    Raises:
        ValueError: If two recipes have one name, or an entry point names no record.
    """
    records = [
        importlib.import_module(f"recipe.{file.stem}").RECIPE
        for file in sorted(FOLDER.glob("*/*.yaml"))
        if file.stem == file.parent.name and (file.parent / "__init__.py").is_file()
    ]
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            record = point.load()
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"The entry point {GROUP}: {point.name} = {point.value} cannot be loaded "
                f"({error}): install its package, or remove it."
            ) from error
        if not isinstance(record, Recipe):
            raise ValueError(
                f"The entry point {GROUP}: {point.name} = {point.value} is a "
                f"{type(record).__name__}: let it name a recipe.core.recipe.Recipe."
            )
        if record not in records:  # an environment may list one installation twice
            records.append(record)
    names = [record.name for record in records]
    for name in names:
        if names.count(name) > 1:
            packages = ", ".join(record.package for record in records if record.name == name)
            raise ValueError(f"Two recipes are called {name!r} ({packages}): rename one.")
    return tuple(records)


def recipe_named(name: str) -> Recipe:
    """Returns the recipe of this name; raises ValueError if there is none."""
    by_name = {record.name: record for record in recipes()}
    if name not in by_name:
        raise ValueError(f"recipe {name!r} does not exist: use one of {', '.join(by_name)}.")
    return by_name[name]


def preset_value(recipe: str, preset: str, key: str) -> Any:
    """Returns what a preset sets: the resolver `${preset:<recipe>,<preset>,<key>}` of the yamls.

    Raises:
        ValueError: For a recipe, preset or key that does not exist.
    """
    record = recipe_named(recipe)
    if record.presets is None:
        raise ValueError(f"${{preset:{recipe},{preset},{key}}}: recipe {recipe} has no presets.")
    presets = record.load(record.presets)
    check_choice(f"{record.preset_key}={preset}", preset, presets)
    values = vars(presets[preset])
    check_choice(f"${{preset:{recipe},{preset},{key}}}", key, values)
    return values[key]


def default_settings() -> dict[str, Any]:
    """Returns the config nodes that the trainer and the recipes add, at their defaults."""
    from recipe.core.trainer_settings import TrainerSettings

    root: dict[str, Any] = {}

    def add(path: str, node: Mapping[str, Any]) -> None:
        place = root
        for key in path.split("."):
            place = place.setdefault(key, {})
        place.update(node)

    add(TRAINER, hydra_node(TrainerSettings))
    add(POLICY_LOSS, {"_target_": POLICY_LOSS_TARGET})
    for record in recipes():
        for path, cls in record.settings_classes().items():
            add(path, hydra_node(cls))
    return root


def register_with_hydra() -> None:
    """Makes the recipes' settings and the resolver `preset` known to Hydra, in this process."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    store = ConfigStore.instance()
    store.store(name=NODE, node=default_settings(), package="_global_", provider="recipe")
    OmegaConf.register_new_resolver("preset", preset_value, replace=True)
