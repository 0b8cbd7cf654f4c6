#!/usr/bin/env bash
# mha2mla tokenize: its line of output, its messages, the same shard from any number of ranks, and
# that an interrupted run leaves nothing.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
tokenizer=$root/configs/demo/model

# One line on stdout, nothing on stderr, and nothing but the shard beside the texts.
printf 'Once upon a time\n<|endoftext|>\nThe end.\n' >a.txt
printf '{"text": "A cat sat."}\n{"text": "The dog ran."}' | gzip >b.jsonl.gz
"$mha2mla" tokenize --tokenizer "$tokenizer" --separator '<|endoftext|>' --out ab.h5 '*.txt' \
    b.jsonl.gz >line 2>err
[ -z "$(own_lines err)" ] || die "said on stderr: $(cat err)"
grep -qE '^4 documents, [0-9]+ tokens, 46 bytes of text, [0-9.]+ bytes/token, [0-9.]+ s: ab.h5$' \
    line || die "printed: $(cat line)"
[ "$(wc -l <line)" -eq 1 ] || die "more than one line: $(cat line)"
[ -z "$(temporaries)" ] || die "left $(temporaries)"

# The same command twice gives the same bytes.
"$mha2mla" tokenize --tokenizer "$tokenizer" --separator '<|endoftext|>' --out again.h5 a.txt \
    b.jsonl.gz >again
[ "$(cut -d, -f1-4 line)" = "$(cut -d, -f1-4 again)" ] || die "$(cat line) but then $(cat again)"

# Help, and every mistake in one line.
"$mha2mla" tokenize --help >help || die "--help: status $?"
grep -q -- '--separator STRING' help || die "--help says: $(cat help)"
refuses 2 "--tokenizer" tokenize --out x.h5 a.txt
refuses 2 "--out" tokenize --tokenizer "$tokenizer" a.txt
refuses 2 "tokenize needs at least one FILE" tokenize --tokenizer "$tokenizer" --out x.h5
refuses 2 "did you mean --separator" tokenize --tokenizer "$tokenizer" --out x.h5 --seperator x a.txt
refuses 2 "nowhere.txt: no such file" tokenize --tokenizer "$tokenizer" --out x.h5 nowhere.txt
refuses 2 "no field 'body'" tokenize --tokenizer "$tokenizer" --out x.h5 --text-field body b.jsonl.gz
refuses 1 "no/x.h5: cannot be written" tokenize --tokenizer "$tokenizer" --out no/x.h5 a.txt
head -c 30 b.jsonl.gz >cut.jsonl.gz
refuses 2 "truncated gzip" tokenize --tokenizer "$tokenizer" --out x.h5 cut.jsonl.gz
[ ! -e x.h5 ] && [ -z "$(temporaries)" ] || die "a failed run left $(ls -A)"

# Faults are named by file and line, and end the run or are skipped and counted.
printf '{"text": "A cat."}\n{"text": "cut\n{"title": "x"}\n{"text": 3}\n{"text": "A dog."}\n' \
    >faulty.jsonl
refuses 2 "faulty.jsonl:2: not valid JSON" tokenize --tokenizer "$tokenizer" --out x.h5 faulty.jsonl
refuses 2 "--on-error is 'never', allowed are stop, skip" tokenize --tokenizer "$tokenizer" \
    --out x.h5 --on-error never faulty.jsonl
"$mha2mla" tokenize --tokenizer "$tokenizer" --out skip.h5 --on-error skip faulty.jsonl \
    cut.jsonl.gz a.txt >out 2>err || die "--on-error skip: status $?: $(cat err)"
grep -qE '^3 documents' out || die "--on-error skip printed: $(cat out)"
for said in 'faulty.jsonl:2: not valid JSON' "faulty.jsonl:3: no field 'text'" \
    "faulty.jsonl:4: field 'text' is not a string" 'cut.jsonl.gz:1: cannot be read' \
    'skipped 1 line of broken JSON, 1 line without the field, 1 line with no string in the field, 1 damaged file (its rest)$'; do
    grep -q -- "$said" err || die "--on-error skip did not say '$said' but: $(cat err)"
done
[ "$(own_lines err | wc -l)" -eq 5 ] || die "--on-error skip said: $(cat err)"

# The same bytes of /tokens and /documents for any number of ranks.
values() {
    h5dump -d /tokens -d /documents "$1" | tail -n +2 | md5sum
}
awk 'BEGIN { for (i = 0; i < 4000; i++) { printf "{\"text\": \"%d", i
    for (w = 0; w < i % 50; w++) printf " once %d", w * i
    print "\"}" } }' >many.jsonl
gzip -k1 many.jsonl
ranks 1 tokenize --tokenizer "$tokenizer" --out ranks1.h5 many.jsonl b.jsonl.gz many.jsonl.gz
for n in 2 3 4; do
    ranks "$n" tokenize --tokenizer "$tokenizer" --out "ranks$n.h5" many.jsonl b.jsonl.gz \
        many.jsonl.gz
    [ "$(grep -c documents out)" -eq 1 ] || die "$n ranks printed: $(cat out)"
    if command -v h5dump >/dev/null; then
        [ "$(values ranks1.h5)" = "$(values "ranks$n.h5")" ] || die "$n ranks wrote another shard"
    fi
done

# What inspect prints for the shard, whole and damaged.
"$mha2mla" inspect ranks1.h5 --tokenizer "$tokenizer" --verify >out 2>err ||
    die "inspect: status $?: $(cat err)"
