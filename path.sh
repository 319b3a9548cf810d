# Sourced by every recipe (`. ../../path.sh`), from any folder: sets up what is missing, and puts the
# environment, tools/ and the package `ser` where commands find them.

SER_ROOT=$(unset CDPATH; cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
export SER_ROOT

# A cheap look; `tools/install.sh` itself looks at every package.
if ! [ -x "$SER_ROOT/tools/venv/bin/python" ] ||
  ! cmp -s "$SER_ROOT/tools/requirements.txt" "$SER_ROOT/tools/venv/ser-requirements.txt"; then
  "$SER_ROOT/tools/install.sh" || return 1
fi

export PATH="$SER_ROOT/tools/venv/bin:$SER_ROOT/tools:$PATH"
# The repository alone: what a cluster's `module load` put there, or what is in ~/.local, must not stand
# before the pinned packages, nor another Python's library before this one's.
export PYTHONPATH="$SER_ROOT" PYTHONNOUSERSITE=1
unset PYTHONHOME
export LC_ALL=C                  # sort as Kaldi does
export PYTHONUTF8=1              # and yet read and write UTF-8
# Freed tensors of more than 8 MB go back to the system, so that memory does not grow with every new length
# of a batch (a third of what it was on IEMOCAP); large pages make that as fast as keeping them.
# Where they do not, and all utterances have one length, your own setting may be faster: it is left as it is.
export GLIBC_TUNABLES=${GLIBC_TUNABLES-glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=8388608}
