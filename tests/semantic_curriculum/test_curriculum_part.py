"""The curriculum's bookkeeping of a step: padding rows, failed rollouts, prompts that follow."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

pytest.importorskip("verl")

from builders import queue_of, step_of, write_model
from transformers import CLIPImageProcessor, LlavaProcessor
from verl.trainer.ppo.v1.trainer_base import get_trainer_cls

from recipe.core.part import DATASET_ROW
from recipe.launch.check_data import data
from recipe.launch.compose import compose
from recipe.sampling.prompts import prompt_id
from recipe.semantic_curriculum.checks import check
from recipe.semantic_curriculum.config import CurriculumConfig
from recipe.semantic_curriculum.part import CurriculumPart

DATASET = """
from torch.utils.data import Dataset

class Mine(Dataset):
    def __init__(self, **settings):
        pass

    def __len__(self):
        return 4

    def __getitem__(self, row):
        return {"raw_prompt": [{"role": "user", "content": str(row)}]}
"""
PROMPTS = [[{"role": "user", "content": text}] for text in "abcd"]
ENTROPY, PASS_RATE = [0.0, 0.5, 1.0, 1.5], [1.0, 0.75, 0.5, 0.25]


@pytest.fixture
def part(tmp_path) -> CurriculumPart:
    """Two stages of two prompts, two prompts per step: a, b and then c, d, in this order."""
    table = {"semantic_entropy": ENTROPY, "pass_rate": PASS_RATE}
    ids = [prompt_id(prompt) for prompt in PROMPTS]
    pd.DataFrame({"prompt_id": ids, **table}).to_parquet(tmp_path / "scores.parquet")
    settings = CurriculumConfig(
        order="semantic_entropy",
        scores=str(tmp_path / "scores.parquet"),
        epochs_per_stage=1,
        shuffle=False,
    )
    made = CurriculumPart(settings, batch_size=2, total_steps=None)
    assert made.prompt_order(PROMPTS).prompt_D == [0, 1, 2, 3]
    return made


def after_step(part, number: int, uids: list[str], padding: int = 0) -> dict[str, float]:
    step = step_of(uids, number=number, padding=padding)
    step.correct_B = None
    with queue_of({"uid": np.array(uids, dtype=object)}):
        part.after_update(step)
    return step.metrics


def test_verls_padding_rows_are_of_no_prompt(part):
    """A failed session makes a short batch, which verl fills with rows of uids of its own."""
    part.on_prompts({"uid": ["u0", "u1"], DATASET_ROW: [0, 1]})
    metrics = after_step(part, 0, ["u0", "u0", "u1", "pad1f"], padding=1)
    # of three rollouts: two of a and one of b
    assert metrics["curriculum/semantic_entropy"] == pytest.approx((0 + 0 + 0.5) / 3)
    assert metrics["curriculum/pass_rate"] == pytest.approx((1 + 1 + 0.75) / 3)
    assert metrics["curriculum/stage"] == 1


def test_a_prompt_whose_rollouts_have_all_failed_leaves_with_its_step(part):
    part.on_prompts({"uid": ["u0", "u1"], DATASET_ROW: [0, 1]})
    after_step(part, 0, ["u0", "u0"])  # none of b
    part.on_prompts({"uid": ["u2", "u3"], DATASET_ROW: [2, 3]})
    metrics = after_step(part, 1, ["u2", "u3"])
    assert metrics["curriculum/stage"] == 2
    assert metrics["curriculum/semantic_entropy"] == pytest.approx((1.0 + 1.5) / 2)
    assert part.in_flight.row_of == {}


def test_prompts_of_a_step_of_several_updates_stay_for_the_next_update(part):
    """verl's parameter_sync_step: one fetch of prompts, and an update for each part of them."""
    part.on_prompts({"uid": ["u0", "u1"], DATASET_ROW: [0, 1]})
    after_step(part, 0, ["u0"])
    assert after_step(part, 0, ["u1"])["curriculum/semantic_entropy"] == pytest.approx(0.5)


# ---- a step that draws more prompts than its batch has ----------------------------------------

REPLACES = [
    ["algorithm.filter_groups.enable=true"],
    ["trainer.v1.sampler.sync_refill_failed_groups=true"],
]


def trainer_with_refills(folder, *overrides: str):
    """Stages (3, 2) and (1, 0), each once, in batches of two: the plan has 4 draws, or 2 steps."""
    if not (folder / "model").exists():
        write_run(folder, list("abcd"), images=False)
    made = trainer_of([*run_files(folder), *overrides])
    made._init_dataloader()
    (part,) = (part for part in made.parts if isinstance(part, CurriculumPart))
    return made, part


