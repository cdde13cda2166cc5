"""Reading and writing a comparison's yaml."""

from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
import yaml

from recipe.experiment.matrix import Arm, read_matrix, write_matrix

ROOT = Path(__file__).resolve().parents[2]
ARM = {"recipe": "asymgrpo", "preset": "grpo"}
GOOD = {"arms": {"a": ARM}}
TWO = {"arms": {"a": ARM, "b": ARM}}
STUDIES = sorted((ROOT / "studies").glob("*.yaml"))


def write(tmp_path, values):
    file = tmp_path / "m.yaml"
    file.write_text(values if isinstance(values, str) else yaml.safe_dump(values, sort_keys=False))
    return file


def test_a_small_matrix_gets_its_defaults(tmp_path):
    matrix = read_matrix(write(tmp_path, GOOD))
    assert matrix.seeds == (0, 1, 2) and matrix.baseline == "a" and matrix.title == "m"
    assert matrix.out == Path.cwd() / "outputs/m"
    assert matrix.arms == (Arm("a", "asymgrpo", "grpo", "a", "run_cpu.sh"),)
    assert (matrix.environment, matrix.overrides, matrix.evaluate) == ({}, (), {})


def test_keys_without_a_value_have_their_defaults(tmp_path):
    nothing = dict.fromkeys(("seeds", "baseline", "title", "out", "script", "environment"))
    nothing |= dict.fromkeys(("overrides", "evaluate"))
    arm = ARM | dict.fromkeys(("label", "script", "overrides", "may_differ"))
    with_nulls = read_matrix(write(tmp_path, nothing | {"arms": {"a": arm}}))
    assert with_nulls == read_matrix(write(tmp_path, GOOD))


def test_numbers_may_stand_for_texts_and_the_scripts_default_for_an_arm_s(tmp_path):
    arms = {1: ARM | {"label": 5}, "b": ARM | {"script": "other.sh"}}
    environment = {"STEPS": 3, "SHARE": 0.5, "FLAG": True}
    values = {"arms": arms, "environment": environment, "script": "run_qwen7b.sh"}
    matrix = read_matrix(write(tmp_path, values))
    assert [arm.name for arm in matrix.arms] == ["1", "b"] and matrix.arms[0].label == "5"
    assert [arm.script for arm in matrix.arms] == ["run_qwen7b.sh", "other.sh"]
    assert matrix.environment == {"STEPS": "3", "SHARE": "0.5", "FLAG": "True"}


def test_a_matrix_that_extends_another_has_its_keys_but_for_its_own(tmp_path):
    base = GOOD | {"seeds": [4, 5], "environment": {"STEPS": 3, "TASK": "x"}, "overrides": ["a=b"]}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base | {"out": "elsewhere"}))
    own = {"arms": {"b": ARM}, "environment": {"STEPS": 2}}
    matrix = read_matrix(write(tmp_path, own | {"extends": "base.yaml"}))
    assert matrix == read_matrix(write(tmp_path, base | own))
    assert [arm.name for arm in matrix.arms] == ["b"] and matrix.environment == {"STEPS": "2"}
    assert (matrix.seeds, matrix.overrides, matrix.title) == ((4, 5), ("a=b",), "m")


def test_the_rivals_are_of_the_study_s_setting():
    study, rivals = (read_matrix(ROOT / f"studies/{n}_cpu.yaml") for n in ("study_acts", "rivals"))
    assert rivals.arms[0] == study.arms[0] and set(rivals.seeds) < set(study.seeds)
    same = {"arms": study.arms, "seeds": study.seeds, "title": study.title, "out": study.out}
    assert replace(rivals, **same) == study


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_the_studies_matrices_can_be_read(file):
    matrix = read_matrix(file)
    assert len(matrix.arms) > 1 and len(matrix.seeds) >= 2
    assert len({arm.label for arm in matrix.arms}) == len(matrix.arms)
    # a curriculum changes the order of the data, which the others share
    orders = file.stem not in ("clip_shapes_cpu", "rivals_cpu")
    assert any(arm.may_differ for arm in matrix.arms) == orders


