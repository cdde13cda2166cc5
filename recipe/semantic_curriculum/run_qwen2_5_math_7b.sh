#!/usr/bin/env bash
# SENT on Qwen2.5-Math-7B, the paper's second scale, DAPO-Math-17k, 4 GPUs.
# Each line ends in its source: released (the public code's scripts), paper, or ours.
#   python data_prep/dapo_math.py
#   python -m recipe.semantic_curriculum.measure --model Qwen/Qwen2.5-Math-7B \
#     --data ~/data/dapo_math/train.parquet \
#     --out ~/data/dapo_math/semantic_entropy_Qwen2.5-Math-7B.parquet
#   bash recipe/semantic_curriculum/run_qwen2_5_math_7b.sh [--dry-run] [key=value ...]
# PRESET=sent_released, curriculum, as_described, grpo … chooses the method; NNODES > 1 needs RAY_ADDRESS.
set -euo pipefail

MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2.5-Math-7B}                   # paper
TENSOR_PARALLEL=${TENSOR_PARALLEL:-2}                               # released
PROJECT_NAME=${PROJECT_NAME:-semantic_curriculum_qwen2_5_math_7b}
source "$(dirname "${BASH_SOURCE[0]}")/released.sh"
