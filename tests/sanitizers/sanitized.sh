#!/usr/bin/env bash
# Runs a program test of a sanitizer build and fails on any report, whichever process wrote it and
# however that ended: a test may expect the status that a report would give, or look at none.
#
#     sanitized.sh tests/program/train.sh build/asan/mha2mla
set -euo pipefail
reports=$(mktemp -d)
trap 'rm -rf "$reports"' EXIT
for options in ASAN_OPTIONS UBSAN_OPTIONS TSAN_OPTIONS; do
    export "$options=${!options-}:log_path=$reports/report"
done
status=0
bash "$@" || status=$?
for report in "$reports"/*; do
    [ -e "$report" ] || break
    echo "FAILED: $1: a report of a sanitizer:" >&2
    cat "$report" >&2
    status=1
done
exit "$status"
