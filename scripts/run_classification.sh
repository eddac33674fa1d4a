#!/usr/bin/env bash
# The plan's classification experiments: an encoder alone, with one layer of a large model, or with
# a layer that is chosen. Several data sets are one run.
#
#   MODE=pifi_ilm DATASETS="sst2 imdb" ./scripts/run_classification.sh [key=value ...]
#
# Variables: MODE MODEL DATASETS EPOCHS BS WORKERS SEED LLM LAYER SEL_SAMPLES SEL_PCS SEL_TOP_PC
# DOCKER USE_WANDB CUDA_VISIBLE_DEVICES CACHE_PATH PREPROCESS_PATH MODEL_PATH CHECKPOINT_PATH
# RESULT_PATH; and PRESET (paper, sound) DATA_DIR NAME BESIDE THREADS. With DRY_RUN=1 the command is
# printed and not run. The same command goes on where it stopped. See docs/how-to/pifi-scripts.md.
set -euo pipefail

# shellcheck source=scripts/pifi.sh
source "$(dirname "${BASH_SOURCE[0]}")/pifi.sh"
pifi run_classification.sh "sst2 imdb cola" "$@"
