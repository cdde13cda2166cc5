"""docs/paper_index.md against the presets, run scripts and study that it speaks about."""

import importlib
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/paper_index.md"
# A recipe without a section here documents its presets in its own README alone, so that a new one
# touches no file but its own.
RECIPES = re.findall(r"^## `(\w+)`$", PAGE.read_text(), flags=re.MULTILINE)


def section(recipe: str) -> str:
    """Returns the text below the heading of `recipe`."""
    parts = re.split(r"^## `(\w+)`\n", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[recipe]


def rows(recipe: str) -> dict[str, list[str]]:
    """Returns the cells of each row of the section's tables by the name in the first one."""
    found = re.findall(r"^\| `([^`]+)` \|(.*)\|$", section(recipe), flags=re.MULTILINE)
    names = [name for name, _ in found]
    assert len(names) == len(set(names)), f"a name stands twice in the section {recipe}"
    return {name: [cell.strip() for cell in rest.split(" | ")] for name, rest in found}


def test_the_three_papers_and_the_recipes_of_others_have_a_section():
    papers = ["asymgrpo", "clip_entropy", "semantic_curriculum"]
    assert sorted(RECIPES) == sorted([*papers, "entropy_control", "prompt_sampling"])


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_preset_has_a_row_and_every_row_a_preset(recipe):
    pytest.importorskip("verl")  # config.py of two papers extends its policy-loss settings
    presets = importlib.import_module(f"recipe.{recipe}.config").PRESETS
    named = {name for name in rows(recipe) if not name.endswith(".sh")}
    assert named == set(presets)


# docs/gpu_runs.md has what they logged
SEEN_ON_A_GPU = ("recipe/asymgrpo/run_qwen7b.sh", "recipe/clip_entropy/run_qwen7b.sh")


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_run_script_has_a_row_and_every_row_a_script(recipe):
    scripts = {str(path.relative_to(ROOT)) for path in ROOT.glob(f"recipe/{recipe}/run_*.sh")}
    assert {name for name in rows(recipe) if name.endswith(".sh")} == scripts
    for name in scripts:
        machine = "CPU" if "/run_cpu" in name else "GPU"
        states = {f"run on {machine}s", f"{machine} config checked, not run"}
        trained = f'"{name.removeprefix("recipe/")}"'  # a training run of a test
        if any(trained in file.read_text() for file in (ROOT / "tests/e2e").glob("test_*.py")):
            states |= {"trains in the tests"}
        few = "GPU config checked; [four steps](gpu_runs.md#what-has-run) with a small model"
        if name in SEEN_ON_A_GPU:
            states = {few}
        assert rows(recipe)[name][-1] in states - {"run on GPUs"}  # no GPU run has been made


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_preset_of_the_study_links_to_it_and_another_says_that_it_was_not_run(recipe):
    arms = yaml.safe_load((ROOT / "studies/study_cpu.yaml").read_text())["arms"]
    in_study = {arm["preset"] for arm in arms.values() if arm["recipe"] == recipe}
    for name, cells in rows(recipe).items():
        if name.endswith(".sh"):
            continue
        _source, result, _no_effect = cells
        if name in in_study:
            assert "(study_cpu.md)" in result, name
        else:
            assert re.search(r"_cpu(_results)?\.md\)", result) or result.startswith("not run"), name
        for arm in re.findall(r"\(study_cpu\.md\), `(\w+)`", result):
            # an arm of another recipe runs this preset inside one of its own
            assert arms[arm]["recipe"] != recipe or arms[arm]["preset"] == name


def test_every_rival_links_to_the_results_of_its_runs_and_nothing_else_does():
    arms = yaml.safe_load((ROOT / "studies/rivals_cpu.yaml").read_text())["arms"]
    ran = {(spec["recipe"], spec["preset"]): arm for arm, spec in arms.items() if arm != "grpo"}
    linked = {
        (recipe, name): re.search(r"\(rivals_cpu_results\.md\), `(\w+)`", cells[1])[1]
        for recipe in RECIPES
        for name, cells in rows(recipe).items()
        if "rivals_cpu_results.md" in cells[1]
    }
    assert linked == ran


@pytest.mark.parametrize("page", ["docs/paper_index.md", "docs/limits.md", "CONTRIBUTING.md"])
def test_what_a_page_links_to_and_names_exists(page):
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", text)
    assert all(((ROOT / page).parent / link).exists() for link in links), links
    paths = re.findall(
        r"`((?:recipe|data_prep|studies|perf|docs|tests|requirements)/[^`<> *{}]*)`", text
    )
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert not missing
