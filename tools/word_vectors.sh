# Word vectors, sourced by the run.sh of a recipe whose systems read words, between its options and stages.sh. The
# option `glove` is a file, `fetch`, or empty: systems then learn their own vectors.

[[ -z $glove || $glove == fetch || -e $glove ]] ||
  { echo "error: $0: --glove $glove: no such file; give a file, or fetch to download one" >&2; exit 1; }
[[ -z $glove || $glove == fetch ]] || glove=$(realpath -- "$glove")

get_inputs() {
  [ "$glove" != fetch ] || python -m ser.get_vectors downloads
}

dump_inputs() {
  if [ -n "$glove" ]; then
    [ "$glove" != fetch ] || glove=downloads/glove.6B/glove.6B.300d.txt
    python -m ser.dump_vectors --glove "$glove" data/all dump/vectors
  elif [ -e dump/vectors ]; then
    echo "dump/vectors: using these word vectors; remove the folder to let systems learn their own"
  fi
}
