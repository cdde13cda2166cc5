"""A run that would resume is the run that wrote the checkpoint: one sentence before Ray starts."""

import os
import re
import zipfile
from pathlib import Path

import pytest
import yaml

pytest.importorskip("verl")

from builders import run_overrides
from omegaconf import DictConfig, OmegaConf, open_dict

from recipe.core import config as run_config
from recipe.core import states
from recipe.experiment import provenance
from recipe.experiment.run import RunFolder
from recipe.launch import check_resume
from recipe.launch.compose import compose
from recipe.trainer import make_parts

LOSS = "actor_rollout_ref.actor.policy_loss"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def composed(files) -> DictConfig:
    """A run of clip_entropy, preset id: a schedule with a state."""
    return compose("clip_entropy", run_overrides(files))


@pytest.fixture
def config_of(composed, tmp_path):
    """config_of("key=value", ...): the run in this test's folder, with other values."""

    def config(*changes: str) -> DictConfig:
        changed = composed.copy()
        changed.trainer.default_local_dir = str(tmp_path / "run")
        for change in changes:
            key, _, value = change.partition("=")
            OmegaConf.update(changed, key, yaml.safe_load(value))
        return changed

    return config


@pytest.fixture
def run(tmp_path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def start(run: RunFolder, config) -> None:
    """What a start leaves of its settings."""
    record = provenance.record(OmegaConf.to_container(config, resolve=True))
    provenance.write_yaml(run.next_metrics_file().with_suffix(".yaml"), record)
    run.next_metrics_file().write_text('{"step": 1, "data": {"a": 1.0}}\n')


def save(run: RunFolder, config, step: int = 2) -> Path:
    """What a checkpoint leaves, but for the weights."""
    folder = run.path / f"global_step_{step}"
    (folder / "actor").mkdir(parents=True)
    (folder / "actor/model_world_size_1_rank_0.pt").touch()
    parts = make_parts(config, run_config.trainer_settings(config))
    states.save_states(parts, folder / states.STATE_FILE)
    with zipfile.ZipFile(folder / "data.pt", "w") as file:
        file.writestr("data.pkl", b"x")
    run.marker.write_text(str(step))
    return folder


@pytest.fixture
def trained(run, config_of) -> RunFolder:
    """A run whose checkpoint of step 2 is there."""
    start(run, config_of())
    save(run, config_of())
    return run


def test_a_folder_without_a_checkpoint_is_nothing_to_resume(run, config_of):
    check_resume.resume(config_of())
    start(run, config_of())
    check_resume.resume(config_of("actor_rollout_ref.actor.optim.lr=1e-3"))  # begins at step 1


CHANGED = {
    "data.train_batch_size": (8, 4),
    "actor_rollout_ref.rollout.n": (4, 8),
    "data.seed": (7, None),
    "actor_rollout_ref.actor.optim.lr": (0.125, 1e-6),
    "actor_rollout_ref.actor.ppo_mini_batch_size": (4, 2),
    "actor_rollout_ref.rollout.temperature": (0.5, 1.0),
    "trainer.n_gpus_per_node": (2, 1),
    f"{LOSS}.phase_split": (0.3, 0.5),
    "actor_rollout_ref.actor.entropy_coeff": (0.5, 0.0),
}


@pytest.mark.parametrize("key", CHANGED)
def test_another_setting_is_refused_with_both_values_and_the_cure(trained, config_of, key):
    new, old = CHANGED[key]
    with pytest.raises(ValueError) as raised:
        check_resume.resume(config_of(f"{key}={new}"))
    # other ranks cannot load these shards, and no schedule the state of another one
    if key in ("trainer.n_gpus_per_node", f"{LOSS}.phase_split"):
        assert str(raised.value) == (
            f"{key} is {new}, but {trained.path} holds step 2 of a run with {old}: set it back, or "
            "start anew in another folder (trainer.default_local_dir, CKPTS_DIR of a run script)."
        )
        return
    assert str(raised.value) == (
        f"{key} is {new}, but {trained.path} holds step 2 of a run with {old}: set it back, start "
        "anew in another folder (trainer.default_local_dir, CKPTS_DIR of a run script), or let a "
        "new run there continue from this one's weights (trainer.resume_mode=resume_path "
        f"trainer.resume_from_path={trained.path}/global_step_2)."
    )


def test_a_preset_s_name_is_no_setting_where_its_values_are(run, config_of):
    """A run from before `constant` and `uniform` were renamed resumes; AsymGRPO's estimator reads
    its betas by the preset's name."""
    former = config_of()
    former.algorithm.entropy_control.preset = "constant"
    former.data.prompt_sampling.preset = "uniform"
    start(run, former)
    save(run, config_of())
    check_resume.resume(config_of())
    former.algorithm.asymgrpo.preset = "asymgrpo"  # of the time before null stood for it
    start(run, former)
    check_resume.resume(config_of())
    with pytest.raises(ValueError, match=r"algorithm\.asymgrpo\.preset is symmetric, but"):
        check_resume.resume(config_of("algorithm.asymgrpo.preset=symmetric"))


def test_a_key_that_verl_does_not_read_is_no_setting(run, config_of):
    """A run from before it was refused resumes."""
    former = config_of()
    former.actor_rollout_ref.actor.grad_clip = 0.5
    start(run, former)
    save(run, config_of())
    check_resume.resume(config_of())


def test_a_value_with_copies_in_verl_s_config_goes_by_the_name_that_a_user_sets(composed):
    for copy, key in check_resume.COPIES.items():
        assert OmegaConf.select(composed, copy) == OmegaConf.select(composed, key)


def test_another_model_or_other_data_are_refused_by_their_content(trained, config_of, files):
    for key, file in (
        (r"actor_rollout_ref\.model\.path", files / "model/config.json"),
        (r"data\.train_files\[0\]", files / "train.parquet"),
    ):
        before = file.read_bytes()
        file.write_bytes(before + b" ")
        with pytest.raises(ValueError, match=rf"^{key} is \w+, but .* holds step 2 of a run with"):
            check_resume.resume(config_of())
        file.write_bytes(before)
    check_resume.resume(config_of())


def test_another_content_of_the_reward_function_is_refused(run, config_of, tmp_path):
    """Half of the steps would be rewarded by one function and half by another. A record of an
    older version says nothing of it; a module of a package is of the packages and the commit."""
    file = tmp_path / "reward.py"
    file.write_text("def compute_score(**_):\n    return 1\n")
    config = config_of(f"reward.custom_reward_function.path={file}")
    start(run, config)
    save(run, config)
    check_resume.resume(config)
    file.write_text("def compute_score(**_):\n    return 0\n")
    named = r"^content of reward\.custom_reward_function\.path is \w+, but .* holds step 2 of a run"
    with pytest.raises(ValueError, match=named):
        check_resume.resume(config)
    record = run.next_metrics_file().with_name("000.yaml")
    values = yaml.safe_load(record.read_text())
    values["files"] = {k: v for k, v in values["files"].items() if "reward" not in k}
    record.write_text(yaml.safe_dump(values))
    check_resume.resume(config)


def test_scores_that_a_run_does_not_read_are_not_compared(run, config_of, tmp_path):
    """A baseline may start with the path that all presets are given before they are there."""
    scores = tmp_path / "scores.parquet"
    config = config_of(f"data.curriculum.scores={scores}")
    start(run, config)
    save(run, config)
    scores.write_bytes(b"measured since")
    check_resume.resume(config)


def test_the_same_settings_and_what_a_resume_may_change_pass(trained, config_of):
    check_resume.resume(config_of())
    check_resume.resume(
        config_of(
            *("trainer.save_freq=5", "trainer.test_freq=7", "trainer.logger=[console]"),
            "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=4096",
            "actor_rollout_ref.rollout.gpu_memory_utilization=0.3",
            "actor_rollout_ref.actor.fsdp_config.param_offload=true",
            f"{LOSS}.exact_contribution_freq=9",
        )
    )


def test_a_setting_that_is_gone_since_does_not_end_a_run(run, config_of):
    old = config_of()
    with open_dict(old):
        old.data.curriculum.update({"optimizer": "keep", "reference": "keep"})
    start(run, old)
    save(run, config_of())
    check_resume.resume(config_of())


def test_a_longer_run_may_resume_unless_a_schedule_or_the_learning_rate_moves_with_it(
    run, config_of, trained
):
    longer = "trainer.total_training_steps=20"
    with pytest.raises(ValueError, match=rf"^{LOSS}.total_steps is 20, but .* written with 10"):
        check_resume.resume(config_of(longer))  # T of the schedule
    check_resume.resume(config_of(longer, f"{LOSS}.total_steps=10"))


@pytest.mark.parametrize(
    ("schedule", "refused"),
    [
        ([], False),
        (["actor_rollout_ref.actor.optim.lr_scheduler_type=cosine"], True),
        (["actor_rollout_ref.actor.optim.lr_warmup_steps_ratio=0.1"], True),
    ],
)
def test_the_length_of_a_run_may_change_where_no_learning_rate_follows_it(
    run, config_of, schedule, refused
):
    static = [*schedule, f"{LOSS}.schedule=static"]
    start(run, config_of(*static))
    save(run, config_of(*static))
    longer = config_of(*static, "trainer.total_training_steps=20")
    if not refused:
        check_resume.resume(longer)
        return
    with pytest.raises(ValueError, match=r"^trainer.total_training_steps is 20, but .* with 10"):
        check_resume.resume(longer)


def test_the_way_on_under_other_settings_is_a_folder_of_its_own(trained, config_of, tmp_path):
    lr, new = "actor_rollout_ref.actor.optim.lr=0.125", f"trainer.default_local_dir={tmp_path}/new"
    check_resume.resume(config_of(lr, new))
    path = f"trainer.resume_from_path={trained.path}/global_step_2"
    check_resume.resume(config_of(lr, new, "trainer.resume_mode=resume_path", path))
    with pytest.raises(ValueError, match=r"phase_split is 0.3, but .*resume_mode=disable"):
        check_resume.resume(
            config_of(f"{LOSS}.phase_split=0.3", new, "trainer.resume_mode=resume_path", path)
        )


def test_a_checkpoint_without_the_state_of_a_part_is_refused_before_ray(config_of, tmp_path):
    """As one of verl's own command, with verl's own loss."""
    other = save(RunFolder(tmp_path / "other"), config_of(f"{LOSS}.loss_mode=vanilla"))
    way = ("trainer.resume_mode=resume_path", f"trainer.resume_from_path={other}")
    new = f"trainer.default_local_dir={tmp_path}/new"
    check_resume.resume(config_of(*way, new, f"{LOSS}.loss_mode=vanilla"))
    with pytest.raises(ValueError, match=r"recipe_state\.json holds no state of clip_schedule"):
        check_resume.resume(config_of(*way, new))


@pytest.mark.parametrize("mode", ["disable", "resume_path"])
def test_a_start_that_is_not_from_the_folder_s_checkpoint_is_refused(
    trained, run, config_of, tmp_path, mode
):
    """One that died before its first checkpoint would leave the other run's to be resumed under
    its settings."""
    other = save(RunFolder(tmp_path / "other"), config_of())
    path = f"trainer.resume_from_path={other}"
    with pytest.raises(ValueError, match="holds the checkpoint of step 2: give another folder"):
        check_resume.resume(config_of(f"trainer.resume_mode={mode}", path))
    check_resume.resume(
        config_of(f"trainer.resume_mode={mode}", path, f"trainer.default_local_dir={tmp_path}/new")
    )


def test_a_run_that_goes_back_to_its_own_earlier_step_is_the_same_run(trained, config_of):
    path = f"trainer.resume_from_path={trained.path}/global_step_2"
    back = ("trainer.resume_mode=resume_path", path)
    check_resume.resume(config_of(*back))
    with pytest.raises(ValueError, match=r"optim.lr is 0.125, but .* holds step 2 of a run with"):
        check_resume.resume(config_of("actor_rollout_ref.actor.optim.lr=0.125", *back))


def test_shards_of_another_number_of_ranks_are_refused(trained, config_of, tmp_path):
    with pytest.raises(ValueError, match=r"nnodes=1 .* make 2 ranks, .* is in shards of 1: use as"):
        check_resume.resume(
            config_of(
                "trainer.n_gpus_per_node=2",
                f"trainer.default_local_dir={tmp_path}/new",
                "trainer.resume_mode=resume_path",
                f"trainer.resume_from_path={trained.path}/global_step_2",
            )
        )


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            # verl reads int("3/")
            ["trainer.resume_mode=resume_path", "trainer.resume_from_path=/nowhere/global_step_3/"],
            "resume_from_path=/nowhere/global_step_3/ is not allowed",
        ),
        (
            ["trainer.resume_mode=atuo"],
            "trainer.resume_mode=atuo does not exist: did you mean auto",
        ),
        (["trainer.resume_mode=resume_path"], "resume_from_path=None is not allowed"),
        (
            ["trainer.resume_mode=resume_path", "trainer.resume_from_path=/nowhere/global_step_3"],
            "resume_from_path=/nowhere/global_step_3 is no checkpoint",
        ),
        (
            ["trainer.resume_mode=resume_path", "trainer.resume_from_path=/nowhere/step3"],
            "resume_from_path=/nowhere/step3 is not allowed",
        ),
    ],
)
def test_how_to_resume_is_checked_too(config_of, settings, sentence):
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(sentence)):
        check_resume.resume(config_of(*settings))


