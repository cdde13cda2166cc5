"""The two patches of verl's replay buffer, on verl's own class."""

import inspect
from itertools import permutations
from types import SimpleNamespace

import pytest

pytest.importorskip("verl")

from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from recipe.core.replay_buffer import keep_order, observed


def batch_of(rows: int) -> KVBatchMeta:
    return KVBatchMeta(partition_id="val", keys=[str(row) for row in range(rows)], tags=[{}] * rows)


def test_each_sampled_batch_is_observed_once_and_the_buffer_is_as_it_was():
    class Buffer(ReplayBuffer):
        def __init__(self):
            pass

        def sample(self, *, batch_size):
            return batch_of(batch_size), {"evicted": 0}

    buffer, seen = Buffer(), []
    with observed(buffer, seen.append):
        batch, metrics = buffer.sample(batch_size=3)
        assert seen == [batch] and metrics == {"evicted": 0}
    buffer.sample(batch_size=3)
    assert len(seen) == 1
    with pytest.raises(RuntimeError, match="stop"), observed(buffer, seen.append):
        raise RuntimeError("stop")
    assert "sample" not in vars(buffer)


def test_another_patch_of_the_buffer_is_there_again_afterwards():
    """On CPUs one waits for the rollouts, and raises what has ended them."""
    buffer = SimpleNamespace(sample=lambda: ("batch", "metrics"))
    waiting, seen = buffer.sample, []
    with observed(buffer, seen.append):
        assert buffer.sample() == ("batch", "metrics")
    assert buffer.sample is waiting and seen == ["batch"]


@pytest.fixture
def buffer():
    """verl's own, which knows four prompts of step 2 and one that is left from step 1."""
    made = ReplayBuffer.__new__(ReplayBuffer)
    made.prompt_global_steps = {"train": {**dict.fromkeys("dbca", 2), "left": 1}}
    made.partitions = {"train": {}}
    return made


def test_of_more_prompts_than_a_batch_needs_the_first_are_taken(buffer):
    keep_order(buffer, "abcd".find)  # -1, of an unknown one, is before all others
    for uids in permutations(["a", "b", "c", "d"]):
        assert buffer._select_prompt_uids("train", dict.fromkeys(uids), 3)[0] == ["a", "b", "c"]
    assert buffer._select_prompt_uids("train", {*"abcd", "left"}, 2)[0] == ["left", "a"]


def test_a_buffer_that_selects_in_its_own_way_is_left_alone():
    own = SimpleNamespace(sample=len)
    keep_order(own, "abcd".find)
    assert vars(own) == {"sample": len}


def test_another_way_of_verl_to_select_is_refused(buffer, monkeypatch):
    monkeypatch.setattr("recipe.core.replay_buffer.SELECTION", "key=random")
    with pytest.raises(RuntimeError, match=r"written for verl 0\.9\.1"):
        keep_order(buffer, "abcd".find)


def test_verl_samples_a_validation_batch_from_the_replay_buffer_before_it_clears_it():
    source = inspect.getsource(PPOTrainer._validate)
    assert source.count("self.replay_buffer.sample(") == 1
    assert source.index("self.replay_buffer.sample(") < source.index("tq.kv_clear(")
    assert list(inspect.signature(ReplayBuffer.sample).parameters) == [
        "self",
        "global_steps",
        "partition_id",
        "batch_size",
    ]
