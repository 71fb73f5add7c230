#!/usr/bin/env bash
# Unpacks a pack of benchmarks/pack_gpu_run.sh, in which this file is called run.sh, and runs benchmarks/gpu_run.py:
#   bash gpu/run.sh --out results [--only base,large] [--limit 470] [--scale tiny]
# Needs Python with PyTorch, transformers and pytest, as PyTorch's CUDA images have them; no network. It unpacks into
# ERNIE2_GPU (default: a folder of /tmp; new or empty at first), anew whenever the pack is another, by its checksum. PYTHON names another Python.
set -euo pipefail
pack=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
place=${ERNIE2_GPU:-/tmp/ernie2-gpu} python=${PYTHON:-python3}
sum=$(cd "$pack" && cat wheels/*.whl ./*.tar.xz | sha256sum)
if [ "$(cat "$place/ready" 2>/dev/null)" != "$sum" ]; then
    if [ -e "$place" ] && [ ! -e "$place/made_by_gpu_run" ] && [ -n "$(ls -A "$place")" ]; then
        echo "ERNIE2_GPU=$place holds something that is not unpacked from here; name a new folder" >&2
        exit 2
    fi
    rm -rf "$place/ready" "$place/site" "$place/shards" "$place/project"
    mkdir -p "$place/project"
    touch "$place/made_by_gpu_run"
    "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile --no-cache-dir --upgrade --root-user-action=ignore \
        --target "$place/site" "$pack"/wheels/*.whl
    "$python" -m tarfile -e "$pack/shards.tar.xz" "$place"  # unpacks where there is no xz, too
    "$python" -m tarfile -e "$pack/project.tar.xz" "$place/project"
    [ ! -e "$pack/mini.tar.xz" ] || "$python" -m tarfile -e "$pack/mini.tar.xz" "$place/project"
    echo "$sum" >"$place/ready"
fi
export PYTHONPATH="$place/site:$place/project/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
[ ! -e "$pack/commit.txt" ] || ERNIE2_COMMIT=$(cat "$pack/commit.txt")
export ERNIE2_COMMIT=${ERNIE2_COMMIT:-}
options=(--shards "$place/shards")
[ ! -e "$pack/mini.txt" ] || options+=(--mini "$place/project/$(cat "$pack/mini.txt")")
exec "$python" "$place/project/benchmarks/gpu_run.py" "${options[@]}" "$@"
