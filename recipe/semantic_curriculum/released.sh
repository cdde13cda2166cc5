# Sourced by the run scripts: what the released scripts of the 1.5B and 7B models share. Each line
# ends in its source: released (zldscr0/SENT, examples/grpo_curriculum), verl (its default), or ours.

TRAIN_FILE=${TRAIN_FILE:-$HOME/data/dapo_math/train.parquet}         # released: DAPO-Math-17k
TEST_FILE=${TEST_FILE:-$HOME/data/dapo_math/test.parquet}            # ours; released: AIME 2024
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-256}                            # released
NGPUS_PER_NODE=${NGPUS_PER_NODE:-4}                                  # released
SAVE_FREQ=${SAVE_FREQ:-20}                                           # released
TEST_FREQ=${TEST_FREQ:-10}                                           # released
PRESET=${PRESET:-sent}
source "$(dirname "${BASH_SOURCE[0]}")/../run.sh"
[[ -v MODEL_OVERRIDES ]] || MODEL_OVERRIDES=()                          # of one model's script
SCORES=${SCORES:-$HOME/data/dapo_math/semantic_entropy_$(basename "$MODEL_PATH").parquet}

overrides=(
  "${QWEN_OVERRIDES[@]}"
  "actor_rollout_ref.actor.policy_loss.token_rule.preset=$PRESET"
  "data.curriculum.scores=$(quoted "$SCORES")"
  "data.curriculum.seed=$SEED"                                        # ours
  data.max_prompt_length=1024                                        # released
  data.max_response_length=2048                                      # released
  actor_rollout_ref.actor.ppo_mini_batch_size=128                    # released: 2 updates per rollout
  "actor_rollout_ref.rollout.tensor_model_parallel_size=$TENSOR_PARALLEL"
  actor_rollout_ref.ref.fsdp_config.param_offload=true               # released; verl does it anyway
  # ours: without a curriculum a run shows each prompt as often, so that the methods' steps are equal
  'trainer.total_epochs=${data.curriculum.epochs_per_stage}'
)
# the file that recipe.semantic_curriculum.calibrate has written for this model: for PRESET=sent_paper
# and paper, whose thresholds have no default
if [[ -n ${THRESHOLDS:-} && $PRESET =~ ^(sent_)?paper$ ]]; then
  read_overrides THRESHOLDS "write it with python -m recipe.semantic_curriculum.calibrate"
fi
launch semantic_curriculum "${overrides[@]}" "${MODEL_OVERRIDES[@]}" "$@"
