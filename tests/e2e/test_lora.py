"""LoRA for real on the CPU: three steps, and the model that is evaluated is the trained policy."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from marks import TRAINING_RUN
from peft import LoraConfig, get_peft_model
from training import train
from transformers import AutoModelForCausalLM

from recipe.sampling.checkpoints import model_of

ROOT = Path(__file__).parents[2]
LIMIT = 900  # seconds; it takes about 60 where nothing else runs

pytestmark = TRAINING_RUN


@pytest.fixture(scope="module")
def run(tmp_path_factory, small) -> Path:
    """Three steps; the entropy's coefficient moves the policy even where no rollout is correct.

    `hf_model` is saved as well, which must not be taken for the policy.
    """
    folder = tmp_path_factory.mktemp("lora")
    overrides = [
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        "actor_rollout_ref.model.lora_rank=8",
        "actor_rollout_ref.model.lora_alpha=16",
        "actor_rollout_ref.actor.optim.lr=1e-3",
        "actor_rollout_ref.actor.entropy_coeff=0.1",
        "actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]",
    ]
    settings = {"TRAIN_BATCH_SIZE": "8", "ROLLOUT_N": "4", "STEPS": "3", "SAVE_FREQ": "3"}
    train("asymgrpo/run_cpu.sh", folder, small, LIMIT, overrides, **settings)
    return folder / "run"


def log_probs(model) -> torch.Tensor:
    """Of 2 x 20 tokens at the model's 20 tokens."""
    tokens = torch.stack([torch.arange(20), torch.arange(20).flip(0)])
    with torch.no_grad():
        return model.eval()(input_ids=tokens).logits.float().log_softmax(-1)


def test_the_evaluated_model_s_log_probs_are_the_actor_s(run, small):
    """Within 2e-5: the actor computes x W + s (x A) B and the merged model x (W + s A B), which
    float32 rounds differently (4e-6 seen); the base model is 0.1 and more away."""
    base = AutoModelForCausalLM.from_pretrained(small[0], dtype=torch.float32)
    before = log_probs(base)
    # the actor, without the code under test: verl's own shard of its only rank, PEFT's own layers
    shard = run / "global_step_3/actor/model_world_size_1_rank_0.pt"
    weights = {k: w.to_local() for k, w in torch.load(shard, weights_only=False).items()}
    lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")
    actor = get_peft_model(base, lora)
    actor.load_state_dict(weights)
    trained = log_probs(actor)
    assert (trained - before).abs().max() > 0.1
    model, folder = model_of(str(run))
    assert folder == run / "global_step_3"
    evaluated = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    torch.testing.assert_close(log_probs(evaluated), trained, atol=2e-5, rtol=0)


def test_it_can_be_evaluated_by_the_settings_of_its_training(run, small, tmp_path):
    command = [sys.executable, "-m", "recipe.evaluate", run, small[1] / "test.parquet"]
    command += ["--max-prompts", "8", "--samples", "2", "--engine", "transformers"]
    done = subprocess.run(
        [*map(str, command), "--out", str(tmp_path)],
        cwd=ROOT,
        timeout=LIMIT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "by the run (" in done.stdout
    record = json.loads((tmp_path / "test.json").read_text())
    assert record["model"] == str(run / "global_step_3/actor/merged")
    settings = record["settings"]
    assert (settings["max_prompt_length"], settings["max_response_length"]) == (32, 24)
    assert (settings["dtype"], settings["chat_template_kwargs"]) == ("float32", {})
