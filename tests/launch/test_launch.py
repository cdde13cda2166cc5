"""Every wrong setting that a user is likely to make: one sentence, before Ray starts.

These run `recipe.launch.main` in this process with real files; only the folder of a model is made
up, from a real tokenizer and a config, since weights are not looked at before Ray starts.
"""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import ray

pytest.importorskip("verl")

from builders import Method, write_data, write_model, write_scores

from recipe.core.recipe import recipe_named
from recipe.launch import __main__ as launch
from recipe.launch import preflight
from recipe.launch.compose import compose
from recipe.semantic_curriculum.config import PRESETS

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "recipe").glob("*/run_*.sh"))
STARTED = ("asymgrpo/run_qwen7b.sh", "semantic_curriculum/run_cpu.sh")


@pytest.fixture
def valid(tmp_path: Path) -> list[str]:
    """A valid command line on files of its own."""
    write_data(tmp_path)
    write_model(tmp_path / "model")
    return [
        "asymgrpo",
        "machine=cpu",
        f"data.train_files={tmp_path}/train.parquet",
        f"data.val_files={tmp_path}/test.parquet",
        f"actor_rollout_ref.model.path={tmp_path}/model",
        "data.train_batch_size=8",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        "trainer.total_epochs=100",  # of one step each
        f"trainer.default_local_dir={tmp_path}/run",
    ]


def refuse(capsys, arguments: list[str]) -> str:
    """The one sentence that a refused command line prints; fails if it was not refused."""
    assert launch.main([*arguments, "--dry-run"]) == 2
    assert not ray.is_initialized()
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    return error


def test_a_valid_command_line_dry_runs_and_prints_the_resolved_settings(valid, capsys, tmp_path):
    assert launch.main([*valid, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "'preset': 'asymgrpo'" in out
    assert "clip 0.2/0.2" in out
    assert "dry run" in out
    assert not ray.is_initialized()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("algorithm.asymgrpo.preset=asymgrp", "asymgrp does not exist: did you mean asymgrpo"),
        ("algorithm.asymgrpo.beta_pos=-0.5", "algorithm.asymgrpo.beta_pos=-0.5 is not allowed"),
        ("+algorithm.asymgrpo.beta_positive=1", "beta_positive does not exist: did you mean"),
        ("actor_rollout_ref.rollout.n=1", "actor_rollout_ref.rollout.n=1 leaves preset=asymgrpo"),
        ("data.train_files=/nowhere/x.parquet", "/nowhere/x.parquet does not exist: write it with"),
        ("data.train_batch_size=16", "larger than the training data (8 rows)"),
        (
            "trainer.total_training_steps=101",
            "more than the 100 steps of trainer.total_epochs=100 (8 prompts in batches of 8)",
        ),
        ("actor_rollout_ref.model.path=/nowhere", "model.path=/nowhere does not exist: set MODEL"),
        ("trainer.nnodes=2", "trainer.nnodes=2 needs a running Ray cluster"),
        ("trainer.v1.trainer_mode=sync", "trainer.v1.trainer_mode=sync would run without"),
        (
            "+trainer.v1.recipe_sync.poll=1",
            "recipe_sync.poll does not exist: ",
        ),
        (
            "trainer.v1.recipe_sync.poll_interval=0",
            "poll_interval=0 is not allowed: use a number above 0",
        ),
        ("actor_rollout_ref.actor.ppo_mini_batch_size=3", "not a multiple of actor_rollout_ref"),
        ("trainer.n_gpus_per_node=3", "times rollout.n=8 is not a multiple of the 3 ranks"),
        ("no.such.key=1", "no"),
        (
            "trainer.v1.recipe_sync.task_runner=nowhere.Foo",
            "task_runner=nowhere.Foo cannot be imported",
        ),
        ("trainer.v1.recipe_sync.diagnostics=1", "diagnostics=1 is not allowed: use true or false"),
        ("trainer.v1.recipe_sync=5", "trainer.v1.recipe_sync=5 is not allowed: give its settings"),
        ("trainer.n_gpus_per_node=0", "trainer.n_gpus_per_node=0 is not allowed: use a whole"),
        ("actor_rollout_ref.actor.ppo_mini_batch_size=0", "ppo_mini_batch_size=0 is not allowed"),
        ("actor_rollout_ref.rollout.n=null", "rollout.n=None is not allowed"),
        ("algorithm.adv_estimator=grpoo", "adv_estimator=grpoo does not exist: did you mean grpo?"),
        ("actor_rollout_ref.actor.policy_loss.loss_mode=vanila", "did you mean vanilla?"),
        (
            "actor_rollout_ref.actor.policy_loss.token_rule=5",
            "token_rule=5 is not allowed: give its",
        ),
        ("machine=tpu", "machine"),
    ],
)
def test_a_wrong_setting_is_one_sentence_that_names_it(
    valid, capsys, monkeypatch, override, sentence
):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert sentence in refuse(capsys, [*valid, override])


