#!/usr/bin/env bash
# SENT and its baselines for real on a machine without a GPU: a 1 M-parameter model on signed sums,
# by the very trainer, FSDP actor, vLLM rollout, judge and checkpoints of the GPU runs. The first
# start writes the data, warm-starts the model (two minutes), measures the semantic entropy of 640
# prompts (a minute), and for sent_paper and paper the model's thresholds; all are kept.
#   bash recipe/semantic_curriculum/run_cpu.sh [--dry-run] [key=value ...]
# PRESET=sent_paper, curriculum, as_described, grpo … chooses the method, SEED the order within a stage.
# data.curriculum.order=reversed, pass_rate, shuffled are the controls of the curriculum;
# algorithm.adv_estimator=asymgrpo with algorithm.asymgrpo.preset=asymgrpo combines it with AsymGRPO,
# actor_rollout_ref.actor.policy_loss.schedule=id with a clip schedule.
set -euo pipefail

PRESET=${PRESET:-sent}
PROJECT_NAME=${PROJECT_NAME:-semantic_curriculum_cpu}
PROMPTS=${PROMPTS:-640}                                         # 2 stages x 2 epochs: 40 steps of 32
source "$(dirname "${BASH_SOURCE[0]}")/../cpu/task.sh"
source "$(dirname "${BASH_SOURCE[0]}")/../run.sh"
prepare_cpu_task
SCORES=${SCORES:-$DATA_DIR/semantic_entropy_$PROMPTS.parquet}
((!PREPARE)) || [[ -f $SCORES ]] ||
  "$PYTHON" -m recipe.semantic_curriculum.measure --model "$MODEL_PATH" --data "$TRAIN_FILE" \
    --max-prompts "$PROMPTS" --max-response-length "$RESPONSE_LENGTH" --reward "$REWARD" --out "$SCORES"

overrides=(
  "actor_rollout_ref.actor.policy_loss.token_rule.preset=$PRESET"
  "data.curriculum.scores=$(quoted "$SCORES")"
  "data.curriculum.seed=$SEED"
  data.curriculum.epochs_per_stage=2
  "data.train_max_samples=$PROMPTS"
  data.shuffle=false                                            # the first rows; the plan shuffles
)
case $PRESET in
  # the model's own thresholds, of the responses that the scores are of
  sent_paper | paper)
    cure="write it with python -m recipe.semantic_curriculum.calibrate"
    if [[ -z ${THRESHOLDS:-} ]]; then
      cure="a start without --dry-run writes it"
      THRESHOLDS=${SCORES%.parquet}_thresholds.txt
      ((!PREPARE)) || [[ $THRESHOLDS -nt $SCORES ]] ||
        "$PYTHON" -m recipe.semantic_curriculum.calibrate --model "$MODEL_PATH" \
          --data "$TRAIN_FILE" --reward "$REWARD" --responses "$SCORES.responses" --high-cov-fraction 0.02 \
          --out "$THRESHOLDS"
    fi
    read_overrides THRESHOLDS "$cure" ;;
  # a mini-batch has a thousand tokens: 2e-4 of them would be none
  sent | as_described | high_entropy_kl | sent_released | as_released)
    overrides+=(actor_rollout_ref.actor.policy_loss.token_rule.high_cov_fraction=0.02) ;;
  kl_cov)
    overrides+=(actor_rollout_ref.actor.policy_loss.token_rule.high_cov_fraction=0.02) ;;
esac
launch semantic_curriculum "${overrides[@]}" "$@"
