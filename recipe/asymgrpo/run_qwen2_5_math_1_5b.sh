#!/usr/bin/env bash
# The paper's analysis run (arXiv 2604.04894 v1, sec. 3): Qwen2.5-Math-1.5B, MATH, 4 GPUs.
# Each line ends in its source: paper, verl (its default), or ours.
#   bash recipe/asymgrpo/run_qwen2_5_math_1_5b.sh [--dry-run] [key=value ...]
# PRESET=pos_only, neg_only, ent_increase … runs the arms of sec. 3. Data: as for run_qwen3_4b.sh
set -euo pipefail

MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2.5-Math-1.5B}                     # paper sec. 3
TRAIN_FILE=${TRAIN_FILE:-$HOME/data/hendrycks_math/train.parquet}    # paper App. C
TEST_FILE=${TEST_FILE:-$HOME/data/benchmarks/math500.parquet}        # paper: MATH-500 and 4 more
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-512}                            # paper App. C
NGPUS_PER_NODE=${NGPUS_PER_NODE:-4}                                  # paper App. C
PRESET=${PRESET:-asymgrpo}
PROJECT_NAME=${PROJECT_NAME:-asymgrpo_qwen2_5_math_1_5b}             # ours
source "$(dirname "${BASH_SOURCE[0]}")/../run.sh"

overrides=(
  "${QWEN_OVERRIDES[@]}"
  "algorithm.asymgrpo.preset=$PRESET"                                # paper sec. 3 and 4.3
  data.max_prompt_length=1024                                        # not in paper; ours
  data.max_response_length=2560                                      # paper App. C
  actor_rollout_ref.actor.ppo_mini_batch_size=128                    # paper App. C
  actor_rollout_ref.rollout.tensor_model_parallel_size=1             # ours
  trainer.total_epochs=10                                            # not in paper; ours
)
launch asymgrpo "${overrides[@]}" "$@"
