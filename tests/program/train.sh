#!/usr/bin/env bash
# The main job through the program: text to shards, a model trained from random weights, converted
# and healed at 1 to 4 ranks with the same bits, exported, and evaluated again.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"

make_shard train 4000
make_shard valid 600

cat >config.yaml <<EOF
run: {name: base, dir: runs}
model:
  init: $tiny_model
data:
  seq_len: 64
  sources: [{name: stories, shards: [train.h5]}]
  validation: {shards: [valid.h5], every: 4, sequences: 24}
optim: {lr: 3.0e-3, warmup_steps: 2, decay_steps: 4}
train: {steps: 12, global_batch: 8, micro_batch: 2}
EOF

# From random weights: the loss falls.
ranks 2 train config.yaml
first=$(field loss runs/base/metrics.jsonl | head -n 1)
last=$(field loss runs/base/metrics.jsonl | tail -n 1)
awk -v a="$first" -v b="$last" 'BEGIN { exit !(b < a - 0.5) }' || # seen 0.77
    die "loss $first -> $last"

# Converted and healed: the same bits for any number of ranks, the same curve but for rounding with
# another micro-batch.
heal="train config.yaml --model.init=none --model.base=runs/base/model --model.convert.rope_pairs=2
      --model.convert.d_kv=6 --model.convert.samples=10"
ranks 1 $heal --run.name=n1
ranks 2 $heal --run.name=n2
ranks 3 $heal --run.name=n3
ranks 4 $heal --run.name=n4
ranks 1 $heal --run.name=whole --train.micro_batch=8
for run in n1 n2 n3 n4 whole; do
    [ "$(field loss runs/$run/metrics.jsonl | wc -l)" -eq 12 ] || die "$run: not 12 steps"
    field loss runs/$run/metrics.jsonl >$run.loss
    field valid_loss runs/$run/metrics.jsonl >$run.valid
    field grad_norm runs/$run/metrics.jsonl >$run.norm
done
for run in n2 n3 n4; do
    for what in loss valid norm; do
        cmp -s n1.$what $run.$what || die "$run: another $what than on one rank: $(diff n1.$what $run.$what)"
    done
    cmp runs/n1/model/model.safetensors runs/$run/model/model.safetensors || die "$run: another model"
done
close whole.loss n1.loss 2e-5 # seen 1e-6
close whole.valid n1.valid 2e-5
ranks_refuse 2 2 'train.sum_groups is 1, fewer than 2 ranks' $heal --run.name=refused \
    --train.sum_groups=1

# A rank that cannot read its samples is named, while the others exchange gradients with it.
cp train.h5 damaged.h5
printf 'damaged' | dd of=damaged.h5 bs=1 seek=$(($(stat -c %s damaged.h5) / 2)) conv=notrunc status=none
ranks_refuse 3 2 'damaged.h5: /tokens is damaged from ' train config.yaml --run.name=damaged \
    --data.sources='[{name: stories, shards: [damaged.h5]}]' --train.steps=400 \
    --optim.decay_steps=0
grep -q 'error: rank [012] on ' err || die "no rank is named: $(cat err)"

# The exported model is the healed one: its loss over the validation windows is the run's last.
"$mha2mla" eval runs/n2/model --perplexity valid.h5 --seq-len 64 --max-tokens $((24 * 64)) >eval.txt
grep -oE 'loss [0-9.]+' eval.txt | cut -d' ' -f2 >eval.loss
tail -n 1 n2.valid >run.loss
close eval.loss run.loss 1e-4
ranks 2 eval runs/n2/model --perplexity valid.h5 --seq-len 64 --max-tokens $((24 * 64))
grep -qF "$(cat eval.txt)" out || die "eval differs on 2 ranks: $(cat out) against $(cat eval.txt)"

# So is its loss over a KV cache that rounds nothing; the cache's format and size are told.
"$mha2mla" eval runs/n2/model --perplexity valid.h5 --seq-len 64 --max-tokens $((24 * 64)) \
    --kv-bits 32 >cached.txt
