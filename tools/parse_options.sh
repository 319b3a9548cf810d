# Sourced by a recipe after its options: sets them from the command line, by Kaldi's contract.
#
#   stage=-1        # first stage to run
#   corpus=         # folder of the corpus; downloaded where empty
#   . ../../tools/parse_options.sh
#
# The recipe's options are the assignments at the start of a line, in lower case, above the line that
# sources this file. `--some-name value` and `--some-name=value` set some_name; where its default is a
# whole number, or true or false, the value must be one too. `--help` prints the comment at the top of
# the recipe, and the options. What is no option is an error: recipes take nothing else. Which ones stood
# on the command line is left in options_given: " stage corpus ".

_options_fail() {
  printf 'error: %s: %s\n' "$0" "$1" >&2
  exit 1
}

# Fills _option_file, _option_names, _option_comments and _option_defaults from the recipe's own lines.
_options_read() {
  local LC_ALL=C _line  # C: [a-z] is lower case alone
  # "$0" is as it was typed; a recipe that has since gone into its own folder came from $OLDPWD.
  _option_file=$0
  [ -f "$_option_file" ] || _option_file=${OLDPWD-}/$0
  [ -f "$_option_file" ] || _options_fail "cannot find the recipe's own lines; call it by its path"
  local _value="(\"[^\"]*\"|'[^']*'|[^[:space:]\"']*)"
  local _assignment="^([a-z][a-z0-9_]*)=$_value[[:space:]]*(#[[:space:]]*(.*))?\$"
  local _end='^[^#]*parse_options\.sh'
  while IFS= read -r _line; do
    [[ $_line =~ $_end ]] && return
    if [[ $_line =~ $_assignment ]]; then
      _line=${BASH_REMATCH[1]}
      _option_names+=("$_line")
      _option_comments+=("${BASH_REMATCH[4]}")
      _option_defaults+=("${!_line-}")
    fi
  done <"$_option_file"
}

_options_help() {
  local _i
  awk 'NR == 1 && /^#!/ { next } !/^#/ { exit } { sub(/^# ?/, ""); print }' "$_option_file"
  printf '\noptions:\n'
  for _i in "${!_option_names[@]}"; do
    printf '  --%-18s %s%s\n' "${_option_names[_i]//_/-}" "${_option_comments[_i]}" \
      "${_option_defaults[_i]:+ (default: ${_option_defaults[_i]})}"
  done
}

# Finds an option as it was typed: sets _option to its place in the lists, or fails.
_options_find() {
  local _name=${1#--}
  for _option in "${!_option_names[@]}"; do
    [ "${_option_names[_option]}" != "${_name//-/_}" ] || return 0
  done
  return 1
}

_options_set() {  # AS_TYPED VALUE
  local _whole='^-?(0|[1-9][0-9]*)$' _default=${_option_defaults[_option]}
  if [[ $_default == true || $_default == false ]]; then
    [[ $2 == true || $2 == false ]] || _options_fail "$1 needs true or false, not '$2'"
  elif [[ $_default =~ $_whole ]]; then
    [[ $2 =~ $_whole ]] || _options_fail "$1 needs a whole number, not '$2'"
  fi
  printf -v "${_option_names[_option]}" %s "$2"
  options_given+="${_option_names[_option]} "
}

options_given=" "
_option_names=()
_option_comments=()
_option_defaults=()
_options_read
while [[ ${1-} == -?* ]]; do
  if [[ $1 == -h || $1 == --help ]]; then
    _options_help
    exit 0
  fi
  _options_find "${1%%=*}" ||
    _options_fail "no option ${1%%=*}; there are$(printf ' --%s' "${_option_names[@]//_/-}")"
  if [[ $1 == *=* ]]; then
    _options_set "${1%%=*}" "${1#*=}"
    shift
  else
    # Another option is no value: the value was forgotten. (--name=--value where it is meant.)
    [[ $# -ge 2 ]] && ! (_options_find "$2") || _options_fail "$1 needs a value"
    _options_set "$1" "$2"
    shift 2
  fi
done
[ $# -eq 0 ] || _options_fail "takes options alone, not '$1'; --help lists them"
unset -v _option _option_file _option_names _option_comments _option_defaults
unset -f _options_fail _options_read _options_help _options_find _options_set
