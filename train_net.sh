#!/bin/sh
# Trains GaitNet in its four steps and evaluates it: sets up, checks the data, trains, scores, says where everything lies.
#
#   sh train_net.sh                    on walkers, which are rendered here: minutes
#   sh train_net.sh casiab             on CASIA-B (or outdoor, szu) with the published settings: days on a GPU
#   sh train_net.sh walkers --fresh    anew; what was trained before is moved aside
#
# Interrupted or killed at any point, the same command goes on. CAFFE_ROOT=/path/to/caffe uses that Caffe instead of
# the bundled one; GAITNET_DATA=/path is where the datasets lie when not in data/.
set -eu
case ${GAITNET_DATA:-/} in /*) ;; *) export GAITNET_DATA="$PWD/$GAITNET_DATA" ;; esac
cd -- "$(dirname -- "$0")"

usage() { sed -n '2,9s/^# \{0,1\}//p' "$0"; }
fail() { echo "error: $1" >&2; exit "${2:-1}"; }

dataset=walkers
fresh=no
for word in "$@"; do
    case $word in
        walkers | casiab | outdoor | szu) dataset=$word ;;
        --fresh) fresh=yes ;;
        -h | --help) usage; exit 0 ;;
        *) echo "error: what is '$word'?" >&2; usage >&2; exit 2 ;;
    esac
done
case $dataset in
    walkers) folder=Walkers ;;
    casiab) folder=CASIA-B ;;
    outdoor) folder=Outdoor-Gait ;;
    szu) folder=SZU-Gait ;;
esac
experiment=experiments/$dataset
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
    ls $experiment/gaitnet-*_iter_* >/dev/null 2>&1 || return 0
    aside=$experiment/before-$(date +%Y%m%d-%H%M%S)
    mkdir "$aside"
    find $experiment -maxdepth 1 \( -name 'gaitnet-*_iter_*' -o -name 'gaitnet-*.log' \) -exec mv {} "$aside" \;
    echo "Earlier training moved to $aside; delete it when you do not need it"
}

link_data() { # the prototxts say ../../data, so GAITNET_DATA is made visible there
    [ -n "${GAITNET_DATA:-}" ] || return 0
    [ $dataset = walkers ] || [ -d "$GAITNET_DATA/$folder" ] ||
        fail "GAITNET_DATA is $GAITNET_DATA, which has no folder $folder; data/README.md says what goes there"
    if [ ! -e "data/$folder" ]; then
        mkdir -p data "$GAITNET_DATA"
        rm -f "data/$folder" # a link to what is gone
        ln -s "$(cd -- "$GAITNET_DATA" && pwd)/$folder" "data/$folder"
    elif [ "$(cd -P -- "data/$folder" && pwd)" != "$(cd -P -- "$GAITNET_DATA/$folder" 2>/dev/null && pwd)" ]; then
        fail "data/$folder is not $GAITNET_DATA/$folder; remove the one that you do not mean, or unset GAITNET_DATA"
    fi
}

get_data() {
    if [ $dataset = walkers ]; then
        $python tools/make_walkers.py
    else
        $python tools/check_data.py $dataset --quick --train-num "$train_num"
    fi
}

pack() {
    if [ -w "data/$folder" ]; then
        $python tools/pack_frames.py $dataset
    else
        echo "data/$folder cannot be written to: training reads the single files, which takes longer"
    fi
}

evaluate() {
    set -- --report --weights "$weights" --train-num "$train_num"
    [ $dataset != walkers ] || set -- "$@" --clips all # all windows of a walk: few walks, and nothing random in the table
    if [ -z "${CAFFE_ROOT:-}" ] && $python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
        set -- "$@" --gpu 0
    fi
    $python eval/eval-$dataset.py "$@"
}

sh tools/setup.sh
[ $fresh = no ] || set_aside
link_data
train_num=$(sed -n "s/.*'train_num': \([0-9]*\).*/\1/p" $experiment/gaitnet-sia.prototxt | head -n 1)
stage data get_data
stage pack pack
trap '' INT # Ctrl-C is for Caffe, which writes a snapshot and stops
for step in seg rec joint sia; do
    stage $step sh $experiment/train_net.sh $step
done
trap - INT
weights=$experiment/$(sh $experiment/train_net.sh --weights)
stage evaluation evaluate

cat <<END

Wall time of this run:
$times
logs       $experiment/gaitnet-<step>-<date>.log
weights    $weights
tables     results/$dataset-tr$train_num, with the pictures
report     results/$dataset-tr$train_num/report.html
END
