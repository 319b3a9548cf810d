#!/usr/bin/env bash
# Installs the packages pinned in tools/requirements.txt, which every recipe uses.
#
#   tools/install.sh            into tools/venv, a virtual environment created here
#   tools/install.sh --active   into your own environment, the active venv or conda environment:
#                               tools/venv becomes a link to it, so that path.sh and later calls use
#                               it too; to undo this, remove the link (rm tools/venv)
#
# Needs Python 3.10 or newer. tools/venv is created with python3; to use another one: PYTHON=python3.12
# tools/install.sh. If everything is installed, it exits at once. Missing packages are installed, and
# damaged ones in tools/venv are reinstalled (to your own environment it only adds). No root needed.
[ -n "${BASH_VERSION-}" ] || exec bash "$0" "$@"  # `sh tools/install.sh`
set -euo pipefail
export LC_ALL=C PYTHONUTF8=1  # the messages searched for below are the untranslated ones

root=$(unset CDPATH; cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
environment=$root/tools/venv
python=$environment/bin/python
requirements=$root/tools/requirements.txt
installed_requirements=$environment/ser-requirements.txt  # written last: path.sh checks it
installed_packages=$environment/ser-packages.txt

fail() {
  echo "error: $*" >&2
  exit 1
}

# One line per package, `name==version bytes`: the total size of its files on disk.
# It is compared with the list made right after everything had been imported.
list_packages() {
  "$python" -I - <<'PYTHON'
import csv
import os
import sysconfig

site = sysconfig.get_path("purelib")
for folder in sorted(os.listdir(site)):
    if not folder.endswith(".dist-info") or folder.startswith("~"):  # ~: pip's own leftovers
        continue
    package = folder[: -len(".dist-info")].replace("-", "==")
    try:
        with open(f"{site}/{folder}/RECORD", encoding="utf-8", newline="") as record:
            files = [row[0] for row in csv.reader(record) if not row[0].endswith(".pyc")]
    except FileNotFoundError:  # pip writes it last: it was killed
        print(package, "half-written")
        continue
    size = 0
    for file in files:
        try:
            size += os.stat(os.path.join(site, file)).st_size
        except OSError:
            pass
    print(package, size)
PYTHON
}

all_is_there() {
  [ -x "$python" ] && cmp -s "$requirements" "$installed_requirements" &&
    list_packages 2>/dev/null | cmp -s - "$installed_packages"
}

check_version() {  # PROGRAM REMEDY
  local version
  version=$("$1" --version 2>&1) || fail "$1 does not run: ${version%%$'\n'*}; $2"
  if ! [[ $version =~ Python\ ([0-9]+)\.([0-9]+) ]] ||
    ((BASH_REMATCH[1] * 100 + BASH_REMATCH[2] < 310)); then
    fail "$1 is $version, but Python 3.10 or newer is needed; $2"
  fi
}

# Exits with one line that says why pip or venv failed.
explain() {  # WHAT_FAILED ITS_OUTPUT
  local free wanted reason again="then run tools/install.sh again"
  free=$(df -Pk "$root/tools" "${TMPDIR:-/tmp}" | awk 'NR == 2 || $4 < least { least = $4 } END { print least }')
  if [[ $2 == *"No space left on device"* || $2 == *"Disk quota exceeded"* ]] || ((free < 5000)); then
    fail "the disk is full ($root/tools or the temporary folder ${TMPDIR:-/tmp}); free some GB, or" \
      "set TMPDIR to a folder with more space, $again"
  fi
  wanted=$(sed -n 's/^ERROR: No matching distribution found for \([^ ;]*\).*/\1/p' <<<"$2" | head -n 1)
  if [[ -n $wanted && $2 != *"from versions: none"* ]]; then
    fail "pip's package index has other versions, but not $wanted for $("$python" --version) on" \
      "$(uname -sm); use another Python (rm -r $environment, PYTHON=python3.12 tools/install.sh) or" \
      "fix $requirements, $again"
  fi
  if [[ $2 =~ (connection\ broken|establish\ a\ new\ connection|Max\ retries|SSLError|not\ a\ trusted) ]]; then
    reason=$(grep -oE '\[Errno[^]]*\] [A-Za-z ]+|timed out|SSLError|ProxyError|not a trusted or secure host' \
      <<<"$2" | tail -n 1 || true)
    fail "pip cannot reach its package index${reason:+ ($reason)}; fix the network or the proxy, or" \
      "configure a mirror (pip config set global.index-url URL), $again"
  fi
  if [ -n "$wanted" ]; then
    fail "pip finds no version of $wanted for $("$python" --version) on $(uname -sm): its package index" \
      "is unreachable or has none; check the network and the mirror ($python -m pip config list), or" \
      "use another Python (rm -r $environment, PYTHON=python3.12 tools/install.sh)"
  fi
  reason=$(grep -E '^(ERROR|Error)' <<<"$2" | head -n 1 || true)
  fail "$1 failed: ${reason:-${2##*$'\n'}}"
}

pip_install() {
  local messages
  # Standard output: a line for each slow step. Standard error: kept for `explain`.
  messages=$({ "$python" -I -u -m pip install --no-input --disable-pip-version-check \
    --progress-bar off --only-binary :all: "$@" 2>&3 | show_slow_steps >&4; } 3>&1) ||
    explain "$python -m pip install $*" "$messages"
  grep ', but you have ' <<<"$messages" | sed 's/^/  note: /' || true
} 4>&1

show_slow_steps() {
  awk '/ Downloading .*\((([0-9][0-9]+\.?[0-9]* MB)|([0-9.]+ GB))\)/ {
         sub(/^ *Downloading [^ ]*\//, "Downloading "); sub(/^ *Downloading/, "  downloading"); print }
       /^Installing collected packages/ { print "  unpacking", NF - 3, "packages" }
       { fflush() }'
}

case ${1-} in
  "") ;;
  --active)
    active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
    [ -n "$active" ] || fail "--active: no environment is active; activate one, or omit --active"
    if ! [ "$active" -ef "$environment" ]; then
      if [ -e "$environment" ] && ! [ -L "$environment" ]; then
        fail "--active: $environment is in use; remove it first (rm -r $environment)"
      fi
      [ -x "$active/bin/python" ] || fail "--active: no Python in $active; activate another environment"
      check_version "$active/bin/python" "recreate your environment with one"
      ln -sfn "$active" "$environment"
    fi
    ;;
  -h | --help)
    awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "${BASH_SOURCE[0]}"
    exit
    ;;
  *) fail "unknown option $1; tools/install.sh --help lists them" ;;
