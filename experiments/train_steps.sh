# The four steps of training, each from the weights of the one before. Sourced by experiments/<dataset>/train_net.sh
# in its own folder:
#
#   sh train_net.sh              all steps; those already done are skipped, an interrupted one is resumed
#   sh train_net.sh rec sia      these steps
#   sh train_net.sh --gpu=0,1 --precision=tf32 --tensorboard=runs    options go on to `caffe train`
#   sh train_net.sh --weights [rec]    trains nothing: prints the file that this step, or the last one, ends with
#   CAFFE_ROOT=/path/to/caffe sh train_net.sh    with that Caffe instead of the bundled one
#
# A step logs to gaitnet-<step>-<date>.log and snapshots to gaitnet-<step>_iter_<n>.caffemodel and .solverstate.
set -eu
root=$(CDPATH= cd -- ../.. && pwd)

main() {
    case ${1-} in
        -h | --help) sed -n '4,11s/^# \{0,1\}//p' "$root/experiments/train_steps.sh"; return ;;
        --weights) read_facts && final_weights "${2:-$(steps_here | tail -n 1)}"; return ;;
    esac
    read_words "$@"
    find_caffe
    read_facts
    check
    for step in $steps; do
        train "$step" "$(step_before "$step")"
    done
}

read_words() { # word...: sets steps, and flags, one a line, for caffe
    steps=
    flags=
    while [ $# -gt 0 ]; do
        case $1 in
            -*solver* | -*snapshot* | -*weights*) fail "$1: a step chooses its own; max_iter and snapshots say which" 2 ;;
            -*=*) flags="$flags$1
" ;;
            -*)
                [ $# -gt 1 ] || fail "$1 wants a value, such as --gpu=0" 2
                flags="$flags$1=$2
"
                shift
                ;;
            *)
                step_before "$1" >/dev/null
                steps="$steps $1"
                ;;
        esac
        shift
    done
    steps=${steps:-$(steps_here)}
}

steps_here() { # one a line; silhouettes alone have no step seg
    for known in seg rec joint sia; do
        [ ! -f "solver-$known.prototxt" ] || echo $known
    done
}

step_before() { # step -> the one that it starts from
    case $1 in
        seg) ;;
        rec) [ ! -f solver-seg.prototxt ] || echo seg ;;
        joint) echo rec ;;
        sia) echo joint ;;
        *) fail "no step '$1' (known: seg rec joint sia)" 2 ;;
    esac
}

check() { # all nets are built, and weights lying here looked at, before the first step starts
    [ -z "${CHECKED:-}" ] && [ -f "$root/tools/experiment.py" ] || return 0 # train_net.sh has done it for all steps
    if [ -x "$root/.venv/bin/python" ]; then
        experiment check . $steps || exit 1
    else
        echo "not checked beforehand: that takes $root/.venv, which sh tools/setup.sh makes"
    fi
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
        sh "$root/tools/setup.sh" # says nothing when up to date; an interrupted one left a caffe that half works
    fi
    export PYTHONPATH
}

train() { # step, the step before
    weights=$(final_weights "$1")
    snapshot=$(newest_snapshot "$1")
    start=
    [ -z "$2" ] || start=$(final_weights "$2")
    if [ -f "$weights" ]; then
        echo "$1: already done, $weights"
        warn_if_other "$1" "$start"
        [ "${prune:-no}" = no ] || prune_snapshots "$1" # when killed before it could
        return
    elif [ -n "$snapshot" ]; then
        echo "$1: going on from $snapshot"
        warn_if_other "$1" "$start"
        set -- "$1" --snapshot="$snapshot"
    elif [ -n "$start" ]; then
        [ -f "$start" ] || fail "step $1 starts from $start, which is not there; train it first: sh train_net.sh $2"
        echo "$1: starting from $start"
        cksum "$start" >"gaitnet-$1.started-from.tmp"
        mv -f "gaitnet-$1.started-from.tmp" "gaitnet-$1.started-from"
        set -- "$1" --weights="$start"
    else
        echo "$1: starting from the fillers"
        set -- "$1"
    fi
    step=$1
    shift
    log=gaitnet-$step-$(date +%Y%m%d-%H%M%S%z).log

    words=$IFS
    IFS='
'
    set -f
    set -- "$caffe" train --solver="solver-$step.prototxt" "$@" $flags
    set +f
    IFS=$words
    before=
    [ -z "${CAFFE_ROOT:-}" ] || before=$(checksums "$step")
    [ -z "${CAFFE_ROOT:-}" ] || describe "$@" >"$log" # the bundled one does that itself
    trap : INT # Ctrl-C is for Caffe, which writes a snapshot and stops; were it ignored here, Caffe's start would, too
    exec 4>&1
    # The log outlives the terminal, as Caffe does: that writes a snapshot on SIGHUP and goes on.
    status=$(
        trap : INT
        { { trap : INT; "$@" 2>&1 && echo 0 >&3 || echo $? >&3; } |
            (trap '' HUP INT PIPE; exec tee -a "$log" >&4); } 3>&1
    )
    trap - INT
    record "$step" "$before" "$snapshot" "$start"
    [ "$status" = 0 ] || fail "step $step: caffe ended with exit status $status; see $PWD/$log$(advice "$step" "$log")" \
        "$status"
    weights=$(final_weights "$step")
    [ -f "$weights" ] || fail "step $step: stopped before $weights was written; run the same command again to go on" 130
    [ "${prune:-no}" = no ] || prune_snapshots "$step"
}

