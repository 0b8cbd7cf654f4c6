#!/usr/bin/env bash
# Faults that a run survives: ranks killed at any point, damaged checkpoints, a second run in the same
# directory. After each, the resumed run has the same bits as an uninterrupted one.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
. "$root/tests/support/background_runs.sh"

make_shard train 1200
make_shard valid 100
cat >base.yaml <<EOC
run: {name: base, dir: runs}
model:
  init: $tiny_model
data:
  seq_len: 32
  sources: [{name: stories, shards: [train.h5]}]
optim: {lr: 3.0e-3, warmup_steps: 2}
train: {steps: 4, global_batch: 4, micro_batch: 1}
EOC
ranks 1 train base.yaml
cat >config.yaml <<EOC
run: {name: whole, dir: runs}
model:
  base: runs/base/model
  convert: {rope_pairs: 2, d_kv: 6, samples: 40}
data:
  seq_len: 32
  sources: [{name: stories, shards: [train.h5]}]
  validation: {shards: [valid.h5], every: 8, sequences: 8}
optim: {lr: 3.0e-3, warmup_steps: 2, decay_steps: 6}
train: {steps: 40, global_batch: 16, micro_batch: 1}
checkpoint: {every: 6, keep: 2}
log: {every: 1}
EOC
finishes whole

# One rank dies in the middle of a step.
start_held 15 killed
until_true newest >saved
signal_rank KILL 1
ends_with 137
leaves_nobody
newest >saved
finishes killed
says "resuming runs/killed from step $(cat saved)," || die "killed: $(cat killed.log)"
same_run killed whole

# Ranks are killed at random moments, mostly during a save, as every step ends in one: rank 0, which
# writes the manifest, the other rank, or both at once, as in a power failure. How far they get
# depends on the machine, so the end is set only then.
many='--train.global_batch=4 --data.validation.every=100'
n_resumed=0
for i in $(seq 9); do
    start saves $many --checkpoint.every=1 --train.steps=1000000
    until_step 2
    sleep "0.$(printf '%03d' $((RANDOM % 100)))"
    case $((i % 3)) in
    0) signal_ranks KILL ;;
    *) signal_rank KILL $((i % 3 - 1)) ;;
    esac
    ends_with 137
    ! says 'resuming runs/saves from step' || n_resumed=$((n_resumed + 1))
    leaves_nobody
done
[ "$n_resumed" -ge 5 ] || die "only $n_resumed of the processes resumed from a checkpoint"
many="$many --train.steps=$(($(newest) + 20))"
finishes saves $many --checkpoint.every=1
finishes saves-whole $many
same_run saves saves-whole

# All ranks are killed during calibration and conversion, and shortly after.
start early
until_true test -e runs/early/lock || die "early: $(cat early.log)"
for i in 1 2 3; do
    sleep "0.$(printf '%03d' $((RANDOM % 400)))"
    signal_ranks KILL || true
    wait "$job" || true
    start early
    until_true says 'mha2mla: ' || die "early: $(cat early.log)"
done
ends_with 0
same_run early whole

# During the export: the model's directory is whole or has no config.json, and the resumed run
# completes it.
for delay in 0 0.02; do
    rm -rf runs/export
    start export
    until_true test -e runs/export/model || die "export: $(tail -n 5 export.log)"
    sleep $delay
    signal_ranks KILL || true
    wait "$job" || true
    [ ! -e runs/export/model/config.json ] ||
        "$mha2mla" inspect runs/export/model >/dev/null || die "half a model is shown as a whole one"
    finishes export
    same_run export whole
done

# Stopped by a signal: the run saves the step that it was in and resumes after it.
start_held 9 stopped
signal_ranks USR1
release
ends_with 75
says 'stopped by SIGUSR1 after step' || die "stopped: $(cat stopped.log)"
last=$(basename "$(ls -d runs/stopped/checkpoints/step-* | tail -n 1)")
[ -s "runs/stopped/checkpoints/$last/manifest.json" ] || die "stopped without a checkpoint"
before=$(basename "$(ls -d runs/stopped/checkpoints/step-* | tail -n 2 | head -n 1)")
[ "$before" != "$last" ] || die "one checkpoint only: $last"
cp -r runs/stopped template

# damaged TEXT COMMAND...: runs COMMAND in the directory of the newest checkpoint; the run must warn
# with a line that has TEXT and resume from the checkpoint before.
damaged() {
    local text=$1
    shift
    rm -rf runs/damaged
    cp -r template runs/damaged
    (cd "runs/damaged/checkpoints/$last" && "$@")
    finishes damaged
    says "checkpoint of step $((10#${last#step-})) is skipped: " &&
        grep 'is skipped: ' damaged.log | grep -qF -- "$text" ||
        die "$*: no line with '$text': $(cat damaged.log)"
    says "resuming runs/damaged from step $((10#${before#step-}))," || die "$*: $(cat damaged.log)"
    same_run damaged whole
}
flip_bit() {
    local at=$(($(stat -c %s "$1") / 2)) byte
    byte=$(od -An -tu1 -j "$at" -N 1 "$1")
    printf "\\x$(printf %x $((byte ^ 16)))" | dd of="$1" bs=1 seek="$at" conv=notrunc status=none
}
damaged manifest.json rm manifest.json
damaged manifest.json truncate -s 200 manifest.json
damaged manifest.json truncate -s 0 manifest.json
damaged 'manifest.json' flip_bit manifest.json
damaged shard-0001.h5 rm shard-0001.h5
damaged shard-0001.h5 truncate -s -1 shard-0001.h5
damaged shard-0000.h5 truncate -s 0 shard-0000.h5
damaged shard-0000.h5 flip_bit shard-0000.h5

# No checkpoint is whole: --resume require refuses.
rm -rf runs/damaged
cp -r template runs/damaged
truncate -s 10 runs/damaged/checkpoints/*/shard-0000.h5
ranks_refuse 2 2 'runs/damaged: has no checkpoint to resume from' \
    train config.yaml --run.name=damaged --resume require

# Two runs in one directory: the second is refused, the first is not disturbed.
start_held 3 twice
ranks_refuse 2 2 'runs/twice: another run (pid ' train config.yaml --run.name=twice
grep -qF 'is writing here; wait for it or set --run.name' err || die "twice: $(cat err)"
release
ends_with 0
[ -z "$(temporaries)" ] || die "twice: left $(temporaries)"
same_run twice whole
