#!/usr/bin/env bash
# Unpacks a pack of benchmarks/pack_gpu_run.sh, in which this file is called run.sh, and runs benchmarks/gpu_run.py:
#   bash gpu/run.sh --out results [--only base,large] [--limit 470] [--scale tiny]
# Needs no network, and Python with what needs.txt lists, which PyTorch's CUDA images have for the most part; what is
# missing is named before anything is unpacked. Variables of the environment:
#   PYTHON      another Python than python3
#   ERNIE2_GPU  where it unpacks, once for every pack (by its checksum): a new or empty folder; default /tmp/ernie2-gpu.
#               Nothing removes it: rm -r it when you are done
# The seconds of unpacking are taken off --limit.
set -euo pipefail
pack=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
place=${ERNIE2_GPU:-/tmp/ernie2-gpu} python=${PYTHON:-python3}
command -v "$python" >/dev/null || { echo "there is no $python here; name a Python with PYTHON=/path/to/python" >&2; exit 2; }
"$python" - "$python" "$pack/needs.txt" <<'CHECK' || exit 2
import platform
import sys
from importlib import metadata

python, file = sys.argv[1:]
with open(file) as lines:
    version, *needs = lines.read().split()
here = "%d.%d" % sys.version_info[:2]
if here != version:
    sys.exit("%s is Python %s, and this pack is for %s: name another with PYTHON=…, or pack with --python %s" % (python, here, version, here))
if (sys.platform, platform.machine()) != ("linux", "x86_64"):
    sys.exit("this pack is for Linux on x86_64, and this is %s on %s" % (sys.platform, platform.machine()))
try:
    from pip._vendor.packaging.requirements import Requirement
    from pip._vendor.packaging.version import Version
except ImportError:
    sys.exit("%s lacks pip, which unpacks the wheels: install it, or name another Python with PYTHON=…" % python)
lacking = []
for each in map(Requirement, needs):
    try:
        there = metadata.version(each.name)
    except metadata.PackageNotFoundError:
        lacking.append(str(each))
    else:
        if not each.specifier.contains(Version(there).base_version, prereleases=True):
            lacking.append("%s (%s is there)" % (each, there))
if lacking:
    sys.exit("%s lacks %s: install them, or name another Python with PYTHON=…" % (python, ", ".join(lacking)))
CHECK
sum=$(cd "$pack" && cat wheels/*.whl ./*.tar.xz | sha256sum)
if [ "$(cat "$place/ready" 2>/dev/null)" != "$sum" ]; then
    if [ -e "$place" ] && [ ! -e "$place/made_by_gpu_run" ] && [ -n "$(ls -A "$place")" ]; then
        echo "ERNIE2_GPU=$place holds something that is not unpacked from here; name a new folder" >&2
        exit 2
    fi
    rm -rf "$place/ready" "$place/site" "$place/shards" "$place/project"
    mkdir -p "$place/project"
    touch "$place/made_by_gpu_run"
    trap 'rm -rf "$place/site" "$place/shards" "$place/project"' EXIT
    echo "unpacking into $place"
    "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile --no-cache-dir --upgrade --root-user-action=ignore \
        --target "$place/site" "$pack"/wheels/*.whl
    "$python" -m tarfile -e "$pack/shards.tar.xz" "$place"  # unpacks where there is no xz, too
    "$python" -m tarfile -e "$pack/project.tar.xz" "$place/project"
    [ ! -e "$pack/mini.tar.xz" ] || "$python" -m tarfile -e "$pack/mini.tar.xz" "$place/project"
    echo "$sum" >"$place/ready"
    trap - EXIT
    echo "unpacked after $SECONDS s, which are taken off --limit; remove it with: rm -r $place"
fi
export PYTHONPATH="$place/site:$place/project/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
[ ! -e "$pack/commit.txt" ] || ERNIE2_COMMIT=$(cat "$pack/commit.txt")
export ERNIE2_COMMIT=${ERNIE2_COMMIT:-}
options=(--shards "$place/shards")
[ ! -e "$pack/mini.txt" ] || options+=(--mini "$place/project/$(cat "$pack/mini.txt")")
given=("$@")
shorter() {  # SECONDS: without those that unpacking took; what is no number stays as it is
    case $1 in *[!0-9.]* | '') echo "$1" ;; *) awk -v of="$1" -v took="$SECONDS" 'BEGIN { print (of > took + 1) ? of - took : 1 }' ;; esac
}
for at in "${!given[@]}"; do
    case ${given[at]} in
        --limit) [ $((at + 1)) -ge ${#given[@]} ] || given[at + 1]=$(shorter "${given[at + 1]}") ;;
        --limit=*) given[at]=--limit=$(shorter "${given[at]#--limit=}") ;;
    esac
done
exec "$python" "$place/project/benchmarks/gpu_run.py" "${options[@]}" "${given[@]}"
