"""What a training run hands to verl, and what it leaves where drawing its curve fails."""

import pytest
import yaml
from omegaconf import OmegaConf

from recipe import plot
from recipe.launch import __main__ as launch
from recipe.launch.compose import compose


@pytest.fixture
def config(tmp_path):
    pytest.importorskip("verl")
    words = ["actor_rollout_ref.model.path=m", "data.train_files=t", "data.val_files=v"]
    return compose("asymgrpo", [*words, "machine=cpu", f"trainer.default_local_dir={tmp_path}"])


@pytest.fixture
def undrawable(monkeypatch):
    def draw(folder):
        raise OSError("no space left")

    monkeypatch.setattr(plot, "draw", draw)


def logs_and(end, tmp_path):
    """A training (a fake, for its ends alone are tested here) that logs a line first."""

    def run_ppo(config, task_runner_class):
        (tmp_path / "metrics/000.jsonl").write_text('{"step": 1, "data": {}}\n')
        end()

    return run_ppo


def test_the_training_s_error_is_the_one_that_is_raised(
    config, undrawable, tmp_path, monkeypatch, capsys
):
    def fail():
        raise ValueError("the loss is not finite")

    monkeypatch.setattr("verl.trainer.main_ppo.run_ppo", logs_and(fail, tmp_path))
    with pytest.raises(ValueError, match="the loss is not finite") as error:
        launch.train(config)
    assert error.value.__context__ is None
    assert "the curve could not be drawn: OSError('no space left')" in capsys.readouterr().err


def test_verl_is_given_absolute_paths_and_the_record_keeps_the_user_s_words(
    config, tmp_path, monkeypatch
):
    """A worker's folder is another one where a cluster runs it."""
    given = []
    monkeypatch.setattr("verl.trainer.main_ppo.run_ppo", lambda config, **_: given.append(config))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("home/t.parquet", "v.parquet", "global_step_5", "reward.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    words = {
        "actor_rollout_ref.model.path": "Qwen/of-a-hub",
        "data.train_files": ["~/t.parquet", "hdfs://there/t.parquet"],
        "data.val_files": "v.parquet",
        "data.custom_cls.path": "pkg://recipe.trainer",
        "reward.custom_reward_function.path": "reward.py",
        "trainer.resume_from_path": "global_step_5",
    }
    for key, value in words.items():
        OmegaConf.update(config, key, value)
    launch.train(config)
    record = yaml.safe_load((tmp_path / "metrics/000.yaml").read_text())["config"]
    assert {key: OmegaConf.select(OmegaConf.create(record), key) for key in words} == words
    absolute = {
        **words,
        "data.train_files": [f"{tmp_path}/home/t.parquet", "hdfs://there/t.parquet"],
        "data.val_files": f"{tmp_path}/v.parquet",
        "reward.custom_reward_function.path": f"{tmp_path}/reward.py",
        "trainer.resume_from_path": f"{tmp_path}/global_step_5",
    }
    assert {key: OmegaConf.select(given[0], key) for key in words} == absolute


def test_a_training_that_ended_well_is_no_failure(config, undrawable, tmp_path, monkeypatch):
    monkeypatch.setattr("verl.trainer.main_ppo.run_ppo", logs_and(lambda: None, tmp_path))
    launch.train(config)