grep -oE 'loss [0-9.]+' cached.txt | cut -d' ' -f2 >cached.loss
close eval.loss cached.loss 1e-4
grep -qE 'KV cache float32: [0-9.]+ bytes/token$' cached.txt || die "eval --kv-bits 32: $(cat cached.txt)"
ranks 2 eval runs/n2/model --perplexity valid.h5 --seq-len 64 --max-tokens $((24 * 64)) --kv-bits 32
grep -qF "$(cat cached.txt)" out || die "on 2 ranks: $(cat out) against $(cat cached.txt)"

# What was healed at 64 tokens is measured at 64, and not beyond without a warning.
grep -q '"healed_seq_len": 64' runs/n2/model/config.json || die "config.json: $(cat runs/n2/model/config.json)"
"$mha2mla" export runs/n2 --out exported >/dev/null 2>&1
grep -q '"healed_seq_len": 64' exported/config.json || die "export: $(cat exported/config.json)"
"$mha2mla" eval runs/n2/model --perplexity valid.h5 --max-tokens $((24 * 64)) >default.txt 2>err
cmp -s eval.txt default.txt || die "the default length gives $(cat default.txt)"
! grep -q warning err || die "a warning without a cause: $(cat err)"
"$mha2mla" eval runs/n2/model --perplexity valid.h5 --seq-len 65 --max-tokens 65 2>err >/dev/null
grep -q 'warning: --seq-len is 65, but runs/n2/model was healed on sequences of 64 tokens' err ||
    die "no warning: $(cat err)"

# The baseline keeps its attention.
ranks 2 train config.yaml --model.init=none --model.base=runs/base/model --run.name=baseline
grep -q '"attention": "original"' runs/baseline/run.json || die "baseline: $(cat runs/baseline/run.json)"

# score and convert give the model that training starts from.
ranks 2 score runs/base/model --data train.h5 --out scores.h5 --samples 10 --seq-len 64
"$mha2mla" convert runs/base/model --out mla --rope-pairs 2 --d-kv 6 --scores scores.h5 >out
grep -qF -- '-68.75 %' out || die "convert said: $(cat out)"
"$mha2mla" eval mla --perplexity valid.h5 --seq-len 64 --max-tokens $((24 * 64)) |
    grep -oE 'loss [0-9.]+' | cut -d' ' -f2 >converted.loss
head -n 1 n1.valid >start.loss
close converted.loss start.loss 1e-4

"$mha2mla" compare runs/baseline runs/n1 runs/n2 >table
[ "$(wc -l <table)" -eq 5 ] || die "compare printed: $(cat table)"

# A budget as a share of the pretraining tokens: 0.5 % of 204,800 are two steps of 512.
"$mha2mla" train config.yaml --train.steps=none --train.fraction=0.5% --optim.decay_steps=0 \
    --data.pretraining_tokens=204800 --data.validation=none --run.name=share 2>err ||
    die "train.fraction: status $?: $(cat err)"
grep -q '2 steps = 0.001024 M tokens, 0.5 % of 0.2048 M of pretraining' err || die "said: $(cat err)"
[ "$(field steps runs/share/run.json) $(field pretraining_tokens runs/share/run.json)" = \
    ' 2  204800' ] || die "run.json: $(cat runs/share/run.json)"
"$mha2mla" train runs/share/config.yaml --run.name=again --dry-run | grep 'run  *2 steps' >/dev/null ||
    die "the resolved config has other steps: $(cat runs/share/config.yaml)"

# The reference of all keys needs no file of the project.
"$mha2mla" train --help | grep -e --help-config >/dev/null || die "train --help names no --help-config"
"$mha2mla" train --help-config | cmp - "$CONFIGS_DIR/reference.yaml"

# A dry run prints the plan and writes nothing.
mpirun -n 2 --oversubscribe --bind-to none "$mha2mla" $heal --run.name=dry --dry-run >plan 2>&1
for words in 'parameters' '-68.75 %' 'activations' 'peak' '512 tokens'; do
    grep -qF -- "$words" plan || die "--dry-run does not say '$words': $(cat plan)"
done
[ ! -e runs/dry ] || die "--dry-run made runs/dry"
