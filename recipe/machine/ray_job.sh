#!/usr/bin/env bash
# Submits a command to a Ray cluster that is up, as KubeRay and other services give it, and follows
# what it prints:
#   RAY_API=http://HEAD:8265 NNODES=2 bash recipe/machine/ray_job.sh \
#     bash recipe/clip_entropy/run_qwen7b.sh
# It runs on the head node, in CLUSTER_ROOT: this repository's folder there, on a file system that
# all nodes share (default: the same path as here). Each node's environment must have this package;
# docs/cluster.md says what else. FORWARD="HF_HOME NCCL_DEBUG" names variables that every process of
# the job shall have; no secrets, since everybody who sees the cluster sees a job's environment.
set -euo pipefail

: "${RAY_API:?is not set: give the address of the dashboard, http://HEAD:8265}"
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
root=${CLUSTER_ROOT:-$root}
PYTHON=${PYTHON:-$root/.venv/bin/python}

words=()
for name in MODEL_PATH TRAIN_FILE TEST_FILE TRAIN_BATCH_SIZE NNODES NGPUS_PER_NODE ROLLOUT_N \
  PRESET SEED STEPS SAVE_FREQ TEST_FREQ PROJECT_NAME EXPERIMENT_NAME CKPTS_DIR SCORES DATA VERBOSE \
  RESPONSE_LENGTH TENSOR_PARALLEL THRESHOLDS GPU_GB STAGES REFRESH MEASURE_OPTIONS TASK PROMPTS \
  DATA_DIR PREPARE; do
  [[ -z ${!name:-} ]] || words+=("$name=${!name}")
done
read -ra forward <<<"${FORWARD:-}"
runtime_env=$("$PYTHON" -c 'import json, os, sys
print(json.dumps({"env_vars": {name: os.environ[name] for name in sys.argv[1:]}}))' "${forward[@]}")
# A job and a run in it both set variables for their processes: where they set the same one Ray
# refuses the run, unless it is told to let the run's win
exec "$PYTHON" -m ray.scripts.scripts job submit --address "$RAY_API" \
  --runtime-env-json "$runtime_env" -- \
  env --chdir "$root" RAY_OVERRIDE_JOB_RUNTIME_ENV=1 "${words[@]}" "$@"
