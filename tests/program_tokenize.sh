#!/usr/bin/env bash
# mha2mla tokenize: its line of output, its messages, and that an interrupted run leaves nothing.
set -euo pipefail
. "$(dirname -- "$0")/checks.sh" "$1"
tokenizer=$root/configs/demo/model

# One line on stdout, nothing on stderr, and nothing but the shard beside the texts.
printf 'Once upon a time\n<|endoftext|>\nThe end.\n' >a.txt
printf '{"text": "A cat sat."}\n{"text": "The dog ran."}' | gzip >b.jsonl.gz
"$mha2mla" tokenize --tokenizer "$tokenizer" --separator '<|endoftext|>' --out ab.h5 '*.txt' \
    b.jsonl.gz >line 2>err
[ ! -s err ] || die "said on stderr: $(cat err)"
grep -qE '^4 documents, [0-9]+ tokens, 46 bytes of text, [0-9.]+ bytes/token, [0-9.]+ s: ab.h5$' \
    line || die "printed: $(cat line)"
[ "$(wc -l <line)" -eq 1 ] || die "more than one line: $(cat line)"
[ ! -e ab.h5.tmp ] || die "ab.h5.tmp is left"

# Given twice, the same bytes of tokens.
"$mha2mla" tokenize --tokenizer "$tokenizer" --separator '<|endoftext|>' --out again.h5 a.txt \
    b.jsonl.gz >again
[ "$(cut -d, -f1-4 line)" = "$(cut -d, -f1-4 again)" ] || die "$(cat line) but then $(cat again)"

# Help, and every mistake in one line.
"$mha2mla" tokenize --help >help || die "--help: status $?"
grep -q -- '--separator STRING' help || die "--help says: $(cat help)"
refuses 2 "--tokenizer" tokenize --out x.h5 a.txt
refuses 2 "--out" tokenize --tokenizer "$tokenizer" a.txt
refuses 2 "no text files are named" tokenize --tokenizer "$tokenizer" --out x.h5
refuses 2 "did you mean --separator" tokenize --tokenizer "$tokenizer" --out x.h5 --seperator x a.txt
refuses 2 "nowhere.txt: no such file" tokenize --tokenizer "$tokenizer" --out x.h5 nowhere.txt
refuses 2 "no field 'body'" tokenize --tokenizer "$tokenizer" --out x.h5 --text-field body b.jsonl.gz
refuses 1 "no/x.h5.tmp: cannot be written" tokenize --tokenizer "$tokenizer" --out no/x.h5 a.txt
head -c 30 b.jsonl.gz >cut.jsonl.gz
refuses 2 "truncated gzip" tokenize --tokenizer "$tokenizer" --out x.h5 cut.jsonl.gz
[ ! -e x.h5 ] && [ ! -e x.h5.tmp ] || die "a failed run left $(ls x.h5*)"

# Interrupted while it works: status 1, no file. The text is long enough for minutes of work.
awk 'BEGIN { for (i = 0; i < 30000; i++)
    print "{\"text\": \"Once upon a time there was a little girl who liked the park.\"}" }' |
    gzip -1 >block.gz
for _ in $(seq 100); do cat block.gz; done >long.jsonl.gz
for signal in INT TERM; do
    # bash starts background jobs with SIGINT ignored; env gives it back.
    env --default-signal=INT "$mha2mla" tokenize --tokenizer "$tokenizer" --out long.h5 \
        long.jsonl.gz >out 2>err &
    pid=$!
    for _ in $(seq 200); do
        [ ! -e long.h5.tmp ] || break
        sleep 0.05
    done
    [ -e long.h5.tmp ] || die "long.h5.tmp did not appear"
    kill -s "$signal" "$pid"
    status=0
    wait "$pid" || status=$?
    [ "$status" -eq 1 ] || die "after SIG$signal: status $status: $(cat err)"
    grep -q 'interrupted; long.h5 is not written' err || die "after SIG$signal: $(cat err)"
    [ ! -e long.h5 ] && [ ! -e long.h5.tmp ] || die "after SIG$signal: $(ls long.h5*)"
done

# Killed: at most the temporary file stays, and the next run is not disturbed by it.
"$mha2mla" tokenize --tokenizer "$tokenizer" --out long.h5 long.jsonl.gz >out 2>&1 &
pid=$!
for _ in $(seq 200); do
    [ ! -e long.h5.tmp ] || break
    sleep 0.05
done
kill -s KILL "$pid"
wait "$pid" 2>/dev/null || true
[ ! -e long.h5 ] || die "a killed run left a finished shard"
"$mha2mla" tokenize --tokenizer "$tokenizer" --out long.h5 a.txt >out || die "after a kill: $(cat out)"
[ -s long.h5 ] && [ ! -e long.h5.tmp ] || die "after a kill: $(ls long.h5*)"
