#!/usr/bin/env bash
# SENT on Qwen2.5-7B, DAPO-Math-17k, 4 GPUs: the model that the recipes share.
# Each line ends in its source: released (the public code's scripts), paper, or ours.
#   python data_prep/dapo_math.py
#   python -m recipe.semantic_curriculum.measure --model Qwen/Qwen2.5-7B \
#     --data ~/data/dapo_math/train.parquet \
#     --out ~/data/dapo_math/semantic_entropy_Qwen2.5-7B.parquet
#   bash recipe/semantic_curriculum/run_qwen7b.sh [--dry-run] [key=value ...]
# PRESET=sent_released, curriculum, as_described, grpo … chooses the method; NNODES > 1 needs RAY_ADDRESS.
set -euo pipefail

MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2.5-7B}                        # ours
TENSOR_PARALLEL=${TENSOR_PARALLEL:-2}                               # as the 7B of the released scripts
PROJECT_NAME=${PROJECT_NAME:-semantic_curriculum_qwen7b}
source "$(dirname "${BASH_SOURCE[0]}")/released.sh"
