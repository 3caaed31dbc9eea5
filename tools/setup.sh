#!/bin/sh
# Makes .venv with everything the project needs; does nothing when it is up to date.
#
#   sh tools/setup.sh                     with python3
#   PYTHON=python3.12 sh tools/setup.sh   with another Python (3.10 or newer)
set -eu
case ${LC_ALL-} in C | POSIX) export LC_ALL=C.UTF-8 ;; esac # else Python cannot read paths beyond ASCII
root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
cd "$root"
case ${1-} in
    "") ;;
    -h | --help) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "error: what is '$1'? sh tools/setup.sh --help tells the usage" >&2; exit 2 ;;
esac
venv=$root/.venv
stamp=$venv/set-up-for

fail() { echo "error: $*" >&2; exit 1; }
version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# All that the environment was made from: another place, Python or list of packages makes it out of date.
wanted() { echo "$root" "$(version "$venv/bin/python")" "$(cat requirements.txt requirements-dev.txt pyproject.toml | cksum)"; }
usable() { "$venv/bin/python" -m pip --version >/dev/null 2>&1; }
other_python() { [ -n "${PYTHON:-}" ] && [ "$(version "$PYTHON")" != "$(version "$venv/bin/python")" ]; }

if [ -f "$stamp" ] && ! other_python && [ "$(cat "$stamp")" = "$(wanted)" ]; then
    exit 0
fi

# The stamp goes first and comes back last, so that an interrupted set-up is never taken for a finished one.
rm -f "$stamp"
if ! usable || other_python; then
    python=${PYTHON:-python3}
    command -v "$python" >/dev/null 2>&1 || fail "$python not found; install Python 3.10 or newer, or name one: PYTHON=/path/to/python3 sh tools/setup.sh"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        fail "$python is Python $(version "$python"); wanted 3.10 or newer. Name another: PYTHON=/path/to/python3 sh tools/setup.sh"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python has no venv and pip; on Debian or Ubuntu: apt-get install python3-venv"
    echo "Setting up .venv with Python $(version "$python")"
    "$python" -m venv --clear "$venv" || fail "cannot make $venv with $python -m venv; see above"
fi

echo "Installing the packages of requirements-dev.txt in .venv: minutes the first time, PyTorch is large"
"$venv/bin/python" -m pip install --disable-pip-version-check -r requirements-dev.txt ||
    fail "pip could not install the packages; see above. Run the same command again to go on"
"$venv/bin/python" -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e . ||
    fail "pip could not install this project in .venv; see above"
wanted >"$stamp.new"
mv "$stamp.new" "$stamp"
echo "Set up: $venv"
