#!/usr/bin/env bash
# log.tensorboard through the program: the tensorboard package reads what a resumed run wrote as
# one curve, the one of metrics.jsonl.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
if ! python3 -c 'import tensorboard' 2>/dev/null; then
    echo "skipped: python3 has no tensorboard"
    exit 77
fi

make_shard train 400
make_shard valid 100
cat >config.yaml <<EOC
run: {name: drawn, dir: runs}
model:
  init: {hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2,
         vocab_size: 1024, max_position_embeddings: 64, tokenizer: $root/configs/demo/model}
data:
  seq_len: 16
  sources: [{name: stories, shards: [train.h5]}]
  validation: {shards: [valid.h5], every: 2, sequences: 4}
optim: {lr: 3.0e-3, warmup_steps: 2}
train: {steps: 6, global_batch: 2}
checkpoint: {every: 4}
log: {tensorboard: true}
EOC

# Steps 5 and 6 are lost with their checkpoint and run again.
ranks 2 train config.yaml
rm -r runs/drawn/checkpoints/step-00000006
ranks 2 train config.yaml --train.steps=10
[ "$(find runs/drawn -name 'events.out.tfevents.*' | wc -l)" -eq 2 ] || die "$(ls runs/drawn)"
grep -q '^mha2mla: seconds of a rank in steps 5 to 10, over 2 ranks:' out || die "said: $(cat out)"

python3 - <<'EOC' || die "TensorBoard reads another curve than metrics.jsonl has"
import json

import numpy
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

board = EventAccumulator("runs/drawn")
board.Reload()
lines = [json.loads(line) for line in open("runs/drawn/metrics.jsonl")]
names = {
    "train/loss": "loss",
    "train/grad_norm": "grad_norm",
    "train/lr": "lr",
    "train/tokens_per_s": "tokens_per_s",
    "valid/loss": "valid_loss",
}
assert sorted(board.Tags()["scalars"]) == sorted(names), board.Tags()
for tag, name in names.items():
    read = [(event.step, event.value) for event in board.Scalars(tag)]
    written = [(line["step"], float(numpy.float32(line[name]))) for line in lines if name in line]
    assert read == written, (tag, read, written)
assert [event.step for event in board.Scalars("train/loss")] == list(range(1, 11))
EOC

# Without log.tensorboard there is no event file.
ranks 1 train config.yaml --run.name=undrawn --log.tensorboard=false
[ -z "$(find runs/undrawn -name 'events.*')" ] || die "$(ls runs/undrawn)"
