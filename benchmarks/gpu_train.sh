#!/bin/sh
# Trains a network of the default model on a GPU, for the minutes that there are, and brings its weights back.
#
#   benchmarks/gpu_train.sh pack FOLDER DATA [WEIGHTS]      here: wheels, the package, crops of FIB-25, in 64 MiB
#   benchmarks/gpu_train.sh run FOLDER RESULTS MINUTES NETWORK    there: NETWORK.safetensors and log.jsonl
#
# DATA: the folder with FIB-25's volumes a, b and c. WEIGHTS: a checkpoint of the network, to begin from what it
# has learnt. NETWORK: estimator or sampler. To run again resumes, as long as RESULTS/state.safetensors is there.
# PYTHON: which python; it needs torch and nothing else. VEMDIFFUSE_DEVICE=cpu rehearses.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
LIMIT_KIB=65536
PACKAGES="numpy pydantic pydantic-core annotated-types typing-inspection safetensors psutil xxhash tomlkit"

pack() {
    mkdir -p "$1/wheels"
    # shellcheck disable=SC2086
    "$python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
        --platform manylinux2014_x86_64 --platform manylinux2010_x86_64 --platform manylinux_2_12_x86_64 \
        -d "$1/wheels" $PACKAGES
    (cd "$here" && find vemdiffuse_pipe -type f ! -name '*.pyc' ! -path '*/weights/*' | tar -cf - -T -) |
        tar -xf - -C "$1"
    cp "$here"/benchmarks/gpu_train.py "$here"/benchmarks/gpu_train.sh "$1/"
    [ -z "$3" ] || cp "$3" "$1/start.safetensors"
    PYTHONPATH="$here" "$python" "$here/benchmarks/gpu_train.py" pack "$1" "$2"
    size=$(du -sk "$1" | cut -f1)
    echo "$1: $size KiB"
    [ "$size" -le $LIMIT_KIB ] || { echo "more than $LIMIT_KIB KiB" >&2; exit 1; }
}

run() {
    folder=$(cd "$1" && pwd)
    mkdir -p "$2"
    results=$(cd "$2" && pwd)
    "$python" -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$folder/site" \
        "$folder"/wheels/*.whl
    export PYTHONPATH="$folder/site:$folder" PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1
    cd "$folder"
    "$python" gpu_train.py run "$folder" "$results" --minutes "$3" --network "$4"
}

case ${1:-} in
pack) pack "$2" "$3" "${4:-}" ;;
run) run "$2" "$3" "$4" "$5" ;;
*) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
