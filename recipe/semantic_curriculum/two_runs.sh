#!/usr/bin/env bash
# The paper's form of the curriculum: one run per stage, the second from the first's last model, with a
# new optimizer and that model as the reference. Takes a run script of this folder and its overrides:
#   bash recipe/semantic_curriculum/two_runs.sh run_cpu.sh [key=value ...]
#   SCORES=... bash recipe/semantic_curriculum/two_runs.sh run_qwen2_5_math_7b.sh [key=value ...]
# REFRESH=1 measures the semantic entropies again with the first stage's last model, and the second
# stage trains on what that model finds harder; by default it keeps to the first model's order, so
# that the two stages share no prompt. With a GPU script it wants TRAIN_FILE, and passes
# MEASURE_OPTIONS to recipe.semantic_curriculum.measure.
# Stage 1 is in CKPTS_DIR/stage1, stage 2 in CKPTS_DIR/stage2; the same command resumes either.
set -euo pipefail

here=$(dirname "${BASH_SOURCE[0]}")
script=${1:?give a run script, such as run_cpu.sh}
shift
REFRESH=${REFRESH:-0}
[[ $REFRESH == [01] ]] || { echo "error: REFRESH=$REFRESH is not allowed: use 0 or 1." >&2; exit 2; }
# the scores are those of the first model, in both stages unless REFRESH=1
if [[ $script != run_cpu.sh ]]; then
  export SCORES=${SCORES:?set SCORES to the parquet of the first model}
  ((REFRESH == 0)) || export TRAIN_FILE=${TRAIN_FILE:?set TRAIN_FILE: REFRESH=1 measures it again}
fi
run_python() {  # that of run.sh
  (
    PRESET=any PROJECT_NAME=any
    source "$here/../run.sh"
    "$PYTHON" -m "$@"
  )
}
folder=${CKPTS_DIR:-$PWD/outputs/semantic_curriculum_two_runs/${script%.sh}-${PRESET:-sent}-seed${SEED:-0}}
for stage in 1 2; do
  if ((stage == 2)); then
    # the trained policy, of a LoRA run with its adapter merged
    MODEL_PATH=$(run_python recipe.sampling.checkpoints "$folder/stage1")
    export MODEL_PATH
    if ((REFRESH)); then
      export SCORES=$folder/semantic_entropy_stage2.parquet
      # run_cpu.sh measures what is not there by itself
      if [[ $script != run_cpu.sh && ! -f $SCORES ]]; then
        # shellcheck disable=SC2086  # several options; the rest is as stage 1 was trained
        run_python recipe.semantic_curriculum.measure --model "$MODEL_PATH" --data "$TRAIN_FILE" \
          --out "$SCORES" ${MEASURE_OPTIONS:-}
      fi
    fi
  fi
  CKPTS_DIR=$folder/stage$stage bash "$here/$script" "$@" \
    "data.curriculum.only_stage=$stage" \
    trainer.total_training_steps=null \
    'actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]'
done
