# Sourced by a recipe after its options: sets them from the command line, as in Kaldi.
#
#   stage=-1        # first stage to run
#   corpus=         # folder of the corpus; downloaded if empty
#   . ../../tools/parse_options.sh
#
# The recipe's options are the lower-case assignments at the start of a line, above the line that sources
# this file. `--some-name value` and `--some-name=value` set some_name; if its default is a whole number,
# or true or false, the value must be one too. `--help` prints the comment at the top of the recipe, and
# the options. Anything else is an error. The names of the options given are left in options_given:
# " stage corpus ".

_options_fail() {
  printf 'error: %s: %s\n' "$0" "$1" >&2
  exit 1
}

# Fills _option_file, _option_names, _option_comments and _option_defaults from the recipe's own lines.
_options_read() {
  local LC_ALL=C _line  # C: [a-z] matches lower case only
  # "$0" is as typed; a recipe that has since changed into its own folder came from $OLDPWD.
  _option_file=$0
  [ -f "$_option_file" ] || _option_file=${OLDPWD-}/$0
  [ -f "$_option_file" ] || _options_fail "cannot find the recipe's file; call it by its path"
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

# Finds an option as typed: sets _option to its index in the lists, or fails.
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
    _options_fail "unknown option ${1%%=*}; the options are$(printf ' --%s' "${_option_names[@]//_/-}")"
  if [[ $1 == *=* ]]; then
    _options_set "${1%%=*}" "${1#*=}"
    shift
  else
    # If an option follows, the value was forgotten. (Write --name=--value for such a value.)
    [[ $# -ge 2 ]] && ! (_options_find "$2") || _options_fail "$1 needs a value"
    _options_set "$1" "$2"
    shift 2
  fi
done
[ $# -eq 0 ] || _options_fail "takes only options, not '$1'; --help lists them"
unset -v _option _option_file _option_names _option_comments _option_defaults
unset -f _options_fail _options_read _options_help _options_find _options_set
