"""A vLLM server that answers all rollouts of a step in one Ray call.

verl asks its server for one response a Ray call, and takes vLLM's default output, which is the text
so far of every request after every token, with the text of each token's log-prob. It reads none of
that: a rollout is token ids and log-probs, once, at the end.
"""

from __future__ import annotations

import asyncio
from typing import Any

import ray
from verl.plugin.platform import get_platform
from verl.workers.rollout.replica import TokenOutput
from verl.workers.rollout.vllm_rollout import vllm_async_server
from vllm.sampling_params import RequestOutputKind

from recipe.cpu import startup

TOKENS_AT_THE_END = {"detokenize": False, "output_kind": RequestOutputKind.FINAL_ONLY}
CONCURRENCY = 10_000  # calls at a time; verl's agent loop makes one a rollout


class BatchServer(vllm_async_server.vLLMHttpServer):
    """verl's server, with `generate` for many requests, in a process that can start, and import
    vLLM, before there is an actor to serve."""

    def __init__(self) -> None:
        pass

    def connect(self, arguments: dict[str, Any]) -> None:
        """Makes it verl's server; takes the arguments of verl's constructor."""
        super().__init__(**arguments)

    async def generate_many(self, requests: list[dict[str, Any]]) -> list[TokenOutput | Exception]:
        """Returns verl's answer to each request, in their order, or what it raised.

        Args:
            requests: The keyword arguments of `generate` of each.
        """
        answers = [
            self.generate(
                **{
                    **request,
                    # a dict of its own: verl's generate removes keys from it
                    "sampling_params": {**TOKENS_AT_THE_END, **request["sampling_params"]},
                }
            )
            for request in requests
        ]
        return await asyncio.gather(*answers, return_exceptions=True)


def start(name: str, **options: Any) -> Any:
    """Starts the process of a server; returns its handle. Options are Ray's, as verl sets them."""
    platform = get_platform()
    variables = dict.fromkeys(platform.ray_noset_envvars(), "1") | platform.rollout_env_vars()
    defaults = {"runtime_env": {"env_vars": variables}, "max_concurrency": CONCURRENCY}
    return ray.remote(BatchServer).options(**{**defaults, **options, "name": name}).remote()


class ServerClass:
    """Stands where verl expects the actor class of its server: `.options(...).remote(...)`."""

    def __init__(self, **options: Any):
        self._options = options

    def options(self, **options: Any) -> ServerClass:
        return ServerClass(**options)

    def remote(self, **arguments: Any) -> Any:
        """Returns the handle of verl's server, in a process that was started early or now."""
        handle = startup.early_server(self._options["name"]) or start(**self._options)
        ray.get(handle.connect.remote(arguments))  # so that its error is this one's
        return handle


class BatchReplica(vllm_async_server.vLLMReplica):
    """verl's replica, whose servers are `BatchServer`s."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.server_class = ServerClass()
