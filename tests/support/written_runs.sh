# Run directories written by hand, for the tests of compare; sourced after checks.sh.

# write_run DIR NAME ATTENTION CACHE STEPS DONE FLOOR [MEMBERS]: a run of STEPS steps that got to
# DONE, validated every 10; its loss falls to FLOOR, an original stays there. MEMBERS go into
# run.json, in front.
write_run() {
    mkdir -p "$1"
    cat >"$1/run.json" <<END
{${8:-} "format": "mha2mla-run", "name": "$2", "attention": "$3", "d_kv": 8, "rope_pairs": 2,
 "rope": "2-norm", "svd": "joint", "cache_numbers_per_token": $4,
 "original_cache_numbers_per_token": 640, "steps": $5}
END
    awk -v done="$6" -v floor="$7" -v fall=$([ "$3" = mla ] && echo 3 || echo 0) 'BEGIN {
        for (s = 0; s <= done; s++) {
            loss = floor + fall * exp(-s / 8)
            if (s > 0)
                printf "{\"step\":%d,\"tokens\":%d,\"loss\":%.15f,\"lr\":0.001," \
                       "\"tokens_per_s\":%d,\"elapsed_s\":%.1f}\n",
                       s, s * 1000, loss + 0.01 * sin(7 * s), 500 + s, s * 2
            if (s % 10 == 0)
                printf "{\"step\":%d,\"tokens\":%d,\"valid_loss\":%.15f}\n", s, s * 1000, loss
        }
    }' >"$1/metrics.jsonl"
}

# write_eval FILE KIND RULES SCHEME BITS BYTES SCORES [MEMBERS]: a result file of `eval --out`. SCORES
# are "task score stderr n" separated by commas; their mean is the average. MEMBERS go behind.
write_eval() {
    local bits="[$5, $5]" format="$4 $5 bits"
    [ "$4" != plain ] || format=$([ "$5" = 16 ] && echo bfloat16 || echo float32)
    awk -v kind="$2" -v rules="$3" -v scheme="$4" -v bits="$bits" -v format="$format" -v bytes="$6" \
        -v scores="$7" -v more="${8:-}" 'BEGIN {
        n = split(scores, rows, ",")
        printf "{\"results\": {}, \"mha2mla\": {\"format\": \"mha2mla-eval\", \"version\": 1,\n"
        printf "  \"kind\": \"%s\", \"rules\": \"%s\", \"bos\": true, \"shots\": 0,\n", kind, rules
        printf "  \"max_length\": 2048, \"scores\": {"
        for (i = 1; i <= n; i++) {
            split(rows[i], cell, " ")
            printf "%s\"%s\": {\"metric\": \"acc_norm\", \"score\": %s, \"stderr\": %s, \"n\": %d}",
                   (i > 1) ? ", " : "", cell[1], cell[2], cell[3], cell[4]
            sum += cell[2]
        }
        printf "},\n  \"average\": %.10g, \"cache\": {\"format\": \"%s\", ", sum / n, format
        printf "\"scheme\": \"%s\", \"bits\": %s, \"bytes_per_token\": %s, ", scheme, bits, bytes
        printf "\"original_bytes_per_token\": 1280}%s}}\n", more
    }' >"$1"
}
