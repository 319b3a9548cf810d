#!/usr/bin/env bash
# Makes a recipe for a corpus of your own, from tools/template: egs/NAME, and ser/corpora/NAME.py, which reads the corpus.
#
#   tools/new_recipe.sh NAME     NAME: lower-case letters, digits and _, such as my_corpus
#
# egs/NAME/README.md then says what to fill in.

[ -n "${BASH_VERSION-}" ] || exec bash "$0" "$@"  # `sh new_recipe.sh`
set -euo pipefail
unset CDPATH
export LC_ALL=C  # [a-z] matches lower-case letters only
fail() { echo "error: $*" >&2; exit 1; }

if [[ ${1-} == -h || ${1-} == --help ]]; then
  awk 'NR == 1 { next } !/^#/ { exit } { sub(/^# ?/, ""); print }' "$0"
  exit 0
fi
[ $# -eq 1 ] || fail "give one name: tools/new_recipe.sh NAME"
name=$1
[[ $name =~ ^[a-z][a-z0-9_]*$ ]] || fail "'$name': a name has lower-case letters, digits and _ only, and begins with a letter"
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
for path in "egs/$name" "ser/corpora/$name.py"; do
  [ ! -e "$path" ] || fail "$path exists; choose another name, or remove it"
done

partial=egs/.$name.partial
trap 'rm -rf -- "$partial"' EXIT
rm -rf -- "$partial"
cp -R tools/template "$partial"
while IFS= read -r file; do
  sed "s/@NAME@/$name/g" "tools/template/$file" >"$partial/$file"
done < <(cd tools/template && find . -type f)
mv -- "$partial/corpus.py" "ser/corpora/$name.py"
mv -- "$partial" "egs/$name"
echo "made egs/$name and ser/corpora/$name.py; egs/$name/README.md says what to fill in"