esac

if all_is_there; then
  echo "tools/venv: everything is installed"
  exit
fi

[ -w "$root/tools" ] || fail "$root/tools: no permission to write here; work in your own clone"
if [ -e "$environment" ] && ! [ -w "$environment" ]; then
  fail "$environment: does not match $requirements, and you have no permission to write there; ask its owner" \
    "to run tools/install.sh, or remove it (rm $environment) to have your own"
fi
if command -v flock >/dev/null; then
  exec 9>>"$requirements"  # nothing is written; two calls at once would corrupt the environment
  if ! flock -n 9; then
    echo "waiting for another tools/install.sh to finish"
    flock 9
    if all_is_there; then
      exit
    fi
  fi
fi

rm -f "$installed_requirements"
if [ -L "$environment" ]; then
  [ -x "$python" ] || fail "$environment links to $(readlink "$environment"), which has no Python;" \
    "activate another environment and run tools/install.sh --active, or rm $environment"
  check_version "$python" "recreate your environment with one"
  "$python" -I -m pip --version >/dev/null 2>&1 ||
    fail "$python has no working pip; install pip in your environment ($python -m ensurepip)"
elif ! "$python" -I -m pip --version >/dev/null 2>&1; then
  maker=${PYTHON:-python3}
  command -v "$maker" >/dev/null || fail "there is no $maker on PATH; install Python 3.10 or newer"
  check_version "$maker" "install one, or choose one: PYTHON=python3.12 tools/install.sh"
  "$maker" -I -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$maker ($("$maker" --version)) has no venv module; install it (Debian, Ubuntu: apt install" \
      "python3-venv), or activate your own environment and run tools/install.sh --active"
  echo "creating tools/venv with $("$maker" --version)"
  messages=$("$maker" -I -m venv --clear "$environment" 2>&1) || explain "$maker -m venv" "$messages"
else
  damaged=$(list_packages | awk -v before="$installed_packages" '
    BEGIN { while ((getline line <before) > 0) { split(line, field, " "); bytes[field[1]] = field[2] } }
    $2 == "half-written" || ($1 in bytes && bytes[$1] != $2) { print $1 }')
  if [ -n "$damaged" ]; then
    echo "reinstalling in tools/venv:" $damaged
    pip_install --no-deps --ignore-installed $damaged
  fi
fi

echo "installing the packages in tools/requirements.txt (a minute or more)"
pip_install -r "$requirements"

# PyPI's torchaudio is compiled for CUDA. Its loader does without a missing library, as the recipes can,
# but fails on one that cannot be loaded.
messages=$("$python" -I -c 'import torchaudio' 2>&1) || true
if grep -qE 'lib(c10_cuda|torch_cuda|cudart)[^ ]*: cannot open shared object' <<<"$messages"; then
  torchaudio=$("$python" -I -c 'import sysconfig; print(sysconfig.get_path("platlib"))')/torchaudio
  rm -rf "$torchaudio/lib.aside"
  mv "$torchaudio/lib" "$torchaudio/lib.aside"
  echo "torch is a CPU build: moved torchaudio's compiled part, which needs CUDA, to $torchaudio/lib.aside"
fi

echo "importing the installed packages"
"$python" -I - "$requirements" <<'PYTHON'
import importlib
import importlib.metadata
import re
import sys

IMPORTED_AS = {"scikit-learn": "sklearn", "PyYAML": "yaml", "markdown-it-py": "markdown_it"}

with open(sys.argv[1]) as stream:
    names = dict.fromkeys(re.findall(r"^([\w-]+)==", stream.read(), re.MULTILINE))
for name in names:
    if name.startswith("types-"):  # for mypy alone: no module
        continue
    try:
        importlib.import_module(IMPORTED_AS.get(name, name.replace("-", "_")))
    except Exception as error:
        reason = str(error).split("\n")[0]
        sys.exit(
            f"error: {name} is installed but cannot be imported ({type(error).__name__}: {reason}); "
            f"reinstall it: {sys.executable} -m pip install --force-reinstall --no-deps {name}"
        )
    print(f"  {name} {importlib.metadata.version(name)}", flush=True)
PYTHON

list_packages >"$installed_packages"
cp "$requirements" "$installed_requirements"
