#!/usr/bin/env bash
# The shipped demo corpus is what its generator writes today, and no document is in both its files.
# Python is not needed to build or run mha2mla: without it this test is skipped.
set -euo pipefail
command -v python3 >/dev/null || exit 77
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "program_demo_corpus: $*" >&2
    exit 1
}

python3 "$root/configs/demo/make_corpus.py" --out "$work" >/dev/null
for part in train valid; do
    gzip -dc "$work/$part.txt.gz" >"$work/$part.made"
    gzip -dc "$root/configs/demo/$part.txt.gz" >"$work/$part.shipped"
    cmp "$work/$part.made" "$work/$part.shipped" ||
        fail "$part.txt.gz is not what make_corpus.py writes: run it and commit both"
done

python3 - "$work/train.shipped" "$work/valid.shipped" <<'END' || fail "the two files overlap"
import sys
train, valid = (open(path).read().split("\n<|endoftext|>\n")[:-1] for path in sys.argv[1:])
sys.exit(not valid or len(set(train)) != len(train) or not set(valid).isdisjoint(train))
END
