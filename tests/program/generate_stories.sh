#!/usr/bin/env bash
# Greedy answers of real models: the ids that transformers and an independent implementation of the
# conversion choose. Skipped where the models are not there.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
export OMPI_MCA_ess_singleton_isolated=1

stories=$ASSETS_DIR/models/stories260K mla=$ASSETS_DIR/golden/mla260K
oracle=$ASSETS_DIR/oracle/stories260K-greedy.txt
[ -d "$stories" ] && [ -d "$mla" ] && [ -e "$oracle" ] || { echo "no assets in $ASSETS_DIR"; exit 77; }

# same_ids MODEL PROMPT KEY: as many ids as the golden file has after KEY are the model's answer.
same_ids() {
    local expected n
    expected=$(tr -d ' \n' <"$mla/decode.json" | sed "s/.*$3\[\([0-9,]*\)\].*/\1/")
    n=$(tr ',' '\n' <<<"$expected" | wc -l)
    [ "$n" -ge 64 ] || die "only $n ids after $3"
    "$mha2mla" generate "$1" -p "$2" -n "$n" --json --ignore-eos --kv-type float32 >out 2>err ||
        die "$(cat err)"
    [ "$(grep -o '"ids":\[[^]]*\]' out | tr -d '"ids:[]')" = "$expected" ] ||
        die "$1: $(cat out), expected $expected"
}

same_ids "$stories" '' '"stories260K_greedy":{"ids":'
same_ids "$mla" 'Once upon a time' '"greedy_ids":'

# As text, from the token that begins a text; bfloat16 in the cache changes nothing here.
for type in float32 bfloat16; do
    "$mha2mla" generate "$stories" -p '' -n 200 --kv-type $type 2>/dev/null >text
    [ "$(cat text)" = "$(cat "$oracle")" ] || die "$type: $(cat text)"
done
