#!/usr/bin/env bash
# The example for real on a machine without a GPU: bash recipe/example/run_cpu.sh [key=value ...]
set -euo pipefail

PRESET=${PRESET:-example}
PROJECT_NAME=${PROJECT_NAME:-example_cpu}
source "$(dirname "${BASH_SOURCE[0]}")/../cpu/task.sh"
source "$(dirname "${BASH_SOURCE[0]}")/../run.sh"
prepare_cpu_task
launch example "$@"
