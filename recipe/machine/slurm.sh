#!/usr/bin/env bash
# One run, or one comparison, on the nodes of a Slurm job: starts Ray on all of them, runs the
# command on the first, and ends Ray with it. To be submitted from the repository's root, on a file
# system that all nodes share (what else must be on it: docs/cluster.md):
#   sbatch --nodes=2 recipe/machine/slurm.sh bash recipe/clip_entropy/run_qwen7b.sh
#   NNODES=1 sbatch --nodes=2 recipe/machine/slurm.sh \
#     .venv/bin/python -m recipe.compare studies/cluster_qwen7b.yaml
# A run takes all nodes, unless NNODES says fewer; a comparison then has as many at once as fit.
# Partition, account and time are sbatch's options.
#SBATCH --job-name=recipe
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --output=%x-%j.txt
set -euo pipefail

cd "${SLURM_SUBMIT_DIR:-$PWD}"  # Slurm runs a copy of this file from elsewhere
export PYTHON=${PYTHON:-$PWD/.venv/bin/python}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
export NGPUS_PER_NODE=${NGPUS_PER_NODE:-${SLURM_GPUS_ON_NODE:-8}}
: "${SLURM_CPUS_ON_NODE:?is not set: start this with sbatch}"
# Ray's CPUs are logical; a run waits for ever without 3 beside each GPU and 9 for TransferQueue, so
# that runs of one GPU take 12 each
needed=$((12 * NGPUS_PER_NODE))
cpus=${RAY_NUM_CPUS:-$((SLURM_CPUS_ON_NODE > needed ? SLURM_CPUS_ON_NODE : needed))}
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export NNODES=${NNODES:-${#nodes[@]}}

# a cluster that only this user can use; the token is kept in the home folder
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token}
[[ $RAY_AUTH_MODE != token ]] ||
  "$PYTHON" -m ray.scripts.scripts get-auth-token --generate >/dev/null

steps=()
trap '[[ ${#steps[@]} == 0 ]] || kill "${steps[@]}" 2>/dev/null; wait' EXIT

on_node() {
  local node=$1
  shift
  exec srun --overlap --nodes=1 --ntasks=1 --nodelist="$node" "$@"
}

start_ray() {
  local node=$1
  shift
  on_node "$node" "$PYTHON" -m ray.scripts.scripts start --block --disable-usage-stats \
    "--num-cpus=$cpus" "--num-gpus=$NGPUS_PER_NODE" "$@" &
  steps+=($!)
}

head_ip=$(on_node "${nodes[0]}" "$PYTHON" -c 'import ray; print(ray.util.get_node_ip_address())')
port=${RAY_PORT:-6379}
# the head's own options: RAY_HEAD_OPTIONS, such as --temp-dir
read -ra head_options <<<"${RAY_HEAD_OPTIONS:-}"
start_ray "${nodes[0]}" --head --include-dashboard=false "--node-ip-address=$head_ip" \
  "--port=$port" "${head_options[@]}"
export RAY_ADDRESS=$head_ip:$port
"$PYTHON" -m recipe.launch.nodes 1
for node in "${nodes[@]:1}"; do
  start_ray "$node" "--address=$RAY_ADDRESS"
done
"$PYTHON" -m recipe.launch.nodes "${#nodes[@]}"

"$@"
