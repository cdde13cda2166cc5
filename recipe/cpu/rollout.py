"""Fewer processes and copies between a prompt and its rollout, for a machine with few cores.

verl's agent loop is made for slow generations on many cores: each response builds an agent loop
through Hydra, asks a load balancer in another process for a server, and ships its tensors to a
reward process. With a small model on two cores that costs more than decoding.
`LeanAgentLoopManager` goes in at verl's hook
`actor_rollout_ref.rollout.agent.agent_loop_manager_class`; the agent loop, vLLM server, reward
manager and TransferQueue that it uses are verl's own, and so are their results.
"""

from __future__ import annotations

from typing import ClassVar

import ray
from verl.experimental.agent_loop.agent_loop import DictConfigWrap, ToolListWrap
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.experimental.reward_loop.reward_loop import RewardLoopWorker
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ
from verl.workers.rollout.llm_server import LLMServerClient


class OneReplicaClient(LLMServerClient):
    """With one replica there is nothing to balance: its server is found by verl's name for it."""

    _only = None

    async def _acquire_server(self, request_id, **extra):
        if self._only is None:
            name = f"{self.config.actor_rollout_ref.rollout.name}_server_0_0"
            self._only = name, ray.get_actor(name)
        return self._only

    def _release_server(self, server_id, request_id=None):
        pass


class _InProcess:
    """Stands where verl expects a Ray actor method: `.remote(x)` gives something to await."""

    def __init__(self, method):
        self.remote = method


class InProcessReward:
    """verl's reward worker in this process, behind the handle that verl's agent loop calls."""

    def __init__(self, config):
        self.compute_score = _InProcess(RewardLoopWorker(config).compute_score)


class LeanAgentLoopWorker(AgentLoopWorkerTQ.__ray_metadata__.modified_class):
    """One agent loop for the worker's lifetime, rewards in this process, no balancing of one."""

    def __init__(self, config, llm_client, *args, **kwargs):
        super().__init__(config, llm_client, *args, **kwargs)
        trainer, rollout = config.trainer, config.actor_rollout_ref.rollout
        if trainer.nnodes * trainer.n_gpus_per_node == rollout.tensor_model_parallel_size:
            self.llm_client = OneReplicaClient(config, llm_client._load_balancer)
        if self.reward_loop_worker_handles is not None and not config.reward.reward_model.enable:
            self.reward_loop_worker_handles = [InProcessReward(config)]
        self._single_turn: SingleTurnAgentLoop | None = None

    async def _run_agent_loop(self, sampling_params, trajectory, *, agent_name, trace=True, **row):
        if agent_name != "single_turn_agent" or self.rollout_config.trace.backend is not None:
            return await super()._run_agent_loop(
                sampling_params, trajectory, agent_name=agent_name, trace=trace, **row
            )
        if self._single_turn is None:  # it keeps nothing between two runs
            same = (
                "tokenizer",
                "processor",
                "hf_model_type",
                "dataset_cls",
            )
            self._single_turn = SingleTurnAgentLoop(
                trainer_config=DictConfigWrap(self.config),
                data_config=DictConfigWrap(self.config.data),
                server_manager=self.llm_client,
                tools=ToolListWrap(self.tools),
                **{name: getattr(self, name) for name in same},
            )
        # verl's generate() removes keys from the sampling parameters that it is given
        output = await self._single_turn.run(dict(sampling_params), **row)
        return await self._agent_loop_postprocess(output, trajectory["validate"], **row)


@ray.remote
class EarlyWorker(LeanAgentLoopWorker):
    """A worker whose process can start, and import verl, before there is a server to talk to."""

    def __init__(self):
        pass

    def connect(self, *args) -> None:
        super().__init__(*args)


class LeanAgentLoopManager(AgentLoopManagerTQ):
    _early: ClassVar[list] = []  # workers of this process's one run, not yet connected

    @classmethod
    def start_workers(cls, config) -> None:
        rollout = config.actor_rollout_ref.rollout
        if rollout.agent.agent_loop_manager_class == f"{cls.__module__}.{cls.__name__}":
            cls._early = [EarlyWorker.remote() for _ in range(rollout.agent.num_workers)]

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = self  # verl calls .options(...).remote(...) on it

    def options(self, **placement) -> LeanAgentLoopManager:
        self._placement = placement
        return self

    def remote(self, *args):
        """The handle of a worker for verl's constructor arguments: an early one, or a new one."""
        early = EarlyWorker.options(**self._placement)
        worker = self._early.pop() if self._early else early.remote()
        ray.get(worker.connect.remote(*args))  # so that its error is this one's
        return worker
