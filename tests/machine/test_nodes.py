"""The nodes of a cluster: two or three raylets of this machine stand in for nodes."""

import os
import subprocess
import textwrap
from contextlib import contextmanager
from pathlib import Path

import pytest
from builders import run_overrides
from omegaconf import OmegaConf, open_dict

pytest.importorskip("verl")
from ray_head import START, ray_cluster

from recipe import machine
from recipe.cpu import platform
from recipe.launch import nodes
from recipe.launch.compose import compose

ROOT = Path(__file__).parents[2]
WITHOUT = textwrap.dedent("""
    import sys

    class Without:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "recipe":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Without())
""")


@pytest.fixture
def config(tmp_path, monkeypatch):
    return compose("asymgrpo", run_overrides(tmp_path))


@contextmanager
def a_node_without_the_package(address, folder):
    """Starts a node whose Python does not find this package."""
    (folder / "without").mkdir()
    (folder / "without/sitecustomize.py").write_text(WITHOUT)
    environment = {**os.environ, **platform.ENVIRONMENT, "PYTHONPATH": str(folder / "without")}
    command = [*START, f"--address={address}", "--node-name=bare", "--num-cpus=1", "--num-gpus=2"]
    node = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        node.terminate()
        node.wait(60)


@pytest.mark.ray
def test_a_node_that_lacks_the_package_is_named_before_training(
    config, tmp_path, monkeypatch, capsys
):
    two = {"num_cpus": 6, "num_gpus": 2}
    with ray_cluster(two, two) as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert len(nodes.wait(2, 60)) == 2
        nodes.check(config)
        assert "2 nodes can run this" in capsys.readouterr().out
        folder = Path(config.trainer.default_local_dir)
        assert list(folder.iterdir()) == []  # the file that every node was to see is gone
        config.trainer.n_gpus_per_node = 4  # as many as both nodes have, and on neither
        with pytest.raises(ValueError, match=r"1 x n_gpus_per_node=4 GPUs .* do not fit into the"):
            nodes.check(config)
        config.trainer.n_gpus_per_node = 1

        # as the nodes were started: those in this process's own environment need no second look
        path = [str(ROOT), os.environ.get("PYTHONPATH")]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
        with a_node_without_the_package(address, tmp_path):
            assert len(nodes.wait(3, 60)) == 3
            with pytest.raises(ValueError) as error:
                nodes.check(config)
        assert "(bare) of the Ray cluster of RAY_ADDRESS cannot load the recipes" in str(
            error.value
        )
        assert "No module named 'recipe'" in str(error.value) and "\n" not in str(error.value)


def answer_to(**question):
    asked = {"files": [], "token": __file__, "file_limit": 0, "environment": nodes.environment()}
    return nodes.make_probe()({**asked, **question})


def test_what_a_node_does_not_see_is_named(tmp_path):
    same = {"verl": "0.9.1"}
    assert nodes.sentence("a", answer_to(files=[str(tmp_path)]), same) is None
    missing = answer_to(files=[str(tmp_path), f"{tmp_path}/train.parquet"])
    assert "train.parquet: put it on a file system that all nodes" in nodes.sentence(
        "a", missing, same
    )
    unseen = answer_to(token=f"{tmp_path}/no")
    assert "set CKPTS_DIR to a folder on a file system that all" in nodes.sentence(
        "a", unseen, same
    )


def test_a_node_of_another_environment_is_looked_at_whole(monkeypatch):
    other = answer_to(environment=["elsewhere"])
    assert other["versions"] == nodes.versions()
    assert nodes.sentence("a", other, nodes.versions()) is None
    newer = {**nodes.versions(), "the code of recipe/": "0"}
    assert "has the code of recipe/" in nodes.sentence("a", other, newer)
    assert "(none)" in nodes.sentence("a", {**other, "versions": {}}, nodes.versions())

    def unregistered():
        raise RuntimeError("The recipes are not registered with verl (policy loss sent).")

    monkeypatch.setattr("recipe.launch.preflight.registrations", unregistered)
    told = nodes.sentence("a", answer_to(environment=["elsewhere"]), nodes.versions())
    assert "cannot load the recipes (RuntimeError: The recipes are not registered" in told


