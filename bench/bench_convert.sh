#!/usr/bin/env bash
# The SVD of a layer beside torch.linalg.svd(full_matrices=False), same threads, in turns.
#
#     OMP_NUM_THREADS=1 bench/bench_convert.sh BENCH_CONVERT [M N R [ROUNDS]]
#     OMP_NUM_THREADS=1 bench/bench_convert.sh build/release/bench/bench_convert 7680 4096 512 1
#
# Needs python3 with torch, which takes a minute or so for Llama-2-7B's layer, the default.
set -euo pipefail

if [ $# -lt 1 ]; then
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
program=$1 m=${2:-7680} n=${3:-4096} rank=${4:-512} rounds=${5:-1}
peer=$(dirname -- "${BASH_SOURCE[0]}")/convert_peer.py
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

for ((round = 1; round <= rounds; round++)); do
    before=$("$program" factorize "$m" "$n" "$rank" 1)
    theirs=$(python3 "$peer" "$m" "$n")
    after=$("$program" factorize "$m" "$n" "$rank" 1)
    awk -v a="${before%% *}" -v b="${after%% *}" -v c="${theirs%% *}" -v i="$round" 'BEGIN {
        printf "round %d: mha2mla %.2f s, %.2f s; torch.linalg.svd %.2f s: %.1f times as long\n",
            i, a, b, c, 2 * c / (a + b) }'
done