@pytest.mark.parametrize(
    ("folder", "sentence"),
    [
        ("", "default_local_dir= (CKPTS_DIR of a run script) is not allowed: name the folder"),
        (" ", "is not allowed: name the folder"),
        (
            None,
            "default_local_dir=None (CKPTS_DIR of a run script) is not allowed: name the folder",
        ),
        ("file", "as {tmp_path}/file is no folder"),
        ("file/below/run", "as {tmp_path}/file is no folder"),
        ("dangling/run", "as {tmp_path}/dangling is no folder"),
        ("locked", "as {tmp_path}/locked cannot be written"),
        ("locked/run", "as {tmp_path}/locked cannot be written"),
    ],
)
def test_a_folder_that_cannot_be_written_is_refused(
    config_of, tmp_path, monkeypatch, folder, sentence
):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "locked").mkdir()
    config = config_of()
    config.trainer.default_local_dir = (
        f"{tmp_path}/{folder}" if folder and folder.strip() else folder
    )

    def access(path, mode, access=os.access):  # of a user who is not root
        return Path(path).name != "locked" and access(path, mode)

    monkeypatch.setattr(os, "access", access)
    with pytest.raises(ValueError, match=re.escape(sentence.format(tmp_path=tmp_path))):
        check_resume.writable_folder(config)


