# Sourced by every run_*.sh after its own defaults: turns the environment variables that verl users
# know into Hydra overrides. `launch RECIPE [override ...]` starts it; later overrides win. With
# COMMAND_FILE it only writes the command there, its words ended by NUL, for recipe.compare.
# SEED decides the order of the data and the sampling, STEPS the length of the run, on any machine;
# VERBOSE=1 is --verbose.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ -z ${PYTHON:-} ]]; then
  PYTHON=$ROOT/.venv/bin/python
  [[ -x $PYTHON ]] || PYTHON=python3
fi
command -v "$PYTHON" >/dev/null ||
  { echo "error: PYTHON=$PYTHON is no program: name the one of verl's environment." >&2; exit 2; }
export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}

NNODES=${NNODES:-1}
NGPUS_PER_NODE=${NGPUS_PER_NODE:-8}
ROLLOUT_N=${ROLLOUT_N:-8}
SEED=${SEED:-0}
STEPS=${STEPS:-null}                                            # null: trainer.total_epochs decides
SAVE_FREQ=${SAVE_FREQ:-20}
TEST_FREQ=${TEST_FREQ:-10}
EXPERIMENT_NAME=${EXPERIMENT_NAME:-$PRESET-seed$SEED}
CKPTS_DIR=${CKPTS_DIR:-$PWD/outputs/$PROJECT_NAME/$EXPERIMENT_NAME}
[[ -v TASK_OVERRIDES ]] || TASK_OVERRIDES=()                    # of recipe/cpu/task.sh

# What the runs of Qwen models on GPUs have in common
QWEN_OVERRIDES=(
  trainer.v1.recipe_sync.allow_padded_vocab=true                # Qwen pads its vocabulary
  data.filter_overlong_prompts=true                             # ours
  actor_rollout_ref.actor.use_dynamic_bsz=true                  # ours
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu=16384       # verl
  actor_rollout_ref.rollout.gpu_memory_utilization=0.6          # ours
)

# A text as a value of Hydra's grammar, so that a path may have blanks, quotes and = , ( ) [ ] # in
# it: in single quotes, before which a backslash is doubled. A list in brackets stays as it is.
quoted() {
  [[ $1 == \[*\] ]] && printf '%s' "$1" ||
    printf "'%s'" "$(sed -E 's/(\\*)\x27/\1\1\\\x27/g; s/\\+$/&&/' <<<"$1")"
}

# Adds the overrides that a file has, one per line, to `overrides`: the variable that names the file,
# and what to do where there is none.
read_overrides() {
  [[ -f ${!1} ]] || { echo "error: $1=${!1} is no file: $2." >&2; exit 2; }
  local lines
  mapfile -t lines <"${!1}"
  overrides+=("${lines[@]}")
}

launch() {
  local recipe=$1
  shift
  local command=(
    "$PYTHON" -m recipe.launch "$recipe"
    "actor_rollout_ref.model.path=$(quoted "$MODEL_PATH")"
    "data.train_files=$(quoted "$TRAIN_FILE")"
    "data.val_files=$(quoted "$TEST_FILE")"
    "data.train_batch_size=$TRAIN_BATCH_SIZE"
    "data.seed=$SEED"
    "actor_rollout_ref.actor.data_loader_seed=$SEED"
    "actor_rollout_ref.rollout.seed=$SEED"
    "actor_rollout_ref.rollout.n=$ROLLOUT_N"
    "trainer.nnodes=$NNODES"
    "trainer.n_gpus_per_node=$NGPUS_PER_NODE"
    "trainer.total_training_steps=$STEPS"
    "trainer.save_freq=$SAVE_FREQ"
    "trainer.test_freq=$TEST_FREQ"
    "trainer.project_name=$(quoted "$PROJECT_NAME")"
    "trainer.experiment_name=$(quoted "$EXPERIMENT_NAME")"
    "trainer.default_local_dir=$(quoted "$CKPTS_DIR")"
    "${TASK_OVERRIDES[@]}"
    "$@"
  )
  if [[ -n ${COMMAND_FILE:-} ]]; then
    printf '%s\0' "${command[@]}" >"$COMMAND_FILE"
    exit
  fi
  [[ ${VERBOSE:-0} == 0 ]] || command+=(--verbose)
  exec "${command[@]}"
}
