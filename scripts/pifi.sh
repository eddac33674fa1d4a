# What run_classification.sh and run_entailment.sh share: variables of the plan's manual -> one
# `fluoro run plugin`. It is read by them and does nothing by itself.
# shellcheck shell=bash

root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

fail() {
    echo "$1" >&2
    exit 2
}

pifi() { # pifi SCRIPT DATASETS [more words for `fluoro run`]
    local script=$1 datasets=$2
    shift 2
    check_count WORKERS
    check_count SEL_SAMPLES
    if [[ ${DOCKER:-false} == true ]] && ! is_in_container; then
        run_in_container "$script" "$@"
        return
    fi
    find_fluoro
    point_at_caches
    study_words "$datasets" "$@"
    show "${fluoro[@]}" "${words[@]}"
    [[ -z ${DRY_RUN:-} ]] || return 0
    local said
    said=$("${fluoro[@]}" "${words[@]}") || exit $?
    echo "$said"
    # Whatever else was asked for, such as --detach, ends without a finished run.
    [[ $said == "Done: "* ]] || return 0
    local place=${said#Done: }
    "${fluoro[@]}" plugin summary "${place%/report.html}"
}

# What the shell computes with must be a number: other words are names of variables to it.
check_count() { # check_count VARIABLE
    local value=${!1:-}
    [[ -z $value || $value =~ ^[1-9][0-9]*$ ]] ||
        fail "$1 is a whole number from 1, without zeros before it; got $1=$value."
}

find_fluoro() {
    if [[ -n ${FLUORO:-} ]]; then
        read -ra fluoro <<<"$FLUORO"
    elif [[ ${FLUOROSCOPE_IN_DOCKER:-} != 1 && -x $root/.venv/bin/fluoro ]]; then
        fluoro=("$root/.venv/bin/fluoro")
    elif command -v fluoro >/dev/null; then
        fluoro=(fluoro)
    else
        fail "There is no fluoro in $root/.venv/bin and none on PATH: run \`make install\` in $root."
    fi
}

# Study settings, from the variables that are set; what is not set is as the preset has it.
study_words() { # study_words DATASETS [more words] -> words
    local datasets=$1 preset=${PRESET:-paper}
    shift
    preset=${preset#plugin/}
    case $preset in
        # Other presets bring models and data sets of their own.
        paper | sound)
            local MODE=${MODE:-pifi_ilm} MODEL=${MODEL:-bert} LLM=${LLM:-llama3.1}
            local DATASETS=${DATASETS:-$datasets}
            ;;
    esac
    words=(run plugin --preset "plugin/$preset")
    [[ -z ${NAME:-} ]] || words+=(--name "$NAME")
    [[ ${WORKERS:-1} -le 1 ]] || words+=(--executor processes --workers "$WORKERS")
    setting mode "${MODE:-}"
    setting model "${MODEL:-}"
    setting datasets "${DATASETS:-}"
    setting epochs "${EPOCHS:-}"
    setting training.batch_size "${BS:-}"
    setting seed "${SEED:-}"
    setting threads "${THREADS:-}"
    data_words
    layer_words
    # The plan trains one classifier; with mode=base there is nothing to stand beside.
    if [[ -n ${BESIDE+x} || $preset == paper || ${MODE:-} == base ]]; then
        local beside=${BESIDE:-}
        words+=("beside=[${beside// /,}]")
    fi
    output_words
    words+=("$@")
}

setting() { # setting KEY VALUE; an empty value is none
    [[ -z $2 ]] || words+=("$1=$2")
}

data_words() {
    local beside=$root/../shared/data folder=${DATA_DIR:-}
    if [[ -z $folder && -z ${FLUOROSCOPE_DATA:-} && -d $beside ]]; then
        folder=$beside
    fi
    [[ -n $folder ]] || return 0
    [[ -d $folder ]] || fail "DATA_DIR=$folder is no folder; without it the hub's data is taken."
    folder=$(cd "$folder" && pwd)
    # Models that lie beside the data are found by this variable.
    export FLUOROSCOPE_DATA=${FLUOROSCOPE_DATA:-$folder}
    setting data_dir "$folder"
}

layer_words() {
    case ${MODE:-} in
        base)
            [[ -z ${LAYER:-} ]] || echo "LAYER has no effect with MODE=base." >&2
            return 0
            ;;
        pifi)
            setting layer "${LAYER:-}"
            ;;
        *)
            [[ ${LAYER:--1} == -1 ]] ||
                echo "LAYER has no effect with MODE=${MODE:-pifi_ilm}, which chooses it." >&2
            setting selection.ilm.n_samples "${SEL_SAMPLES:-}"
            # ILM draws from the texts that are read for all methods, 2000 by default.
            [[ ${SEL_SAMPLES:-0} -le 2000 ]] || setting selection.n_samples "$SEL_SAMPLES"
            setting selection.ilm.n_pcs "${SEL_PCS:-}"
            setting selection.ilm.top_pc "${SEL_TOP_PC:-}"
            ;;
    esac
    setting llm "${LLM:-}"
}

