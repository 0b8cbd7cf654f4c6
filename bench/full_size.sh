#!/usr/bin/env bash
# The main job at the size of SmolLM-135M: a model of random weights with its exact shape (30 layers,
# 576 wide, 49,152 tokens, tied head, BF16) is made, converted (2-norm on SAMPLES samples, joint,
# d_kv 16), trained for STEPS steps of 2,048-token sequences on 2 ranks, exported, and loaded again.
#
#     bench/full_size.sh TOKENIZER_DIR TEXT...      # TOKENIZER_DIR: SmolLM's tokenizer.json
#     SAMPLES=64 STEPS=3 RANKS=2 MHA2MLA=build/release/mha2mla WORK=runs/full-size
#
# Random weights cost what trained ones cost; losses start at ln 49152 = 10.80.
set -euo pipefail

[ $# -ge 2 ] || { sed -n '2,9p' "$0" >&2; exit 2; }
tokenizer=$1
shift
MHA2MLA=${MHA2MLA:-build/release/mha2mla}
WORK=${WORK:-runs/full-size}
SAMPLES=${SAMPLES:-64} STEPS=${STEPS:-3} RANKS=${RANKS:-2}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
run() { mpirun -n "$RANKS" --bind-to none "$MHA2MLA" "$@"; }

rm -rf "$WORK"
mkdir -p "$WORK"
"$MHA2MLA" tokenize --tokenizer "$tokenizer" --out "$WORK/text.h5" "$@"
cat >"$WORK/random.yaml" <<EOF
run: {name: base, dir: $WORK, export_dtype: bfloat16}
model:
  init: {hidden_size: 576, intermediate_size: 1536, num_hidden_layers: 30, num_attention_heads: 9,
         num_key_value_heads: 3, vocab_size: 49152, max_position_embeddings: 2048,
         initializer_range: 0.02, tokenizer: $tokenizer}
data:
  seq_len: 2048
  sources: [{name: text, shards: [$WORK/text.h5]}]
train: {steps: 0, global_batch: 1}
EOF
"$MHA2MLA" train "$WORK/random.yaml"

cat >"$WORK/heal.yaml" <<EOF
run: {name: mla, dir: $WORK}
model:
  base: $WORK/base/model
  convert: {rope: 2-norm, rope_pairs: 4, svd: joint, d_kv: 16, samples: $SAMPLES}
data:
  seq_len: 2048
  sources: [{name: text, shards: [$WORK/text.h5]}]
  validation: {shards: [$WORK/text.h5], sequences: $RANKS}
optim: {lr: 1.0e-4, warmup_steps: 1}
train: {steps: $STEPS, global_batch: $RANKS, micro_batch: 1}
log: {every: 1}
EOF
run train "$WORK/heal.yaml"
run eval "$WORK/mla/model" --perplexity "$WORK/text.h5" --max-tokens $((2048 * RANKS))
"$MHA2MLA" inspect "$WORK/mla/model"
"$MHA2MLA" compare "$WORK/mla"
