"""The comparisons for GPUs, prepared and checked with local stand-ins for what a hub has.

The stand-in of a model has the real one's config.json, with a tokenizer of our own and no weights.
"""

import contextlib
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from builders import write_data, write_model, write_scores
from omegaconf import OmegaConf
from scripts import load_script

from recipe.compare import __main__ as compare
from recipe.compare import checks, plan
from recipe.core import config as run_config
from recipe.evaluate import __main__ as evaluate
from recipe.experiment.matrix import read_matrix
from recipe.experiment.provenance import config_identity, differences, is_below
from recipe.launch import memory

pytest.importorskip("verl")
ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ("gsm8k", "math500", "aime24", "aime25", "amc23", "minerva_math", "olympiadbench")
QWEN = {"model_type": "qwen2", "max_position_embeddings": 4096, "vocab_size": 152064}


class Study(NamedTuple):
    name: str
    rows: int  # of the training data, at least
    model: dict  # the real model's config
    arms: int

    @property
    def file(self) -> Path:
        return ROOT / "studies" / f"{self.name}.yaml"


STUDIES = (
    Study(
        "cluster_qwen7b",
        16_300,
        QWEN
        | {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28}
        | {"num_attention_heads": 28, "num_key_value_heads": 4},
        18,
    ),
    Study(
        "cluster_qwen1_5b",
        7_500,
        QWEN
        | {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28}
        | {"num_attention_heads": 12, "num_key_value_heads": 2, "tie_word_embeddings": True}
        | {"vocab_size": 151936},
        13,
    ),
)


def stand_ins(study: Study, folder: Path) -> dict[str, str]:
    """Writes all files that a study reads; returns the environment that names them."""
    write_model(folder / "model")
    config = json.loads((folder / "model/config.json").read_text())
    (folder / "model/config.json").write_text(json.dumps(config | study.model))
    write_scores(folder)
    data = folder / "data"
    for name in ("dapo_math", "hendrycks_math", "benchmarks"):
        (data / name).mkdir(parents=True)
    write_data(data / "benchmarks")
    for name in BENCHMARKS:
        shutil.copy(data / "benchmarks/test.parquet", data / f"benchmarks/{name}.parquet")
    for name in ("dapo_math", "hendrycks_math"):
        write_data(data / name, rows=study.rows)
    return {
        "DATA": str(data),
        "MODEL_PATH": str(folder / "model"),
        "SCORES": str(folder / "scores.parquet"),
    }


@pytest.fixture(scope="module", params=STUDIES, ids=lambda study: study.name)
def planned(request, tmp_path_factory):
    """(study, the plan of its first seed, exit code and output of its dry run)."""
    study, folder = request.param, tmp_path_factory.mktemp(request.param.name)
    plans, printed = [], io.StringIO()

    def make_plan(*args, **settings):
        plans.append(plan.make_plan(*args, **settings))
        return plans[0]

    with pytest.MonkeyPatch.context() as patch:
        for name, value in stand_ins(study, folder).items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setattr(compare, "make_plan", make_plan)
        with contextlib.redirect_stdout(printed):
            command = [str(study.file), "--out", str(folder / "out"), "--seeds", "0", "--dry-run"]
            code = compare.main(command)
        plans.append(plan.make_plan(plans[0].matrix, [plans[0].matrix.baseline]))
    assert not (folder / "out").exists()
    return study, *plans, code, printed.getvalue()


def test_the_dry_run_accepts_it(planned):
    """Every arm passes preflight, the comparison is fair, the benchmarks can be read."""
    study, made, _, code, printed = planned
    assert code == 0
    steps = made.matrix.environment["STEPS"]
    assert printed.count(f"0 of {steps} steps") == study.arms == len(made.matrix.arms)
    assert {run.steps for run in made.runs} == {int(steps)}


def test_the_three_recipes_their_halves_and_baselines_are_there(planned):
    arms = {(arm.recipe, arm.preset) for arm in planned[1].matrix.arms}
    assert arms >= {
        *(("asymgrpo", preset) for preset in ("asymgrpo", "pos_only", "neg_only")),
        *(("clip_entropy", preset) for preset in ("id", "did", "od", "clip_higher")),
        *(("semantic_curriculum", preset) for preset in ("sent", "curriculum", "as_described")),
        *(("semantic_curriculum", preset) for preset in ("grpo", "kl_cov", "entropy_bonus")),
    }


def test_arms_differ_in_nothing_but_the_method(planned):
    made = planned[1]
    first = config_identity(made.baselines[0].record)
    for run in made.runs:
        keys = differences(first, config_identity(run.record))
        outside = {key for key in keys if not is_below(key, checks.method_keys())}
        ordered = run.arm.preset in ("sent", "curriculum")
        assert outside == ({"data.curriculum.stages"} if ordered else set()), run.name


