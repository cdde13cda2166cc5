"""The registered trainer is verl's synchronous one with the additions, whatever its name."""

import pytest

pytest.importorskip("verl")

from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.trainer.ppo.v1.trainer_base import get_trainer_cls
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

import recipe.trainer
from recipe import launch

CONFIG = [
    "machine=cpu",
    "actor_rollout_ref.model.path=none",
    "data.train_files=none",
    "data.val_files=none",
]


def trainer(*overrides: str):
    config = launch.compose("asymgrpo", [*CONFIG, *overrides])
    return get_trainer_cls(config.trainer.v1.trainer_mode)(config)


def test_it_behaves_as_the_synchronous_trainer():
    """verl takes any name but "sync" for asynchronous: another buffer, prompt batches of one."""
    ours = trainer()
    assert isinstance(ours, PPOTrainerSync)
    assert ours.trainer_mode == "sync"
    assert type(ours.replay_buffer) is ReplayBuffer
    assert ours.replay_buffer.gen_batch_size == ours.config.data.train_batch_size


def test_its_settings_reach_it():
    ours = trainer(
        "trainer.v1.recipe_sync.poll_interval=0.25",
        "trainer.v1.recipe_sync.log_prob_gain_freq=3",
        "algorithm.asymgrpo.preset=grpo_entropy_adv",
    )
    assert ours.replay_buffer.poll_interval == 0.25
    assert ours.recipe_settings.log_prob_gain_freq == 3
    assert ours.asymgrpo.entropy_shaped


def test_a_wrong_preset_is_refused_by_the_trainer_too():
    """For a run that verl's own command started, without the launcher's checks."""
    config = launch.compose("asymgrpo", CONFIG)
    config.algorithm.asymgrpo.beta_pos = -1
    with pytest.raises(ValueError, match="beta_pos=-1"):
        recipe.trainer.RecipeTrainerSync(config)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([True, False], [True, False]), ([1.0, 0.0], [True, False]), ([1, -1], [True, False])],
)
def test_correctness_by_field(monkeypatch, values, expected):
    batch, config = rows(monkeypatch, values)
    assert recipe.trainer.read_correctness(batch, config).tolist() == expected


def test_a_field_that_the_reward_function_does_not_return(monkeypatch):
    batch, config = rows(monkeypatch, [True, None])
    with pytest.raises(ValueError, match=r"correct_field='acc' is not among what .* 1 of 2"):
        recipe.trainer.read_correctness(batch, config)


def rows(monkeypatch, values):
    """A batch whose TransferQueue rows hold these values; TransferQueue itself is faked here, as
    it needs a Ray cluster (the real one is in tests/e2e)."""
    from transfer_queue import KVBatchMeta

    from recipe.asymgrpo.config import AsymGRPOConfig

    class Column:
        def tolist(self):
            return [{"reward_extra_info": {} if v is None else {"acc": v}} for v in values]

    monkeypatch.setattr(
        recipe.trainer.tq, "kv_batch_get", lambda **kwargs: {"extra_fields": Column()}
    )
    keys = [str(i) for i in range(len(values))]
    batch = KVBatchMeta(partition_id="train", keys=keys, tags=[{} for _ in values])
    return batch, AsymGRPOConfig(correct_field="acc")
