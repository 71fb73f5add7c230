#!/usr/bin/env bash
# Packs what benchmarks/gpu_run.py needs on a bare CUDA machine without a network, and prints the sizes:
#   wheels/            what the project needs beyond a PyTorch CUDA image, in the versions of constraints.txt: Linux
#                      x86-64, CPython 3.12 (--python for another); gpu_parts/brought_packages.py says which
#   needs.txt          what Python has to have there, which run.sh looks for before anything else
#   shards.tar.xz      CORPUS prepared as the preset `small` of `ernie2 study table7` prepares it
#   project.tar.xz     this project: what git tracks or would track
#   mini.tar.xz        with --mini: that recipe and the shards it names, a relative path
#   commit.txt         the commit of the project, which the results name
#   run.sh             unpacks all of it there and runs benchmarks/gpu_run.py
#
# Usage: benchmarks/pack_gpu_run.sh CORPUS [--out FOLDER] [--mini RECIPE] [--python 3.12]
#   CORPUS   documents, as `path` of a corpus in a recipe takes them (.jsonl, .jsonl.gz, .parquet, …)
#   --out    where the pack goes; default build/gpu, which git ignores. A new or empty folder, or one of an earlier
#            pack, of which only the files above are replaced
# Needs the network once, for the wheels, and the project's dependencies here (`make setup`). With 18 MB of text it takes
# about two minutes on two cores.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[ -x "$python" ] || python=python3
most_mib=44
corpus='' out=$root/build/gpu mini='' version=3.12
while [ $# -gt 0 ]; do
    case $1 in
        --out) out=$2; shift 2 ;;
        --mini) mini=$2; shift 2 ;;
        --python) version=$2; shift 2 ;;
        -*) echo "there is no option $1; see the top of $0" >&2; exit 2 ;;
        *) corpus=$1; shift ;;
    esac
done
[ -n "$corpus" ] || { echo "usage: $0 CORPUS [--out FOLDER] [--mini RECIPE] [--python 3.12]" >&2; exit 2; }
corpus=$(realpath "$corpus")
if [ -e "$out" ] && [ ! -e "$out/made_by_pack_gpu_run" ] && [ -n "$(ls -A "$out")" ]; then
    echo "--out $out holds something that is no pack; give a new folder" >&2
    exit 2
fi
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
new=$made/pack work=$made/work
mkdir -p "$new/wheels" "$work"

say() { printf '[%3d s] %s\n' "$SECONDS" "$*"; }
"$python" "$root/benchmarks/gpu_parts/brought_packages.py" "$version" "$new/needs.txt" >"$work/names"
mapfile -t names <"$work/names"
say "1 of 4: fetching ${#names[@]} wheels for CPython $version"
platforms=()
for glibc in 39 38 35 34 31 28 27 24 17 12 5; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
platforms+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64 --platform any)
fetch() {  # NAME==VERSION …: their wheels for that Python, without what they depend on
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --python-version "$version" --implementation cp --abi "cp${version/./}" --abi abi3 --abi none \
        "${platforms[@]}" --dest "$new/wheels" "$@" 2>"$work/pip.log"
}
fetch "${names[@]}" || { cat "$work/pip.log" >&2; echo "there are not all wheels for CPython $version" >&2; exit 1; }

say "2 of 4: preparing shards of $corpus"
"$python" "$root/benchmarks/gpu_shards.py" "$corpus" "$work/shards"
pack() { tar -C "$1" -cf - "${@:3}" | xz -T0 -9e >"$2"; }
say "3 of 4: compressing the shards"
pack "$work" "$new/shards.tar.xz" shards
say "4 of 4: compressing the project"
(cd "$root" && git ls-files --cached --others --exclude-standard -z |
    while IFS= read -r -d '' file; do [ -e "$file" ] && printf '%s\0' "$file"; done >"$work/files")
tar -C "$root" --null --files-from "$work/files" -cf - | xz -T0 -9e >"$new/project.tar.xz"
git -C "$root" describe --always --dirty=+changes --abbrev=12 >"$new/commit.txt"
if [ -n "$mini" ]; then
    folder=$("$python" -c 'import sys; from ernie2.runs.recipes import load_recipe; print(load_recipe(sys.argv[1]).shards.folder)' "$mini")
    case $folder in /*) echo "$mini: shards.folder has to be a relative path, and is $folder" >&2; exit 2 ;; esac
    [ -e "$folder/shards.json" ] || { echo "$folder holds no shards; run: ernie2 prepare $mini" >&2; exit 2; }
    tar -cf - "$folder" -C "$(dirname "$mini")" "$(basename "$mini")" | xz -T0 -9e >"$new/mini.tar.xz"
    basename "$mini" >"$new/mini.txt"
fi
cp "$root/benchmarks/unpack_gpu_run.sh" "$new/run.sh"
touch "$new/made_by_pack_gpu_run"

say "done"
(cd "$new" && du -b --total ./*) | awk '{printf "%8.2f MiB  %s\n", $1 / 1048576, $2}'
bytes=$(du -bs "$new" | cut -f 1)
[ "$bytes" -le $((most_mib * 1048576)) ] || { echo "more than $most_mib MiB; give a smaller corpus" >&2; exit 1; }
mkdir -p "$out"
out=$(cd "$out" && pwd)
(cd "$out" && rm -rf wheels shards.tar.xz project.tar.xz mini.tar.xz mini.txt commit.txt needs.txt run.sh)
mv "$new"/* "$out"
echo
echo "Copy $out to the machine, then run there:"
echo "  bash $(basename "$out")/run.sh --out results --limit 470"
