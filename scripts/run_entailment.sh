#!/usr/bin/env bash
# The plan's entailment experiments: what run_classification.sh does, of pairs of texts.
#
#   MODE=base DATASETS=mnli ./scripts/run_entailment.sh [key=value ...]
#
# The variables are those of run_classification.sh. See docs/how-to/pifi-scripts.md.
set -euo pipefail

# shellcheck source=scripts/pifi.sh
source "$(dirname "${BASH_SOURCE[0]}")/pifi.sh"
pifi run_entailment.sh "mnli snli" "$@"
