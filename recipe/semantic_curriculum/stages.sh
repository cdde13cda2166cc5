#!/usr/bin/env bash
# The paper's form of the curriculum, "stage by stage": one run per stage, each from the last model of
# the stage before, with a new optimizer and that model as the reference. Takes a run script of this
# folder and its overrides:
#   STAGES=3 bash recipe/semantic_curriculum/stages.sh run_cpu.sh [key=value ...]
#   SCORES=... bash recipe/semantic_curriculum/stages.sh run_qwen2_5_math_7b.sh [key=value ...]
# STAGES is 2 by default, as released. REFRESH=1 measures the semantic entropies again with the last
# model of the stage before, and a later stage trains on what that model finds harder; by default it
# keeps to the first model's order, so that no two stages share a prompt. With a GPU script it wants
# TRAIN_FILE, and passes MEASURE_OPTIONS to recipe.semantic_curriculum.measure.
# Stage n is in CKPTS_DIR/stage<n>. The same command resumes: it goes past the stages that are done
# and resumes the one that is not.
set -euo pipefail

here=$(dirname "${BASH_SOURCE[0]}")
refuse() { echo "error: $*." >&2; exit 2; }
script=${1:-}
[[ $script == run_*.sh && -f $here/$script ]] ||
  refuse "'$script' is no run script of $here: give its name, such as run_cpu.sh"
shift
[[ " $* " != *" --dry-run "* ]] ||
  refuse "--dry-run is not allowed, as a stage starts from the last one's model: use it with $script"
STAGES=${STAGES:-2}
REFRESH=${REFRESH:-0}
[[ $STAGES =~ ^[1-9][0-9]*$ ]] || refuse "STAGES=$STAGES is not allowed: use a whole number above 0"
[[ $REFRESH == [01] ]] || refuse "REFRESH=$REFRESH is not allowed: use 0 or 1"
# the scores are those of the first model, in all stages unless REFRESH=1
if [[ $script != run_cpu.sh ]]; then
  [[ -n ${SCORES:-} ]] || refuse "SCORES is not set: name the parquet of the first model"
  ((REFRESH == 0)) || [[ -n ${TRAIN_FILE:-} ]] ||
    refuse "TRAIN_FILE is not set: name the prompts that REFRESH=1 measures again"
  export SCORES TRAIN_FILE
fi
run_python() {  # that of run.sh
  (
    PRESET=any PROJECT_NAME=any
    source "$here/../run.sh"
    "$PYTHON" -m "$@"
  )
}
folder=${CKPTS_DIR:-$PWD/outputs/semantic_curriculum_stages/${script%.sh}-${PRESET:-sent}-seed${SEED:-0}}
scores_from=this_model
for ((stage = 1; stage <= STAGES; stage++)); do
  if ((stage > 1)); then
    # the trained policy, of a LoRA run with its adapter merged
    MODEL_PATH=$(run_python recipe.sampling.checkpoints "$folder/stage$((stage - 1))")
    export MODEL_PATH
    if ((!REFRESH)); then
      scores_from=any_model  # the first one's, which is not the one that this stage begins with
    else
      export SCORES=$folder/semantic_entropy_stage$stage.parquet
      # run_cpu.sh measures what is not there by itself
      if [[ $script != run_cpu.sh && ! -f $SCORES ]]; then
        # shellcheck disable=SC2086  # several options; the rest is as the stage before was trained
        run_python recipe.semantic_curriculum.measure --model "$MODEL_PATH" --data "$TRAIN_FILE" \
          --out "$SCORES" ${MEASURE_OPTIONS:-}
      fi
    fi
  fi
  run_stage() {
    CKPTS_DIR=$folder/stage$stage bash "$here/$script" "$@" \
      "data.curriculum.stages=$STAGES" \
      "data.curriculum.only_stage=$stage" \
      "data.curriculum.scores_from=$scores_from" \
      trainer.total_training_steps=null \
      'actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]'
  }
  # done: this very command has ended well, and so had those of the stages before
  mark=$folder/stage$stage/done
  mkdir -p "$folder/stage$stage"
  COMMAND_FILE=$mark.new run_stage "$@"
  if cmp -s "$mark" "$mark.new"; then
    echo "[stages] stage $stage of $STAGES is done"
    continue
  fi
  echo "[stages] stage $stage of $STAGES"
  for ((later = stage; later <= STAGES; later++)); do rm -f "$folder/stage$later/done"; done
  run_stage "$@"
  mv "$mark.new" "$mark"
done
