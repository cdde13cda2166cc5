import pytest
import yaml

from recipe.experiment import provenance


def test_a_file_is_named_by_its_content(tmp_path):
    one, same, other = tmp_path / "one", tmp_path / "same", tmp_path / "other"
    one.write_bytes(b"a" * 3_000_000)
    same.write_bytes(b"a" * 3_000_000)
    name = provenance.fingerprint(one)
    assert provenance.fingerprint(same) == name and len(name) == 20
    for place in (0, 1_500_000, 2_999_999):  # the middle MiB of a large file is not read
        changed = bytearray(one.read_bytes())
        changed[place] = ord("b")
        other.write_bytes(changed)
        assert (provenance.fingerprint(other) == name) == (place == 1_500_000)
    other.write_bytes(b"a" * 3_000_001)
    assert provenance.fingerprint(other) != name
    assert provenance.fingerprint("Qwen/Qwen2.5-7B") == "Qwen/Qwen2.5-7B"


def test_a_model_is_named_by_its_files(tmp_path):
    (tmp_path / "weights").write_bytes(b"1")
    (tmp_path / "config.json").write_text("{}")
    name = provenance.fingerprint(tmp_path)
    (tmp_path / "weights").rename(tmp_path / "other")
    assert provenance.fingerprint(tmp_path) != name
    (tmp_path / "other").rename(tmp_path / "weights")
    (tmp_path / "built.json").write_text("when")
    assert provenance.fingerprint(tmp_path) == name


def test_a_record_says_what_ran_and_can_be_read_again(tmp_path):
    scores = tmp_path / "scores.parquet"
    scores.write_text("x")
    config = {
        "actor_rollout_ref": {"model": {"path": "some/model"}},
        "data": {
            "train_files": ["a", "b"],
            "val_files": "c",
            "curriculum": {"scores": str(scores)},
        },
    }
    record = provenance.record(config, ["python", "-m", "x"])
    file = tmp_path / "metrics/000.yaml"
    provenance.write(file, record)
    assert yaml.safe_load(file.read_text()) == record
    assert [path.name for path in file.parent.iterdir()] == ["000.yaml"]
    assert record["config"] == config and record["command"] == ["python", "-m", "x"]
    assert set(record["packages"]) >= {"python", "torch"}
    assert record["files"]["data.train_files[1]"] == "b"
    assert record["files"]["data.curriculum.scores"] == provenance.fingerprint(scores)


def test_a_record_is_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "000.yaml"
    provenance.write(file, {"a": 1})
    with pytest.raises(yaml.YAMLError):
        provenance.write(file, {"a": object()})
    assert yaml.safe_load(file.read_text()) == {"a": 1}
