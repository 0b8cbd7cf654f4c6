#!/usr/bin/env bash
# A run that is resumed with another config says once which keys have changed, keeps at which step,
# and refuses what its checkpoints cannot follow.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"

make_shard train 600
make_shard valid 60
cat >config.yaml <<EOC
run: {name: base, dir: runs}
model:
  init: $tiny_model
data:
  seq_len: 32
  sources: [{name: stories, shards: [train.h5]}]
  validation: {shards: [valid.h5], every: 2, sequences: 4}
optim: {lr: 3.0e-3}
train: {steps: 8, global_batch: 4, micro_batch: 1}
checkpoint: {every: 2, keep: 10}
EOC

# changes: what the last process said of changed settings.
changes() {
    grep '^mha2mla: changed setting, ' out | sed 's/^mha2mla: changed setting, //' || true
}

# says_changes EXPECTED: the last process said exactly these.
says_changes() {
    [ "$(changes)" = "$1" ] || die "said '$(changes)' where it is '$1'"
}

# keeps_changes RUN EXPECTED: what the run's config.yaml has at its head, for all steps.
keeps_changes() {
    [ "$(grep '^#   after' "runs/$1/config.yaml" | sed 's/^#   //')" = "$2" ] ||
        die "$1: config.yaml: $(head "runs/$1/config.yaml")"
}

ranks 2 train config.yaml
says_changes ''
keeps_changes base ''
! grep -q '^#' runs/base/config.yaml || die "a comment without a change: $(cat runs/base/config.yaml)"

# unfinished NAME STEP: the run as a process leaves it that dies after the checkpoint of STEP.
unfinished() {
    local step
    cp -r runs/base "runs/$1"
    rm -r "runs/$1/model"
    for step in 4 6 8; do
        [ $step -le "$2" ] || rm -r "runs/$1/checkpoints/step-0000000$step"
    done
}

# What changes the result, what moves it by rounding, what does not touch it.
unfinished changed 4
renamed='after step 4: run.name base -> changed (no effect on the result)'
changed="$renamed
after step 4: optim.lr 0.003 -> 0.001
after step 4: train.micro_batch 1 -> 2 (moves the result by rounding)
after step 4: train.sum_groups 4 -> 2 (moves the result by rounding)
after step 4: checkpoint.keep 10 -> 9 (no effect on the result)"
new='--run.name=changed --optim.lr=1.0e-3 --train.micro_batch=2 --checkpoint.keep=9'
ranks 2 train config.yaml $new
says_changes "$changed"
keeps_changes changed "$changed"
grep -q '"lr":0.003' <(sed -n '/"step":4,.*"lr"/p' runs/changed/metrics.jsonl) || die 'step 4: another lr'
grep -q '"lr":0.001' <(sed -n '/"step":5,.*"lr"/p' runs/changed/metrics.jsonl) || die 'step 5: another lr'

# Its config.yaml is a config: the same command with it changes nothing, with more steps only those.
ranks 2 train runs/changed/config.yaml --train.steps=10
says_changes 'after step 8: train.steps 8 -> 10'
keeps_changes changed "$changed
$(changes)"

# A process with another learning rate that left no checkpoint trained no step that is kept: the
# next one is compared with what trained step 4, and has its bits.
unfinished dead 4
ranks 2 train config.yaml --run.name=dead --optim.lr=0.5 --train.steps=6
rm -r runs/dead/checkpoints/step-00000006
ranks 2 train config.yaml --run.name=dead
says_changes 'after step 4: run.name base -> dead (no effect on the result)'
cmp runs/dead/model/model.safetensors runs/base/model/model.safetensors

# What a checkpoint cannot follow is refused, and nothing is written.
unfinished refused 4
ranks_refuse 2 2 'made with run.seed 42, now 1' train config.yaml --run.name=refused --run.seed=1
ranks_refuse 2 2 'made with train.global_batch 4, the config has 8' train config.yaml \
    --run.name=refused --train.global_batch=8
cmp runs/refused/run.json runs/base/run.json
cmp runs/refused/config.yaml runs/base/config.yaml
