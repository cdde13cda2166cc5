#!/usr/bin/env bash
# Make .venv from the locked versions: `bash setup.sh cpu` or `bash setup.sh gpu`. Run again, it does
# nothing unless a lock file changed. PYTHON names the interpreter (Python 3.11).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

machine=${1:-}
if [[ $machine != cpu && $machine != gpu ]]; then
  echo "usage: bash setup.sh cpu|gpu" >&2
  exit 2
fi
python=${PYTHON:-python3.11}
if ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
  echo "error: '$python' is not Python 3.11, which the lock files are for: install it, or set PYTHON" \
    "to it." >&2
  exit 2
fi

stamp=.venv/.setup
wanted=$(cat setup.sh pyproject.toml requirements/"$machine"*.txt | sha256sum)
if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then
  echo ".venv is up to date ($machine)"
  exit 0
fi
[[ -d .venv ]] || "$python" -m venv .venv
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }
pip install -r "requirements/$machine.txt"
pip install --no-deps --no-build-isolation -r "requirements/$machine-nodeps.txt"
pip install --no-deps --no-build-isolation --quiet --editable .
.venv/bin/python -c 'from recipe.launch import preflight; preflight.registrations()'
echo "$wanted" >"$stamp"
echo ".venv is ready ($machine)"
