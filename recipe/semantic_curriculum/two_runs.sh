#!/usr/bin/env bash
# The paper's form of the curriculum: a run a stage, the second from the first's last model, with a
# new optimizer and that model as the reference. Takes a run script of this folder and its overrides:
#   bash recipe/semantic_curriculum/two_runs.sh run_cpu.sh [key=value ...]
#   SCORES=... bash recipe/semantic_curriculum/two_runs.sh run_qwen2_5_math_7b.sh [key=value ...]
# Stage 1 is in CKPTS_DIR/stage1, stage 2 in CKPTS_DIR/stage2; the same command resumes either.
set -euo pipefail

here=$(dirname "${BASH_SOURCE[0]}")
script=${1:?give a run script, such as run_cpu.sh}
shift
# the scores are those of the first model, in both stages
[[ $script == run_cpu.sh ]] || export SCORES=${SCORES:?set SCORES to the parquet of the first model}
folder=${CKPTS_DIR:-$PWD/outputs/semantic_curriculum_two_runs/${script%.sh}-${PRESET:-sent}-seed${SEED:-0}}
for stage in 1 2; do
  if ((stage == 2)); then
    step=$(<"$folder/stage1/latest_checkpointed_iteration.txt")
    export MODEL_PATH=$folder/stage1/global_step_$step/actor/huggingface
  fi
  CKPTS_DIR=$folder/stage$stage bash "$here/$script" "$@" \
    "data.curriculum.only_stage=$stage" \
    trainer.total_training_steps=null \
    'actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]'
done
