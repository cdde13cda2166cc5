"""Rollouts at the price of decoding, for a machine with few cores.

verl's agent loop is made for slow generations on many cores: each response builds an agent loop
through Hydra, asks a load balancer in another process for a server, crosses to the server in a Ray
call of its own, ships its tensors to a reward process, and is put into TransferQueue by a request
of its own. With a small model on two cores that costs several times what decoding does.

`LeanAgentLoopManager` goes in at verl's hook
`actor_rollout_ref.rollout.agent.agent_loop_manager_class`. verl's agent loop, reward manager and
vLLM server run as they are, rollout by rollout, in the process that trains (it would only wait);
what crosses to another process crosses once for all rollouts that are ready: requests to the server
(`BatchedServer`) and puts (`core.transfer_queue.GatheredPuts`).

Each rollout has a seed of its own (`Seeds`), so that its tokens do not depend on which others are
decoded beside it: a run can be repeated, and two methods with one seed answer the same prompts with
the same random numbers.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from copy import deepcopy
from typing import Any

import numpy as np
import ray
from tensordict import TensorDict
from verl.experimental.agent_loop.agent_loop import DictConfigWrap, ToolListWrap
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.experimental.reward_loop.reward_loop import RewardLoopWorker
from verl.protocol import DataProto
from verl.trainer.ppo.v1 import agent_loop_tq
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import TokenOutput

from recipe.core import transfer_queue
from recipe.cpu.startup import server_names

logger = logging.getLogger(__name__)

GATHER_SECONDS = 0.02  # a request waits so long for others that go with it


class Method:
    """Stands where verl expects a method of a Ray actor: `.remote(x)` gives something to await."""

    def __init__(self, method: Callable[..., Awaitable]):
        self.remote = method


class BatchedServer:
    """A server whose requests travel together, where verl expects the handle of one.

    Only for rollouts that end together anyway: all answers of a batch come when the last is there.
    """

    def __init__(self, handle: Any):
        self.handle, self.generate = handle, Method(self._generate)
        self._waiting: list[tuple[dict[str, Any], asyncio.Future]] = []

    def _generate(self, **request: Any) -> asyncio.Future[TokenOutput]:
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_later(GATHER_SECONDS, lambda: loop.create_task(self._send()))
        answer = loop.create_future()
        self._waiting.append((request, answer))
        return answer

    async def _send(self) -> None:
        sent, self._waiting = self._waiting, []
        try:
            outputs = await self.handle.generate_many.remote([request for request, _ in sent])
        except Exception as error:  # of the call, and so of each of its requests
            outputs = [error] * len(sent)
        for (_, answer), output in zip(sent, outputs, strict=True):
            if answer.cancelled():
                continue
            if isinstance(output, Exception):
                answer.set_exception(output)
            else:
                answer.set_result(output)


class BatchedClient(LLMServerClient):
    """verl's client without a balancer: the rollouts of a step go to the replicas in turn."""

    def __init__(self, config: Any):
        super().__init__(config)
        servers = [(name, BatchedServer(ray.get_actor(name))) for name in server_names(config)]
        self._next = itertools.cycle(servers)

    async def _acquire_server(self, request_id: str, **extra: Any) -> tuple[str, BatchedServer]:
        return next(self._next)

    def _release_server(self, server_id: str, request_id: str | None = None) -> None:
        pass


class PromptsOnce(SingleTurnAgentLoop):
    """verl's agent loop, which tokenises the prompt of a group once."""

    def __init__(self, **arguments: Any):
        super().__init__(**arguments)
        self.prompts: dict[str, asyncio.Future[list[int]]] = {}  # of the rollouts under way

    async def ct_build_initial_tokens(self, messages: list[dict], **options: Any) -> list[int]:
        if self.processor is not None:  # it may leave something in `options` for each rollout
            return await super().ct_build_initial_tokens(messages, **options)
        text = repr(messages)
        if text not in self.prompts:
            ids = super().ct_build_initial_tokens(messages, **options)
            self.prompts[text] = asyncio.ensure_future(ids)
        return list(await self.prompts[text])


