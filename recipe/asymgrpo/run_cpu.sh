#!/usr/bin/env bash
# AsymGRPO for real on a machine without a GPU: a 1 M-parameter model on signed sums, by the very
# trainer, FSDP actor, vLLM rollout, judge and checkpoints of the GPU runs. The first start writes
# the data and warm-starts the model (two minutes); both are kept. All values are ours.
#   bash recipe/asymgrpo/run_cpu.sh [--dry-run] [key=value ...]
# STEPS=20 for a short run; PRESET=grpo (or any row of the paper's Table 1) for a baseline;
# SEED=1 for another data order; CKPTS_DIR for another run folder.
set -euo pipefail

DATA_DIR=${DATA_DIR:-$HOME/data/arithmetic}
MODEL_PATH=${MODEL_PATH:-$HOME/models/arithmetic-1m}
TRAIN_FILE=${TRAIN_FILE:-$DATA_DIR/train.parquet}
TEST_FILE=${TEST_FILE:-$DATA_DIR/test.parquet}
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-32}
NGPUS_PER_NODE=${NGPUS_PER_NODE:-1}
STEPS=${STEPS:-40}
SEED=${SEED:-0}
TEST_FREQ=${TEST_FREQ:-10}
PROJECT_NAME=${PROJECT_NAME:-asymgrpo_cpu}
EXPERIMENT_NAME=${EXPERIMENT_NAME:-${PRESET:-asymgrpo}-seed$SEED}
source "$(dirname "${BASH_SOURCE[0]}")/../run.sh"
prepare_cpu_task

overrides=(
  machine=cpu
  "algorithm.asymgrpo.preset=$PRESET"
  "data.seed=$SEED"
  "actor_rollout_ref.actor.data_loader_seed=$SEED"
  "actor_rollout_ref.rollout.seed=$SEED"
  data.max_prompt_length=32
  data.max_response_length=24                                   # the longest solution has 21 tokens
  data.val_batch_size=null
  actor_rollout_ref.actor.ppo_mini_batch_size=8                 # 4 updates a rollout: clips must act
  actor_rollout_ref.actor.optim.lr=2e-4
  actor_rollout_ref.rollout.max_model_len=64
  actor_rollout_ref.rollout.val_kwargs.temperature=1.0          # the policy itself, not its mode
  actor_rollout_ref.rollout.val_kwargs.do_sample=true
  "trainer.total_training_steps=$STEPS"
  trainer.total_epochs=100000
  trainer.max_actor_ckpt_to_keep=2
)
launch asymgrpo "${overrides[@]}" "$@"