LOSS = "actor_rollout_ref.actor.policy_loss"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ([f"{LOSS}.preset=ids"], f"{LOSS}.preset=ids does not exist: did you mean id?"),
        ([f"{LOSS}.schedule=dido"], f"{LOSS}.schedule=dido does not exist: did you mean did?"),
        (["trainer.total_training_steps=null"], "T is not set: set trainer.total_training_steps"),
        (
            [f"{LOSS}.preset=od", "algorithm.rollout_correction.bypass_mode=true"],
            "schedule=od needs the policy's entropy",
        ),
        ([f"{LOSS}.upper_intercept=-0.1"], "make the upper bound negative for some probability"),
        ([f"{LOSS}.lower_slope=-0.5"], "make the lower bound negative for some probability"),
        (["actor_rollout_ref.actor.clip_ratio_low=-0.2"], "clip_ratio_low=-0.2 is not allowed"),
        (["actor_rollout_ref.actor.ppo_mini_batch_size=8"], "makes one update per rollout"),
        (
            [f"{LOSS}.preset=clip_higher", "actor_rollout_ref.actor.ppo_mini_batch_size=8"],
            "makes one update per rollout",
        ),
        ([f"{LOSS}.phase_split=1"], "phase_split=1 is not allowed: use a number above 0"),
        ([f"{LOSS}.second_phase=both"], "second_phase=both does not exist"),
        ([f"{LOSS}.od_ratio=2"], "od_ratio=2 is not allowed"),
        ([f"+{LOSS}.shedule=id"], f"{LOSS}.shedule does not exist: did you mean schedule?"),
        ([f"{LOSS}.loss_mode=vanilla"], "schedule=id has no effect with loss_mode=vanilla"),
    ],
)
def test_a_wrong_clip_setting_is_one_sentence(valid, capsys, overrides, sentence):
    command = ["clip_entropy", *valid[1:], "trainer.total_training_steps=40", *overrides]
    assert sentence in refuse(capsys, command)


@pytest.fixture
def sent(valid, tmp_path) -> list[str]:
    """A valid command line of the third recipe; every row of the data is the same prompt."""
    write_scores(tmp_path)
    return [
        "semantic_curriculum",
        *valid[1:],
        f"data.curriculum.scores={tmp_path}/scores.parquet",
        "data.train_batch_size=4",
        "actor_rollout_ref.actor.ppo_mini_batch_size=2",
    ]


