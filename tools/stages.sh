# Sourced by a recipe's run.sh after its options: the stages, the same in every recipe. `recipe` is its folder, which
# has the name of the corpus. `note` is an optional sentence for the top of RESULTS.md; `not_run` replaces it as long as
# there are no results. A recipe may define get_inputs and dump_inputs, which stages -1 and 2 call, for what its systems
# read beside frames (tools/word_vectors.sh).
#
#   . "$recipe/../../tools/stages.sh"

unset CDPATH  # otherwise cd may go to a folder of the same name elsewhere
fail() { echo "error: $*" >&2; exit 1; }
here=$PWD  # the user's folder, which paths in options are relative to
[ -z "$corpus" ] || [ -e "$corpus" ] || fail "--corpus $corpus: no such folder or table; give the folder of the corpus"
[ -z "$corpus" ] || corpus=$(realpath -- "$corpus")
cd -- "$recipe"
. ./path.sh; . ./cmd.sh

[ "$stage" -le "$stop_stage" ] && [ "$stage" -le 6 ] && [ "$stop_stage" -ge -1 ] ||
  fail "--stage $stage --stop-stage $stop_stage: no stages in this range; there are -1 to 6"

[ -n "$paper" ] || [ -z "$table" ] || fail "--table $table: give its paper too, with --paper"
if [ -n "$paper" ]; then  # its systems and protocols replace the defaults
  chosen=$(python -m ser.papers --paper "$paper" --table "$table")
  [[ $options_given == *" systems "* ]] || systems=${chosen%%$'\n'*}
  [[ $options_given == *" protocol "* ]] || protocol=${chosen##*$'\n'}
fi

# --systems is relative to the user's folder, or else to the recipe's; its default is always relative to the recipe's.
[[ $options_given != *" systems "* || $here -ef . ]] && from= ||
  from=$(python -c "import os, sys; print(os.path.relpath(sys.argv[1]))" "$here")/
set -f; patterns=($systems); set +f; systems=()
for pattern in "${patterns[@]}"; do
  files=("$from"$pattern)
  [ -e "${files[0]}" ] || files=($pattern)
  [ -e "${files[0]}" ] || fail "--systems $pattern: no such file in $here$([[ $here -ef . ]] || echo ", nor in $PWD")"
  systems+=("${files[@]}")
done
if [ -n "$set" ]; then
  derived=$(python -m ser.derive_systems --set "$set" --systems "${systems[@]}")
  mapfile -t systems <<<"$derived"
fi
pipes=$([ $allow_pipes = false ] || echo --allow-pipes)
name=$(basename "$PWD")
protocols=$(printf 'conf/protocols/%s.yaml ' $protocol)
runs=(--corpus $name --systems "${systems[@]}" --protocols $protocols --folds "$folds" --seeds $seeds
      --nj $nj --num-threads $num_threads --cmd "$train_cmd" $([ $overwrite = false ] || echo --overwrite))

# at_stage NUMBER TITLE: whether --stage and --stop-stage include this stage; if so, prints its title.
at_stage() {
  [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ] && printf '== Stage %s: %s\n' "$1" "$2"
}

# Without --corpus an existing data directory is used as it is; wav.scp, written last, shows that it is complete.
prepared=false
[ -n "$corpus" ] || [ ! -e data/all/wav.scp ] || prepared=true

if at_stage -1 "the corpus"; then
  [ -n "$corpus" ] || $prepared || python -m ser.get_corpus $name downloads
  ! declare -F get_inputs >/dev/null || get_inputs
fi

if at_stage 0 "data preparation"; then
  if $prepared; then
    echo "data/all exists and is used; to make it again, remove it or give --corpus"
  else
    python -m ser.prepare_data $([ $strict = false ] || echo --strict) --nj $nj \
      $name "${corpus:-downloads/$name}" data/all
  fi
  python -m ser.validate_data $pipes data/all
fi

if at_stage 1 "folds"; then
  for one in $protocol; do
    python -m ser.make_folds $pipes conf/protocols/$one.yaml data/all data/folds/$(basename $one)
  done
fi

if at_stage 2 "features"; then
  ! declare -F dump_inputs >/dev/null || dump_inputs
  python -m ser.dump_features --systems "${systems[@]}" --protocols $protocols --nj $nj --cmd "$feature_cmd" \
    $pipes data/all dump
fi

if at_stage 3 "classical baselines"; then
  python -m ser.launch --learner classical "${runs[@]}"
fi

if at_stage 4 "training of the networks"; then
  python -m ser.launch --learner network "${runs[@]}"
fi

if at_stage 5 "scoring"; then
  python -m ser.score $([ $replace = false ] || echo --replace) --systems "${systems[@]}" --protocols $protocols
fi

if at_stage 6 "table and figures"; then
  for one in $protocol; do
    run=exp/$main/$(basename $one)/fold1_seed1
    if [ -e $run/done ] && [ -e $run/last.safetensors ]; then  # a trained network
      python -m ser.draw_run $run
    fi
  done
  [ -d results ] || note=${not_run-${note-}}
  python -m ser.report --corpus $name --systems "${systems[@]}" --main $main ${note:+--note "$note"} --html
  [ ! -d conf/papers ] || python -m ser.overview
fi
