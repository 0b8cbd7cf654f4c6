#!/usr/bin/env bash
# mha2mla tokenize from standard input and named pipes: plain and compressed, on any number of ranks,
# empty, closed, named twice, broken off.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
tokenizer=$root/configs/demo/model

# tokens SHARD: a sum over what it holds, nothing where h5dump is missing.
tokens() {
    ! command -v h5dump >/dev/null || h5dump -d /tokens -d /documents "$1" | tail -n +2 | md5sum
}

# same_shard WHAT: out.h5 is the shard of the files, and is removed.
same_shard() {
    [ "$(tokens out.h5)" = "$(tokens files.h5)" ] || die "$1: another shard than from files"
    rm out.h5
}

awk 'BEGIN { for (i = 0; i < 3000; i++) { printf "{\"text\": \"%d", i
    for (w = 0; w < i % 50; w++) printf " once %d", w * i
    print "\"}" } }' >many.jsonl
head -c 100000 many.jsonl >plain.txt
"$mha2mla" tokenize --tokenizer "$tokenizer" --out files.h5 plain.txt many.jsonl >/dev/null

# As a pipe, a file, and gzip; before and after files.
cat many.jsonl | "$mha2mla" tokenize --tokenizer "$tokenizer" --out out.h5 plain.txt - >out 2>err ||
    die "from a pipe: status $?: $(cat err)"
[ -z "$(own_lines err)" ] || die "from a pipe: said on stderr: $(cat err)"
same_shard "a pipe"
"$mha2mla" tokenize --tokenizer "$tokenizer" --out out.h5 plain.txt - <many.jsonl >/dev/null
same_shard "a file"
gzip -1 <many.jsonl | "$mha2mla" tokenize --tokenizer "$tokenizer" --out out.h5 plain.txt - >/dev/null
same_shard "gzip"
"$mha2mla" tokenize --tokenizer "$tokenizer" --out files.h5 --format txt plain.txt many.jsonl >/dev/null
"$mha2mla" tokenize --tokenizer "$tokenizer" --out out.h5 --format txt - many.jsonl <plain.txt >/dev/null
same_shard "plain text"
for name in unnamed ./-; do
    cp many.jsonl "$name"
    "$mha2mla" tokenize --tokenizer "$tokenizer" --out out.h5 --format txt plain.txt "$name" >/dev/null
    same_shard "$name"
done

# Several ranks: rank 0 reads. A named pipe likewise.
"$mha2mla" tokenize --tokenizer "$tokenizer" --out files.h5 plain.txt many.jsonl >/dev/null
mkfifo pipe.jsonl
for n in 1 2 3; do
    cat many.jsonl | ranks "$n" tokenize --tokenizer "$tokenizer" --out out.h5 plain.txt -
    same_shard "stdin on $n ranks"
    cat many.jsonl >pipe.jsonl &
    ranks "$n" tokenize --tokenizer "$tokenizer" --out out.h5 plain.txt pipe.jsonl
    same_shard "a named pipe on $n ranks"
done

# refuses_stdin TEXT ARGUMENTS...: refused with the script's own stdin, and no shard is left.
refuses_stdin() {
    local text=$1 got=0
    shift
    timeout 600 "$mha2mla" tokenize --tokenizer "$tokenizer" --out out.h5 "$@" >out 2>err || got=$?
    check_refusal 2 "$text" "$got" "tokenize $*"
    [ ! -e out.h5 ] || die "tokenize $* left a shard"
}
refuses_stdin "out.h5: no tokens to write; is the text empty?" - </dev/null
refuses_stdin "out.h5: no tokens to write; is the text empty?" - <&-
refuses_stdin "- (stdin) is named twice, but can be read once" - plain.txt - <many.jsonl
refuses_stdin "stdin:1: cannot be read: Is a directory" - <"$work"
refuses_stdin "stdin:1: not valid JSON at column 4: '[' or '{' expected near 'once'; for plain text say --format txt" \
    - < <(echo once upon a time)
refuses_stdin "stdin:2: no field 'text'" - < <(printf '{"text": "x"}\n{"texts": "x"}\n')
refuses_stdin "stdin: byte 0xE9 at offset 3 is not UTF-8" --format txt - < <(printf 'caf\351')
refuses_stdin "stdin:1: cannot be read: unexpected end of file (truncated gzip" - \
    < <(gzip <many.jsonl | head -c 20)
refuses_stdin "unnamed: the name of a text file ends in .jsonl, .json or .txt, or in one of these and .gz or .zst; others need --format" \
    unnamed
refuses_stdin "--format is 'csv', allowed are auto, jsonl, txt" --format csv -
status=0
cat many.jsonl | mpirun -n 3 --oversubscribe --bind-to none "$mha2mla" tokenize --tokenizer "$tokenizer" \
    --out out.h5 - - >out 2>err || status=$?
check_refusal 2 "- (stdin) is named twice" "$status" "stdin twice on 3 ranks"

# A signal ends the wait for a writer that sends nothing.
mkfifo idle
sleep 600 >idle &
writer=$!
env --default-signal=INT "$mha2mla" tokenize --tokenizer "$tokenizer" --out out.h5 - <idle >out 2>err &
job=$!
until [ -n "$(temporaries)" ]; do
    kill -0 "$job" 2>/dev/null || die "did not wait for its text: $(cat err)"
    sleep 0.05
done
kill -s INT "$job"
status=0
wait "$job" || status=$?
[ "$status" -eq 1 ] || die "after SIGINT: status $status: $(cat err)"
grep -q 'interrupted; out.h5 is not written' err || die "after SIGINT: $(cat err)"
[ ! -e out.h5 ] && [ -z "$(temporaries)" ] || die "after SIGINT: $(ls -A)"
kill "$writer"
