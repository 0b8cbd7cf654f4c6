#!/usr/bin/env bash
# Speed of `mha2mla tokenize`'s encoder beside the `tokenizers` library: one core each, in turns.
#
#     bench/bench_tokenize.sh BENCH_TOKENIZE TOKENIZER_DIR TEXT_FILE [ROUNDS]
#     bench/bench_tokenize.sh build/release/bench/bench_tokenize models/SmolLM-135M corpus.txt
#
# Needs python3 with tokenizers. Fails if the two give different numbers of ids.
set -euo pipefail

if [ $# -lt 3 ]; then
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
program=$1 tokenizer=$2 text=$3 rounds=${4:-3}
peer=$(dirname -- "${BASH_SOURCE[0]}")/tokenize_peer.py
best_ours=0 best_theirs=0

faster() {
    awk -v a="$1" -v b="$2" 'BEGIN { print (a > b ? a : b) }'
}

for ((round = 1; round <= rounds; round++)); do
    ours=$("$program" "$tokenizer" "$text" 3)
    theirs=$(python3 "$peer" "$tokenizer" "$text" 1)
    if [ "${ours#* MB/s }" != "${theirs#* MB/s }" ]; then
        echo "bench_tokenize.sh: mha2mla gives '$ours', the library '$theirs'" >&2
        exit 1
    fi
    echo "round $round: mha2mla ${ours%% *} MB/s, tokenizers ${theirs%% *} MB/s"
    best_ours=$(faster "${ours%% *}" "$best_ours")
    best_theirs=$(faster "${theirs%% *}" "$best_theirs")
done
awk -v a="$best_ours" -v b="$best_theirs" -v same="${ours#* MB/s }" 'BEGIN {
    printf "best of rounds: mha2mla %.1f MB/s, tokenizers %.2f MB/s, ratio %.1f (%s)\n", a, b, a / b, same }'
