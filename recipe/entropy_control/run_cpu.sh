#!/usr/bin/env bash
# Entropy control for real on a machine without a GPU: a 1 M-parameter model on signed sums, by the
# very trainer, FSDP actor, vLLM rollout, judge and checkpoints of the GPU runs.
#   bash recipe/entropy_control/run_cpu.sh [--dry-run] [key=value ...]
# PRESET=linear, cosine, target, entrocraft, entropic … chooses the method, SEED the data order, STEPS
# the length T. That task's entropy goes from 0.3 to 0.2 nats: the targets and lines below are ours. On
# TASK=target_sums, where it begins at 0.6, they are the presets', which you may override.
set -euo pipefail

PRESET=${PRESET:-target}
PROJECT_NAME=${PROJECT_NAME:-entropy_control_cpu}
source "$(dirname "${BASH_SOURCE[0]}")/../cpu/task.sh"
source "$(dirname "${BASH_SOURCE[0]}")/../run.sh"
prepare_cpu_task

node=algorithm.entropy_control
overrides=("$node.preset=$PRESET")
case $TASK-$PRESET in
  signed_sums-target | signed_sums-entropic) overrides+=("$node.target=0.25") ;;
  signed_sums-entrocraft*) overrides+=("$node.lower_start=0.3" "$node.lower_end=0.2" "$node.upper_start=0.32" "$node.upper_end=0.22") ;;
esac
launch entropy_control "${overrides[@]}" "$@"
