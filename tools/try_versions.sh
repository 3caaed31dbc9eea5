#!/bin/sh
# Tries the project with other versions of its packages than requirements.txt pins, in an environment of its own:
#
#   sh tools/try_versions.sh newest [pytest arguments]    the newest there are, whatever pyproject.toml allows: weekly
#   sh tools/try_versions.sh oldest [pytest arguments]    the lower bounds of pyproject.toml
#
# Without arguments for pytest the fast tests run. torch stays as pinned, since a new one is gigabytes;
# TORCH='torch==2.14.0' tries that one. The environment is TRY_VENV, or a temporary folder that goes away afterwards.
set -eu
cd "$(dirname -- "$0")/.."

fail() { echo "error: $1" >&2; exit "${2:-1}"; }
usage() { sed -n '2,8s/^# \{0,1\}//p' "$0"; }

bounds() { # of the packages of caffe/ and of the rooms around it
    sed -n '/^dependencies = \[/,/^\]/s/^ *"\([^"]*\)".*/\1/p; /^gait = \[/,/^\]/s/^ *"\([^"]*\)".*/\1/p' pyproject.toml | grep -v '^torch'
}
tools_of_tests() { sed -n 's/^\([A-Za-z][^= ]*\).*/\1/p' requirements-dev.txt; } # whichever go with the packages

case ${1-} in
    newest) wanted=$(bounds | sed 's/[<>=].*//') ;;
    oldest) wanted=$(bounds | sed 's/>=/==/; s/,.*//') ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
esac
shift
[ $# -gt 0 ] || set -- -m 'not slow and not medium'

if [ -n "${TRY_VENV:-}" ]; then
    venv=$TRY_VENV
else
    venv=$(mktemp -d)
    trap 'rm -rf "$venv"' EXIT
    trap 'exit 130' INT TERM
fi
"${PYTHON:-python3}" -m venv "$venv" || fail "cannot make the environment $venv"
pip="$venv/bin/python -m pip --disable-pip-version-check"
# shellcheck disable=SC2086  # several words each
$pip install -q --upgrade ${TORCH:-$(grep '^torch==' requirements.txt)} $wanted $(tools_of_tests) ||
    fail "pip could not install these: $wanted"
$pip check
$pip list --format freeze | grep -i -E "^($(bounds | sed 's/[<>=].*//' | tr '\n' '|')torch)=="
"$venv/bin/python" -m pytest -q -p no:cacheprovider "$@"
