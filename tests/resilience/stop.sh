#!/usr/bin/env bash
# Stopping on request: a signal to any rank, at any time, or run.max_minutes, ends the run with status
# 75 after saving; the same command resumes it with the same bits. An error on one rank gives one
# message.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
. "$root/tests/support/background_runs.sh"

make_shard train 1200
make_shard valid 400
cat >config.yaml <<EOF
run: {name: whole, dir: runs}
model:
  init: $tiny_model
data:
  seq_len: 32
  sources: [{name: stories, shards: [train.h5]}]
  validation: {shards: [valid.h5], every: 10, sequences: 8}
optim: {lr: 3.0e-3, warmup_steps: 2, decay_steps: 6}
train: {steps: 60, global_batch: 16, micro_batch: 1}
checkpoint: {every: 0}
log: {every: 1}
EOF
finishes whole

# Each signal, sent to one rank alone: all ranks stop.
for case in USR1:1 TERM:0 INT:1; do
    signal=${case%:*} name=stopped-${case%:*}
    start_held 5 "$name"
    signal_rank "$signal" "${case#*:}"
    release
    ends_with 75
    says "stopped by SIG$signal after step" || die "$name: $(tail -n 3 "$log")"
    leaves_nobody
    N_RANKS=3 finishes "$name"
    same_run "$name" whole
done

# Sent to mpirun, as Slurm and users do.
start_held 5 launcher
pkill -USR1 -P "$job" -x mpirun
ends_with 75 # rank 0 waits until the signal gets to it
finishes launcher
same_run launcher whole

# run.max_minutes, again and again until the run is finished.
for step in 5 20 40; do
    start_holding $step minutes --run.max_minutes=0.02
    until_true test -s held || true # on a slow machine the time is over before
    sleep 1.3
    release
    ends_with 75
    says 'stopped by run.max_minutes' || die "minutes: $(tail -n 3 "$log")"
done
finishes minutes --run.max_minutes=60
same_run minutes whole

# During a long validation: it is abandoned, the step before it is saved, and the resumed run begins
# with this validation.
long='--data.validation.sequences=1000000 --train.steps=12'
finishes long-whole $long
start_held 10 long $long
sleep 0.02 # the other rank has begun with the validation
signal_rank USR1 1
release
ends_with 75
finishes long $long
same_run long long-whole

# During the calibration there is nothing to save yet; the run must not wait for its end.
start calibration --model.init=none --model.base=runs/whole/model --model.convert.rope_pairs=2 \
    --model.convert.d_kv=6 --model.convert.samples=100000000
until_true says 'validation loss of the original model' || die "calibration: $(cat "$log")"
sleep 0.2
signal_rank TERM 1
ends_with 75
says 'before training; nothing is saved' || die "calibration: $(tail -n 3 "$log")"

# A second signal ends the run at once: status 128 + 15, as of a process that the signal kills.
start twice --train.steps=1000000 --data.validation.sequences=1000000
until_step 1
signal_rank TERM 0
sleep 1.2
signal_rank TERM 0 || true
got=0
wait "$job" || got=$?
[ $got -eq 75 ] || [ $got -eq 143 ] || die "twice: status $got: $(tail -n 3 "$log")"
leaves_nobody

# One cause, one message: a shard that is missing on one node, memory that one node does not have.
sed "s/train.h5/elsewhere.h5/" config.yaml >elsewhere.yaml
one_message() {
    local status=$1 text=$2 got=0
    shift 2
    timeout -k 10 300 mpirun --oversubscribe --bind-to none "$@" >out 2>err </dev/null || got=$?
    [ "$got" -eq "$status" ] || die "$*: status $got, expected $status: $(cat err)"
    [ "$(grep -c 'mha2mla: error:' err)" -eq 1 ] || die "$*: not one message: $(cat err)"
    grep -q "mha2mla: error: rank 1 on $(hostname): .*$text" err || die "$*: said $(cat err)"
}
one_message 2 'elsewhere.h5' -n 1 "$mha2mla" train config.yaml --run.name=shard : \
    -n 1 "$mha2mla" train elsewhere.yaml --run.name=shard
cat >poor <<EOF
#!/bin/bash
ulimit -v 1000000
exec "\$@"
EOF
chmod +x poor
wide='--run.name=memory --model.init.hidden_size=768 --model.init.intermediate_size=12288
      --model.init.head_dim=128'
one_message 1 'no memory\|cannot be allocated' -n 1 "$mha2mla" train config.yaml $wide : \
    -n 1 ./poor "$mha2mla" train config.yaml $wide
