#!/usr/bin/env bash
# `import` of models as the paper's own code saves them: those that `export --format v1.2` writes come
# back bit by bit, and those of v1.0 and v1.2 that a script of tests/golden made are read; what is
# refused, and what `inspect` says of them. That the losses are right is tested in
# tests/model/transformer/test_transformer_golden.c.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
golden=$root/tests/golden/paper

# refuses TEXT ARGUMENT...
refuses() {
    local status=0
    "$mha2mla" "${@:2}" >out 2>&1 || status=$?
    [ "$status" = 2 ] && [ "$(wc -l <out)" = 1 ] || die "${*:2}: status $status: $(cat out)"
    grep -qF -- "$1" out || die "${*:2}: $(cat out)"
}

for svd in joint split; do
    "$mha2mla" convert "$CONFIGS_DIR/demo/model" --out $svd --rope uniform --rope-pairs 2 --d-kv 8 \
        --svd $svd >/dev/null 2>&1
    "$mha2mla" export $svd --out paper-$svd --format v1.2 >/dev/null
    "$mha2mla" import paper-$svd --out again-$svd >out
    grep -q "^again-$svd: from MHA2MLA v1.2, .* RoPE pairs (2-norm), d_kv 8, KV cache " out ||
        die "$(cat out)"
    for file in model.safetensors tokenizer.json modeling_mha2mla.py; do
        cmp $svd/$file again-$svd/$file || die "$svd: $file is another"
    done
    cmp <(tr -d , <$svd/config.json | sort) <(tr -d , <again-$svd/config.json | sort) ||
        die "$(cat again-$svd/config.json)"
done

# The file of ranks of another directory, and pairs by hand.
mv paper-joint/qk_rank.pth ranks.pth
refuses 'in a file of ranks called qk_rank.pth, which is not beside' import paper-joint --out none
"$mha2mla" import paper-joint --out again --ranks ranks.pth >/dev/null
cmp joint/model.safetensors again/model.safetensors || die '--ranks gives another model'
refuses '--rope-pairs 1: expected are the 2 pairs' import paper-joint --out none --rope-pairs 1
"$mha2mla" import paper-joint --out by-hand --rope-pairs 0,1 --dtype bfloat16 >/dev/null
"$mha2mla" inspect by-hand >out
grep -q ' BF16,' out && grep -q '  0 ##\.' out || die "$(cat out)"

# Those of the script.
for name in v12_2norm_joint v12_low_split v10_2norm_split v10_high_joint; do
    version=v1.${name:2:1}
    "$mha2mla" import "$golden/$name" --out $name >out
    grep -q "from MHA2MLA $version, " out || die "$(cat out)"
    "$mha2mla" inspect $name >out
    grep -q 'Hugging Face model, converted' out || die "$(cat out)"
    "$mha2mla" inspect "$golden/$name" >out
    grep -q "model of the paper's code, MHA2MLA $version; .* mha2mla import" out || die "$(cat out)"
    refuses "MHA2MLA $version; make one of this program of it by mha2mla import" \
        export "$golden/$name" --out none
done
"$mha2mla" inspect "$golden/v12_low_split" >out
grep -q '^  pairs  *by low: 3, 4$' out || die "$(cat out)"
"$mha2mla" inspect "$golden/v10_2norm_split" >out
grep -q '^  pairs  *by 2-norm, in a file of ranks, \.\./utils/qk_rank.pth$' out || die "$(cat out)"

refuses 'it needs no import' import "$CONFIGS_DIR/demo/model" --out none
refuses "--ranks is for pairs by 2-norm" import "$golden/v12_low_split" --out none --ranks ranks.pth
refuses 'ranks of [2, 2, 8], the model needs [2, 4, 10]' import "$golden/v10_2norm_split" --out none \
    --ranks "$golden/v12_2norm_joint/qk_rank.pth"
head -c 900 ranks.pth >cut.pth
refuses 'not a whole zip archive' import paper-joint --out none --ranks cut.pth
refuses "is the base model's directory" import paper-split --out paper-split
[ ! -e none ] || [ -z "$(ls none)" ] || die "something was written: $(ls none)"