def test_a_run_with_a_ray_of_its_own_asks_no_node(config, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    nodes.check(config)
    assert not Path(config.trainer.default_local_dir).exists()


def test_a_cluster_of_ray_start_on_this_machine_is_not_joined_unasked(
    config, tmp_path, monkeypatch
):
    """`ray.init` would read its address in the file that `ray start` leaves."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    nodes.check(config)
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray/ray_current_cluster").write_text("10.0.0.1:6379\n")
    with pytest.raises(ValueError, match=r"set RAY_ADDRESS=10\.0\.0\.1:6379 to join it") as error:
        nodes.check(config)
    assert "\n" not in str(error.value) and "`ray stop`" in str(error.value)
    with open_dict(config):
        config.ray_kwargs.ray_init.address = "local"  # no cluster is looked for
    nodes.check(config)


def test_ray_s_private_function_reads_the_address_that_ray_start_writes(tmp_path):
    """Where this fails after an update of Ray, look at `ray.init` and mend `cluster_left_here`."""
    from ray._private import services, utils

    folder = {"_temp_dir": str(tmp_path)}
    assert nodes.cluster_left_here(folder) is None
    utils.write_ray_address("10.0.0.1:6379", str(tmp_path))  # as the command `ray start` does
    assert nodes.cluster_left_here(folder) == "10.0.0.1:6379"
    # and `ray.init` looks there
    assert services.canonicalize_bootstrap_address(None, str(tmp_path)) == "10.0.0.1:6379"
    assert nodes.cluster_left_here({**folder, "address": "local"}) is None


def test_a_run_with_a_ray_of_its_own_needs_the_devices_of_this_machine(config, monkeypatch):
    """Where verl raises after Ray's start, or waits for ever."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    trainer, ray_init = config.trainer, config.ray_kwargs.ray_init
    trainer.n_gpus_per_node = 2
    monkeypatch.setattr(machine, "device_slots", lambda: 1)
    with pytest.raises(ValueError, match=r"n_gpus_per_node=2 .* is more than the 1 GPUs of this"):
        nodes.check(config)
    monkeypatch.setattr(machine, "device_slots", lambda: 2)
    units = config.transfer_queue.backend.SimpleStorage
    units.num_data_storage_units = 8  # verl's default
    ray_init.num_cpus = 14
    with pytest.raises(ValueError, match="num_cpus=14 is less than the 15 that the run takes"):
        nodes.check(config)
    ray_init.num_cpus = 15
    nodes.check(config)


def test_ray_is_given_as_many_cpus_as_a_run_takes(config, monkeypatch):
    """3 beside each of 2 x 4 devices, TransferQueue's controller and 8 storage units: 33."""
    config.trainer.nnodes, config.trainer.n_gpus_per_node = 2, 4
    config.transfer_queue.backend.SimpleStorage.num_data_storage_units = 8
    assert nodes.cpus_of(config) == 33
    config.ray_kwargs.ray_init.num_cpus = None
    monkeypatch.setattr(nodes, "usable_cpus", lambda: 33)
    assert nodes.own_cpus(config) is None  # what Ray finds is enough
    assert nodes.own_cpus(config, runs=2) == 66
    monkeypatch.setattr(nodes, "usable_cpus", lambda: 32)
    assert nodes.own_cpus(config) == 33
    config.ray_kwargs.ray_init.num_cpus = 40
    assert nodes.own_cpus(config, runs=2) == 80
    config.transfer_queue.backend.storage_backend = "MooncakeStore"  # without units
    assert nodes.cpus_of(config) == 25


def test_the_files_of_a_run_are_those_that_are_here(config, tmp_path):
    files = nodes.files_of(config)
    assert files == [
        str(tmp_path / name)
        for name in ("model", "train.parquet", "test.parquet", "scores.parquet")
    ]
    config.actor_rollout_ref.model.path = "Qwen/of-a-hub"
    assert nodes.files_of(config) == files[1:]


def test_paths_of_this_machine_are_handed_to_workers_as_absolute_ones(tmp_path, monkeypatch):
    for name in ("model", "scores.parquet", "a.parquet"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    config = OmegaConf.create(
        {
            "actor_rollout_ref": {"model": {"path": "~/model"}},
            "data": {
                "train_files": ["a.parquet", "hdfs://there/b.parquet"],
                "val_files": "a.parquet",
                "curriculum": {"scores": "scores.parquet"},
            },
            "reward": {"custom_reward_function": {"path": "pkg://recipe.judge"}},
            "trainer": {"resume_from_path": None},
        }
    )
    files = [str(tmp_path / name) for name in ("model", "a.parquet", "a.parquet", "scores.parquet")]
    assert nodes.files_of(config) == files
    nodes.make_absolute(config)
    model, train, val, scores = files
    assert config.actor_rollout_ref.model.path == model
    assert config.data.train_files == [train, "hdfs://there/b.parquet"]
    assert (config.data.val_files, config.data.curriculum.scores) == (val, scores)
    assert config.reward.custom_reward_function.path == "pkg://recipe.judge"
    assert config.trainer.resume_from_path is None and "custom_cls" not in config.data
    config.actor_rollout_ref.model.path = "Qwen/of-a-hub"
    nodes.make_absolute(config)
    assert config.actor_rollout_ref.model.path == "Qwen/of-a-hub"
