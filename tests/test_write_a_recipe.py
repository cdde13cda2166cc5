"""docs/write_a_recipe.md, done as it says: its blocks are the example's files, and the package of
one's own that it makes is installed, found, composed and checked."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("verl")

from recipe.core.policy_loss import NODE
from recipe.core.settings import build, markdown_table
from recipe.core.trainer_settings import TrainerSettings
from recipe.cpu.model import make_tokenizer
from recipe.example.settings import EntropyTargetSettings

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/write_a_recipe.md"
# A block is a file, or a part of one, if a line with the file's name in bold stands above it
NAMED = re.compile(r"^\*\*`([^`]+)`\*\*[^\n]*\n\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
EXAMPLE = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*(ROOT / "recipe/example").iterdir(), ROOT / "tests/example/test_example.py"]
    if path.is_file()
)


def files_of_page() -> dict[str, str]:
    """Returns the page's files by name; the parts of one stand two blank lines apart."""
    files: dict[str, list[str]] = {}
    for name, text in NAMED.findall(PAGE.read_text()):
        files.setdefault(name, []).append(text)
    return {name: "\n\n".join(parts) for name, parts in files.items()}


@pytest.mark.parametrize("name", EXAMPLE)
def test_the_page_shows_every_file_of_the_example_as_it_is(name):
    assert files_of_page()[name] == (ROOT / name).read_text()


def test_the_page_shows_no_file_that_the_example_does_not_have():
    shown = {name for name in files_of_page() if not name.startswith("my_")}
    assert shown == set(EXAMPLE)


def test_the_example_has_at_most_80_lines_of_code():
    lines = 0
    for path in (ROOT / "recipe/example").glob("*.py"):
        text = path.read_text()
        numbered = enumerate(text.splitlines(), start=1)
        code = {n for n, line in numbered if line.strip() and not line.strip().startswith("#")}
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (
                ast.get_docstring(node) is not None
            ):
                code -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
        lines += len(code)
    assert 40 < lines <= 80


def test_the_sentence_on_a_wrong_setting_is_the_one_of_the_page():
    sentence = re.search(r"^    error: (actor_rollout_ref.*=-1 .*)$", PAGE.read_text(), re.M)[1]
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        build(EntropyTargetSettings, {"target_entropy": -1}, NODE)


# ---- a package of one's own ----


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """The page's package, made by its commands and installed in a folder; data and a model's
    tokenizer and config, so that a run script has nothing to prepare."""
    folder = tmp_path_factory.mktemp("own")
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    env = {
        **os.environ,
        "PYTHON": sys.executable,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": ":".join(filter(None, paths)),
        "HOME": str(folder),
        "FOLDER": str(folder),
    }
    copy = re.search(r"^```bash\n(recipes=.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    run(["bash", "-euc", copy[1]], env)
    for name, text in files_of_page().items():
        if name.startswith("my_"):
            (folder / name).write_text(text)
    # no index: an installation from this folder or none
    pip = "-m pip install --quiet --no-index --no-deps --no-build-isolation --target site"
    run([sys.executable, *pip.split(), "./my_project"], env)

    row = {
        "data_source": "synthetic/test",
        "prompt": [{"role": "user", "content": "1+1"}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "2"},
        "extra_info": {"index": 0},
    }
    pd.DataFrame([row] * 32).to_parquet(folder / "rows.parquet")
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder / "model")
    config = {"model_type": "qwen2", "vocab_size": len(tokenizer)}
    config["architectures"] = ["Qwen2ForCausalLM"]
    (folder / "model/config.json").write_text(json.dumps(config))
    return {
        **env,
        "PYTHONPATH": f"{folder / 'site'}:{env['PYTHONPATH']}",
        "MODEL_PATH": str(folder / "model"),
        "TRAIN_FILE": str(folder / "rows.parquet"),
        "TEST_FILE": str(folder / "rows.parquet"),
    }


def run(command: list[str], env: dict[str, str], code: int = 0) -> str:
    """Runs a command in the test's folder; returns what it printed."""
    done = subprocess.run(command, env=env, cwd=env["FOLDER"], capture_output=True, text=True)
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def test_the_package_is_found_by_its_entry_point_and_its_config_is_valid(environment):
    script = f"{environment['FOLDER']}/site/my_method/run_cpu.sh"
    printed = run(["bash", script, "--dry-run"], environment)
    assert "[recipe] estimator  my_advantage" in printed
    assert "[recipe] loss       my_loss" in printed
    assert "the config is valid" in printed


def test_a_misspelt_setting_of_the_package_gets_one_sentence(environment):
    launch = [sys.executable, "-m", "recipe.launch", "my_method", "--dry-run", "machine=cpu"]
    setting = "+actor_rollout_ref.actor.policy_loss.my_targt=1"
    last = run([*launch, setting], environment, code=2).strip().splitlines()[-1]
    assert last.startswith("error: actor_rollout_ref.actor.policy_loss.my_targt does not exist: ")
    assert "did you mean my_target?" in last


def test_a_comparison_takes_the_package_like_any_other_recipe(environment):
    compare = [sys.executable, "-m", "recipe.compare", "my_study.yaml", "--dry-run", "--seeds", "0"]
    printed = run(compare, environment)
    assert re.search(r"\[compare\] my_method, seed 0 +0 of 30 steps", printed)


# ---- the README ----


def test_the_python_of_the_readme_runs_and_prints_what_it_says(tmp_path):
    """In a process of its own, as it registers an estimator."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.S | re.M)
    assert len(blocks) == 2
    program = "\n".join(
        re.sub(r"^(\w+\(.*\))  # (tensor.*)$", r"assert repr(\1) == '\2', \1", block, flags=re.M)
        for block in blocks
    )
    assert program.count("assert repr(") == 2
    (tmp_path / "readme.py").write_text(program)
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    run([sys.executable, "readme.py"], {**env, "FOLDER": str(tmp_path)})


# ---- the pages ----


def test_the_trainers_settings_are_those_of_its_dataclass():
    marked = r"<!-- settings: trainer.v1.recipe_sync -->\n(.*?)<!-- end of settings -->"
    (table,) = re.findall(marked, (ROOT / "docs/limits.md").read_text(), re.DOTALL)
    assert table == markdown_table(TrainerSettings)


PAGES = ["README.md", "docs/write_a_recipe.md", "docs/names_changed.md"]
PAGES += [p.relative_to(ROOT).as_posix() for p in sorted(ROOT.glob("recipe/*/README.md"))]


def anchors(page: Path) -> set[str]:
    """Returns the anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page):
    file = ROOT / page
    for link, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", file.read_text()):
        target = (file.parent / link) if link else file
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), f"{link}#{anchor}"