def drawn(made, number: int | None = None) -> list[int]:
    return list(made._next_train_batch(number)[DATASET_ROW])


@pytest.mark.parametrize("replaces", REPLACES)
def test_prompts_that_replace_others_are_the_plan_s_next_and_count(tmp_path, replaces):
    made, part = trainer_with_refills(tmp_path, *replaces)
    assert made.total_training_steps == 2  # as without replacing
    made.global_steps = 1
    assert drawn(made) == [3, 2]
    assert drawn(made, 1) == [1]  # verl's refill: it replaces one that it has dropped
    metrics = after_step(part, 0, list(part.in_flight.row_of)[1:])
    assert metrics["curriculum/stage"] == 1 and metrics["curriculum/drawn"] == 3
    # of the two that are left: entropy of rows 2 and 1
    assert metrics["curriculum/semantic_entropy"] == pytest.approx((0.5 + 0.75) / 2)
    made.global_steps = 2
    assert drawn(made) == [0, 1]  # the plan is over: its last stage again, (1, 0), (1, 0) ...
    assert drawn(made, 3) == [0, 1, 0]
    metrics = after_step(part, 1, list(part.in_flight.row_of)[-2:])
    assert metrics["curriculum/stage"] == 2 and metrics["curriculum/drawn"] == 8
    made.global_steps = 3
    drawn(made)
    after_step(part, 2, list(part.in_flight.row_of)[-2:])
    assert not part.in_flight.row_of  # nothing of an earlier step is kept


def test_a_stage_that_ends_within_a_step_is_that_of_the_first_draw(tmp_path):
    made, part = trainer_with_refills(tmp_path, *REPLACES[0])
    made.global_steps = 1
    for number, (size, stage) in enumerate([(1, 1), (2, 1), (1, 2)]):  # draws 0, 1-2, 3
        rows = drawn(made, size)
        metrics = after_step(part, number, list(part.in_flight.row_of)[-size:])
        assert metrics["curriculum/stage"] == stage, rows


@pytest.mark.parametrize(("workers", "saved_after"), [(0, (1, 4, 6)), (2, (3,))])
def test_a_run_that_replaces_groups_resumes_after_every_draw(tmp_path, workers, saved_after):
    """From the dataloader's state in data.pt, whose workers draw ahead, and the part's own."""
    overrides = [*REPLACES[0], f"data.dataloader_num_workers={workers}"]
    straight, _ = trainer_with_refills(tmp_path, *overrides)
    straight.global_steps = 1
    expected = [drawn(straight, 1)[0] for _ in range(9)]
    assert expected == [3, 2, 1, 0, 1, 0, 1, 0, 1]
    for done in saved_after:
        first, part = trainer_with_refills(tmp_path, *overrides)
        first.global_steps = 1
        drawn(first, done)
        loader = first.train_dataloader.state_dict()
        state = json.loads(json.dumps(part.state_dict()))
        second, resumed = trainer_with_refills(tmp_path, *overrides)
        second.train_dataloader.load_state_dict(loader)
        resumed.load_state_dict(state)
        second.global_steps = 2
        assert drawn(second, 9 - done) == expected[done:]
        assert resumed.drawn == 9 and resumed.first_draw == done


def test_a_state_of_before_draws_were_counted_is_one_sentence(part):
    with pytest.raises(ValueError, match=r"does not say how many prompts were drawn.*start anew"):
        part.load_state_dict({"plan": part.curriculum.plan.digest()})


def test_without_replacing_the_loader_ends_with_the_plan_and_the_steps_are_the_plan_s(tmp_path):
    made, _ = trainer_with_refills(tmp_path)
    assert made.total_training_steps == 2 and len(list(made.train_dataloader)) == 2
    with pytest.raises(ValueError, match="more than the 2 steps"):
        trainer_with_refills(tmp_path, "trainer.total_training_steps=3")
    longer, _ = trainer_with_refills(tmp_path, "trainer.total_training_steps=3", *REPLACES[0])
    assert longer.total_training_steps == 3


# ---- the rows of verl's dataset ------------------------------------------------------------------