def test_seeds_differ_in_the_seeds_and_in_nothing_else(planned):
    first, *others = [config_identity(run.record) for run in planned[2].runs]
    assert len(others) == 2
    for other in others:
        assert set(differences(first, other)) == {
            "data.seed",
            "data.curriculum.seed",
            "actor_rollout_ref.actor.data_loader_seed",
            "actor_rollout_ref.rollout.seed",
        }


def test_the_sizes_fit_the_model_and_the_data(planned):
    study, made = planned[:2]
    config = OmegaConf.create(made.runs[0].record["config"])
    rollout, data = config.actor_rollout_ref.rollout, config.data
    tensor_parallel = rollout.tensor_model_parallel_size
    assert made.runs[0].devices % tensor_parallel == 0
    assert study.model["num_attention_heads"] % tensor_parallel == 0
    length = data.max_prompt_length + data.max_response_length
    assert length <= study.model["max_position_embeddings"]
    assert run_config.updates_per_rollout(config) == 4  # or a clip bound would have no effect
    # the curriculum reaches its end, with prompts to spare for those that are too long
    rows = data.get("train_max_samples", -1)
    draws = (rows if rows > 0 else study.rows) * data.curriculum.epochs_per_stage
    needed = made.runs[0].steps * data.train_batch_size
    assert needed <= draws < 1.05 * needed


def test_every_arm_fits_a_card_of_80_gb_by_the_estimate(planned, monkeypatch):
    monkeypatch.delenv("GPU_GB", raising=False)
    for run in planned[1].runs:
        estimate = memory.estimate(OmegaConf.create(run.record["config"]))
        assert estimate.checkpoints == 2  # while one is written; then 1
        for phase, needed in estimate.phases.items():
            assert needed < 75 * memory.GB, f"{run.name}: {phase}"


def test_every_checkpoint_is_evaluated_on_seven_benchmarks_with_each_papers_sampling(planned):
    made = planned[1]
    samplings = evaluate.presets()
    folders = {}
    for settings in plan.evaluations_of(made.matrix.evaluate):
        args = evaluate.parse(plan.evaluation_arguments(made.runs[0], settings))
        assert tuple(file.stem for file in args.benchmarks) == BENCHMARKS
        paper = samplings[settings["preset"]]
        for name in ("temperature", "top_p", "top_k"):
            assert getattr(args.sampling, name) == paper.get(name, getattr(args.sampling, name))
        assert args.sampling.samples == made.matrix.evaluate["samples"]
        trained = made.runs[0].record["config"]["data"]
        assert args.sampling.max_response_length == trained["max_response_length"]
        folders[args.out] = settings["preset"]
    assert sorted(folders.values()) == sorted(samplings)
    assert all(folder.parent == made.runs[0].folder.evaluation for folder in folders)


# ---- what a comparison needs ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepare():
    return load_script("studies/cluster_prepare.py")


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_what_is_missing_is_made_by_scripts_that_exist(study, prepare, tmp_path, monkeypatch):
    from data_prep.eval_sets import BENCHMARKS as WRITTEN
    from recipe.semantic_curriculum import measure

    monkeypatch.setenv("DATA", str(tmp_path))
    monkeypatch.delenv("SCORES", raising=False)
    monkeypatch.setenv("MODEL_PATH", "Qwen/x")
    *data, words = prepare.commands_of(read_matrix(study.file, tmp_path / "out"))
    training = {"cluster_qwen7b": "dapo_math", "cluster_qwen1_5b": "hendrycks_math"}[study.name]
    for name, command in zip((training, "benchmarks"), data, strict=True):
        assert Path(command[0]) == ROOT / f"data_prep/{name}.py" and Path(command[0]).is_file()
        assert command[1:] == ["--local_save_dir", str(tmp_path / name)]
    assert set(BENCHMARKS) == set(WRITTEN)
    args = measure.parse(words[2:])
    matrix = read_matrix(study.file, tmp_path / "out")
    assert args.data == (tmp_path / training / "train.parquet",)
    assert str(args.out) == matrix.environment["SCORES"]
    assert (args.sampling.model, args.sampling.samples) == ("Qwen/x", 8)
    trained = f"data.max_response_length={args.sampling.max_response_length}"
    assert trained in matrix.overrides


