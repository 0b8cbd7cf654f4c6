#!/bin/bash
# A training step here and in PyTorch, in alternation, and the ratio of their tokens per second.
#
#     bench/bench_step.sh BENCH_STEP SHAPE T mha|mla [ROUNDS [LAYERS]]
#     bench/bench_step.sh build/release/bench/bench_step smollm-135m 2048 mla 3
#
# Each round is a process of each; medians over the rounds. OMP_NUM_THREADS threads, one if not set
# (then both are timed by CPU time, so that what else the machine runs counts little). COMPILE=1
# also tries torch.compile.
set -euo pipefail
[ $# -ge 4 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
bench=$1 shape=$2 T=$3 attention=$4 rounds=${5:-3} layers=${6:-}
here=$(cd -- "$(dirname -- "$0")" && pwd)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# rate FILE: the median of its "... tokens/s", then the last "peak ... GiB".
rate() {
    grep -o '[0-9.]* tokens/s' "$1" | sort -n | awk '{ x[NR] = $1 } END { print x[int((NR + 1) / 2)] }'
}
peak() {
    grep -o 'peak [0-9.]* GiB' "$1" | tail -n 1
}

modes=eager
[ "${COMPILE:-0}" = 1 ] && modes="eager compiled"
for ((i = 0; i < rounds; i++)); do
    "$bench" "$shape" "$T" "$attention" 1 $layers >>"$work/ours"
    for mode in $modes; do
        option=
        [ "$mode" = compiled ] && option=--compile
        python3 "$here/bench_torch.py" "$shape" "$T" "$attention" 1 ${layers:+--layers "$layers"} \
            $option >>"$work/$mode"
    done
done
ours=$(rate "$work/ours")
echo "$shape $attention T $T ${layers:+$layers layers }threads $OMP_NUM_THREADS rounds $rounds"
echo "mha2mla         $ours tokens/s, $(peak "$work/ours")"
for mode in $modes; do
    torch=$(rate "$work/$mode")
    echo "torch $mode $torch tokens/s, $(peak "$work/$mode"), ratio $(awk "BEGIN { printf \"%.2f\", $ours / $torch }")"
done
