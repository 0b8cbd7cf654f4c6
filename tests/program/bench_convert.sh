#!/usr/bin/env bash
# The benchmark of conversion and loading, so that it does not rot. How fast anything is, is not
# tested.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
bench=$(dirname -- "$mha2mla")/bench/bench_convert

# prints PATTERN WORDS...
prints() {
    local pattern=$1
    shift
    "$bench" "$@" >out 2>err || die "bench_convert $*: status $?: $(cat err)"
    grep -qE "$pattern" out || die "bench_convert $*: $(cat out)"
}

prints '^[0-9.]+ s, rank 8 of 60 x 40$' factorize 60 40 8 2
prints '^forward [0-9.]+ s \([0-9]+ tokens/s\), with statistics .* alone are [0-9.]+ % of it$' \
    calibrate 8 1
prints '^cold: reading 0 MB .* s of it CPU$' load "$root/tests/golden/models/mqa_sharded" 1
prints '^warm: reading 0 MB ' load "$root/tests/golden/models/gqa_bf16" 2
# declines TEXT WORDS...: bad usage, said in one line.
declines() {
    local text=$1 got=0
    shift
    "$bench" "$@" >out 2>err || got=$?
    [ $got = 2 ] || die "bench_convert $*: status $got"
    [ "$(wc -l <err)" = 1 ] || die "bench_convert $*: $(cat err)"
    grep -qF -- "$text" err || die "bench_convert $* said: $(cat err)"
}

declines "usage: bench_convert factorize [M N R [ROUNDS]]"
declines "usage: bench_convert" load
declines "M is '4x', allowed are 1 to 32768" factorize 4x 4 1
declines "R is '5', allowed are 1 to 4" factorize 9 4 5
declines "ROUNDS is '0', allowed are 1 to 99" calibrate 8 0
declines "absent: not a directory" load absent
