#!/usr/bin/env bash
# SENT on DeepSeek-R1-Distill-Qwen-1.5B, the paper's Tables I and II, DAPO-Math-17k, 4 GPUs.
# Each line ends in its source: released (the public code's scripts), paper, or ours.
#   python data_prep/dapo_math.py
#   python -m recipe.semantic_curriculum.measure --model deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B \
#     --data ~/data/dapo_math/train.parquet \
#     --out ~/data/dapo_math/semantic_entropy_DeepSeek-R1-Distill-Qwen-1.5B.parquet
#   bash recipe/semantic_curriculum/run_r1_distill_qwen_1_5b.sh [--dry-run] [key=value ...]
# PRESET=sent_released, curriculum, as_described, grpo … chooses the method; NNODES > 1 needs RAY_ADDRESS.
set -euo pipefail

MODEL_PATH=${MODEL_PATH:-deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B}  # paper
TENSOR_PARALLEL=${TENSOR_PARALLEL:-4}                               # released
PROJECT_NAME=${PROJECT_NAME:-semantic_curriculum_r1_distill_1_5b}
source "$(dirname "${BASH_SOURCE[0]}")/released.sh"
