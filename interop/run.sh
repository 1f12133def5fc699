#!/usr/bin/env bash
# Converts the models of testdata/ and checks the results against stock transformers. Needs Go, Python 3.10 or later and, the first
# time, the Python package index and some 6 GB of disk: the environment is kept under the user's cache folder.
#   PYTHON=python3.12 interop/run.sh     with another interpreter
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
work=$(mktemp -d)
building=
trap 'rm -rf "$work" ${building:+"$building"}' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The name changes with whatever makes an environment another one, so a stale one is never used.
key=$({ "$python" -c 'import sys; print(sys.version, sys.prefix)'; cat interop/requirements.txt; } | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mlaconvert
env=$cache/interop-$key
if [[ ! -x $env/bin/python ]]; then
    mkdir -p "$cache"
    building=$(mktemp -d "$cache/building-XXXXXX")
    echo "installing interop/requirements.txt into $env" >&2
    "$python" -m venv "$building"
    "$building/bin/python" -m pip install --quiet --no-cache-dir --disable-pip-version-check -r interop/requirements.txt >&2
    "$building/bin/python" -c 'import torch, transformers'
    # Whole or absent: where another run was faster, its environment serves and this one goes with the trap.
    mv -T "$building" "$env" 2>/dev/null || [[ -x $env/bin/python ]]
    [[ -d $building ]] || building=
fi
py=$env/bin/python

go build -o "$work/mlaconvert" .
go build -o "$work/dump" ./interop/dump

"$py" interop/variants.py testdata/gqa "$work/variants"

# make_case NAME SRC SHARE [FLAG...]: a case folder as check_transformers.py describes it, converted with the flags.
cases=()
make_case() {
    local name=$1 src=$2 share=$3 case=$work/cases/$1
    shift 3
    mkdir -p "$case"
    cp -r "$src" "$case/source"
    cp testdata/gqa/golden/ids.npy "$case/ids.npy"
    echo "$share" >"$case/share.txt"
    echo "converting $name" >&2
    "$work/mlaconvert" convert "$case/source" --out "$case/mla" --rank 48 --rope-dim 16 --dtype f32 --quiet "$@"
    "$work/dump" "$case/source" "$case/ids.npy" "$case/source_logits.npy"
    "$work/dump" "$case/mla" "$case/ids.npy" "$case/mla_logits.npy"
    cases+=("$case")
}

# Rank 48 and 16 rotary floats, of 128 or 256, cost 1 to 4 % with calibration and 20 to 35 % without. RoPE scaling that the output's
# configuration failed to carry over costs 14 % and more.
fast=(--effort fast --calibration-tokens 8192)
make_case gqa testdata/gqa 0.1
make_case gqa-data-free testdata/gqa 0.5 --calibration none
make_case mha testdata/mha 0.1 "${fast[@]}"
for name in llama3 linear mistral; do
    make_case "$name" "$work/variants/$name" 0.1 "${fast[@]}"
done

"$py" interop/check_transformers.py "${cases[@]}"

go build -o "$work/gradient" ./interop/gradient
mkdir "$work/gradients"
"$work/gradient" "$work/gradients"
"$py" interop/check_gradient.py "$work/gradients"
