#!/usr/bin/env bash
# AsymGRPO on Qwen2.5-7B and GSM8K: one node of 8 GPUs. The paper (arXiv 2604.04894) has no 7B run;
# each line ends in its source: paper, verl (its default), or ours.
#   python data_prep/gsm8k.py && bash recipe/asymgrpo/run_qwen7b.sh [--dry-run] [key=value ...]
# PRESET=grpo (or any row of the paper's Table 1) runs a baseline; NNODES > 1 needs RAY_ADDRESS.
set -euo pipefail

MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2.5-7B}                      # ours
TRAIN_FILE=${TRAIN_FILE:-$HOME/data/gsm8k/train.parquet}       # ours
TEST_FILE=${TEST_FILE:-$HOME/data/gsm8k/test.parquet}          # ours
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-128}                      # paper App. C (Qwen3-4B)
PRESET=${PRESET:-asymgrpo}
PROJECT_NAME=${PROJECT_NAME:-asymgrpo_qwen7b}                  # ours
source "$(dirname "${BASH_SOURCE[0]}")/../run.sh"

overrides=(
  "${QWEN_OVERRIDES[@]}"
  "algorithm.asymgrpo.preset=$PRESET"                          # paper sec. 4.3
  data.max_prompt_length=1024                                  # ours
  data.max_response_length=2048                                # ours: GSM8K answers are short
  actor_rollout_ref.actor.ppo_mini_batch_size=64               # paper App. C (Qwen3-4B)
  actor_rollout_ref.rollout.tensor_model_parallel_size=2       # verl
  trainer.total_epochs=5                                       # not in paper; ours
)
launch asymgrpo "${overrides[@]}" "$@"