def test_a_new_folder_is_not_made_by_its_check(config_of, tmp_path):
    check_resume.writable_folder(config_of())
    assert not (tmp_path / "run").exists()


def test_an_empty_marker_is_said_and_a_dry_run_repairs_nothing(trained, config_of, capsys):
    trained.marker.write_text("")
    check_resume.resume(config_of())
    assert "the run will resume after step 2, the last whole one" in capsys.readouterr().out
    assert trained.marker.read_text() == ""
    with pytest.raises(ValueError, match=r"^data.train_batch_size is 8, but"):
        check_resume.resume(config_of("data.train_batch_size=8"))


def test_a_marker_whose_checkpoint_is_gone_and_no_other_is_refused(trained, config_of):
    trained.marker.write_text("30")
    (trained.path / "global_step_2/data.pt").unlink()
    with pytest.raises(
        ValueError, match="names the checkpoint of step 30, which is not there, and"
    ):
        check_resume.resume(config_of())


def test_a_start_repairs_the_marker_before_verl_reads_it(trained, config_of, monkeypatch):
    from verl.trainer import main_ppo

    from recipe.launch import __main__ as launch

    seen = []
    monkeypatch.setattr(
        main_ppo, "run_ppo", lambda *_, **__: seen.append(trained.marker.read_text())
    )
    trained.marker.write_text("")
    launch.train(config_of("trainer.resume_mode=disable"))
    trained.marker.write_text("")
    launch.train(config_of())
    assert seen == ["", "2"]


def test_another_version_of_a_package_is_said(trained, config_of, capsys):
    file = trained.path / "metrics/000.yaml"
    record = yaml.safe_load(file.read_text())
    record["packages"]["torch"] = "1.0"
    file.write_text(yaml.safe_dump(record))
    check_resume.resume(config_of())
    assert "was written with torch 1.0: the run resumes" in capsys.readouterr().out


def test_a_run_of_verl_s_own_command_has_no_record(trained, config_of, capsys):
    for file in (trained.path / "metrics").iterdir():
        file.unlink()
    check_resume.resume(config_of("data.train_batch_size=8"))
    assert "has no record of its run" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"phase_split is 0\.3"):  # the parts' own are there
        check_resume.resume(config_of(f"{LOSS}.phase_split=0.3"))


def test_every_key_that_may_differ_exists(config_of):
    """A key that verl has renamed would allow nothing."""
    config = provenance.flatten(OmegaConf.to_container(config_of(), resolve=True))
    for key in (*check_resume.MAY_DIFFER, *check_resume.LENGTHS):
        assert any(provenance.is_below(name, [key]) for name in config), key
    last_words = {key.rpartition(".")[2] for key in config}
    assert last_words >= check_resume.LAYOUT
