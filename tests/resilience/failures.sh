#!/usr/bin/env bash
# Errors in a run on two ranks: each gives one message and the documented exit status, and no rank
# hangs.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"

make_shard train 400
make_shard valid 100
cat >config.yaml <<EOC
run: {name: new, dir: runs}
model:
  init: {hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 4,
         num_key_value_heads: 2, vocab_size: 1024, max_position_embeddings: 64,
         tokenizer: $root/configs/demo/model}
data:
  seq_len: 32
  sources: [{name: stories, shards: [train.h5]}]
  validation: {shards: [valid.h5], sequences: 8}
train: {steps: 2, global_batch: 2, micro_batch: 1}
EOC

# Usage and config: rank 0 alone prints the error.
ranks_refuse 2 2 'unknown option --frobnicate' train config.yaml --frobnicate
ranks_refuse 2 2 'train needs one CONFIG, got 0' train
ranks_refuse 2 2 'missing.yaml' train missing.yaml
ranks_refuse 3 2 '2 micro-batches for 3 ranks; use at most 2 ranks' train config.yaml
[ ! -e runs ] || die "a refused config made runs"

# Weights that grow a thousandfold per step: the message names the step, whose update is not made.
diverging='--optim.lr=10 --optim.weight_decay=10 --optim.clip=0 --data.validation=none'
ranks_refuse 2 1 'weights are unchanged; lower optim.lr' \
    train config.yaml --run.name=diverging --train.steps=40 $diverging
step=$(grep -oE 'error: .*step [0-9]+:' err | grep -oE '[0-9]+:$' | tr -d :)
[ "$(field step runs/diverging/metrics.jsonl | wc -l)" -eq $((step - 1)) ] ||
    die "stopped at step $step, wrote $(cat runs/diverging/metrics.jsonl)"
! grep -qi nan runs/diverging/metrics.jsonl || die "NaN in metrics.jsonl"
[ ! -e runs/diverging/model ] || die "a diverged model was exported"

# train.steps of 0: the model is converted or left as it is, validated once and exported.
ranks 2 train config.yaml --run.name=no-steps --train.steps=0
[ "$(wc -l <runs/no-steps/metrics.jsonl)" -eq 1 ] || die "0 steps: $(cat runs/no-steps/metrics.jsonl)"
[ -s runs/no-steps/model/config.json ] || die "0 steps: no model"
ranks 2 train config.yaml --run.name=no-validation --data.validation=none
[ "$(wc -l <runs/no-validation/metrics.jsonl)" -eq 2 ] || die 'without validation: not two lines'

# A finished run is not written over.
cp runs/no-steps/metrics.jsonl before
ranks_refuse 2 2 'runs/no-steps: there is a run already' train config.yaml --run.name=no-steps --resume=never
cmp -s before runs/no-steps/metrics.jsonl || die "an old run was touched"

# A shard that is too short, and a damaged chunk that holds only some samples.
ranks_refuse 2 2 'one sample; use longer texts or a smaller seq_len' \
    train config.yaml --run.name=short --data.seq_len=60000 \
    --model.init.max_position_embeddings=60000
size=$(stat -c %s train.h5)
cp train.h5 damaged.h5
printf '\377\377\377\377' | dd of=damaged.h5 bs=1 seek=$((size / 2)) conv=notrunc status=none
ranks_refuse 2 2 'damaged.h5' train config.yaml --run.name=damaged --train.steps=400 \
    '--data.sources=[{name: stories, shards: [damaged.h5]}]'

# A full disk, at each file that is written.
if [ -w /dev/full ] && ${CC:-cc} -shared -fPIC -o full_disk.so \
    "$root/tests/support/full_disk.c" 2>cc.log; then
    for file in config.yaml run.json model/model.safetensors model/config.json; do
        rm -rf runs/full
        LD_PRELOAD="$PWD/full_disk.so" FULL_FILE=${file##*/} ranks_refuse 2 1 \
            "runs/full/$file: write failed: No space left" \
            train config.yaml --run.name=full --train.steps=1
    done
fi

# A directory that cannot be made, as a file has its name.
: >file
ranks_refuse 2 1 'file: directory cannot be made' train config.yaml --run.dir=file