RULE = f"{LOSS}.token_rule"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ([f"{RULE}.preset=sents"], f"{RULE}.preset=sents does not exist: did you mean sent?"),
        ([f"{RULE}.low_fraction=2"], f"{RULE}.low_fraction=2 is not allowed"),
        ([f"+{RULE}.beta=1"], f"{RULE}.beta does not exist"),
        (["actor_rollout_ref.actor.use_kl_loss=false"], "anchor=ref needs the reference's"),
        (
            [f"{RULE}.preset=sent_paper"],
            f"{RULE}.preset=sent_paper takes thresholds, which are the model's own, and "
            "low_threshold is not given: set it and its like to what `python -m "
            "recipe.semantic_curriculum.calibrate` prints",
        ),
        (
            [f"{RULE}.preset=paper", f"{RULE}.low_threshold=0.5"],
            "and high_cov_threshold is not given",
        ),
        (
            [f"{RULE}.low_fraction=0.8", f"{RULE}.low_threshold=0.5"],
            "low_fraction=0.8 and low_threshold=0.5 say the same thing twice",
        ),
        ([f"{RULE}.scope=micro_batch"], "set actor_rollout_ref.actor.calculate_entropy=true"),
        ([f"{LOSS}.loss_mode=vanilla"], f"{RULE}.preset=sent has no effect with {LOSS}.loss_mode="),
        (
            [f"{RULE}.preset=curriculum", f"{RULE}.coef=0.1"],
            f"{RULE}.coef=0.1 has no effect with {LOSS}.loss_mode=dynamic_clip, which has no token "
            f"rule: set {LOSS}.loss_mode=sent, or leave it at null",
        ),
        (
            ["actor_rollout_ref.actor.shuffle=true", "actor_rollout_ref.actor.ppo_epochs=2"],
            "chooses tokens once for each mini-batch",
        ),
        (
            ["algorithm.rollout_correction.bypass_mode=true"],
            "mini_batch needs the policy's entropy",
        ),
        (
            [f"{RULE}.preset=kl_cov", "actor_rollout_ref.actor.ppo_mini_batch_size=4"],
            "anchor=old with one update per rollout",
        ),
        (
            [
                f"{RULE}.preset=high_entropy_mask",
                "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean",
            ],
            "set actor_rollout_ref.actor.loss_agg_mode=token-mean",
        ),
        (["data.curriculum.order=entropy"], "data.curriculum.order=entropy does not exist"),
        (["data.curriculum.scores=null"], "needs a score for each prompt"),
        (["data.curriculum.scores=/nowhere.parquet"], "/nowhere.parquet is no file"),
        (["data.curriculum.stages=9"], "stage 9 of 9 has no prompt"),
        (["data.curriculum.thresholds=5"], "thresholds=5 is not allowed: use a list of numbers"),
        (["data.curriculum=null"], "data.curriculum=None is not allowed: give its settings"),
        (["data.train_batch_size=16"], "larger than the training data (8 rows)"),
        (["+data.curriculum.stage=1"], "data.curriculum.stage does not exist: did you mean stages"),
        (["trainer.total_training_steps=99"], "more than the 10 steps of the curriculum"),
        (
            ["algorithm.filter_groups.enable=true", "actor_rollout_ref.rollout.n=1"],
            "algorithm.filter_groups.enable=true has no effect with actor_rollout_ref.rollout.n=1",
        ),
        (
            [
                f"algorithm.filter_groups.{pair}"
                for pair in ("enable=true", "max_num_gen_batches=2")
            ],
            "algorithm.filter_groups.max_num_gen_batches=2 has no effect",
        ),
    ],
)
def test_a_wrong_curriculum_or_token_rule_is_one_sentence(sent, capsys, overrides, sentence):
    assert sentence in refuse(capsys, [*sent, *overrides])


@pytest.mark.parametrize(
    ("recipe", "settings", "sentence"),
    [
        ("asymgrpo", ["algorithm.asymgrpo.preset=grpo_entropy_adv"], "needs the policy's entropy"),
        (
            "clip_entropy",
            [f"{LOSS}.preset=grpo", f"{LOSS}.exact_contribution_freq=2"],
            "exact_contribution_freq=2 needs the policy's entropy",
        ),
    ],
)
def test_what_needs_an_entropy_is_refused_where_verl_computes_none(
    valid, capsys, recipe, settings, sentence
):
    bypass = "algorithm.rollout_correction.bypass_mode=true"
    assert sentence in refuse(capsys, [recipe, *valid[1:], *settings, bypass])


def test_a_loss_that_reads_the_step_is_refused_with_distillation(valid, capsys):
    """It takes the place of verl's loss function, whichever recipe it is of."""
    command = ["example", *valid[1:], "distillation.enabled=true"]
    assert "takes the place of verl's distillation loss" in refuse(capsys, command)


def test_training_data_without_scores_is_refused(sent, capsys, tmp_path):
    frame = pd.read_parquet(tmp_path / "train.parquet")
    frame.at[3, "prompt"] = [{"role": "user", "content": "2+2"}]
    frame.to_parquet(tmp_path / "train.parquet")
    assert "has no score for 1 of the 8 training prompts" in refuse(capsys, sent)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_sent_preset_is_valid(sent, preset):
    method = Method(recipe_named("semantic_curriculum"), preset)
    config = compose(sent[0], [*sent[1:], *method.overrides()])
    preflight.check(config)
    assert config.data.curriculum.order == PRESETS[preset].order
    assert config.actor_rollout_ref.actor.policy_loss.loss_mode == PRESETS[preset].loss_mode


