#!/usr/bin/env bash
# Runs the fuzz targets with libFuzzer from the corpora in tests/fuzz and fails on a finding: a
# crash, a leak, undefined behaviour, a broken promise, a hang, too much memory. Needs clang, its
# libclang-rt-*-dev and libomp-*-dev.
#
#     tests/fuzz/fuzz.sh [RUNS [TARGET...]]     # 1000000 of each; a target is tests/fuzz/fuzz_TARGET.c
#
# What it learns stays in build/fuzz/corpus, so that a later run goes on from there. The input of a
# finding is build/fuzz/findings/TARGET-crash-...: mend the reader, then put the file into
# tests/fuzz/TARGET/, where the unit test fuzz_TARGET replays it from then on.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."

runs=${1:-1000000}
shift || true
# Longer inputs are slower and rarely say more.
declare -A most_bytes=([answers]=512 [config]=512 [encode]=512 [eval]=1500 [hf_config]=1024 [manifest]=3000 [metrics]=512 [predictions]=768 [prompts]=512 [quantize]=2052
    [run_json]=1024 [safetensors]=1024 [scores]=128 [shard]=128 [text]=512 [tokenizer]=3000
    [torch_file]=2048)
if [ $# -eq 0 ]; then
    mapfile -t targets < <(printf '%s\n' "${!most_bytes[@]}" | sort)
else
    targets=("$@")
fi

cmake --preset fuzz >/dev/null
cmake --build --preset fuzz >/dev/null

# Readers open files, a million times: in memory where there is such a file system.
shm=/dev/shm
[ -w "$shm" ] || shm=${TMPDIR:-/tmp}
TMPDIR=$(mktemp -d "$shm/mha2mla-fuzz.XXXXXX")
export TMPDIR OMP_NUM_THREADS=1
trap 'rm -rf "$TMPDIR"' EXIT
export LSAN_OPTIONS=suppressions=$PWD/tests/sanitizers/lsan.supp:print_suppressions=0
mkdir -p build/fuzz/findings

failed=()
for target in "${targets[@]}"; do
    log=build/fuzz/$target.log
    export ASAN_OPTIONS=quarantine_size_mb=16:malloc_context_size=5
    options=(-runs="$runs" -max_len="${most_bytes[$target]}" -timeout=60 -rss_limit_mb=4000
        -print_final_stats=1 -artifact_prefix="build/fuzz/findings/$target-")
    if [ "$target" = shard ] || [ "$target" = scores ]; then # HDF5 asks for what a damaged file says, and copes with a no
        options+=(-malloc_limit_mb=1000000)
        ASAN_OPTIONS+=:allocator_may_return_null=1
    fi
    if [ -f "tests/fuzz/$target.dict" ]; then
        options+=(-dict="tests/fuzz/$target.dict")
    fi
    mkdir -p "build/fuzz/corpus/$target"
    if nice -n 10 "build/fuzz/tests/fuzz_$target" "${options[@]}" "build/fuzz/corpus/$target" \
        "tests/fuzz/$target" >"$log" 2>&1; then
        printf '%-12s %s\n' "$target" "$(grep -E '^#[0-9]+.DONE' "$log")"
    else
        grep -E 'ERROR|runtime error|broken invariant|SUMMARY' "$log" | head -n 3
        failed+=("$target ($log)")
    fi
done
if [ "${#failed[@]}" -gt 0 ]; then
    echo "FAILED: ${failed[*]}" >&2
    exit 1
fi
