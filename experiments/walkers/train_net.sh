#!/bin/sh
# cd into this folder, then: sh train_net.sh [seg|rec|joint|sia ...]
prune=yes # minutes of training need no snapshots before the last, which take 200 MB each
cd -- "$(dirname -- "$0")" && . ../train_steps.sh
