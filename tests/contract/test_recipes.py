"""One suite for every recipe that is found, and for every preset that its record names: the record,
the folder, the config, the checks before a run, the trainer parts, and the README."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch
from builders import Method, methods, nested, parts_of, queue_of, step_of
from omegaconf import DictConfig, OmegaConf

from recipe.core.actor_loss import EXTRA_INFO
from recipe.core.part import DATASET_ROW, Part
from recipe.core.recipe import (
    FOLDER,
    POLICY_LOSS,
    TRAINER,
    Recipe,
    recipe_named,
    recipes,
    register_with_hydra,
)
from recipe.core.settings import hydra_node, markdown_table, settings_of
from recipe.core.trainer_settings import TrainerSettings
from recipe.launch import preflight
from recipe.launch.compose import compose

RECIPES = [pytest.param(record, id=record.name) for record in recipes()]
METHODS = [pytest.param(method, id=str(method)) for method in methods()]
HEADINGS = ("Usage", "Settings", "Metrics", "Details and deviations", "No effect")
WITHOUT_README = {"example"}  # docs/write_a_recipe.md is its page


# ---- the record ----------------------------------------------------------------------------------


def references(record: Recipe) -> dict[str, str]:
    """Returns every reference of a record, by the field that has it."""
    named = {field: getattr(record, field) for field in ("register", "policy_loss", "presets")}
    named |= {"checks": record.checks, "summary": record.summary}
    named |= {f"parts {reference}": reference for reference in record.parts}
    named |= {f"settings of {node}": reference for node, reference in record.settings.items()}
    return {field: reference for field, reference in named.items() if reference is not None}


@pytest.mark.parametrize("record", RECIPES)
def test_a_record_is_complete(record):
    assert record.paper and recipe_named(record.name) is record
    assert (record.folder / f"{record.name}.yaml").is_file()
    for field, reference in references(record).items():
        loaded = record.load(reference)
        assert loaded is not None, field
        if field.startswith("parts"):
            assert issubclass(loaded, Part) and loaded.name
        if field.startswith("settings") or field == "policy_loss":
            assert dataclasses.is_dataclass(loaded) and record.settings_nodes()
    assert (record.presets is None) == (record.preset_key is None)
    assert record.register is not None or not (record.estimators or record.losses)


def test_no_two_parts_have_one_name_or_their_states_would_be_mixed():
    parts = [record.load(reference) for record in recipes() for reference in record.parts]
    assert len({part.name for part in parts}) == len(parts)


# ---- settings ------------------------------------------------------------------------------------


def every_node() -> Iterator[tuple[str, type]]:
    yield TRAINER, TrainerSettings
    for record in recipes():
        yield from record.settings_nodes().items()


NODES = [pytest.param(node, cls, id=node) for node, cls in every_node()]


@pytest.fixture(scope="session")
def common() -> DictConfig:
    """The config that the recipes share, before any recipe's yaml."""
    import hydra

    register_with_hydra()
    with hydra.initialize_config_dir(str(FOLDER), version_base=None):
        return hydra.compose("common", overrides=["hydra.searchpath=[pkg://verl.trainer.config]"])


@pytest.mark.parametrize(("node", "cls"), NODES)
def test_a_setting_s_default_is_the_composed_one(node, cls, common):
    composed = OmegaConf.to_container(OmegaConf.select(common, node), resolve=False)
    defaults = hydra_node(cls)
    assert settings_of(cls)
    for name in settings_of(cls):
        assert composed[name] == defaults[name], name


@pytest.mark.parametrize(("node", "cls"), NODES)
def test_the_default_settings_are_allowed(node, cls):
    if cls.__dataclass_params__.frozen:
        cls()
    else:  # a mixin of verl's node policy_loss
        from recipe.policy_loss import RecipePolicyLoss

        assert issubclass(RecipePolicyLoss, cls) and RecipePolicyLoss()


def tables_of(page: str) -> dict[str, str]:
    """Returns the settings tables of a README by their node."""
    pattern = r"<!-- settings: (\S+) -->\n+(.*?)\n*<!-- end of settings -->"
    return {node: table.strip() for node, table in re.findall(pattern, page, re.DOTALL)}


