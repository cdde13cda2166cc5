# Sourced by every run_*.sh after its own defaults: turns the environment variables that verl users
# know into Hydra overrides. `launch RECIPE [override ...]` starts it; later overrides win.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON=${PYTHON:-$ROOT/.venv/bin/python}
[[ -x $PYTHON ]] || PYTHON=$(command -v python3)
export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}

NNODES=${NNODES:-1}
NGPUS_PER_NODE=${NGPUS_PER_NODE:-8}
ROLLOUT_N=${ROLLOUT_N:-8}
SAVE_FREQ=${SAVE_FREQ:-20}
TEST_FREQ=${TEST_FREQ:-10}
PRESET=${PRESET:-asymgrpo}
PROJECT_NAME=${PROJECT_NAME:-entropy}
EXPERIMENT_NAME=${EXPERIMENT_NAME:-$PRESET}
CKPTS_DIR=${CKPTS_DIR:-$PWD/outputs/$PROJECT_NAME/$EXPERIMENT_NAME}

# The data and the warm-started model of the CPU runs, made once and kept.
prepare_cpu_task() {
  [[ -f $TRAIN_FILE && -f $TEST_FILE ]] ||
    "$PYTHON" "$ROOT/data_prep/arithmetic.py" --local_save_dir "$DATA_DIR"
  [[ -f $MODEL_PATH/config.json ]] ||
    "$PYTHON" -m recipe.cpu.warm_start --data "$DATA_DIR" --out "$MODEL_PATH"
}

launch() {
  local recipe=$1
  shift
  # with RAY_ADDRESS Ray joins that cluster, whose resources are not ours to set
  local cluster=()
  [[ -z ${RAY_ADDRESS:-} ]] ||
    cluster=(ray_kwargs.ray_init.num_cpus=null ++ray_kwargs.ray_init.num_gpus=null)
  exec "$PYTHON" -m recipe.launch "$recipe" \
    "actor_rollout_ref.model.path=$MODEL_PATH" \
    "data.train_files=$TRAIN_FILE" \
    "data.val_files=$TEST_FILE" \
    "data.train_batch_size=$TRAIN_BATCH_SIZE" \
    "actor_rollout_ref.rollout.n=$ROLLOUT_N" \
    "trainer.nnodes=$NNODES" \
    "trainer.n_gpus_per_node=$NGPUS_PER_NODE" \
    "trainer.save_freq=$SAVE_FREQ" \
    "trainer.test_freq=$TEST_FREQ" \
    "trainer.project_name=$PROJECT_NAME" \
    "trainer.experiment_name=$EXPERIMENT_NAME" \
    "trainer.default_local_dir=$CKPTS_DIR" \
    "${cluster[@]}" \
    "$@"
}
