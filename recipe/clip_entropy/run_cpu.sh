#!/usr/bin/env bash
# ID, DID, OD and their baselines for real on a machine without a GPU: a 1 M-parameter model on
# signed sums, by the very trainer, FSDP actor, vLLM rollout, judge and checkpoints of the GPU runs.
# The first start writes the data and warm-starts the model (two minutes); both are kept.
#   bash recipe/clip_entropy/run_cpu.sh [--dry-run] [key=value ...]
# PRESET=did, od, grpo, clip_higher … chooses the method, SEED the data order, STEPS the length T.
# algorithm.adv_estimator=asymgrpo combines it with AsymGRPO.
set -euo pipefail

PRESET=${PRESET:-id}
PROJECT_NAME=${PROJECT_NAME:-clip_entropy_cpu}
source "$(dirname "${BASH_SOURCE[0]}")/../cpu/task.sh"
source "$(dirname "${BASH_SOURCE[0]}")/../run.sh"
prepare_cpu_task

overrides=("actor_rollout_ref.actor.policy_loss.preset=$PRESET")
case $TASK in                                                   # od_h_init: twice the first entropy (README, no. 4)
  signed_sums)
    overrides+=(
      actor_rollout_ref.actor.ppo_mini_batch_size=4             # 8 updates per rollout: clips must act
      actor_rollout_ref.actor.policy_loss.od_h_init=0.6
    ) ;;
  target_sums) overrides+=(actor_rollout_ref.actor.policy_loss.od_h_init=1.2) ;;
esac
launch clip_entropy "${overrides[@]}" "$@"