advice() { # step, log: what to do where the cause is known
    ! grep -q 'Cannot use GPU in CPU-only Caffe' "$2" || echo "; that Caffe was built for CPUs alone, and the solvers ask \
for a GPU: sed -i 's/solver_mode: GPU/solver_mode: CPU/' $PWD/solver-*.prototxt"
    ! grep -Eiq 'loss (is|=) -?(nan|inf)|not finite' "$2" || echo "; the loss diverged: lower base_lr, or delete the \
newest gaitnet-$1_iter_<n>.* before you run it again"
}

record() { # step, checksums before, the snapshot or the weights that it began with: a Caffe of one's own cannot
    [ -n "${CAFFE_ROOT:-}" ] && [ -f "$root/tools/experiment.py" ] && [ -x "$root/.venv/bin/python" ] || return 0
    from=$4
    [ -z "$3" ] || from=$(echo "$3" | sed 's/\.solverstate/.caffemodel/')
    new=$(checksums "$1" | while read -r line; do
        echo "$2" | grep -Fqx -- "$line" || echo "${line##* }"
    done)
    [ -z "$new" ] || experiment record . "$1" --new $new ${from:+--started-from "$from"} || :
}

checksums() { # step: of its weights, a line each
    cksum "gaitnet-$1_iter_"*.caffemodel* 2>/dev/null || :
}

experiment() { # word...: tools/experiment.py, by the bundled Caffe
    env -u CAFFE_ROOT PYTHONPATH= "$root/.venv/bin/python" "$root/tools/experiment.py" "$@"
}

warn_if_other() { # step, what it starts from: is that what it has started from?
    [ -f "gaitnet-$1.started-from" ] && [ -f "$2" ] || return 0
    [ "$(cksum "$2")" = "$(cat "gaitnet-$1.started-from")" ] || echo "warning: step $1 was trained from other weights \
than those now in $2; to train it anew, delete gaitnet-$1_iter_<n>.* and run the same command again" >&2
}

describe() { # command...: what is needed to repeat it; the data layers tell of the data
    echo "time: $(date '+%Y-%m-%d %H:%M:%S %z')"
    echo "command: $*"
    echo "folder: $PWD"
    commit=$("$python" -I "$root/caffe/revision.py" 2>/dev/null) || :
    [ -z "$commit" ] || echo "commit: $commit"
}

read_facts() { # sets facts, a line a solver: its file, max_iter, N
    python=$root/.venv/bin/python
    [ -x "$python" ] || python=${CAFFE_PYTHON:-python3}
    facts=$(PYTHONPATH= "$python" "$root/tools/solver_facts.py" "$PWD"/solver-*.prototxt) || exit 1
}

max_iter() { # step
    case $facts in
        *"/solver-$1.prototxt max_iter "*) ;;
        *) fail "$PWD/solver-$1.prototxt: no such file; tools/make_prototxt.py writes it" ;;
    esac
    told=${facts##*"/solver-$1.prototxt max_iter "}
    echo "${told%%[!0-9]*}"
}

final_weights() { # step -> the file that its last iteration writes, .h5 when that is there
    last=$(max_iter "$1")
    file=gaitnet-$1_iter_$last.caffemodel
    [ -f "$file" ] || [ ! -f "$file.h5" ] || file=$file.h5
    echo "$file"
}

snapshots() { # step -> state and weights of each snapshot up to max_iter, oldest first; no files under other names
    last=$(max_iter "$1")
    ls | sed -n "s/^\(gaitnet-$1_iter_\([0-9]\{1,9\}\)\)\.solverstate\(\.h5\)\{0,1\}\$/\2 & \1.caffemodel\3/p" |
        sort -n | while read -r n state model; do
            [ "$n" -gt "$last" ] || [ ! -f "$model" ] || echo "$state $model"
        done
}

newest_snapshot() { # step -> its state
    snapshots "$1" | sed -n '$s/ .*//p'
}

prune_snapshots() { # step: the newest one stays, from which a raised max_iter goes on
    snapshots "$1" | sed '$d' | while read -r state model; do
        rm -f -- "$state" "$model" "${model%.caffemodel*}.people.json" "${model%.caffemodel*}.md"
    done
}

fail() { # message, exit status
    echo "error: $1" >&2
    exit "${2:-1}"
}

main "$@"
