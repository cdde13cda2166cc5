# Sourced by every run_*.sh after its own defaults: turns the environment variables that verl users
# know into Hydra overrides. `launch RECIPE [override ...]` starts it; later overrides win. With
# COMMAND_FILE it only writes the command there, its words ended by NUL, for recipe.compare.
# MACHINE=cpu adds the data, warm-started model and overrides of the CPU runs (all values ours).

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON=${PYTHON:-$ROOT/.venv/bin/python}
[[ -x $PYTHON ]] || PYTHON=$(command -v python3)
export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}

if [[ ${MACHINE:-gpu} == cpu ]]; then
  DATA_DIR=${DATA_DIR:-$HOME/data/arithmetic}
  MODEL_PATH=${MODEL_PATH:-$HOME/models/arithmetic-1m}
  TRAIN_FILE=${TRAIN_FILE:-$DATA_DIR/train.parquet}
  TEST_FILE=${TEST_FILE:-$DATA_DIR/test.parquet}
  TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-32}
  NGPUS_PER_NODE=${NGPUS_PER_NODE:-1}
  STEPS=${STEPS:-40}
  SEED=${SEED:-0}
  EXPERIMENT_NAME=${EXPERIMENT_NAME:-$PRESET-seed$SEED}
  MACHINE_OVERRIDES=(
    machine=cpu
    "data.seed=$SEED"
    "actor_rollout_ref.actor.data_loader_seed=$SEED"
    "actor_rollout_ref.rollout.seed=$SEED"
    data.max_prompt_length=32
    data.max_response_length=24                                 # the longest solution has 21 tokens
    data.val_batch_size=null
    actor_rollout_ref.actor.ppo_mini_batch_size=8               # 4 updates a rollout: clips must act
    actor_rollout_ref.actor.optim.lr=2e-4
    actor_rollout_ref.rollout.max_model_len=64
    actor_rollout_ref.rollout.val_kwargs.temperature=1.0        # the policy itself, not its mode
    actor_rollout_ref.rollout.val_kwargs.top_p=1.0
    actor_rollout_ref.rollout.val_kwargs.top_k=-1
    actor_rollout_ref.rollout.val_kwargs.do_sample=true
    "trainer.total_training_steps=$STEPS"
    trainer.total_epochs=100000
    trainer.max_actor_ckpt_to_keep=2
  )
else
  NGPUS_PER_NODE=${NGPUS_PER_NODE:-8}
  MACHINE_OVERRIDES=()
fi
# What the GPU runs of Qwen models have in common
QWEN_OVERRIDES=(
  trainer.v1.recipe_sync.allow_padded_vocab=true                # Qwen pads its vocabulary
  data.filter_overlong_prompts=true                             # ours
  actor_rollout_ref.actor.use_dynamic_bsz=true                  # ours
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu=16384       # verl
  actor_rollout_ref.rollout.gpu_memory_utilization=0.6          # ours
)

NNODES=${NNODES:-1}
ROLLOUT_N=${ROLLOUT_N:-8}
SAVE_FREQ=${SAVE_FREQ:-20}
TEST_FREQ=${TEST_FREQ:-10}
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
  local command=(
    "$PYTHON" -m recipe.launch "$recipe"
    "actor_rollout_ref.model.path=$MODEL_PATH"
    "data.train_files=$TRAIN_FILE"
    "data.val_files=$TEST_FILE"
    "data.train_batch_size=$TRAIN_BATCH_SIZE"
    "actor_rollout_ref.rollout.n=$ROLLOUT_N"
    "trainer.nnodes=$NNODES"
    "trainer.n_gpus_per_node=$NGPUS_PER_NODE"
    "trainer.save_freq=$SAVE_FREQ"
    "trainer.test_freq=$TEST_FREQ"
    "trainer.project_name=$PROJECT_NAME"
    "trainer.experiment_name=$EXPERIMENT_NAME"
    "trainer.default_local_dir=$CKPTS_DIR"
    "${MACHINE_OVERRIDES[@]}"
    "${cluster[@]}"
    "$@"
  )
  if [[ -n ${COMMAND_FILE:-} ]]; then
    printf '%s\0' "${command[@]}" >"$COMMAND_FILE"
    exit
  fi
  exec "${command[@]}"
}
