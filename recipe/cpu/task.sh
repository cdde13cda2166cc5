# Sourced by every run_cpu.sh before ../run.sh: the data, the warm-started model and the settings of
# a CPU task (TASK, of recipe/cpu/tasks/), which have to do with its size and not with a method. All
# values are ours.

TASK=${TASK:-signed_sums}
case $TASK in
  signed_sums)
    TASK_FOLDER=arithmetic
    REWARD=pkg://recipe.judge
    RESPONSE_LENGTH=24                                          # the longest solution has 21 tokens
    TASK_OVERRIDES=(
      actor_rollout_ref.actor.ppo_mini_batch_size=8             # 4 updates per rollout: clips must act
      actor_rollout_ref.actor.optim.lr=2e-4
    ) ;;
  target_sums)
    TASK_FOLDER=target_sums
    REWARD=pkg://recipe.cpu.tasks.target_sums
    RESPONSE_LENGTH=14                                          # the longest solution has 11 tokens
    TASK_OVERRIDES=(
      reward.custom_reward_function.path=$REWARD
      actor_rollout_ref.actor.ppo_mini_batch_size=2             # 16 updates per rollout
      actor_rollout_ref.actor.optim.lr=1e-4
    ) ;;
  *)
    echo "error: TASK=$TASK is not allowed: use signed_sums or target_sums." >&2
    exit 2 ;;
esac
DATA_DIR=${DATA_DIR:-$HOME/data/$TASK_FOLDER}
MODEL_PATH=${MODEL_PATH:-$HOME/models/$TASK_FOLDER-1m}
TRAIN_FILE=${TRAIN_FILE:-$DATA_DIR/train.parquet}
TEST_FILE=${TEST_FILE:-$DATA_DIR/test.parquet}
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-32}
NGPUS_PER_NODE=${NGPUS_PER_NODE:-1}
STEPS=${STEPS:-40}
TASK_OVERRIDES+=(
  machine=cpu
  data.max_prompt_length=32
  data.max_response_length=$RESPONSE_LENGTH
  data.val_batch_size=null
  actor_rollout_ref.rollout.max_model_len=64
  actor_rollout_ref.rollout.val_kwargs.temperature=1.0        # the policy itself, not its mode
  actor_rollout_ref.rollout.val_kwargs.top_p=1.0
  actor_rollout_ref.rollout.val_kwargs.top_k=-1
  actor_rollout_ref.rollout.val_kwargs.do_sample=true
  trainer.total_epochs=100000                                 # the steps decide
)

# Whether data and models that are missing are made: not by a command that only checks or prints, of
# which recipe.compare's sets PREPARE=0.
PREPARE=${PREPARE:-1}
[[ " $* " =~ \ (--dry-run|--print-config|--settings|--help|-h)\  ]] && PREPARE=0

# The data and the model, made once and kept.
prepare_cpu_task() {
  if ((!PREPARE)); then
    [[ -f $TRAIN_FILE && -f $TEST_FILE && -f $MODEL_PATH/config.json ]] ||
      echo "note: the task's data or model is missing; a start makes them, in a few minutes" >&2
    return
  fi
  [[ -f $TRAIN_FILE && -f $TEST_FILE ]] ||
    "$PYTHON" "$ROOT/data_prep/arithmetic.py" --task "$TASK" --local_save_dir "$DATA_DIR"
  [[ -f $MODEL_PATH/config.json ]] ||
    "$PYTHON" -m recipe.cpu.warm_start --task "$TASK" --data "$DATA_DIR" --out "$MODEL_PATH"
}
