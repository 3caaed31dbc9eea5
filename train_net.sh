#!/bin/sh
# Trains GaitNet in its four steps and evaluates it: sets up, checks the data, trains, scores, says where everything lies.
#
#   sh train_net.sh                    on walkers, which are rendered here: minutes
#   sh train_net.sh casiab             on CASIA-B (or outdoor, szu) with the published settings: days on a GPU
#   sh train_net.sh experiments/NAME   on an experiment that tools/make_prototxt.py made: another split, other batches
#   sh train_net.sh walkers --fresh    anew; what was trained before is moved aside
#   sh train_net.sh casiab --gpu=0,1 --precision=tf32 --tensorboard=runs    other options go on to `caffe train`
#
# Interrupted or killed at any point, the same command goes on. CAFFE_ROOT=/path/to/caffe uses that Caffe instead of
# the bundled one, and CAFFE_PYTHON=/path/to/python3 evaluates with the Python that it was built for.
# GAITNET_DATA=/path is where the datasets lie when not in data/.
set -eu
case ${GAITNET_DATA:-/} in /*) ;; *) export GAITNET_DATA="$PWD/$GAITNET_DATA" ;; esac
case ${CAFFE_PYTHON:-} in [!/]*/*) CAFFE_PYTHON=$PWD/$CAFFE_PYTHON ;; esac
cd -- "$(dirname -- "$0")"

usage() { sed -n '2,13s/^# \{0,1\}//p' "$0"; }
fail() { echo "error: $1" >&2; exit "${2:-1}"; }

name=walkers # of the folder in experiments/
fresh=no
gpu=
words=$#
while [ "$words" -gt 0 ]; do # what is for caffe goes to the end of the line
    word=$1
    shift
    words=$((words - 1))
    case $word in
        --fresh) fresh=yes ;;
        -h | --help) usage; exit 0 ;;
        -*solver* | -*snapshot* | -*weights*) fail "$word: each step chooses its own" 2 ;;
        -*)
            case $word in
                -*=*) ;;
                *)
                    [ "$words" -gt 0 ] || { echo "error: what is '$word'?" >&2; usage >&2; exit 2; }
                    word=$word=$1
                    shift
                    words=$((words - 1))
                    ;;
            esac
            case $word in -gpu=* | --gpu=*) gpu=${word#*=} ;; esac
            set -- "$@" "$word"
            ;;
        *) name=$(basename -- "$word") ;;
    esac
done
experiment=experiments/$name
[ -f "$experiment/train_net.sh" ] || fail "no data set or experiment '$name' (known: $(ls experiments |
    sed '/[.]sh$/d' | tr '\n' ' ')). A data set of your own goes into layers/datasets.py, as data/README.md shows; its \
nets, and any experiment, are made by: .venv/bin/python tools/make_prototxt.py DATASET --out $experiment" 2
python=.venv/bin/python
times=

stage() { # title, command...: runs it and keeps its wall time for the summary
    title=$1
    shift
    printf '\n== %s\n' "$title"
    began=$(date +%s)
    "$@" || exit $?
    times="$times$(printf '  %-12s %5d s' "$title" $(($(date +%s) - began)))
"
}

set_aside() { # what an earlier training left
    ls "$experiment"/gaitnet-*_iter_* >/dev/null 2>&1 || return 0
    aside=$experiment/before-$(date +%Y%m%d-%H%M%S%z)
    mkdir "$aside"
    find "$experiment" -maxdepth 1 \( -name 'gaitnet-*_iter_*' -o -name 'gaitnet-*.log' -o -name '*.started-from' \) \
        -exec mv {} "$aside" \;
    echo "Earlier training moved to $aside; delete it when you do not need it"
}

told() { # name: what the experiment's files say of it
    echo "$facts" | sed -n "s/^$1=//p"
}

with_options() ( # command...: with the files that say who trains and who is tested
    IFS='
'
    set -f
    exec "$@" $options
)

get_data() {
    if [ "$dataset" = walkers ]; then
        $python tools/make_walkers.py
    else
        $python tools/unpack.py "$dataset" &&
            with_options $python tools/check_data.py "$dataset" --quick --train-num "$train_num" $kind
    fi
}

pack() {
    if [ -w "${GAITNET_DATA:-data}/$folder" ]; then
        $python tools/pack_frames.py "$dataset" $kind
    else
        echo "${GAITNET_DATA:-data}/$folder cannot be written to: training reads the single files, which takes longer"
    fi
}

evaluate() { # step, folder, option...
    weights=$experiment/$(sh "$experiment/train_net.sh" --weights "$1")
    folder=$2
    shift 2
    set -- --weights "$weights" --train-num "$train_num" --out "$folder" ${gpu:+--gpu "${gpu%%,*}"} "$@"
    [ "$dataset" != walkers ] || set -- "$@" --clips all # all windows of a walk: few walks, nothing random in the table
    with_options "$evaluates" -m eval "$dataset" "$@" $kind
}

any_gpu() { # the first that torch finds, for the bundled Caffe
    [ -n "${CAFFE_ROOT:-}" ] || ! $python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || echo 0
}

trap 'exit 130' INT # when what is at work has ended: Caffe writes a snapshot first
evaluates=$python # or the Python that goes with another Caffe
if [ -n "${CAFFE_ROOT:-}" ] && [ -n "${CAFFE_PYTHON:-}" ]; then
    evaluates=$CAFFE_PYTHON
    command -v "$evaluates" >/dev/null || fail "CAFFE_PYTHON is $evaluates, which is no command; wanted a Python"
fi
sh tools/setup.sh
[ $fresh = no ] || set_aside
facts=$(env -u CAFFE_ROOT $python tools/experiment.py show "$experiment")
dataset=$(told dataset)
folder=$(told folder)
train_num=$(told train_num)
kind=$(told kind) # --silhouettes, or nothing
options=$(told option)
results=results/$dataset-tr$train_num
[ "$name" = "$dataset" ] || results=results/$name
mkdir -p "$results" 2>/dev/null && [ -w "$results" ] || fail "$PWD/$results cannot be written to, where results go"
stage data get_data
env -u CAFFE_ROOT $python tools/experiment.py check "$experiment"
stage pack pack
for step in $(told steps); do
    stage $step env CHECKED=yes sh "$experiment/train_net.sh" $step "$@"
done
case $gpu in '' | all) gpu=$(any_gpu) ;; esac
every=$(told steps)
last=${every##* }
if [ "$dataset $every" = "walkers seg rec joint sia" ]; then # minutes: what does each step bring?
    stage "after rec" evaluate rec "$results/after-rec"
    stage "after joint" evaluate joint "$results/after-joint"
fi
stage "after $last" evaluate "$last" "$results" --report
if [ -d "$results/after-joint" ]; then
    echo
    $python eval/steps.py "$results"
fi

cat <<END

Wall time of this run:
$times
logs       $experiment/gaitnet-<step>-<date>.log
weights    $weights
tables     $results, with the pictures
report     $results/report.html
END
