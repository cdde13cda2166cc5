"""What a training run leaves where drawing its curve fails."""

import pytest

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


def test_a_training_that_ended_well_is_no_failure(config, undrawable, tmp_path, monkeypatch):
    monkeypatch.setattr("verl.trainer.main_ppo.run_ppo", logs_and(lambda: None, tmp_path))
    launch.train(config)