def test_there_are_studies():
    assert STUDIES


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_what_is_written_reads_as_the_same_matrix(tmp_path, file):
    """From OUT too, and with the interpolations of Hydra's that the user's yaml has escaped."""
    matrix = read_matrix(file, tmp_path / "out")
    interpolated = any("${" in word for word in matrix.overrides)
    assert interpolated == (file.stem not in ("clip_shapes_cpu", "acts_pilot_cpu"))
    assert write_matrix(matrix) == tmp_path / "out/matrix.yaml"
    assert read_matrix(tmp_path / "out") == matrix
    assert read_matrix(tmp_path / "out/matrix.yaml", tmp_path / "out") == matrix


@pytest.mark.parametrize("text", ["${a.b}", r"\${a}", r"\\${a}", "a\\", "x${a}\\", "$a {b}", "ü"])
def test_any_text_survives_being_written(tmp_path, text):
    matrix = read_matrix(write(tmp_path, GOOD), tmp_path)
    arm = replace(matrix.arms[0], label=text, overrides=(text,))
    matrix = replace(matrix, arms=(arm,), environment={"X": text}, evaluate={"benchmarks": [text]})
    write_matrix(matrix)
    assert read_matrix(tmp_path) == matrix


@pytest.mark.parametrize(
    "text", ["1e3", "1e-4", "-1e5", "1.5e3", "1e+3", "12e03", "6.02E23", "1E-6", "1_0e3", "1.e2"]
)
def test_a_text_that_yaml_1_2_takes_for_a_number_stays_a_text(tmp_path, text):
    """1e-4 is a text to PyYAML's own writer, and 0.0001 to OmegaConf, which reads it."""
    matrix = read_matrix(write(tmp_path, GOOD), tmp_path)
    name = text if text[0] != "-" and "+" not in text else "a"  # which no folder's name has
    arm = replace(matrix.arms[0], name=name, label=text, overrides=(text,), may_differ=(text,))
    environment = {"X": text, text: "x"}
    evaluate = {"benchmarks": [text], "temperature": 1e-4}
    matrix = replace(matrix, arms=(arm,), baseline=name, environment=environment, evaluate=evaluate)
    write_matrix(matrix)
    assert read_matrix(tmp_path) == matrix
    assert yaml.safe_load((tmp_path / "matrix.yaml").read_text())["arms"][name]["label"] == text


def test_the_baseline_can_be_another_and_comes_first(tmp_path):
    matrix = read_matrix(write(tmp_path, TWO))
    assert matrix.with_baseline(None) == matrix
    other = matrix.with_baseline("b")
    assert (matrix.baseline, other.baseline) == ("a", "b")
    assert [arm.name for arm in other.baseline_first()] == ["b", "a"]
    assert [arm.name for arm in other.arms] == ["a", "b"]
    with pytest.raises(ValueError, match="--baseline x does not exist: It is one of a, b"):
        matrix.with_baseline("x")
    with pytest.raises(FrozenInstanceError):
        matrix.baseline = "b"


