#!/usr/bin/env bash
# All experiments of the plan (seed 003), one after the other; what is done is not done again.
#
#   cd scripts/connection && ./run_experiments.sh [key=value ...]
#
# `fluoro sweep connection` does the same in one run, hands the winner of each phase on to the next,
# and sets arms of one size beside the plan's, which differ by a factor of 64.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

train() {
    python train.py --config "configs/$1.yaml" --dataset "$2" "${@:3}"
}

for config in linear_baseline bilinear_base bilinear_large; do
    # The large network does not fit a card of 24 GB; the others go on without it.
    train "${config}" LogiQA "$@" || [[ "${config}" == bilinear_large ]]
done

for nd_ratio in 64_256 128_256 256_256 512_256; do
    train "nd_${nd_ratio}" LogiQA "$@" || [[ "${nd_ratio}" == 512_256 ]]
done

for rank in 8 16 32 64; do
    train "rank_${rank}" LogiQA "$@"
done

for dataset in LogiQA GSM8K StrategyQA; do
    train final_best "${dataset}" "$@"
done