def test_the_three_recipes_combine_from_any_of_them(sent, capsys):
    mixed = ["algorithm.adv_estimator=asymgrpo", f"{LOSS}.schedule=od"]
    grpos = "computes GRPO's advantages, by algorithm.asymgrpo.preset=grpo: set algorithm.asymgrpo."
    steps = "trainer.total_training_steps=10"
    assert grpos in refuse(capsys, [*sent, steps, *mixed])
    mixed += ["algorithm.asymgrpo.preset=asymgrpo"]
    assert launch.main([*sent, steps, *mixed, "--dry-run"]) == 0
    rule = [f"{LOSS}.loss_mode=sent", f"{RULE}.preset=as_described", *mixed]
    rule += ["actor_rollout_ref.actor.use_kl_loss=true", "actor_rollout_ref.actor.kl_loss_coef=0"]
    rule += ["data.curriculum.order=semantic_entropy", "data.curriculum.epochs_per_stage=5"]
    for recipe in ("asymgrpo", "clip_entropy"):
        assert launch.main([recipe, *sent[1:], steps, *rule, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.count("estimator  asymgrpo") == 3
    assert out.count("'schedule': 'od'") == 3
    assert out.count("'preset': 'as_described'") == 2


def test_plain_grpo_may_make_one_update_per_rollout(valid):
    grpo = [f"{LOSS}.preset=grpo", "actor_rollout_ref.actor.ppo_mini_batch_size=8"]
    assert launch.main(["clip_entropy", *valid[1:], *grpo, "--dry-run"]) == 0


@pytest.mark.parametrize(
    "command",
    [
        ["clip_entropy", "algorithm.adv_estimator=asymgrpo", f"{LOSS}.preset=od"],
        ["asymgrpo", f"{LOSS}.loss_mode=dynamic_clip", f"{LOSS}.schedule=od"],
    ],
)
def test_estimator_and_schedule_combine_from_either_recipe(valid, capsys, command):
    name, *overrides = command
    steps = "trainer.total_training_steps=40"
    assert launch.main([name, *valid[1:], steps, *overrides, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "asymgrpo {'preset': 'asymgrpo'" in out
    assert "dynamic_clip {" in out
    assert "'schedule': 'od'" in out


@pytest.mark.parametrize("preset", ["grpo", "clip_higher", "clip_cov", "sapo", "gspo", "did"])
def test_every_clip_preset_is_valid(valid, preset):
    steps = "trainer.total_training_steps=40"
    command = ["clip_entropy", *valid[1:], steps, f"{LOSS}.preset={preset}"]
    assert launch.main([*command, "--dry-run"]) == 0


def test_what_a_clip_preset_sets_reaches_verl(valid):
    config = compose("clip_entropy", [*valid[1:], f"{LOSS}.preset=gspo"])
    actor = config.actor_rollout_ref.actor
    assert actor.policy_loss.loss_mode == "gspo"
    assert (actor.clip_ratio_low, actor.clip_ratio_high) == (3e-4, 4e-4)
    assert actor.loss_agg_mode == "seq-mean-token-mean"


def test_the_user_s_own_ray_environment_is_kept(valid, monkeypatch):
    from verl.trainer import main_ppo

    seen = {}
    monkeypatch.setattr(main_ppo, "run_ppo", lambda config, **_: seen.update(config=config))
    variable = "+ray_kwargs.ray_init.runtime_env.env_vars.NCCL_DEBUG=INFO"
    assert launch.main([*valid, variable]) == 0
    variables = seen["config"].ray_kwargs.ray_init.runtime_env.env_vars
    assert variables.NCCL_DEBUG == "INFO"
    assert "VERL_FILE_LOGGER_PATH" in variables


def test_a_cluster_s_resources_are_not_set_by_a_run(valid, monkeypatch):
    """Ray refuses them where it joins a cluster."""
    from verl.trainer import main_ppo

    from recipe.launch import nodes

    seen = {}
    monkeypatch.setattr(main_ppo, "run_ppo", lambda config, **_: seen.update(config=config))
    monkeypatch.setattr(nodes, "check", lambda config: None)  # would join it
    resources = ["ray_kwargs.ray_init.num_cpus=16", "++ray_kwargs.ray_init.num_gpus=2"]
    for address, left in ((None, [16, 2]), ("10.0.0.1:6379", [None, None])):
        if address:
            monkeypatch.setenv("RAY_ADDRESS", address)
        assert launch.main([*valid, *resources]) == 0
        ray_init = seen["config"].ray_kwargs.ray_init
        assert [ray_init.num_cpus, ray_init.num_gpus] == left


def test_a_folder_that_cannot_be_written_is_one_sentence(valid, tmp_path, capsys):
    (tmp_path / "file").touch()
    folder = f"trainer.default_local_dir={tmp_path}/file/run"
    assert launch.main([*valid, folder]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"error: {folder} ") and f"as {tmp_path}/file is no folder" in error
    assert not ray.is_initialized()


def test_an_unknown_recipe(capsys):
    assert "recipe 'asymgrop' does not exist" in refuse(capsys, ["asymgrop"])


def test_a_model_folder_without_a_tokenizer(valid, capsys, tmp_path):
    for file in (tmp_path / "model").glob("*"):
        if file.name != "config.json":
            file.unlink()
    assert "has no tokenizer" in refuse(capsys, valid)


def test_a_vocabulary_larger_than_the_tokenizer(valid, capsys, tmp_path):
    write_model(tmp_path / "padded", extra_vocabulary=7)
    path = f"actor_rollout_ref.model.path={tmp_path}/padded"
    assert "more than the" in refuse(capsys, [*valid, path])
    allowed = "trainer.v1.recipe_sync.allow_padded_vocab=true"
    assert launch.main([*valid, path, allowed, "--dry-run"]) == 0


def test_a_vocabulary_smaller_than_the_tokenizer(valid, capsys, tmp_path):
    write_model(tmp_path / "small", extra_vocabulary=-1)
    path = f"actor_rollout_ref.model.path={tmp_path}/small"
    assert "less than the" in refuse(capsys, [*valid, path])


def test_a_parquet_without_ground_truth(valid, capsys, tmp_path):
    frame = pd.read_parquet(tmp_path / "train.parquet").drop(columns="reward_model")
    frame.to_parquet(tmp_path / "train.parquet")
    assert "lacks the column reward_model" in refuse(capsys, valid)


def test_a_missing_registration_is_told_apart_from_a_mistake(valid, capsys, monkeypatch):
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

    monkeypatch.delitem(TRAINER_REGISTRY, "recipe_sync")
    error = refuse(capsys, valid)
    assert "not registered with verl (trainer recipe_sync)" in error
    assert "setup.sh" in error


def test_what_a_preset_sets_reaches_verl_and_an_override_wins(valid):
    config = compose("asymgrpo", [*valid[1:], "algorithm.asymgrpo.preset=grpo_clip_higher"])
    assert config.actor_rollout_ref.actor.clip_ratio_high == 0.28
    assert config.algorithm.adv_estimator == "asymgrpo"
    config = compose(
        "asymgrpo",
        [
            *valid[1:],
            "algorithm.asymgrpo.preset=dr_grpo",
            "actor_rollout_ref.actor.clip_ratio_high=0.3",
        ],
    )
    assert config.algorithm.adv_estimator == "grpo"
    assert config.algorithm.norm_adv_by_std_in_grpo is False
    assert config.actor_rollout_ref.actor.clip_ratio_high == 0.3


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_run_script_dry_runs_on_a_machine_without_a_gpu(script, tmp_path, capfd):
    """Environment variables, bash, Hydra, verl's own checks. The command that a script would start
    is called in this process, but for STARTED, of which it starts it."""
    write_data(tmp_path, rows=2100)  # of the scripts' batches enough for their steps
    write_model(tmp_path / "model")
    write_scores(tmp_path)
    command_file = tmp_path / "command"
    environment = {
        "PYTHON": sys.executable,
        "MODEL_PATH": f"{tmp_path}/model",
        "TRAIN_FILE": f"{tmp_path}/train.parquet",
        "TEST_FILE": f"{tmp_path}/test.parquet",
        "SCORES": f"{tmp_path}/scores.parquet",
        "CKPTS_DIR": f"{tmp_path}/run",
    }
    started = f"{script.parent.name}/{script.name}" in STARTED
    if not started:
        environment["COMMAND_FILE"] = str(command_file)
    command = ["bash", str(script), "--dry-run"]
    code = subprocess.run(command, env={**os.environ, **environment}, timeout=300).returncode
    if not started:
        words = command_file.read_bytes().decode().rstrip("\0").split("\0")
        assert code == 0 and words[-1] == "--dry-run"
        code = launch.main(words[words.index("recipe.launch") + 1 :])
    printed = capfd.readouterr()
    assert code == 0, printed.err[-2000:]
    assert "dry run: the config is valid" in printed.out
    assert not (tmp_path / "run").exists()