def arm(**change):
    return {"arms": {"a": ARM | change}}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"arms": {}}, "names no arms"),
        ({"arms": None}, "names no arms"),
        ({"arms": ["a"]}, "names no arms"),
        ({"sedes": [0]}, "did you mean seeds"),
        ({"extents": "x"}, "did you mean extends"),
        ({"extends": "no.yaml"}, r"extends=no.yaml is not allowed: use the path, from here, of"),
        ({"extends": "m.yaml"}, "of a matrix that extends no other"),
        ({"extends": ["m.yaml"]}, "is not allowed: use the path, from here, of a matrix"),
        ({1: 2}, "m.yaml: 1 does not exist"),
        ({"seeds": []}, "a list of different whole numbers from 0 up"),
        (
            {"seeds": [1, 1]},
            r"seeds=\[1, 1\] is not allowed: use a list of different whole numbers",
        ),
        ({"seeds": [-1]}, "whole numbers from 0 up"),
        ({"seeds": 3}, "different whole numbers"),
        ({"seeds": [True]}, "different whole numbers"),
        ({"seeds": ["0"]}, "different whole numbers"),
        ({"seeds": [0.5]}, "different whole numbers"),
        ({"baseline": "b"}, "baseline=b does not exist"),
        ({"baseline": ["a"]}, r"baseline=\['a'\] is not allowed: use a text"),
        ({"title": {"a": 1}}, "title=.* is not allowed: use a text"),
        ({"out": 3}, "out=3 is not allowed: use a folder"),
        ({"script": ["x"]}, r"script=\['x'\] is not allowed: use a text"),
        ({"overrides": "a=b"}, "overrides=a=b is not allowed: use a list of texts"),
        ({"overrides": [1]}, "a list of texts"),
        ({"environment": [1]}, "environment=.* is not allowed: use a mapping"),
        ({"environment": {"A": [1]}}, "environment=.* is not allowed: use a mapping"),
        ({"environment": {"A": None}}, "environment=.* is not allowed: use a mapping"),
        ({"evaluate": [1]}, "with a list of benchmarks"),
        ({"evaluate": {"samples": 8}}, "with a list of benchmarks"),
        ({"evaluate": {"benchmarks": "x"}}, "with a list of benchmarks"),
        ({"evaluate": {"benchmarks": ["x"], "presets": "sent"}}, "presets is a list too"),
        (
            {"evaluate": {"benchmarks": ["x"], "out": "/y"}},
            r"evaluate\.out=/y is not allowed, as a comparison gives each run its own: leave",
        ),
        ({"evaluate": {"benchmarks": ["x"], "checkpoint": "c"}}, r"evaluate\.checkpoint=c is not"),
        (
            {"evaluate": {"benchmarks": ["x"], "presets": ["sent"], "preset": "asymgrpo"}},
            r"evaluate\.preset=asymgrpo is not allowed beside presets",
        ),
        ({"arms": {"../x": ARM}}, "arms.../x is not a folder's name"),
        ({"arms": {"a/b": ARM}}, "arms.a/b is not a folder's name"),
        ({"arms": {"a": ARM, "A": ARM}}, "arms.A would have the folder of arms.a, on some"),
        ({"arms": {"Report": ARM}}, "arms.Report would have the folder of report, which a"),
        ({"arms": {"matrix.yaml": ARM}}, "would have the folder of matrix.yaml, which"),
        ({"arms": {"a\n": ARM}}, "is not a folder's name"),
        ({"arms": {"a": None}}, "arms.a must name its recipe and its preset"),
        ({"arms": {"a": {"recipe": "asymgrpo"}}}, "must name its recipe and its preset"),
        (arm(preset=None), "must name its recipe and its preset"),
        (arm(recipe=["x"]), r"arms.a.recipe=\['x'\] is not allowed: use a text"),
        (arm(lable=1), "arms.a.lable does not exist: did you mean label"),
        (arm(own=["data"]), "arms.a.own does not exist: .* may_differ"),
        (arm(name="b"), "arms.a.name does not exist"),
        (arm(may_differ="data"), "arms.a.may_differ=data is not allowed: use a list of dotted"),
        (arm(overrides={"a": "b"}), "arms.a.overrides=.* is not allowed: use a list of texts"),
    ],
)
def test_a_matrix_with_a_mistake_ends_in_one_sentence(tmp_path, change, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        read_matrix(write(tmp_path, {**GOOD, **change}))
    assert "\n" not in str(error.value).replace("a\n", "")
    assert str(error.value).startswith(str(tmp_path / "m.yaml"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "names no arms"),
        ("- a", "names no arms"),
        ("arms: [", "is not a yaml file of settings"),
        ("just words", "names no arms"),
        ("3", "is not a yaml file of settings"),
        ("arms: {a: {recipe: r, preset: p}, a: {recipe: r, preset: q}}", "is not a yaml file"),
        ("title: ${nothing}\narms: {a: {recipe: r, preset: p}}", "is not a yaml file of settings"),
        ("title: ${a", "is not a yaml file of settings"),
    ],
)
def test_a_broken_file_is_named(tmp_path, text, sentence):
    with pytest.raises(ValueError, match=rf"m\.yaml {sentence}") as error:
        read_matrix(write(tmp_path, text))
    assert "\n" not in str(error.value)


def test_what_is_no_text_or_does_not_exist_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.yaml does not exist"):
        read_matrix(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match=r"has no matrix\.yaml"):
        read_matrix(tmp_path)
    (tmp_path / "m.yaml").write_bytes(b"\xff\xfe\x00arms")
    with pytest.raises(ValueError, match="is not a yaml file of settings"):
        read_matrix(tmp_path / "m.yaml")