class Seeds:
    """A seed for each rollout, of the run's seed and its place in the run.

    Args:
        run_seed: `rollout.seed`.
    """

    def __init__(self, run_seed: int):
        self.run_seed = run_seed
        self._step = (-1, False)  # and whether it is a validation
        self._places: dict[str, int] = {}  # of the step's prompts

    def begin(self, uids: Sequence[str], step: int, validate: bool) -> None:
        """Notes prompts that are asked for in a step, in their order, maybe after others of it."""
        if (step, validate) != self._step:
            self._step = step, validate
            self._places.clear()
        for uid in uids:
            self._places[uid] = len(self._places)

    def seed(self, uid: str, session: int) -> int:
        """Returns the seed of a prompt's rollout."""
        step, validate = self._step
        entropy = [self.run_seed, step, validate, self._places[uid], session]
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])


class InProcessReward:
    """verl's reward worker in this process, behind the handle that verl's agent loop calls."""

    def __init__(self, config: Any):
        self.worker, self.compute_score = RewardLoopWorker(config), Method(self._compute_score)

    async def _compute_score(self, data: DataProto) -> dict[str, Any]:
        # Ray would send a copy; reward managers write into `extra_info`, which rollouts share
        data.non_tensor_batch = deepcopy(data.non_tensor_batch)
        return await self.worker.compute_score(data)


class LeanAgentLoopWorker(AgentLoopWorkerTQ.__ray_metadata__.modified_class):
    """verl's agent loops in this process, their single-turn requests and their puts in one go."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any):
        super().__init__(config, *args, **kwargs)
        if self.reward_loop_worker_handles is not None and not config.reward.reward_model.enable:
            self.reward_loop_worker_handles = [InProcessReward(config)]
        self.puts = transfer_queue.gather_puts(agent_loop_tq)
        self.seeds = Seeds(self.rollout_config.seed)
        self.single_turn = PromptsOnce(  # it keeps nothing else between two rollouts
            trainer_config=DictConfigWrap(config),
            data_config=DictConfigWrap(config.data),
            server_manager=BatchedClient(config),
            tools=ToolListWrap(self.tools),
            tokenizer=self.tokenizer,
            processor=self.processor,
            hf_model_type=self.hf_model_type,
            dataset_cls=self.dataset_cls,
        )

    async def generate_sequences(self, batch: TensorDict) -> None:
        """Runs the rollouts of a batch and puts them into TransferQueue."""
        validate = "validate" in batch and batch["validate"]  # TensorDict.get would wrap it
        self.seeds.begin(list(batch["uid"]), batch["global_steps"], validate)
        await super().generate_sequences(batch)  # of verl: it starts them
        await asyncio.gather(*self.background_tasks)
        self.single_turn.prompts.clear()
        await self.puts.send()

    async def _run_agent_loop(self, sampling_params, trajectory, *, agent_name, trace=True, **row):
        if agent_name != "single_turn_agent" or self.rollout_config.trace.backend is not None:
            return await super()._run_agent_loop(
                sampling_params, trajectory, agent_name=agent_name, trace=trace, **row
            )
        seed = self.seeds.seed(row["uid"], row["session_id"])
        output = await self.single_turn.run({**sampling_params, "seed": seed}, **row)
        return await self._agent_loop_postprocess(output, trajectory["validate"], **row)


def log_error(rollouts: Future) -> None:
    """Logs what ended the rollouts of a batch: under verl's own task runner nobody calls `wait`, as
    there nobody waits for verl's manager, and the trainer would look for them without a word."""
    if not rollouts.cancelled() and (error := rollouts.exception()) is not None:
        logger.error("the rollouts of a batch have failed", exc_info=error)


class LeanAgentLoopManager(AgentLoopManagerTQ):
    """verl's manager with its one worker in this process, on a thread of its own."""

    async def _init_agent_loop_workers(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="agent loops", daemon=True).start()
        self._running: list[Future] = []
        self._worker = self._start(self._make_worker()).result()

    async def _make_worker(self) -> LeanAgentLoopWorker:
        return LeanAgentLoopWorker(
            self.config, self.llm_client, self.teacher_client, self.reward_loop_worker_handles
        )

    def _start(self, work: Coroutine[Any, Any, Any]) -> Future:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def generate_sequences(self, prompts: TensorDict) -> None:
        """Starts the rollouts of a batch; `wait` waits for them."""
        # a copy, as Ray would make one
        rollouts = self._start(self._worker.generate_sequences(deepcopy(prompts)))
        rollouts.add_done_callback(log_error)
        self._running.append(rollouts)

    def wait(self) -> None:
        """Waits until all rollouts that were started are in TransferQueue.

        Raises:
            Exception: An error outside the rollouts; those that fail are verl's to count.
        """
        while self._running:
            self._running.pop(0).result()
