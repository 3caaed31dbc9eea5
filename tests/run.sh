#!/bin/sh
# Sets up the environment and runs the tests.
#
#   sh tests/run.sh                     all but the slow ones
#   sh tests/run.sh --fast              under a minute: leaves out those marked medium, too
#   sh tests/run.sh --slow              all
#   sh tests/run.sh tests/layers -k clip    any further arguments go to pytest
set -eu
cd "$(dirname -- "$0")/.."
marked='not slow'
case ${1-} in
    --fast) marked='not slow and not medium'; shift ;;
    --slow) marked='slow or not slow'; shift ;;
    -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
sh tools/setup.sh --dev
exec .venv/bin/python -m pytest -q -m "$marked" "$@"