def check_settings_tables(page: str, nodes: dict[str, type]) -> None:
    tables = tables_of(page)
    for node in nodes:
        assert node in tables, f"no <!-- settings: {node} --> table"
    nodes = {TRAINER: TrainerSettings} | nodes  # which a README may show too
    for node, table in tables.items():
        assert node in nodes, f"{node} is no node of this recipe"
        assert table == markdown_table(nodes[node]).strip(), node


@pytest.mark.parametrize("record", RECIPES)
def test_settings_agree(record):
    """The README's tables are those of the dataclasses, which the config is made of."""
    if record.name in WITHOUT_README:
        return
    check_settings_tables((record.folder / "README.md").read_text(), record.settings_nodes())


def test_a_settings_table_that_is_missing_or_differs_is_found():
    nodes = {TRAINER: TrainerSettings}
    table = f"<!-- settings: {TRAINER} -->\n\n{markdown_table(TrainerSettings)}\n"
    page = f"# A recipe\n\n{table}<!-- end of settings -->\n"
    check_settings_tables(page, nodes)
    wrong = (page.replace("0.05", "0.06"), page.replace("settings: ", "setting: "))
    for other in (*wrong, page.replace("| `diagnostics`", "| `diagnostic`")):
        with pytest.raises(AssertionError):
            check_settings_tables(other, nodes)
    with pytest.raises(AssertionError, match="is no node of this recipe"):
        check_settings_tables(page.replace(TRAINER, "algorithm.mine"), {})


# ---- the README ----------------------------------------------------------------------------------


@pytest.mark.parametrize("record", RECIPES)
def test_a_recipe_has_a_readme_with_the_fixed_headings(record):
    if record.name in WITHOUT_README:
        return
    page = (record.folder / "README.md").read_text()
    headings = re.findall(r"^## (.*)$", page, re.MULTILINE)
    found = [next((h for h in HEADINGS if title.startswith(h)), None) for title in headings]
    assert [heading for heading in found if heading] == list(HEADINGS)


# ---- the config and the checks before a run ------------------------------------------------------


def without_folder(config: DictConfig) -> str:
    folder = str(Path(config.trainer.default_local_dir).parent)
    return str(OmegaConf.to_container(config)).replace(folder, "")


@pytest.mark.parametrize("method", METHODS)
def test_a_preset_composes_and_passes_every_check(method, config_of, tmp_path):
    config = compose(method.recipe.name, [*builders.run_overrides(tmp_path), *method.overrides()])
    assert without_folder(config) == without_folder(config_of(method))  # the suites' shorter way
    preflight.check(config)
    for key, name in method.recipe.taken_from_preset().items():
        preset = method.recipe.load(method.recipe.presets)[method.preset]
        assert OmegaConf.select(config, key) == getattr(preset, name), key
    if method.recipe.summary is not None:
        lines = method.recipe.load(method.recipe.summary)(config)
        assert all(isinstance(text, str) for text in lines.values())


def test_what_a_yaml_takes_from_its_preset_is_found():
    taken = recipe_named("asymgrpo").taken_from_preset()
    assert taken["actor_rollout_ref.actor.clip_ratio_high"] == "clip_ratio_high"
    assert len(taken) == 5
    assert not recipe_named("example").taken_from_preset()


def test_a_preset_that_cannot_work_fails(monkeypatch, tmp_path):
    """A preset that is registered in this process is in the suite, and is checked."""
    record = recipe_named("clip_entropy")
    presets = record.load(record.presets)
    bad = dataclasses.replace(presets["grpo"], clip_ratio_high=1.5)
    monkeypatch.setitem(presets, "unheard_of", bad)
    assert "clip_entropy-unheard_of" in map(str, methods())
    chosen = f"{record.preset_key}=unheard_of"
    config = compose(record.name, [*builders.run_overrides(tmp_path), chosen])
    with pytest.raises(ValueError, match=r"clip_ratio_high=1.5 is not allowed"):
        preflight.check(config)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("algorithm.adv_estimator=leave_one_ot", "did you mean leave_one_out"),
        (f"{POLICY_LOSS}.loss_mode=entropy_targt", "did you mean entropy_target"),
    ],
)
def test_a_misspelt_estimator_or_loss_is_refused_before_a_run(setting, sentence, tmp_path):
    config = compose("example", [*builders.run_overrides(tmp_path), setting])
    with pytest.raises(ValueError, match=rf"^{setting} does not exist: {sentence}\?"):
        preflight.check(config)


