#!/bin/sh
# Writes requirements.lock and requirements-dev.lock: every package that the lists bring along, with its hashes, for all
# Pythons and systems. Run after a change of requirements*.txt; wants uv (pip install uv).
#
#   sh tools/lock.sh
#
# Without torch and what its CUDA builds bring: which build fits is the machine's matter, and each has hashes of its own.
set -eu
case ${1-} in -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
cd -- "$(dirname -- "$0")/.."
command -v uv >/dev/null 2>&1 || { echo "error: uv not found: pip install uv" >&2; exit 1; }
for list in requirements requirements-dev; do
    uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-header --no-annotate "$list.txt" \
        -o "$list.lock.new"
    awk '/^[a-z0-9]/ { skip = /^(torch==|triton|nvidia-|cuda-)/ } !skip' "$list.lock.new" >"$list.lock"
    rm -- "$list.lock.new"
done
