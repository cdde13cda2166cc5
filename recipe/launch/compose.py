"""The resolved config of a recipe."""

from __future__ import annotations

import re
from collections.abc import Sequence

from omegaconf import DictConfig

from recipe.core.recipe import FOLDER, recipe_named, register_with_hydra
from recipe.experiment.provenance import flatten

QUOTING = (
    "write key=value, with quotes around a value that has a blank or one of , = ( ) [ ] { } # ' \" "
    "as in 'data.train_files=\"/data/a,b/train.parquet\"'"
)
REFERENCES = "${...} in a value names another key of the config, so a path must not have it"
OF_RESOLVER = "ValueError raised while resolving interpolation: "  # OmegaConf's


def compose(name: str, overrides: Sequence[str]) -> DictConfig:
    """Returns the resolved config of a recipe with Hydra overrides on top.

    Args:
        name: A recipe of this repository, or of another package that is installed.
        overrides: Hydra's, key=value.

    Raises:
        ValueError: If there is no such recipe, or an override cannot be applied.
    """
    return resolved(unresolved(name, overrides))


def unresolved(name: str, overrides: Sequence[str]) -> DictConfig:
    """Returns the config in which keys still refer to one another; raises as `compose` does."""
    import hydra
    from hydra.core.override_parser.types import Quote, QuotedString
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    recipe = recipe_named(name)
    register_with_hydra()
    places = ("pkg://verl.trainer.config", f"file://{FOLDER}")
    quoted = ",".join(QuotedString(place, Quote.single).with_quotes() for place in places)
    try:
        with hydra.initialize_config_dir(str(recipe.folder), version_base=None):
            return hydra.compose(name, overrides=[f"hydra.searchpath=[{quoted}]", *overrides])
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ValueError(override_sentence(error, overrides)) from error


def resolved(config: DictConfig) -> DictConfig:
    """Resolves a config in place, bounds its sequences, and returns it; raises ValueError where a
    value is in the place of a node, or refers to nothing."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from recipe.launch.check_types import nodes

    nodes(config)
    try:
        OmegaConf.resolve(config)
    except OmegaConfBaseException as error:
        reason = str(error).partition("\n")[0]
        _, of_resolver, sentence = reason.partition(OF_RESOLVER)
        if of_resolver:  # such as a preset that a recipe does not have
            raise ValueError(sentence) from error
        raise ValueError(
            f"{unresolvable(config)} cannot be resolved ({reason}): {REFERENCES}."
        ) from error
    bound_sequences(config)
    return config


def bound_sequences(config: DictConfig) -> None:
    """Sets `rollout.max_model_len`, where it is null, to the longest prompt and response.

    verl would take the model's context instead, and vLLM does not start where its cache has no room
    for one sequence of that length: 7 GB for the 131,072 tokens of Qwen2.5-7B. Nothing is longer,
    as verl cuts prompts, and ends a response of several turns, at these lengths.
    """
    rollout = config.actor_rollout_ref.rollout
    lengths = (rollout.prompt_length, rollout.response_length)
    if rollout.max_model_len is None and all(isinstance(length, int) for length in lengths):
        rollout.max_model_len = sum(lengths)


def unresolvable(config: DictConfig) -> str:
    """Returns the key of the first value that cannot be resolved: of the one that others refer to,
    where there are several."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from recipe.launch.check_types import defaults, known_keys

    plain_config = OmegaConf.to_container(config, resolve=False)
    shipped = flatten(defaults().raw)
    references = []
    for key in known_keys(plain_config):  # type: ignore[arg-type]
        try:
            OmegaConf.select(config, key)
        except OmegaConfBaseException:
            if not str(shipped.get(key)).startswith("${"):
                return key
            references.append(key)
    return next(iter(references), "a value")


def override_sentence(error: Exception, overrides: Sequence[str]) -> str:
    """Returns what is wrong with an override, in one sentence with its cure."""
    from hydra.errors import MissingConfigException, OverrideParseException

    from recipe.launch.check_types import defaults, known_keys, similar

    reason = str(error).partition("\n")[0].rstrip(".")
    if isinstance(error, OverrideParseException):
        return f"The override {error.override} cannot be read ({reason}): {QUOTING}."
    if isinstance(error, MissingConfigException) and error.options:
        return f"{reason}: it is one of {', '.join(error.options)}."
    if match := re.match(r"Could not (?:override|delete from config.) '?([\w.@/-]+)'?", reason):
        key = match[1]
        close = similar(key, set(known_keys(defaults().raw)), 0.6)
        hint = f"did you mean {close}?" if close else "--print-config lists the keys."
        return f"{key} does not exist: {hint}"
    if "merging override" in reason:
        return f"{reason}: {REFERENCES}."
    if "Config group override" in reason:
        groups = [word for word in overrides if "." not in word.partition("=")[0]]
        return f"{' '.join(groups)} is not allowed: give the settings of a node, as node.key=value."
    if "already at" in reason:
        return f"{reason}: leave out the + in front of it."
    return f"{reason}: {QUOTING}."
