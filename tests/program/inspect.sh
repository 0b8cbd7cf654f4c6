#!/usr/bin/env bash
# What `inspect` prints for a run and its checkpoints: whole, damaged, unfinished.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
export OMPI_MCA_ess_singleton_isolated=1

make_shard train 200
cat >config.yaml <<EOC
run: {name: small}
model:
  init: {hidden_size: 16, intermediate_size: 24, num_hidden_layers: 2, num_attention_heads: 2,
         num_key_value_heads: 1, head_dim: 8, vocab_size: 1024, max_position_embeddings: 64}
  convert: {rope: high, rope_pairs: 1, d_kv: 8}
data:
  seq_len: 16
  pretraining_tokens: 12800
  sources: [{name: stories, shards: [train.h5]}]
train: {steps: 4, global_batch: 4, micro_batch: 2}
checkpoint: {every: 2, keep: 2}
EOC
ranks 2 train config.yaml

# says FILE|DIR WORDS...: each is in what inspect prints of it.
says() {
    local path=$1 words
    shift
    "$mha2mla" inspect $path >out || die "inspect $path: status $?"
    for words in "$@"; do
        grep -qF -- "$words" out || die "inspect $path does not say '$words': $(cat out)"
    done
}

says runs/small 'run small' 'd_kv 8 per KV head, 1 RoPE pairs by high' 'progress      done, step 4 of 4' \
    '4 steps of 64 tokens = 0.000256 M, 2 % of pretraining' 'checkpoints   step 4' \
    '                step 2' 'model         runs/small/model' 'not measured yet'

steps=runs/small/checkpoints
newest=$steps/step-00000004
says $newest 'checkpoint' 'step          4, 0.000256 M tokens' 'MLA, 2 query and 1 KV heads of width 8' \
    'manifest      its checksum holds' 'files         2, one of each rank'
says "$newest/ --verify" 'checksums     hold'

# Damage that keeps the size shows with --verify, the rest at once; the run tells of it, too.
printf x | dd of=$newest/shard-0001.h5 bs=1 seek=2500 conv=notrunc status=none
says $newest 'files         2'
breaks_off 2 'shard-0001.h5: is damaged: CRC-32' inspect $newest --verify
rm $newest/shard-0001.h5
refuses 2 "$newest/shard-0001.h5: is missing: the checkpoint is incomplete" inspect $newest
says runs/small 'step 4, not whole: ' 'step 2'
rm $newest/manifest.json
refuses 2 "$newest/manifest.json: is missing: the checkpoint was not finished" inspect $newest
refuses 2 "config.json is missing" inspect $steps