# ---- the parts -----------------------------------------------------------------------------------

ROWS, TOKENS = 32, 6  # 4 prompts x 8 rollouts: two mini-batches of `builders.run_overrides`
STEPS = 4


def fields_of_step(number: int) -> dict[str, Any]:
    """What verl has written before an update."""
    generator = torch.Generator().manual_seed(number)
    lengths = torch.randint(1, TOKENS + 1, (ROWS,), generator=generator)
    draw = torch.rand(5, ROWS, TOKENS, generator=generator)
    values = {
        "entropy": draw[0],
        "old_log_probs": -draw[1],
        "advantages": draw[2] - 0.5,
        "response_mask": (draw[3] < 0.9).long(),
        "rm_scores": (draw[4] < 0.5).float() * (torch.arange(TOKENS) == lengths[:, None] - 1),
    }
    uids = np.array([f"{number}-p{row // 8}" for row in range(ROWS)], dtype=object)
    return {"uid": uids, **{name: nested(x, lengths) for name, x in values.items()}}


def prepared(config: DictConfig) -> list[Part]:
    """Returns the parts of a run as the trainer has them before its first step."""
    parts = parts_of(config)
    for part in parts:
        part.prompt_order([builders.PROMPT] * 8)
    return parts


def stepped(part: Part, number: int, config: DictConfig) -> dict[str, Any]:
    """Runs a part's hooks of one step before and at the update; returns all that it has said."""
    fields = fields_of_step(number)
    before = set(fields)
    entropy = [0.5, 0.2, 0.1, 0.4, 0.6][number]  # in the mean over tokens, about
    fields["entropy"] = fields["entropy"] * (2 * entropy)
    metrics = {"actor/entropy": entropy}
    step = step_of(fields["uid"].tolist(), number=number, metrics=metrics, config=config)
    with queue_of(fields):
        prompts = {
            "uid": list(dict.fromkeys(fields["uid"])),
            "raw_prompt": [builders.PROMPT] * 4,
            DATASET_ROW: range(4),
        }
        part.on_prompts(prompts)
        part.after_advantage(step)
        part.before_update(step)
        part.after_update(step)
    written = {name: fields[name].values().tolist() for name in set(fields) - before}
    return {
        "metrics": {k: v for k, v in step.metrics.items() if v == v},
        "told": step.batch.extra_info.get(EXTRA_INFO, {}),
        "written": {**written, "advantages": fields["advantages"].values().tolist()},
    }


def resumes_after_every_step(make: Any, config: DictConfig) -> None:
    """make(): a part as it is before a run. Its state goes through JSON into a new one."""
    part = make()
    for number in range(STEPS):
        state = part.state_dict()
        resumed = make()
        if state is not None:
            text = json.dumps(state)
            resumed.load_state_dict(json.loads(text))
            assert json.loads(json.dumps(resumed.state_dict())) == json.loads(text)
        expected = stepped(part, number, config)
        assert stepped(resumed, number, config) == expected
        json.dumps(expected["told"])  # plain values reach every worker
        assert all(isinstance(v, int | float) for v in expected["metrics"].values())


@pytest.mark.parametrize("method", METHODS)
def test_the_parts_of_a_method_resume_after_every_step(method, config_of):
    """The next step of a part that was saved and loaded is that of the part that went through:
    what it tells the loss, what it writes, what it logs."""
    config = config_of(method)
    for index in range(len(parts_of(config))):
        resumes_after_every_step(lambda index=index: prepared(config)[index], config)


@pytest.mark.parametrize("record", RECIPES)
def test_every_part_of_a_record_is_used_by_some_method(record, config_of):
    """One that no method uses would never be tested."""
    made = {type(part) for method in methods() for part in parts_of(config_of(method))}
    assert {record.load(reference) for reference in record.parts} <= made


class Forgetful(Part):
    """Counts its steps, and does not save the count."""

    name = "forgetful"
    count = 0

    def before_update(self, step):
        self.count += 1
        step.tell_loss(count=self.count)


class Sound(Forgetful):
    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_a_part_that_forgets_fails_and_one_that_does_not_passes(config_of):
    config = config_of(Method(recipe_named("example"), None))
    resumes_after_every_step(Sound, config)
    with pytest.raises(AssertionError):
        resumes_after_every_step(Forgetful, config)
