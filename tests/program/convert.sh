#!/usr/bin/env bash
# `convert` on any number of ranks: the same bytes, one set of messages, one mistake named once.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
export OMPI_MCA_ess_singleton_isolated=1
command -v python3 >/dev/null || exit 77
model=$root/tests/golden/models/gqa_bf16
options="--rope uniform --rope-pairs 2 --d-kv 4"

"$mha2mla" convert "$model" --out one $options >said || die "status $?"
for n in 2 4; do # 4: more than there are layers
    ranks $n convert "$model" --out many-$n $options
    for file in one/*; do
        cmp "$file" "many-$n/${file#one/}" || die "$n ranks: $file is another"
    done
    [ "$(grep -c 'M parameters, KV cache' out)" = 1 ] || die "$n ranks: $(cat out)"
done

# Damage in a layer that rank 1 converts.
cp -r "$model" damaged
python3 - damaged/model.safetensors <<'EOC'
import json
import struct
import sys

with open(sys.argv[1], "r+b") as f:
    length = struct.unpack("<Q", f.read(8))[0]
    header = json.loads(f.read(length))
    f.seek(8 + length + header["model.layers.1.self_attn.v_proj.weight"]["data_offsets"][0] + 6)
    f.write(struct.pack("<H", 0x7FC0))
EOC
status=0
mpirun -n 2 --oversubscribe --bind-to none "$mha2mla" convert damaged --out none $options >out 2>&1 ||
    status=$?
[ $status = 2 ] || die "status $status: $(cat out)"
grep -q "tensor 'model.layers.1.self_attn.v_proj.weight' has nan at row 0, column 3" out ||
    die "$(cat out)"
[ "$(grep -c v_proj out)" = 1 ] || die "said more than once: $(cat out)"
[ ! -e none ] || die "a model was written"
