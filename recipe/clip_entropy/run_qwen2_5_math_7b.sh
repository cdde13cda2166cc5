#!/usr/bin/env bash
# The paper's run (arXiv 2602.09782 v1, sec. 5.1, App. C) on Qwen2.5-Math-7B, DAPO-Math-17k, 8 GPUs.
# Each line ends in its source: paper, verl (its default), or ours.
#   python data_prep/dapo_math.py && bash recipe/clip_entropy/run_qwen2_5_math_7b.sh [--dry-run] …
# PRESET=did, od, or any row of the paper's Table 1; NNODES > 1 needs RAY_ADDRESS.
set -euo pipefail

MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2.5-Math-7B}                       # paper App. C
# The model's context is 4096. The paper says 4096 for the response once and for the sequence once.
RESPONSE_LENGTH=${RESPONSE_LENGTH:-3072}                             # ours: 4096 with the prompt
PROJECT_NAME=${PROJECT_NAME:-clip_entropy_qwen2_5_math_7b}           # ours
source "$(dirname "${BASH_SOURCE[0]}")/paper.sh"
