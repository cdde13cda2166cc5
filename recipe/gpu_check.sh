#!/usr/bin/env bash
# The first hour on a new machine: environment, registrations, kernels, memory, three steps of each
# paper's recipe, resume and evaluation, each by itself, so that one that fails leaves the others to run. It
# prints a table to paste into an issue and ends with 1 if one failed.
#   bash recipe/gpu_check.sh [FOLDER [CHECK ...]] [-- OVERRIDE ...]
# FOLDER is that of the logs (outputs/gpu_check); with CHECKs only these are done; the OVERRIDEs are
# added to every training, such as those of docs/gpu_environment.md for a machine without flash-attn.
#   MODEL_PATH=Qwen/Qwen2.5-0.5B-Instruct NGPUS_PER_NODE=8 bash recipe/gpu_check.sh
# Model and data are those of the CPU task, made where they are missing (two minutes), unless
# MODEL_PATH names another model. Without a GPU the same lines run on the CPU platform.
set -uo pipefail

own_model=${MODEL_PATH:-}
chosen=()
while (($#)) && [[ $1 != -- ]]; do
  chosen+=("$1")
  shift
done
OVERRIDES=("${@:2}")
OUT=${chosen[0]:-$PWD/outputs/gpu_check}
chosen=("${chosen[@]:1}")
PROJECT_NAME=gpu_check
PRESET=-  # of each recipe: below
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-16}
STEPS=3
SAVE_FREQ=1
TEST_FREQ=-1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/cpu/task.sh"
source "$here/run.sh"
machine=$("$PYTHON" -c 'from recipe import machine; print(machine.name())')
GPU_GB=${GPU_GB:-$("$PYTHON" "$ROOT/perf/gpu_check.py" card)}
export GPU_GB
PROMPTS=$((TRAIN_BATCH_SIZE * 5))  # as many steps as the resumed run has
SCORES=$OUT/semantic_entropy.parquet
TASK_OVERRIDES=(
  "${TASK_OVERRIDES[@]/#machine=cpu/machine=$machine}"
  data.max_prompt_length=128                       # a chat template may be longer than the problem
  actor_rollout_ref.rollout.max_model_len=160
  "actor_rollout_ref.actor.ppo_mini_batch_size=$((TRAIN_BATCH_SIZE / 4))"
  "${QWEN_OVERRIDES[@]}"
  actor_rollout_ref.rollout.tensor_model_parallel_size=1
  trainer.val_before_train=false
  "${OVERRIDES[@]}"
)

rows=()
failed=0
mkdir -p "$OUT"

# check NAME COMMAND...: runs it, keeps what it prints, adds a row with its last line
check() {
  local name=$1 log start=$SECONDS result=ok
  shift
  [[ ${#chosen[@]} == 0 || " ${chosen[*]} " == *" $name "* ]] || return 0
  log="$OUT/${name// /_}.txt"
  printf '%s ... ' "$name"
  "$@" >"$log" 2>&1 </dev/null || { result=FAILED failed=1; }
  local last
  last=$(grep -v '^[[:space:]]*$' "$log" | tail -n 1 | tr '|\r' '/ ' | cut -c 1-300)
  rows+=("| $name | $result | $((SECONDS - start)) | $last |")
  echo "$result, $((SECONDS - start)) s"
}

registrations() {
  "$PYTHON" -c 'from recipe.core.recipe import recipes; from recipe.launch import preflight
preflight.registrations()
print(", ".join(recipe.name for recipe in recipes()))'
}

# train RECIPE PRESET [override ...]: three steps in a run folder of its own
train() {
  local recipe=$1 preset=$2
  shift 2
  CKPTS_DIR=$OUT/$recipe EXPERIMENT_NAME=$recipe
  (launch "$recipe" "$preset" "$@")
}

# What the dry run estimates: of memory only where there is a device with memory of its own
memory() {
  train asymgrpo algorithm.asymgrpo.preset=asymgrpo --dry-run |
    grep -E '^\[recipe\] +(memory|disk)' | tr -s ' ' | paste -sd ';'
}

trained() {
  rm -rf "${OUT:?}/$1"
  train "$@" || return
  "$PYTHON" - "$OUT/$1" 1 3 <<<"$LAST_STEPS"
}

resumed() {
  local STEPS=5
  train "$@" || return
  "$PYTHON" - "$OUT/$1" 4 5 <<<"$LAST_STEPS"
}

# Fails unless the last start of a run has logged exactly the steps FIRST to LAST, with finite losses
read -r -d '' LAST_STEPS <<'PYTHON'
import json, math, sys
from pathlib import Path
from recipe.experiment.run import RunFolder
run, first, last = RunFolder(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
rows = [json.loads(line) for line in run.metrics_files()[-1].read_text().splitlines()]
steps = {row["step"]: row["data"] for row in rows if row["step"] > 0}
assert sorted(steps) == list(range(first, last + 1)), f"logged steps {sorted(steps)}"
losses = [step["actor/pg_loss"] for step in steps.values()]
assert all(map(math.isfinite, losses)), f"losses {losses}"
gap = max(step.get("training/rollout_probs_diff_mean", math.nan) for step in steps.values())
seconds = steps[last].get("timing_s/step", math.nan)
print(f"steps {first} to {last}, the last {seconds:.1f} s; rollout and actor probabilities differ by "
      f"{gap:.1e}")
PYTHON

# The CPU task's model is made only where no other is asked for
prepare() {
  if [[ -z $own_model ]]; then
    prepare_cpu_task
  elif [[ ! -f $TRAIN_FILE || ! -f $TEST_FILE ]]; then
    "$PYTHON" "$ROOT/data_prep/arithmetic.py" --task "$TASK" --local_save_dir "$DATA_DIR"
  fi && echo "$MODEL_PATH, $TRAIN_FILE"
}

measure() {
  "$PYTHON" -m recipe.semantic_curriculum.measure --model "$MODEL_PATH" --data "$TRAIN_FILE" \
    --max-prompts "$PROMPTS" --max-response-length "$RESPONSE_LENGTH" --reward "$REWARD" \
    --samples 4 --again --out "$SCORES"
}

# In small chunks, so that there is work for an engine on each of several GPUs
evaluate() {
  "$PYTHON" -m recipe.evaluate "$OUT/asymgrpo" "$TEST_FILE" --again --max-prompts 16 --samples 2 \
    --chunk 2 --max-response-length "$RESPONSE_LENGTH"
}

curriculum=(
  "data.curriculum.scores=$(quoted "$SCORES")"
  data.curriculum.epochs_per_stage=1
  "data.train_max_samples=$PROMPTS"
  data.shuffle=false
)
rule=actor_rollout_ref.actor.policy_loss.token_rule
check environment "$PYTHON" "$ROOT/perf/gpu_check.py" environment
check registrations registrations
check "attention kernels" "$PYTHON" "$ROOT/perf/gpu_check.py" attention
check losses "$PYTHON" "$ROOT/perf/gpu_check.py" losses
check "token selection" "$PYTHON" "$ROOT/perf/gpu_check.py" selection
check "model and data" prepare
check "memory estimate" memory
check asymgrpo trained asymgrpo algorithm.asymgrpo.preset=asymgrpo
check resume resumed asymgrpo algorithm.asymgrpo.preset=asymgrpo
check evaluation evaluate
check clip_entropy trained clip_entropy actor_rollout_ref.actor.policy_loss.preset=id
check "semantic entropy" measure
check semantic_curriculum trained semantic_curriculum "$rule.preset=sent" \
  "$rule.high_cov_fraction=0.02" "${curriculum[@]}"

{
  echo "| check | result | seconds | last line |"
  echo "| --- | --- | --- | --- |"
  printf '%s\n' "${rows[@]}"
} | tee "$OUT/table.md"
exit "$failed"