def picture(shade: int) -> dict:
    """An image as a parquet file of verl's schema holds it."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def write_run(folder, prompts: list[str], images: bool) -> list[str]:
    """Writes data, scores (the first prompt is the last of the curriculum) and a model; returns
    overrides."""
    messages = [[{"role": "user", "content": text}] for text in prompts]
    table = pd.DataFrame(
        {
            "data_source": "geometry",
            "prompt": messages,
            "reward_model": [{"ground_truth": str(row)} for row in range(len(prompts))],
            "extra_info": [{"index": 0}] * len(prompts),  # not unique, as in many files
        }
    )
    if images:
        table["images"] = [[picture(row)] for row in range(len(prompts))]
    for name in ("train", "test"):
        table.to_parquet(folder / f"{name}.parquet")
    entropy = np.arange(len(prompts), 0, -1) / 4
    ids = [prompt_id(prompt) for prompt in messages]
    scores = pd.DataFrame({"prompt_id": ids, "semantic_entropy": entropy, "pass_rate": 0.5})
    scores.to_parquet(folder / "scores.parquet")
    write_model(folder / "model")
    return run_files(folder)


def run_files(folder) -> list[str]:
    """Returns the overrides of a run on the files of `write_run`."""
    return [
        "machine=cpu",
        f"data.train_files={folder}/train.parquet",
        f"data.val_files={folder}/test.parquet",
        f"data.curriculum.scores={folder}/scores.parquet",
        "data.curriculum.shuffle=false",
        "data.curriculum.epochs_per_stage=1",
        "data.curriculum.stages=2",
        "data.train_batch_size=2",
        "data.filter_overlong_prompts=false",
        "actor_rollout_ref.actor.ppo_mini_batch_size=2",
        f"actor_rollout_ref.model.path={folder}/model",
        f"trainer.default_local_dir={folder}/run",
    ]


def trainer_of(overrides: list[str], recipe: str = "semantic_curriculum"):
    """The trainer with verl's tokenizer, and a processor of images in place of a model's own."""
    config = compose(recipe, overrides)
    made = get_trainer_cls(config.trainer.v1.trainer_mode)(config)
    made._init_tokenizer()
    made.tokenizer.add_tokens(["<image>"])
    made.processor = LlavaProcessor(CLIPImageProcessor(), made.tokenizer)
    return made


def test_a_prompt_with_images_is_found_by_its_row(tmp_path):
    """verl's dataset puts the image itself in its place in the message."""
    texts = [f"<image>Find x. ({number})" for number in range(4)]
    overrides = write_run(tmp_path, texts, images=True)
    made = trainer_of(overrides)
    made._init_dataloader()
    made.global_steps = 1
    batch = made._next_train_batch()
    contents = [messages[0]["content"] for messages in batch["raw_prompt"]]
    assert [part["type"] for part in contents[0]] == ["image", "text"]
    assert [content[1]["text"] for content in contents] == ["Find x. (3)", "Find x. (2)"]
    (part,) = (part for part in made.parts if isinstance(part, CurriculumPart))
    rows = [part.in_flight.row_of[uid][1] for uid in batch["uid"]]
    assert rows == [3, 2]
    assert part.curriculum.prompts.iloc[rows]["semantic_entropy"].tolist() == [0.25, 0.5]
    assert part.curriculum.prompts.iloc[rows]["stage"].tolist() == [1, 1]
    state = made.train_dataloader.state_dict()  # a resumed run goes on with the next prompts
    resumed = trainer_of(overrides)
    resumed._init_dataloader()
    resumed.train_dataloader.load_state_dict(state)
    resumed.global_steps = 2
    assert list(resumed._next_train_batch()[DATASET_ROW]) == [1, 0]


def test_prompts_with_images_and_one_text_are_refused_before_the_run(tmp_path):
    """The scores name a prompt by its text; without images equal texts are one prompt."""
    (tmp_path / "text").mkdir()
    check(compose("semantic_curriculum", write_run(tmp_path / "text", ["x?"] * 4, images=False)))
    overrides = write_run(tmp_path, ["<image>x?"] * 4, images=True)
    with pytest.raises(ValueError, match="only 1 have a text of their own: number them"):
        check(compose("semantic_curriculum", overrides))


@pytest.mark.parametrize("recipe", ["semantic_curriculum", "prompt_sampling"])
def test_a_dataset_class_without_a_table_is_one_sentence(tmp_path, recipe):
    (tmp_path / "mine.py").write_text(DATASET)
    overrides = write_run(tmp_path, ["a", "b", "c", "d"], images=False)
    key = "data.curriculum.order"
    if recipe == "prompt_sampling":
        key = "data.prompt_sampling.order"
        overrides = [text for text in overrides if "data.curriculum" not in text]
        overrides += [f"{key}=variance"]
    overrides += [f"data.custom_cls.path={tmp_path}/mine.py", "data.custom_cls.name=Mine"]
    with pytest.raises(
        ValueError, match=rf"data\.custom_cls\.name=Mine has no table .* set {key}=none\."
    ):
        trainer_of(overrides, recipe)._init_dataloader()
    with pytest.raises(ValueError, match=f"derive it from verl's RLHFDataset, or set {key}=none"):
        data(compose(recipe, overrides))
