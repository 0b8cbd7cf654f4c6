#!/usr/bin/env bash
# bench_decode, so that it does not rot: its rows in every format, for a model and for random
# weights. How fast anything is, is not tested.
set -euo pipefail
# shellcheck source=tests/support/checks.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../support/checks.sh" "$1"
bench=$(dirname -- "$mha2mla")/bench/bench_decode
mha2mla=$bench # what `refuses` and its like run
model=$root/configs/demo/model

# A row for each length, depth, batch and width of the cache; the bytes of a token are the shape's:
# 5 layers x 2 KV heads x 64 numbers.
"$bench" "$model" -p 16 -n 3 -d 0,70 -b 1,2 --kv 16,4 -t 1 -r 2 -o jsonl >rows 2>err ||
    die "bench_decode: $(cat err)"
[ "$(grep -c '"avg_ts": [0-9.]*[1-9]' rows)" -eq 12 ] || die "other rows: $(cat rows)"
[ "$(grep -c '"test": "tg3 x2 @ d70"' rows)" -eq 2 ] || die "no batches at a depth: $(cat rows)"
[ "$(grep -c '"type_kv": "bfloat16".*"cache_bytes_per_token": 1280.0' rows)" -eq 6 ] ||
    die "another cache: $(cat rows)"
[ "$(grep -c '"type_kv": "channel 4 bits".*"cache_bytes_per_token": 360.0' rows)" -eq 6 ] ||
    die "another quantized cache: $(cat rows)"

# Comma-separated values as wide as their heading; a table; an array.
"$bench" "$model" -p 8 -n 2 -r 1 -t 1 --clock cpu -o csv >rows
awk -F , 'NR == 1 { columns = NF } NF != columns { bad = 1 } END { exit bad || NR != 3 }' rows ||
    die "csv: $(cat rows)"
"$bench" "$model" -p 0 -n 2 -r 1 -t 1 >rows
awk -F '|' '{ bad = bad || NF != 15 } END { exit bad || NR != 3 }' rows || die "md: $(cat rows)"
"$bench" "$model" -p 8 -n 2 -r 1 -t 1 -o json >rows
[ "$(head -n 1 rows)$(tail -n 1 rows)" = '[]' ] || die "json: $(cat rows)"

# Random weights, with the original attention and with a latent.
"$bench" smollm-135m --layers 1 --d-kv 0,16 --dtype float16 -p 0 -n 1 -r 1 -t 1 >rows 2>err ||
    die "bench_decode: $(cat err)"
grep -q '^| smollm-135m, 1 layer  .* F16 .* 768 ' rows || die "no original: $(cat rows)"
grep -q '^| smollm-135m, 1 layer, d_kv 16 .* 144 ' rows || die "no latent: $(cat rows)"

# The shared form with the same cache: 48 numbers, and its rate by those of the others.
"$bench" smollm-135m --layers 1 --d-kv 0,8 --shared -p 0 -n 1 -r 1 -t 1 -o jsonl >rows 2>err ||
    die "bench_decode: $(cat err)"
[ "$(grep -c '"cache_bytes_per_token": 96.0' rows)" -eq 2 ] || die "other caches: $(cat rows)"
grep -q '"model_type": "smollm-135m, 1 layer, P 9, R 30".*"of_original": [0-9].*"of_per_head": [0-9]' \
    rows || die "no ratios of the shared form: $(cat rows)"
[ "$(grep -c '"of_original": null, "of_per_head": null' rows)" -eq 1 ] ||
    die "ratios of the original: $(cat rows)"

refuses 2 "0 words where one belongs; see bench_decode --help"
refuses 2 "unknown shape 'gpt-2'; there are smollm-135m," gpt-2
refuses 2 "-n is '1x', allowed are numbers from 0 to 1048576" "$model" -n 1x
refuses 2 "-t is '0', allowed are numbers from 1 to" "$model" -t 0
refuses 2 "--kv 5: allowed are 32, 16, 8, 4, 3 and 2 bits" "$model" --kv 5
refuses 2 "-o is 'xml'" "$model" -o xml
refuses 2 "--clock cpu is for one thread (-t 1)" "$model" -t 2 --clock cpu
refuses 2 "an unknown option, or one without its value" --row
