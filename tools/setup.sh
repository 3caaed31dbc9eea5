#!/bin/sh
# Makes .venv with what the commands need; does nothing when it is up to date.
#
#   sh tools/setup.sh                     what training and evaluation need, with python3
#   sh tools/setup.sh --dev               what the tests and the checks of style and types need, too
#   PYTHON=python3.12 sh tools/setup.sh   with another Python (3.10 or newer)
#
# Where uv is installed it does what pip does elsewhere, in less time.
set -eu
case ${LC_ALL-} in C | POSIX) export LC_ALL=C.UTF-8 ;; esac # else Python cannot read paths beyond ASCII
root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
cd "$root"
case ${1-} in
    "") level=run list=requirements.txt ;;
    --dev) level=dev list=requirements-dev.txt ;;
    -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "error: what is '$1'? sh tools/setup.sh --help tells the usage" >&2; exit 2 ;;
esac
venv=$root/.venv
stamp=$venv/set-up-for # and set-up-for-dev, when that was installed, too

fail() { echo "error: $*" >&2; exit 1; }
version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# All that the environment was made from: another place, Python or list of packages makes it out of date.
wanted() { # level
    lists="requirements.txt requirements.lock"
    [ "$1" = run ] || lists="$lists requirements-dev.txt requirements-dev.lock"
    echo "$root" "$(version "$venv/bin/python")" "$(cat $lists pyproject.toml | cksum)"
}
up_to_date() { # level
    file=$stamp
    [ "$1" = run ] || file=$stamp-dev
    [ -f "$file" ] && [ "$(cat "$file")" = "$(wanted "$1")" ]
}
usable() { "$venv/bin/python" -m pip --version >/dev/null 2>&1; }
other_python() { [ -n "${PYTHON:-}" ] && [ "$(version "$PYTHON")" != "$(version "$venv/bin/python")" ]; }
install() { # options and packages: by uv, or by pip where there is no uv or where it fails (it does not read pip's settings)
    if command -v uv >/dev/null 2>&1; then
        uv pip install --python "$venv/bin/python" "$@" && return
        echo "uv could not; pip tries" >&2
    fi
    "$venv/bin/python" -m pip install --disable-pip-version-check "$@"
}

if ! other_python && up_to_date run && up_to_date "$level"; then
    exit 0
fi

# The stamps go first and come back last, so that an interrupted set-up is never taken for a finished one.
rm -f "$stamp" "$stamp-dev"
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

echo "Installing the packages of $list in .venv: minutes the first time, PyTorch is large"
# Whatever is taken from an index has to be what was there when tools/lock.sh looked; torch alone, of which each machine
# has a build of its own, comes as the index has it.
install --require-hashes --no-deps -r "${list%.txt}.lock" &&
    install -r $list || fail "pip could not install the packages; see above. Run the same command again to go on"
install -q --no-deps --no-build-isolation -e . || fail "pip could not install this project in .venv; see above"
sync # a power cut from here on finds all packages whole
for done in run $level; do
    file=$stamp
    [ $done = run ] || file=$stamp-dev
    wanted $done >"$file.new"
    mv "$file.new" "$file"
done
echo "Set up: $venv"
