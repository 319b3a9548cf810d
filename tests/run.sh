#!/usr/bin/env bash
# Sets up what is missing and runs the tests. Arguments go to pytest, paths as seen from the
# repository's root: tests/run.sh tests/tools -k runner
[ -n "${BASH_VERSION-}" ] || exec bash "$0" "$@"  # `sh tests/run.sh`
set -euo pipefail
unset CDPATH
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
. ./path.sh
exec python -m pytest -c tests/pytest.ini --rootdir . "$@"
