#!/usr/bin/env bash
# Items per second of `mha2mla eval --tasks` beside lm_eval with transformers, on the same model and
# the same items by the same rules, in turns: seconds of the wall clock and of processor time, and
# the peak of resident memory.
#
#     bench/bench_tasks.sh MHA2MLA MODEL TASKS_DIR [TASKS [LIMIT [ROUNDS]]]
#     bench/bench_tasks.sh build/release/mha2mla models/SmolLM2-135M data/tasks arc_easy,piqa 200 3
#     DTYPES="bfloat16 float32" BATCH=16 OMP_NUM_THREADS=1 bench/bench_tasks.sh ...
#
# Needs python3 (or PYTHON) with torch, transformers and lm_eval (0.4.13). lm_eval's time is without
# loading and ours is with it.
set -euo pipefail

if [ $# -lt 3 ]; then
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
program=$1 model=$2 data=$3 tasks=${4:-arc_easy,hellaswag,piqa,mmlu} limit=${5:-200} rounds=${6:-1}
peer=$(dirname -- "${BASH_SOURCE[0]}")/tasks_peer.py
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# ours TASK: "seconds cpu-seconds MiB items acc".
ours() {
    /usr/bin/time -f '%e %U %S %M' -o "$work/time" "$program" eval "$model" --tasks "$data" --only "$1" \
        --rules lm-eval --limit "$limit" --out "$work/$1.json" >"$work/log" 2>&1 ||
        { cat "$work/log" >&2 && exit 1; }
    python3 -c '
import json, sys
result, (wall, user, system, peak) = json.load(open(sys.argv[1])), open(sys.argv[3]).read().split()
print(wall, float(user) + float(system), int(peak) // 1024, result["n-samples"][sys.argv[2]]["effective"],
      "%.4f" % result["results"][sys.argv[2]]["acc,none"])' "$work/$1.json" "$1" "$work/time"
}

for ((round = 1; round <= rounds; round++)); do
    for dtype in ${DTYPES:-bfloat16 float32}; do
        "${PYTHON:-python3}" "$peer" "$model" "$data" "$tasks" "$limit" "$dtype" "${BATCH:-16}" \
            >"$work/theirs" 2>"$work/log" || { tail -n 5 "$work/log" >&2 && exit 1; }
        peak=$(sed -n 's/^peak \([0-9]*\).*/\1/p' "$work/theirs")
        while read -r task _ _ wall _ _ cpu _ _ _ acc _; do
            [ "$task" != peak ] || continue
            read -r our_wall our_cpu our_peak items our_acc < <(ours "$task")
            awk -v t="$task" -v n="$items" -v a="$our_wall" -v b="$wall" -v c="$our_cpu" -v d="$cpu" \
                -v m="$our_peak" -v p="$peak" -v x="$our_acc" -v y="$acc" -v dtype="$dtype" -v r="$round" 'BEGIN {
                printf "round %d: %s, %d items: mha2mla %.2f s (%.2f CPU), %.1f items/s, %d MiB, acc %s; ", r, t, n, a, c, n / a, m, x
                printf "lm_eval %s %.2f s (%.2f CPU), %.1f items/s, %d MiB, acc %s: %.1f times, %.1f by CPU\n",
                    dtype, b, d, n / b, p, y, b / a, d / c }'
        done <"$work/theirs"
    done
done
