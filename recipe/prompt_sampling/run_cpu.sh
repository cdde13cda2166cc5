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

launch prompt_sampling "data.prompt_sampling.preset=$PRESET" "$@"
