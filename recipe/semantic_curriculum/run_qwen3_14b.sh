#!/usr/bin/env bash
# SENT on Qwen3-14B, the paper's largest; its script is not released: the 7B's values, 8 GPUs.
# Each line ends in its source: released (the public code's scripts), paper, or ours.
#   python data_prep/dapo_math.py
#   python -m recipe.semantic_curriculum.measure --model Qwen/Qwen3-14B \
#     --data ~/data/dapo_math/train.parquet \
#     --out ~/data/dapo_math/semantic_entropy_Qwen3-14B.parquet \
#     --chat-template-kwargs '{"enable_thinking": false}'
#   bash recipe/semantic_curriculum/run_qwen3_14b.sh [--dry-run] [key=value ...]
# PRESET=sent_released, curriculum, as_described, grpo … chooses the method; NNODES > 1 needs RAY_ADDRESS.
set -euo pipefail

MODEL_PATH=${MODEL_PATH:-Qwen/Qwen3-14B}                         # paper
NGPUS_PER_NODE=${NGPUS_PER_NODE:-8}                                  # ours
TENSOR_PARALLEL=${TENSOR_PARALLEL:-4}                               # ours
PROJECT_NAME=${PROJECT_NAME:-semantic_curriculum_qwen3_14b}
# ours: Qwen3 thinks by default, and 2048 tokens cut nearly every such chain off before its answer
MODEL_OVERRIDES=(+data.apply_chat_template_kwargs.enable_thinking=false)
source "$(dirname "${BASH_SOURCE[0]}")/released.sh"
