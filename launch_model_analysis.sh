#!/usr/bin/env bash
# The plan's launcher: the whole hallucination study of a model, on this machine.
#
#   ./launch_model_analysis.sh gpt2-small | gpt2-medium | both [more words for `fluoro run`]
#
# The same command goes on where it stopped. FLUORO is the command (default: fluoro); with
# DRY_RUN=1 the commands are printed and not run. On a cluster: sbatch jobs/gpt2_medium_full_pipeline.sbatch
set -euo pipefail

usage() {
    echo "usage: $0 gpt2-small|gpt2-medium|both [key=value ...]" >&2
    exit 2
}

study() {
    local model=$1
    shift
    local command=(${FLUORO:-fluoro} run hallucination --preset "hallucination/$model" --name "$model" "$@")
    echo "${command[*]}" >&2
    [[ -n ${DRY_RUN:-} ]] || "${command[@]}"
}

[[ $# -ge 1 ]] || usage
which=$1
shift
case $which in
    small | gpt2-small) study gpt2-small "$@" ;;
    medium | gpt2-medium) study gpt2-medium "$@" ;;
    both)
        study gpt2-small "$@"
        study gpt2-medium "$@"
        ;;
    *) usage ;;
esac
