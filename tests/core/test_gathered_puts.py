"""What agent loops put into TransferQueue waits, and goes in as few requests as it can; the workers
are sent what they compute with. TransferQueue itself needs a Ray cluster: here its module is a
record of the calls (the real one is in tests/e2e)."""

import asyncio
import types

import pytest
import torch

from recipe.core import transfer_queue

KVBatchMeta = pytest.importorskip("transfer_queue").KVBatchMeta
agent_loop_tq = pytest.importorskip("verl.trainer.ppo.v1.agent_loop_tq")


class Recorded:
    """In place of the module `transfer_queue`."""

    def __init__(self):
        self.puts = []

    async def async_kv_batch_put(self, keys, partition_id, tags, fields=None):
        self.puts.append((keys, partition_id, tags, fields))


def row(length: int, **more) -> dict:
    return {"responses": torch.arange(length), "raw_prompt": [{"content": "1+1"}], **more}


def put_rows(puts: transfer_queue.GatheredPuts, *rows: dict, partition: str = "train") -> list[str]:
    keys = [f"{len(item['responses'])}_0_0" for item in rows]
    for key, item in zip(keys, rows, strict=True):
        tags = [{"status": "success"}]
        asyncio.run(
            puts.async_kv_batch_put(keys=[key], fields=[item], tags=tags, partition_id=partition)
        )
    return keys


def test_all_rollouts_go_in_one_request_before_the_prompts_are_said_to_be_finished():
    queue = Recorded()
    puts = transfer_queue.GatheredPuts(queue)
    for status in ("running", "finished"):
        for uid in ("a", "b"):
            tag = {"status": status}
            asyncio.run(puts.async_kv_put(key=uid, partition_id="train", tag=tag))
    keys = put_rows(puts, row(3), row(2))
    assert queue.puts == []  # nothing is sent by itself
    asyncio.run(puts.send())
    (rows, prompts) = queue.puts
    assert rows[:3] == (keys, "train", [{"status": "success"}] * 2)
    assert [ids.tolist() for ids in rows[3]["responses"].unbind()] == [[0, 1, 2], [0, 1]]
    assert [list(prompt) for prompt in rows[3]["raw_prompt"]] == [[{"content": "1+1"}]] * 2
    assert prompts == (["a", "b"], "train", [{"status": "finished"}] * 2, None)
    asyncio.run(puts.send())
    assert len(queue.puts) == 2  # what is sent is not kept


def test_rollouts_of_another_partition_or_with_other_fields_go_in_requests_of_their_own():
    queue = Recorded()
    puts = transfer_queue.GatheredPuts(queue)
    put_rows(puts, row(1), row(2, routed_experts=torch.zeros(2)), row(3))
    put_rows(puts, row(4), partition="val")
    asyncio.run(puts.send())
    assert [(keys, partition) for keys, partition, _, _ in queue.puts] == [
        (["1_0_0", "3_0_0"], "train"),
        (["2_0_0"], "train"),
        (["4_0_0"], "val"),
    ]


def test_where_every_rollout_failed_only_the_prompts_are_sent():
    queue = Recorded()
    puts = transfer_queue.GatheredPuts(queue)
    asyncio.run(puts.async_kv_put(key="a", partition_id="train", tag={"status": "failure"}))
    asyncio.run(puts.send())
    assert queue.puts == [(["a"], "train", [{"status": "failure"}], None)]


def test_verl_s_agent_loops_still_put_as_the_patch_expects(monkeypatch):
    for name in ("tq", "list_of_dict_to_tensordict"):
        monkeypatch.setattr(agent_loop_tq, name, getattr(agent_loop_tq, name))  # put back later
    puts = transfer_queue.gather_puts(agent_loop_tq)
    assert agent_loop_tq.tq is puts
    assert agent_loop_tq.list_of_dict_to_tensordict([{"a": 1}]) == [{"a": 1}]


def test_agent_loops_that_put_otherwise_are_refused(monkeypatch):
    source = "tq.async_kv_put(key=uid, tag=tag); tq.async_put(rows)"
    monkeypatch.setattr(transfer_queue.inspect, "getsource", lambda module: source)
    with pytest.raises(RuntimeError, match=r"written for verl 0\.9\.1, whose agent loops put each"):
        transfer_queue.gather_puts(types.SimpleNamespace(tq=None))


def test_workers_are_sent_tensors_and_images(monkeypatch):
    import transfer_queue as tq

    def retrieve(keys, partition_id):
        assert (keys, partition_id) == (["a"], "train")
        texts = {"raw_prompt", "extra_info", "multi_modal_inputs"}
        names = ["input_ids", *sorted(texts), "advantages"]
        schema = {name: {"is_non_tensor": name in texts} for name in names}
        return types.SimpleNamespace(field_schema=schema)

    client = types.SimpleNamespace(kv_retrieve_meta=retrieve)
    monkeypatch.setattr(tq, "get_client", lambda: client)
    batch = KVBatchMeta(partition_id="train", keys=["a"], tags=[{}], extra_info={"temperature": 1})
    chosen = transfer_queue.for_workers(batch)
    assert chosen.fields == ["input_ids", "multi_modal_inputs", "advantages"]
    assert chosen.extra_info == {"temperature": 1}
