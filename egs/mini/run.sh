#!/usr/bin/env bash
# mini: every stage of a recipe, in a few minutes, on a synthetic corpus that is generated locally.
#
#   ./run.sh                              everything
#   ./run.sh --stage 3 --stop-stage 3     one stage

# Options
stage=-1              # first stage to run
stop_stage=6          # last stage to run
corpus=               # folder of the corpus; empty: downloads/, where stage -1 creates it
strict=true           # true: a missing or unreadable recording is an error
allow_pipes=false     # true: run the shell commands in wav.scp
paper=                # a paper's tables: the name of conf/papers/<paper>.yaml; its systems and protocols become the defaults
table=                # one table of that paper, such as III; empty: all
systems="conf/baseline/*.yaml conf/pretrained/*.yaml conf/sherman/*.yaml"  # system files (rows of the table), relative to here or to the recipe
set=                  # settings to try, such as "training.epochs=2 model.dropout=0"; systems run with them get names of their own
protocol="random honest"  # names of conf/protocols/<name>.yaml (columns of the table)
folds=all             # folds to run: all, or numbers such as 1,2 or 1-3
seeds=1               # number of seeds
nj=2                  # jobs to run in parallel
num_threads=1         # threads per job in stages 3 and 4
main=cnn4_blstm_attention_small  # system that the others are tested against, and whose network is drawn
overwrite=false       # true: stages 3 and 4 remove runs in exp/ made with different settings, code or data, and train them again
replace=false         # true: stage 5 replaces scores in results/ of another commit or machine, such as those in the repository

note="The corpus is synthetic, spoken by espeak-ng: its numbers show that the recipe works, but say nothing about emotional speech."
[ -n "${BASH_VERSION-}" ] || exec bash "$0" "$@"  # `sh run.sh`
set -euo pipefail
recipe=$(dirname "$0")
[ -e "$recipe/cmd.sh" ] || recipe=${SLURM_SUBMIT_DIR:-.}  # `sbatch run.sh`: SLURM runs a copy of this file
[ -e "$recipe/cmd.sh" ] || { echo "error: $0: call sbatch in the recipe's folder" >&2; exit 1; }
. "$recipe/../../tools/parse_options.sh"
get_inputs() { python -m ser.tiny_encoder downloads/encoder; }
. "$recipe/../../tools/stages.sh"
