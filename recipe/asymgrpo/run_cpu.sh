#!/usr/bin/env bash
# AsymGRPO for real on a machine without a GPU: a 1 M-parameter model on signed sums, by the very
# trainer, FSDP actor, vLLM rollout, judge and checkpoints of the GPU runs. The first start writes
# the data and warm-starts the model (two minutes); both are kept. All values are ours (../cpu/task.sh).
#   bash recipe/asymgrpo/run_cpu.sh [--dry-run] [key=value ...]
# STEPS=20 for a short run; PRESET=grpo (or any row of the paper's Table 1) for a baseline;
# SEED=1 for another data order; CKPTS_DIR for another run folder.
set -euo pipefail

PRESET=${PRESET:-asymgrpo}
PROJECT_NAME=${PROJECT_NAME:-asymgrpo_cpu}
source "$(dirname "${BASH_SOURCE[0]}")/../cpu/task.sh"
source "$(dirname "${BASH_SOURCE[0]}")/../run.sh"
prepare_cpu_task
launch asymgrpo "algorithm.asymgrpo.preset=$PRESET" "$@"