def test_what_is_there_is_not_made_again(prepare, tmp_path, monkeypatch, capsys):
    study = STUDIES[1]
    for name, value in stand_ins(study._replace(rows=8), tmp_path).items():
        monkeypatch.setenv(name, value)
    assert prepare.command([str(study.file), "--dry-run"]) == 0
    assert capsys.readouterr().out == ""
    (tmp_path / "scores.parquet").unlink()
    assert prepare.command([str(study.file), "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("$ python -m recipe.semantic_curriculum.measure")


def test_a_file_that_no_script_writes_is_named(prepare, tmp_path):
    with pytest.raises(ValueError, match=r"there is no data_prep/mine\.py"):
        prepare.data_commands([tmp_path / "mine/train.parquet"])


# ---- the measurement samples and judges as the run does ------------------------------------------


def config_of(folder: Path, **more) -> dict:
    """A run's composed config, as far as the measurement reads it."""
    sampled = {"n": 4, "temperature": 0.7, "top_p": 0.9, "top_k": 20, "dtype": "float32"}
    config = {
        "data": {
            "train_files": [str(folder / "a.parquet"), str(folder / "b.parquet")],
            "val_files": str(folder / "test.parquet"),
            "max_prompt_length": 100,
            "max_response_length": 200,
            "apply_chat_template_kwargs": {"enable_thinking": False},
            "curriculum": {"scores": str(folder / "scores.parquet")},
        },
        "actor_rollout_ref": {"model": {"path": "Qwen/x"}, "rollout": sampled},
        "reward": {
            "custom_reward_function": {
                "path": "pkg://recipe.judge",
                "name": "compute_score",
                "reward_kwargs": {"boxed_only": True},
            }
        },
    }
    return OmegaConf.to_container(OmegaConf.merge(config, more))


def measured_with(prepare, config: dict):
    from recipe.semantic_curriculum import measure

    words = prepare.measure_command(config)
    assert words[:2] == ["-m", "recipe.semantic_curriculum.measure"]
    return measure.parse(words[2:])


def test_the_measurement_samples_as_the_run_does(prepare, tmp_path):
    args = measured_with(prepare, config_of(tmp_path))
    assert args.data == (tmp_path / "a.parquet", tmp_path / "b.parquet")
    assert args.out == tmp_path / "scores.parquet"
    sampling = args.sampling
    assert (sampling.model, sampling.samples, sampling.temperature) == ("Qwen/x", 4, 0.7)
    assert (sampling.top_p, sampling.top_k, args.hardware.dtype) == (0.9, 20, "float32")
    assert (sampling.max_prompt_length, sampling.max_response_length) == (100, 200)
    assert sampling.chat_template_kwargs == {"enable_thinking": False}
    assert (args.grading.boxed_only, args.grading.reward) == (True, None)


@pytest.mark.parametrize("template", [{"enable_thinking": False}, {}, None])
@pytest.mark.parametrize("own", [{}, {"scale": 2}, None])
def test_the_run_accepts_what_is_measured(prepare, tmp_path, template, own):
    """Its checks refuse scores of another format of the prompts, or of another judge."""
    from recipe.judge.reward_function import JUDGE
    from recipe.semantic_curriculum.checks import check_reward, check_template

    config = config_of(tmp_path)
    config["data"]["apply_chat_template_kwargs"] = template
    if own is not None:
        file = tmp_path / "mine.py"
        file.write_text("def score(**_):\n    return 1.0\n")
        function = {"path": str(file), "name": "score", "reward_kwargs": own}
        config["reward"]["custom_reward_function"] = function
    args = measured_with(prepare, config)
    scores = {
        "chat_template_kwargs": dict(args.sampling.chat_template_kwargs),
        "reward": str(args.grading.reward or JUDGE),
    }
    check_template(OmegaConf.create(config), scores, "scores.parquet")
    check_reward(OmegaConf.create(config), scores, "scores.parquet")
    assert (args.grading.reward.kwargs if args.grading.reward else None) == own


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"curriculum": None}}, r"baseline has no data\.curriculum\.scores, which"),
        ({"data": {"curriculum": {"scores": None}}}, r"baseline has no data\.curriculum\.scores"),
        ({"actor_rollout_ref": {"rollout": {"dtype": None}}}, r"has no .*rollout\.dtype, which"),
        ({"data": {"train_files": None}}, r"data\.train_files=null is not allowed"),
    ],
)
def test_what_the_measurement_lacks_is_one_sentence(prepare, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        prepare.measure_command(config_of(tmp_path, **change))


def test_each_of_several_training_files_is_looked_for(prepare, tmp_path, monkeypatch):
    folder = tmp_path / "gsm8k"
    config = config_of(folder)
    planned = SimpleNamespace(record={"config": config})
    monkeypatch.setattr(prepare, "plan_run", lambda *_: planned)
    matrix = replace(read_matrix(STUDIES[0].file, tmp_path / "out"), evaluate={})
    first, measure = prepare.commands_of(matrix)
    assert first[1:] == ["--local_save_dir", str(folder)] and measure[0] == "-m"
    for name in ("a", "b", "test", "scores"):
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.parquet").touch()
    assert prepare.commands_of(matrix) == []
    (folder / "b.parquet").unlink()
    assert prepare.commands_of(matrix) == [first]
