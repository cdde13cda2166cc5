#!/usr/bin/env bash
# The paper's main run (arXiv 2604.04894 v1, sec. 4.3, Table 1): AsymGRPO, Qwen3-4B, MATH, 4 GPUs.
# Each line ends in its source: paper, verl (its default), or ours.
#   bash recipe/asymgrpo/run_qwen3_4b.sh [--dry-run] [key=value ...]
# PRESET=grpo (or any row of Table 1) runs a baseline. Data: python data_prep/hendrycks_math.py and
# python data_prep/benchmarks.py --sets math500
set -euo pipefail

MODEL_PATH=${MODEL_PATH:-Qwen/Qwen3-4B}                              # paper sec. 4.3
TRAIN_FILE=${TRAIN_FILE:-$HOME/data/hendrycks_math/train.parquet}    # paper App. C
TEST_FILE=${TEST_FILE:-$HOME/data/benchmarks/math500.parquet}        # paper: MATH-500 and 4 more
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-128}                            # paper App. C
NGPUS_PER_NODE=${NGPUS_PER_NODE:-4}                                  # paper App. C
PRESET=${PRESET:-asymgrpo}
PROJECT_NAME=${PROJECT_NAME:-asymgrpo_qwen3_4b}                      # ours
source "$(dirname "${BASH_SOURCE[0]}")/../run.sh"

overrides=(
  "${QWEN_OVERRIDES[@]}"
  "algorithm.asymgrpo.preset=$PRESET"                                # paper sec. 4.3
  +data.apply_chat_template_kwargs.enable_thinking=false             # paper sec. 4.3: non-thinking
  data.max_prompt_length=1024                                        # not in paper; ours
  data.max_response_length=4096                                      # paper App. C
  actor_rollout_ref.actor.ppo_mini_batch_size=64                     # paper App. C
  actor_rollout_ref.rollout.tensor_model_parallel_size=1             # ours
  trainer.total_epochs=10                                            # not in paper; ours
)
launch asymgrpo "${overrides[@]}" "$@"
