#!/usr/bin/env bash
# Sets up what is missing, checks the rules of pyproject.toml (tests/rules.sh) and runs the tests.
# Arguments go to pytest, paths as seen from the repository's root. Where one names tests, only those run:
#
#   tests/run.sh -x                       the rules, then all tests up to the first that fails
#   tests/run.sh tests/tools -k runner    these tests alone
[ -n "${BASH_VERSION-}" ] || exec bash "$0" "$@"  # `sh tests/run.sh`
set -euo pipefail
unset CDPATH
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
. ./path.sh

rules=true
for argument; do
  [[ $argument != -k && ! -e ${argument%%::*} ]] || rules=false
done
$rules && tests/rules.sh
exec python -m pytest "$@"
