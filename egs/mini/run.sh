#!/usr/bin/env bash
# mini: every stage of a recipe, in about two minutes, on a synthetic corpus that is made on the spot.
#
#   ./run.sh                              all of it
#   ./run.sh --stage 3 --stop-stage 3     one stage

# Options
stage=-1              # first stage to run
stop_stage=6          # last stage to run
systems="conf/baseline/*.yaml conf/sherman/*.yaml"  # system files: the rows of the table
protocol="random honest"  # names of conf/protocols/<name>.yaml: its columns
folds=all             # numbers of the folds to run, as 1,2
seeds=1               # number of seeds of each run
nj=2                  # jobs side by side
num_threads=1         # threads of each job of stages 3 and 4

set -euo pipefail
cd "$(dirname "$0")"
. ../../tools/parse_options.sh
. ./path.sh
. ./cmd.sh

protocols=$(printf 'conf/protocols/%s.yaml ' $protocol)
runs=(--corpus mini --systems $systems --protocols $protocols --folds "$folds" --seeds $seeds
      --nj $nj --num-threads $num_threads --cmd "$train_cmd")

if at_stage -1 "the corpus"; then
  python -m ser.get_corpus mini downloads
fi

if at_stage 0 "data preparation"; then
  python -m ser.prepare_data --strict --nj $nj mini downloads/mini data/all
  python -m ser.validate_data data/all
fi

if at_stage 1 "folds"; then
  for name in $protocol; do
    python -m ser.make_folds conf/protocols/$name.yaml data/all data/folds/$name
  done
fi

if at_stage 2 "features"; then
  python -m ser.dump_features --systems $systems --nj $nj --cmd "$feature_cmd" data/all dump
fi

if at_stage 3 "SVM baselines"; then
  python -m ser.launch --trainer svm "${runs[@]}"
fi

if at_stage 4 "training of the networks"; then
  python -m ser.launch --trainer network "${runs[@]}"
fi

if at_stage 5 "scoring"; then
  python -m ser.score --systems $systems --protocols $protocols
fi

if at_stage 6 "table and figures"; then
  python -m ser.report --corpus mini --systems $systems --note \
    "The corpus is synthetic, spoken by espeak-ng: its numbers show that the recipe works, and say nothing about emotional speech."
fi
