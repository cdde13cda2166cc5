# Sourced by the two run scripts of the paper's models: what they share (App. C). Each line ends in
# its source: paper, verl (its default), or ours.

TRAIN_FILE=${TRAIN_FILE:-$HOME/data/dapo_math/train.parquet}         # paper App. C
TEST_FILE=${TEST_FILE:-$HOME/data/dapo_math/test.parquet}            # ours: 500 held-out problems
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-512}                            # paper App. C
STEPS=${STEPS:-400}                                                  # paper App. C
PRESET=${PRESET:-id}
source "$(dirname "${BASH_SOURCE[0]}")/../run.sh"

overrides=(
  "${QWEN_OVERRIDES[@]}"
  "actor_rollout_ref.actor.policy_loss.preset=$PRESET"
  trainer.total_epochs=100                                           # ours: the steps decide
  data.max_prompt_length=1024                                        # not in paper; ours
  "data.max_response_length=$RESPONSE_LENGTH"
  # not in paper, but its clip shares are above 0 from step 1, so there are several updates: ours
  actor_rollout_ref.actor.ppo_mini_batch_size=64
  # not in paper; read off its curves, whose first raise is at 0.15 nats = 0.2 * 0.75
  actor_rollout_ref.actor.policy_loss.od_h_init=0.75
  actor_rollout_ref.rollout.tensor_model_parallel_size=4             # paper App. C
  actor_rollout_ref.actor.fsdp_config.param_offload=true             # paper App. C
  actor_rollout_ref.actor.fsdp_config.optimizer_offload=true         # paper App. C
  actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size=4  # paper App. C
)
launch clip_entropy "${overrides[@]}" "$@"
