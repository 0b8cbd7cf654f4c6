#!/usr/bin/env bash
# A run on ranks with every thread that is not OpenMP's at work: exchanges beside the computing, a
# checkpoint written beside the next steps, batches read ahead, the watchdog. Its steps are those of a
# run without them.
set -euo pipefail
# shellcheck source=tests/support/checks.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../support/checks.sh" "$1"

make_shard train 600
cat >config.yaml <<EOC
run: {name: beside, dir: runs}
model:
  init: $tiny_model
data:
  seq_len: 32
  sources: [{name: stories, shards: [train.h5]}]
optim: {lr: 3.0e-3, warmup_steps: 2}
train: {steps: 6, global_batch: 16, micro_batch: 1, sum_groups: 4, overlap: true}
checkpoint: {every: 2, keep: 10}
EOC
ranks 2 train config.yaml
ranks 2 train config.yaml --train.overlap=false --run.name=waiting

for step in 2 4 6; do
    [ -f "runs/beside/checkpoints/step-0000000$step/manifest.json" ] || die "no checkpoint of step $step"
done
for name in loss grad_norm; do
    field "$name" runs/beside/metrics.jsonl >beside
    field "$name" runs/waiting/metrics.jsonl >waiting
    [ "$(wc -l <beside)" -ge 6 ] || die "no $name in metrics.jsonl: $(head -n 2 runs/beside/metrics.jsonl)"
    cmp -s beside waiting || die "$name differs: $(paste beside waiting)"
done
