#!/bin/sh
# cd into this folder, then: sh train_net.sh [seg|rec|joint|sia ...]
cd -- "$(dirname -- "$0")" && . ../train_steps.sh
