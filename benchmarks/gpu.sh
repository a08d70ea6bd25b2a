#!/bin/sh
# What a GPU makes of this package, on a machine that has Python 3.12, torch and nothing else.
#
#   benchmarks/gpu.sh pack FOLDER [SOURCE]    here: wheels, the package, its tests and a crop of SOURCE, in 64 MiB
#   benchmarks/gpu.sh run FOLDER RESULTS      there, in at most 6 minutes: gpu.json, gpu.md, receipts, tests.xml
#
# SOURCE: a volume, by name or address; a synthetic one where there is none. PYTHON: which python.
# VEMDIFFUSE_DEVICE=cpu rehearses; LIMIT_S: how long it may take. Nothing is installed but into FOLDER/site.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
LIMIT_KIB=65536
limit_s=${LIMIT_S:-355}
PACKAGES="numpy pydantic pydantic-core annotated-types typing-inspection safetensors psutil xxhash tomlkit tensorstore
ml_dtypes click rich markdown-it-py mdurl pygments pytest pluggy iniconfig packaging"

pack() {
    mkdir -p "$1/wheels" "$1/tests"
    # shellcheck disable=SC2086
    "$python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
        --platform manylinux2014_x86_64 --platform manylinux2010_x86_64 --platform manylinux_2_12_x86_64 \
        -d "$1/wheels" $PACKAGES
    (cd "$here" && find vemdiffuse_pipe -type f ! -name '*.pyc' \
        \( ! -path '*/weights/*' -o -name 'default.*' -o -name 'fib25-2026-11.*' \) |
        tar -cf - -T -) | tar -xf - -C "$1"
    cp "$here"/tests/gpu/test_gpu.py "$1/tests/"
    cp "$here"/benchmarks/gpu.py "$here"/benchmarks/gpu.sh "$1/"
    printf '[pytest]\nmarkers = gpu: needs a GPU\njunit_family = xunit1\n' >"$1/tests/pytest.ini"
    git -C "$here" describe --always --dirty >"$1/commit" 2>/dev/null || echo unknown >"$1/commit"
    PYTHONPATH="$here" "$python" "$here/benchmarks/gpu.py" pack "$1" ${2:+--source "$2"}
    size=$(du -sk "$1" | cut -f1)
    echo "$1: $size KiB"
    [ "$size" -le $LIMIT_KIB ] || { echo "more than $LIMIT_KIB KiB" >&2; exit 1; }
}

run() {
    folder=$(cd "$1" && pwd)
    mkdir -p "$2"
    results=$(cd "$2" && pwd)
    began=$(date +%s)
    "$python" -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$folder/site" \
        "$folder"/wheels/*.whl
    export PYTHONPATH="$folder/site:$folder" PYTHONUNBUFFERED=1
    cd "$folder"
    timeout $((limit_s * 2 / 5)) "$python" -m pytest -q -c tests/pytest.ini -p no:cacheprovider \
        --junitxml="$results/tests.xml" \
        tests || echo "tests: exit code $?" >&2
    left=$((limit_s - $(date +%s) + began))
    timeout "$left" "$python" gpu.py measure "$folder" "$results" --seconds $((left - 20))
}

case ${1:-} in
pack) pack "$2" "${3:-}" ;;
run) run "$2" "$3" ;;
*) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
