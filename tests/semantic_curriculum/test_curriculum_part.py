"""The curriculum's bookkeeping of a step: padding rows, failed rollouts, prompts that follow."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("verl")

from builders import queue_of, step_of

from recipe.sampling.prompts import prompt_id
from recipe.semantic_curriculum.config import CurriculumConfig
from recipe.semantic_curriculum.part import CurriculumPart

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
    part.on_prompts({"uid": ["u0", "u1"], "raw_prompt": PROMPTS[:2]})
    metrics = after_step(part, 0, ["u0", "u0", "u1", "pad1f"], padding=1)
    # of three rollouts: two of a and one of b
    assert metrics["curriculum/semantic_entropy"] == pytest.approx((0 + 0 + 0.5) / 3)
    assert metrics["curriculum/pass_rate"] == pytest.approx((1 + 1 + 0.75) / 3)
    assert metrics["curriculum/stage"] == 1


def test_a_prompt_whose_rollouts_have_all_failed_leaves_with_its_step(part):
    part.on_prompts({"uid": ["u0", "u1"], "raw_prompt": PROMPTS[:2]})
    after_step(part, 0, ["u0", "u0"])  # none of b
    part.on_prompts({"uid": ["u2", "u3"], "raw_prompt": PROMPTS[2:]})
    metrics = after_step(part, 1, ["u2", "u3"])
    assert metrics["curriculum/stage"] == 2
    assert metrics["curriculum/semantic_entropy"] == pytest.approx((1.0 + 1.5) / 2)
    assert part.in_flight == {}


def test_prompts_of_a_step_of_several_updates_stay_for_the_next_update(part):
    """verl's parameter_sync_step: one fetch of prompts, and an update for each part of them."""
    part.on_prompts({"uid": ["u0", "u1"], "raw_prompt": PROMPTS[:2]})
    after_step(part, 0, ["u0"])
    assert after_step(part, 0, ["u1"])["curriculum/semantic_entropy"] == pytest.approx(0.5)
