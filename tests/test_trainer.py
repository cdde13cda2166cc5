"""The registered trainer is verl's synchronous one with the additions, whatever its name."""

import pytest

pytest.importorskip("verl")

import torch
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.trainer.ppo.v1.trainer_base import get_trainer_cls
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

import recipe.trainer
from recipe.launch import __main__ as launch

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


def test_another_estimator_takes_any_reward(monkeypatch):
    """Only the diagnostics by outcome need right or wrong; asymgrpo itself must refuse."""
    shaped = torch.nested.as_nested_tensor([torch.tensor([0.3]), torch.tensor([1.0])])
    monkeypatch.setattr(recipe.trainer.tq, "kv_batch_get", lambda **kwargs: {"rm_scores": shaped})
    batch = KVBatchMeta(partition_id="train", keys=["0", "1"], tags=[{}, {}])
    assert trainer("algorithm.asymgrpo.preset=dr_grpo")._read_correctness(batch) is None
    with pytest.raises(ValueError, match="neither right"):
        trainer()._read_correctness(batch)


def test_state_is_written_whole_and_read_back(tmp_path, monkeypatch):
    """Beside verl's own checkpoint, which is left out here (the real one is in tests/e2e)."""
    monkeypatch.setattr(PPOTrainerSync, "_save_checkpoint", lambda self: None)

    def load(self):
        self.global_steps = 4

    monkeypatch.setattr(PPOTrainerSync, "_load_checkpoint", load)
    settings = [
        f"trainer.default_local_dir={tmp_path}",
        "trainer.total_training_steps=40",
        "actor_rollout_ref.actor.policy_loss.loss_mode=dynamic_clip",
        "actor_rollout_ref.actor.policy_loss.schedule=od",
    ]
    first = trainer(*settings)
    first.clip_schedule.advance(0, 0.5)
    first.clip_schedule.advance(1, 0.05)
    first.global_steps = 4
    first._save_checkpoint()
    assert [p.name for p in (tmp_path / "global_step_4").iterdir()] == ["recipe_state.json"]
    second = trainer(*settings)
    second._load_checkpoint()
    assert second.clip_schedule.raising
    assert second.clip_schedule.state_dict() == first.clip_schedule.state_dict()
    (tmp_path / "global_step_4/recipe_state.json").unlink()
    with pytest.raises(ValueError, match="holds no state of clip_schedule"):
        trainer(*settings)._load_checkpoint()
