#!/usr/bin/env bash
# Checks the rules of pyproject.toml: layout and faults (ruff), types (mypy). Changes nothing.
# `ruff format` and `ruff check --fix`, after `. ./path.sh`, put right what a machine can.
[ -n "${BASH_VERSION-}" ] || exec bash "$0" "$@"  # `sh tests/rules.sh`
set -euo pipefail
unset CDPATH
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
. ./path.sh

failed=()
check() {
  echo "== $*"
  python -m "$@" || failed+=("$*")
}
check ruff format --check --quiet
check ruff check --quiet
check mypy
[ ${#failed[@]} -eq 0 ] || { printf 'error: %s found faults\n' "${failed[@]}" >&2; exit 1; }
