# The four steps of training, each from the weights of the one before. Sourced by experiments/<dataset>/train_net.sh
# in its own folder:
#
#   sh train_net.sh              all steps; those already done are skipped, an interrupted one is resumed
#   sh train_net.sh rec sia      these steps
#   CAFFE_ROOT=/path/to/caffe sh train_net.sh    with that Caffe instead of the bundled one
#
# A step logs to gaitnet-<step>-<date>.log and snapshots to gaitnet-<step>_iter_<n>.caffemodel and .solverstate.
set -eu
root=$(CDPATH= cd -- ../.. && pwd)

main() {
    case ${1-} in -h | --help) sed -n '4,9s/^# \{0,1\}//p' "$root/experiments/train_steps.sh"; return ;; esac
    find_caffe
    for step in ${*:-seg rec joint sia}; do
        case $step in
            seg) before= ;;
            rec) before=seg ;;
            joint) before=rec ;;
            sia) before=joint ;;
            *) fail "no step '$step' (known: seg rec joint sia)" 2 ;;
        esac
        train "$step" "$before"
    done
}

find_caffe() {
    if [ -n "${CAFFE_ROOT:-}" ]; then
        case $CAFFE_ROOT in /*) ;; *) fail "CAFFE_ROOT is $CAFFE_ROOT; wanted an absolute path" ;; esac
        caffe=$CAFFE_ROOT/build/tools/caffe
        PYTHONPATH=$CAFFE_ROOT/python:$root
        [ -x "$caffe" ] || fail "$caffe not found; CAFFE_ROOT is to be the folder of a Caffe built with Python layers"
    else
        caffe=$root/.venv/bin/caffe
        PYTHONPATH=$root
        [ -x "$caffe" ] || sh "$root/tools/setup.sh"
    fi
    export PYTHONPATH
}

train() { # step, the step before
    weights=$(final_weights "$1")
    if [ -f "$weights" ]; then
        echo "$1: already done, $weights"
        return
    fi
    snapshot=$(newest_snapshot "$1")
    if [ -n "$snapshot" ]; then
        echo "$1: going on from $snapshot"
        set -- "$1" --snapshot="$snapshot"
    elif [ -n "$2" ]; then
        start=$(final_weights "$2")
        [ -f "$start" ] || fail "step $1 starts from $start, which is not there; train it first: sh train_net.sh $2"
        echo "$1: starting from $start"
        set -- "$1" --weights="$start"
    else
        echo "$1: starting from the fillers"
        set -- "$1"
    fi
    step=$1
    shift
    log=gaitnet-$step-$(date +%Y%m%d-%H%M%S).log

    set -- "$caffe" train --solver="solver-$step.prototxt" "$@"
    [ -z "${CAFFE_ROOT:-}" ] || describe "$@" >"$log" # the bundled one does that itself
    trap '' INT # Ctrl-C is for Caffe, which writes a snapshot and stops
    exec 4>&1
    status=$({ { "$@" 2>&1 && echo 0 >&3 || echo $? >&3; } | tee -a "$log" >&4; } 3>&1)
    trap - INT
    [ "$status" = 0 ] || fail "step $step: caffe ended with exit status $status; see $PWD/$log" "$status"
    [ -f "$weights" ] || fail "step $step: stopped before $weights was written; run the same command again to go on" 130
    [ "${prune:-no}" = no ] || prune_snapshots "$step" "$weights"
}

describe() { # command...: what is needed to repeat it; the data layers tell of the data
    echo "command: $*"
    echo "folder: $PWD"
    commit=$(git -C "$root" rev-parse HEAD 2>/dev/null) || return 0
    git -C "$root" diff --quiet HEAD 2>/dev/null || commit=$commit+changes
    echo "commit: $commit"
}

final_weights() { # step -> the file that its last iteration writes
    last=$(sed -n 's/^ *max_iter: *\([0-9][0-9]*\).*/\1/p' "solver-$1.prototxt")
    [ -n "$last" ] || fail "$PWD/solver-$1.prototxt has no max_iter"
    echo "gaitnet-$1_iter_$last.caffemodel"
}

newest_snapshot() { # step -> its last .solverstate that has its .caffemodel
    for state in "gaitnet-$1"_iter_*.solverstate; do
        [ ! -f "${state%.solverstate}.caffemodel" ] || echo "${state%.solverstate}"
    done | sed 's/.*_iter_//' | sort -n | sed -n "\$s/.*/gaitnet-$1_iter_&.solverstate/p"
}

prune_snapshots() { # step, its final weights: keep these alone
    for file in "gaitnet-$1"_iter_*; do
        [ "$file" = "$2" ] || rm -f -- "$file"
    done
}

fail() { # message, exit status
    echo "error: $1" >&2
    exit "${2:-1}"
}

main "$@"
