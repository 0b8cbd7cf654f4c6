#!/usr/bin/env bash
# Items per second of `mha2mla eval --tasks` beside lm_eval with transformers, on the same model and
# the same items by the same rules, in turns, each in both types: seconds of the wall clock and of
# processor time, and the peak of resident memory.
#
#     bench/bench_tasks.sh MHA2MLA MODEL TASKS_DIR [TASKS [LIMIT [ROUNDS]]]
#     bench/bench_tasks.sh build/release/mha2mla models/SmolLM2-135M data/tasks arc_easy,piqa 200 3
#     DTYPES="bfloat16 float32" COMPUTES=bfloat16 BATCHES=1,8,16,64 THREADS=1,2 bench/bench_tasks.sh ...
#
# Needs python3 (or PYTHON) with torch, transformers and lm_eval (0.4.13), which takes the fastest of
# BATCHES and THREADS for each task. lm_eval's time is without loading; what we take for a single
# item is subtracted from ours, which has starting and loading in it.
set -euo pipefail

if [ $# -lt 3 ]; then
    sed -n '2,12s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
program=$1 model=$2 data=$3 tasks=${4:-arc_easy,hellaswag,piqa,mmlu} limit=${5:-200} rounds=${6:-1}
peer=$(dirname -- "${BASH_SOURCE[0]}")/tasks_peer.py
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# ours TASK COMPUTE LIMIT: "seconds cpu-seconds MiB items acc".
ours() {
    /usr/bin/time -f '%e %U %S %M' -o "$work/time" "$program" eval "$model" --tasks "$data" --only "$1" \
        --rules lm-eval --compute "$2" --limit "$3" --out "$work/$1.json" >"$work/log" 2>&1 ||
        { cat "$work/log" >&2 && exit 1; }
    python3 -c '
import json, sys
result, (wall, user, system, peak) = json.load(open(sys.argv[1])), open(sys.argv[3]).read().split()
print(wall, float(user) + float(system), int(peak) // 1024, result["n-samples"][sys.argv[2]]["effective"],
      "%.4f" % result["results"][sys.argv[2]]["acc,none"])' "$work/$1.json" "$1" "$work/time"
}

for ((round = 1; round <= rounds; round++)); do
    for dtype in ${DTYPES:-bfloat16 float32}; do
        "${PYTHON:-python3}" "$peer" "$model" "$data" "$tasks" "$limit" "$dtype" "${BATCHES:-1,8,16,64}" \
            "${THREADS:-$OMP_NUM_THREADS}" >"$work/theirs" 2>"$work/log" || { tail -n 5 "$work/log" >&2 && exit 1; }
        peak=$(sed -n 's/^peak \([0-9]*\).*/\1/p' "$work/theirs")
        while read -r task _ _ wall _ _ cpu _ _ _ acc _ _ _ batch _ threads; do
            [ "$task" != peak ] || continue
            for compute in ${COMPUTES:-bfloat16 float32}; do
                read -r start start_cpu _ < <(ours "$task" "$compute" 1)
                read -r our_wall our_cpu our_peak items our_acc < <(ours "$task" "$compute" "$limit")
                awk -v t="$task" -v n="$items" -v a="$our_wall" -v s="$start" -v b="$wall" -v c="$our_cpu" \
                    -v d="$cpu" -v m="$our_peak" -v p="$peak" -v x="$our_acc" -v y="$acc" -v dtype="$dtype" \
                    -v compute="$compute" -v r="$round" -v z="$start_cpu" -v how="batch $batch, threads $threads" 'BEGIN {
                    printf "round %d: %s, %d items: mha2mla %s %.2f s (%.2f CPU, %.2f of it to start), %.1f items/s, %d MiB, acc %s; ",
                        r, t, n, compute, a, c, s, n / (a - s), m, x
                    printf "lm_eval %s (%s) %.2f s (%.2f CPU), %.1f items/s, %d MiB, acc %s: %.1f times, %.1f with the start, %.1f by CPU\n",
                        dtype, how, b, d, n / b, p, y, b / (a - s), b / a, d / (c - z) }'
            done
        done <"$work/theirs"
    done
done