grep -qE '^  text          "0<\|endoftext\|>1 once 0' out || die "inspect printed: $(cat out)"
grep -qE '^  checksums     right in all [0-9]+ chunks and over all tokens$' out || die "inspect printed: $(cat out)"
size=$(stat -c %s ranks1.h5)
cp ranks1.h5 flipped.h5
printf '\125\252\125\252' | dd of=flipped.h5 bs=1 seek=$((size / 2)) conv=notrunc status=none
refuses 2 "flipped.h5: /tokens is damaged from " inspect --verify flipped.h5
grep -qE '\(chunk [0-9]+ of 0\.\.[0-9]+\)' err || die "inspect did not name the chunk: $(cat err)"
head -c "$((size / 2))" ranks1.h5 >half.h5
refuses 2 "half.h5: not a readable HDF5 file" inspect half.h5

# An error on several ranks: one message, its status, no file left.
status=0
mpirun -n 3 --oversubscribe --bind-to none "$mha2mla" tokenize --tokenizer "$tokenizer" \
    --out x.h5 many.jsonl faulty.jsonl >out 2>&1 || status=$?
[ "$status" -eq 2 ] || die "3 ranks with a broken line: status $status: $(cat out)"
[ "$(grep -c 'mha2mla: error' out)" -eq 1 ] || die "3 ranks with a broken line said: $(cat out)"
grep -q 'error: faulty.jsonl:2: not valid JSON' out || die "3 ranks said: $(cat out)"
[ ! -e x.h5 ] && [ -z "$(temporaries)" ] || die "3 ranks left $(ls -A)"

# Interrupted while it works: status 1, no file. The text is long enough for minutes of work.
awk 'BEGIN { for (i = 0; i < 30000; i++)
    print "{\"text\": \"Once upon a time there was a little girl who liked the park.\"}" }' |
    gzip -1 >block.gz
for _ in $(seq 2000); do cat block.gz; done >long.jsonl.gz
# until_it_writes: until process $job has a temporary file.
until_it_writes() {
    while [ -z "$(temporaries)" ]; do
        kill -0 "$job" 2>/dev/null || die "no temporary file appeared: $(cat out err)"
        sleep 0.05
    done
}
for signal in INT TERM; do
    # bash starts background jobs with SIGINT ignored; env gives it back.
    env --default-signal=INT "$mha2mla" tokenize --tokenizer "$tokenizer" --out long.h5 \
        long.jsonl.gz >out 2>err &
    job=$!
    until_it_writes
    kill -s "$signal" "$job"
    status=0
    wait "$job" || status=$?
    [ "$status" -eq 1 ] || die "after SIG$signal: status $status: $(cat err)"
    grep -q 'interrupted; long.h5 is not written' err || die "after SIG$signal: $(cat err)"
    [ ! -e long.h5 ] && [ -z "$(temporaries)" ] || die "after SIG$signal: $(ls -A)"
done

# until_none_writes: until what was told to end has removed its temporary file.
until_none_writes() {
    for _ in $(seq 600); do
        [ -n "$(temporaries)" ] || return 0
        sleep 0.1
    done
}

# Interrupted at several ranks: the signal reaches all of them, and nothing is left. mpirun waits so
# many seconds, by default 1, before it passes SIGTERM on and again before it kills what is left.
OMPI_MCA_odls_base_sigkill_timeout=5 mpirun -n 2 --oversubscribe --bind-to none "$mha2mla" \
    tokenize --tokenizer "$tokenizer" --out long.h5 long.jsonl.gz >out 2>err &
job=$!
until_it_writes
kill -s TERM "$job"
wait "$job" && die "after SIGTERM to mpirun: status 0"
until_none_writes
[ ! -e long.h5 ] && [ -z "$(temporaries)" ] || die "after SIGTERM to mpirun: $(ls -A)"

# On a terminal a line shows the progress and the time left.
if command -v script >/dev/null &&
    timeout -k 1 60 script -qec true pty </dev/null >/dev/null 2>&1; then # else there are no ptys
    timeout -k 5 300 script -qfec "exec '$mha2mla' tokenize --tokenizer '$tokenizer' \
        --out long.h5 long.jsonl.gz" terminal </dev/null >/dev/null &
    job=$!
    until grep -qE '[0-9]+ %  [0-9]+ documents, [0-9]+ tokens, [0-9.]+ MB/s, [0-9]+:[0-9]{2}:[0-9]{2} left' \
        terminal; do
        kill -0 "$job" 2>/dev/null || die "on a terminal it showed: $(head -c 500 terminal)"
        sleep 0.1
    done 2>/dev/null
    kill "$job"
    wait "$job" || true
    until_none_writes # the program ends after its terminal
fi

# SIGKILL leaves at most the temporary file, which does not disturb the next run.
"$mha2mla" tokenize --tokenizer "$tokenizer" --out long.h5 long.jsonl.gz >out 2>&1 &
job=$!
until_it_writes
kill -s KILL "$job"
wait "$job" 2>/dev/null || true
[ ! -e long.h5 ] || die "a killed run left a finished shard"
"$mha2mla" tokenize --tokenizer "$tokenizer" --out long.h5 a.txt >out || die "after a kill: $(cat out)"
[ -s long.h5 ] && [ -z "$(temporaries)" ] || die "after a kill: $(ls -A)"

# Two that write one shard at the same time: both end well, and the shard is whole.
mv block.gz block.jsonl.gz
"$mha2mla" tokenize --tokenizer "$tokenizer" --out both.h5 block.jsonl.gz >first 2>&1 &
job=$!
"$mha2mla" tokenize --tokenizer "$tokenizer" --out both.h5 block.jsonl.gz >second 2>&1 ||
    die "the second writer: $(cat second)"
wait "$job" || die "the first writer: $(cat first)"
"$mha2mla" inspect --verify both.h5 >out 2>&1 || die "after two writers: $(cat out)"
grep -qE '^  documents +30000,' out || die "after two writers: $(cat out)"
[ -z "$(temporaries)" ] || die "after two writers: $(ls -A)"