output_words() {
    setting outputs.cache "${CACHE_PATH:-./cache}/layers"
    setting outputs.preprocessed "${PREPROCESS_PATH:-./preprocessed}"
    setting outputs.models "${MODEL_PATH:-./models}"
    setting outputs.checkpoints "${CHECKPOINT_PATH:-./checkpoints}"
    setting outputs.results "${RESULT_PATH:-./results}"
    [[ ${USE_WANDB:-true} == true ]] || return 0
    if has_wandb; then
        setting outputs.wandb true
    else
        echo "W&B is left out, as wandb is not installed (pip install 'fluoroscope[wandb]')." >&2
    fi
}

has_wandb() {
    local command python
    command=$(command -v "${fluoro[0]}") || return 1
    python=$(dirname "$command")/python
    [[ -x $python ]] || return 1
    "$python" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("wandb") is None)'
}

# Where CACHE_PATH is given, whole models of the hub go there too; else to the hub's own cache.
point_at_caches() {
    [[ -n ${CACHE_PATH:-} || ${FLUOROSCOPE_IN_DOCKER:-} == 1 ]] || return 0
    export HF_HUB_CACHE=${HF_HUB_CACHE:-${CACHE_PATH:-./cache}}
}

show() {
    local word shown=()
    for word in "$@"; do
        [[ $word =~ ^[A-Za-z0-9_./:=+,@-]+$ ]] || word=${word@Q}
        shown+=("$word")
    done
    echo "${shown[*]}" >&2
}

is_in_container() {
    case ${FLUOROSCOPE_IN_DOCKER:-} in
        1) return 0 ;;
        0) return 1 ;;
        *) [[ -e /.dockerenv ]] ;;
    esac
}

passed=(
    MODE MODEL DATASETS EPOCHS BS WORKERS SEED LLM LAYER SEL_SAMPLES SEL_PCS SEL_TOP_PC USE_WANDB
    CUDA_VISIBLE_DEVICES CACHE_PATH PREPROCESS_PATH MODEL_PATH CHECKPOINT_PATH RESULT_PATH
    PRESET DATA_DIR NAME BESIDE THREADS DRY_RUN FLUOROSCOPE_DATA FLUOROSCOPE_RUNS
    HF_TOKEN HF_HUB_OFFLINE HF_ENDPOINT WANDB_MODE WANDB_API_KEY WANDB_PROJECT WANDB_ENTITY
)

# The same script in a container: folders have the same paths there, files are the user's own.
run_in_container() { # run_in_container SCRIPT [more words]
    local script=/opt/fluoroscope/scripts/$1 variable folder image options
    shift
    command -v docker >/dev/null ||
        fail "DOCKER=true needs the command docker, which is not here. Install it, or set DOCKER=false."
    image=$(image_tag)
    if [[ -z ${DRY_RUN:-} ]] && ! docker image inspect "$image" >/dev/null 2>&1; then
        docker build --tag "$image" "$root"
    fi
    if [[ -z ${DATA_DIR:-}${FLUOROSCOPE_DATA:-} && -d $root/../shared/data ]]; then
        export DATA_DIR=$root/../shared/data
    fi
    options=(--rm --init --user "$(id -u):$(id -g)" --volume "$PWD:$PWD" --workdir "$PWD")
    options+=(--env FLUOROSCOPE_IN_DOCKER=1 --env HOME=/tmp --env USER=fluoroscope)
    [[ ! -t 1 ]] || options+=(--tty)
    ! command -v nvidia-smi >/dev/null || options+=(--gpus all)
    for variable in CACHE_PATH PREPROCESS_PATH MODEL_PATH CHECKPOINT_PATH RESULT_PATH \
        FLUOROSCOPE_RUNS; do
        [[ -z ${!variable:-} ]] || mkdir -p "${!variable}"
        mount_folder "$variable" rw
    done
    for variable in DATA_DIR FLUOROSCOPE_DATA MODEL LLM; do
        mount_folder "$variable" ro
    done
    # LLM=stories260k is looked for beside the data.
    for folder in "${DATA_DIR:-}" "${FLUOROSCOPE_DATA:-}"; do
        [[ $folder != */* || ! -d ${folder%/*}/weights ]] || mount_path "${folder%/*}/weights" ro
    done
    for variable in "${passed[@]}"; do
        # By name alone, so that no key stands in a list of processes.
        [[ -z ${!variable+x} ]] || options+=(--env "$variable")
    done
    show docker run "${options[@]}" "$image" "$script" "$@"
    [[ -n ${DRY_RUN:-} ]] ||
        docker run "${options[@]}" "$image" "$script" "$@"
}

mount_folder() { # mount_folder VARIABLE rw|ro: the folder that it names, under the same path
    local folder=${!1:-}
    # A word without a slash is a key, such as bert.
    [[ $folder == */* && -d $folder ]] || return 0
    folder=$(cd "$folder" && pwd)
    export "$1=$folder"
    mount_path "$folder" "$2"
}

mount_path() { # mount_path FOLDER rw|ro; what is mounted already is not mounted again
    [[ $1/ == "$PWD"/* || " ${options[*]} " == *" $1:$1:"* ]] || options+=(--volume "$1:$1:$2")
}

# One image for each version, and in a checkout for each commit.
image_tag() {
    local version revision
    version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$root/fluoroscope/__init__.py")
    revision=$(git -C "$root" rev-parse --short HEAD 2>/dev/null) || revision=
    echo "fluoroscope:$version${revision:+-$revision}"
}
