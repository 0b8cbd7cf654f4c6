#!/usr/bin/env bash
# The command of docs/data.md that tokenizes Parquet files, as it stands there. Skipped where
# python3 has no pyarrow.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
python3 -c 'import pyarrow.parquet' 2>/dev/null || {
    echo "skipped: python3 has no pyarrow"
    exit 77
}

# What the command takes for granted.
mkdir -p bin models shards text/fineweb-edu-dedup
ln -s "$mha2mla" bin/mha2mla
export PATH=$work/bin:$PATH OMPI_MCA_rmaps_base_oversubscribe=1
cp -r "$root/configs/demo/model" models/SmolLM-135M
python3 - <<'END_OF_PYTHON'
import json
import pyarrow, pyarrow.parquet

rows = [["A cat sat.", "Zw\u00f6lf \"Boxk\u00e4mpfer\"\n", "\U0001f600 \u2028\u0000 x"], ["", "The dog ran."]]
for n, texts in enumerate(rows):
    table = pyarrow.table({"id": list(range(len(texts))), "text": texts})
    pyarrow.parquet.write_table(table, f"text/fineweb-edu-dedup/{n}.parquet", row_group_size=2)
with open("same.jsonl", "w", encoding="utf-8") as lines:
    lines.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for texts in rows for text in texts)
END_OF_PYTHON

awk '/^    set -o pipefail/ { on = 1 } on && !/^    / { exit } on' "$root/docs/data.md" >command
grep -q pyarrow command || die "docs/data.md has no command for Parquet: $(cat command)"
bash -e command >out 2>err || die "the command of docs/data.md: status $?: $(cat err)"
grep -qE '^4 documents' out || die "the command of docs/data.md printed: $(cat out)"
"$mha2mla" tokenize --tokenizer models/SmolLM-135M --out same.h5 same.jsonl >/dev/null
if command -v h5dump >/dev/null; then
    for shard in same.h5 shards/fineweb-edu-dedup.h5; do
        h5dump -d /tokens -d /documents "$shard" | tail -n +2 >"$(basename "$shard").dump"
    done
    cmp same.h5.dump fineweb-edu-dedup.h5.dump || die "Parquet gives other tokens than JSON lines"
fi

# A file that is not Parquet fails the whole line.
echo >text/fineweb-edu-dedup/2.parquet
! bash -e command >out 2>err || die "a broken Parquet file: status 0: $(cat out)"
