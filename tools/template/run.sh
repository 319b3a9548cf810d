#!/usr/bin/env bash
# @NAME@: a baseline for a corpus of your own, tested on speakers that it was not trained on.
#
#   ./run.sh                                  all of it, from the data directory data/all, where it is there
#   ./run.sh --corpus /data/@NAME@            from the recordings, read by ser/corpora/@NAME@.py
#   ./run.sh --stage 3 --stop-stage 3         one stage

# Options
stage=-1              # first stage to run
stop_stage=6          # last stage to run
corpus=               # folder of the corpus; empty: data/all where it is there, else downloads/@NAME@
strict=false          # true: a missing or unreadable recording is an error
allow_pipes=false     # true: run the shell commands that stand in wav.scp
systems="conf/baseline/*.yaml"  # system files, seen from here or from the recipe: the table's rows
set=                  # settings to try, as "training.epochs=2 model.dropout=0": each system is run with them under a name of its own
protocol="honest"  # names of conf/protocols/<name>.yaml: its columns
folds=all             # numbers of the folds to run, as 1,2 or 1-3
seeds=1               # number of seeds of each run
nj=2                  # jobs side by side
num_threads=1         # threads of each job of stages 3 and 4
main=svm_functionals  # system that the others are tested against, and whose network is drawn
overwrite=false       # true: stages 3 and 4 remove runs in exp/ that were made with other settings, code or data, and train them again
replace=false         # true: stage 5 replaces scores in results/ of another commit or machine, such as those in the repository

[ -n "${BASH_VERSION-}" ] || exec bash "$0" "$@"  # `sh run.sh`
set -euo pipefail
recipe=$(dirname "$0")
[ -e "$recipe/cmd.sh" ] || recipe=${SLURM_SUBMIT_DIR:-.}  # `sbatch run.sh`: SLURM runs a copy of this file
[ -e "$recipe/cmd.sh" ] || { echo "error: $0: call sbatch in the recipe's folder" >&2; exit 1; }
. "$recipe/../../tools/parse_options.sh"
. "$recipe/../../tools/stages.sh"
