#!/usr/bin/env bash
# Dynamic sampling, or an order by pass rates, for real on a machine without a GPU: a 1 M-parameter
# model on signed sums, by the very trainer, FSDP actor, vLLM rollout, judge and checkpoints of the
# GPU runs.
#   bash recipe/prompt_sampling/run_cpu.sh [--dry-run] [key=value ...]
# PRESET=variance, failure, dynamic_sampling, dapo or grpo chooses the method, SEED the data order.
set -euo pipefail

PRESET=${PRESET:-variance}
PROJECT_NAME=${PROJECT_NAME:-prompt_sampling_cpu}
source "$(dirname "${BASH_SOURCE[0]}")/../cpu/task.sh"
source "$(dirname "${BASH_SOURCE[0]}")/../run.sh"
prepare_cpu_task

# 320 of the task's 6,144 prompts (ours), so that each comes four times in 40 steps of 32: an order
# by pass rates acts from the second epoch on
launch prompt_sampling "data.prompt_sampling.preset=$PRESET" data.train_max_samples=320 "$@"
