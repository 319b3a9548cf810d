# Sourced by the run.sh of a recipe whose systems read words, between its options and stages.sh: word vectors, by its
# option `glove` (a file, fetch, or nothing for systems to learn their own).

[[ -z $glove || $glove == fetch || -e $glove ]] ||
  { echo "error: $0: --glove $glove: no such file; give one, or fetch" >&2; exit 1; }
[[ -z $glove || $glove == fetch ]] || glove=$(realpath -- "$glove")

get_inputs() {
  [ "$glove" != fetch ] || python -m ser.get_vectors downloads
}

dump_inputs() {
  if [ -n "$glove" ]; then
    [ "$glove" != fetch ] || glove=downloads/glove.6B/glove.6B.300d.txt
    python -m ser.dump_vectors --glove "$glove" data/all dump/vectors
  elif [ -e dump/vectors ]; then
    echo "dump/vectors: word vectors are there; remove the folder for systems to learn them"
  fi
}
