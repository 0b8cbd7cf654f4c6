#!/usr/bin/env bash
# A run that is resumed with another config logs once which keys have changed, records the step of
# each change, and refuses changes that its checkpoints cannot be resumed with.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"

make_shard train 600
make_shard valid 60
small_config 'every: 2, sequences: 4' <<'EOC'
optim: {lr: 3.0e-3}
train: {steps: 8, global_batch: 4, micro_batch: 1}
checkpoint: {every: 2, keep: 10}
EOC

# changes: the changes that the last process logged.
changes() {
    grep '^mha2mla: changed setting, ' out | sed 's/^mha2mla: changed setting, //' || true
}

# says_changes EXPECTED: the last process logged exactly these changes.
says_changes() {
    [ "$(changes)" = "$1" ] || die "said '$(changes)' where it is '$1'"
}

# keeps_changes RUN EXPECTED: the comments of the run's config.yaml list these changes.
keeps_changes() {
    [ "$(grep '^#   after' "runs/$1/config.yaml" | sed 's/^#   //')" = "$2" ] ||
        die "$1: config.yaml: $(head "runs/$1/config.yaml")"
}

ranks 2 train config.yaml
says_changes ''
keeps_changes base ''
! grep -q '^#' runs/base/config.yaml || die "a comment without a change: $(cat runs/base/config.yaml)"

# unfinished NAME STEP: a copy of the run as it would be if it had been killed after the checkpoint
# of STEP.
unfinished() {
    local step
    cp -r runs/base "runs/$1"
    rm -r "runs/$1/model"
    for step in 4 6 8; do
        [ $step -le "$2" ] || rm -r "runs/$1/checkpoints/step-0000000$step"
    done
}

# Changes of the result, of its rounding alone, and without any effect on it.
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

# The run's config.yaml can be trained: with more steps, their number is the only change.
ranks 2 train runs/changed/config.yaml --train.steps=10
says_changes 'after step 8: train.steps 8 -> 10'
keeps_changes changed "$changed
$(changes)"

# A process with another learning rate is killed before its first checkpoint, so it trained no step
# that is kept: the next config is compared with the one that trained step 4, and the bits are those
# of an uninterrupted run.
unfinished dead 4
ranks 2 train config.yaml --run.name=dead --optim.lr=0.5 --train.steps=6
rm -r runs/dead/checkpoints/step-00000006
ranks 2 train config.yaml --run.name=dead
says_changes 'after step 4: run.name base -> dead (no effect on the result)'
cmp runs/dead/model/model.safetensors runs/base/model/model.safetensors

# Changes of the data or of the batch are refused, and nothing is written.
unfinished refused 4
ranks_refuse 2 2 'made with run.seed 42, now 1' train config.yaml --run.name=refused --run.seed=1
ranks_refuse 2 2 'made with train.global_batch 4, the config has 8' train config.yaml \
    --run.name=refused --train.global_batch=8
cmp runs/refused/run.json runs/base/run.json
cmp runs/refused/config.yaml runs/base/config.yaml

# Other validation text, or another number of windows, starts another validation curve at once. The
# earlier losses stay; those of a process that left no checkpoint are removed.
sets() {
    grep -o '"step":[0-9]*,"tokens":[0-9]*,"valid_loss":[^}]*' "runs/$1/metrics.jsonl" |
        sed -E 's/"step":([0-9]+),.*"validation_set":"([0-9a-f]{8})"/\1 \2/'
}
unfinished other 4
zcat "$root/configs/demo/train.txt.gz" | sed -n '600,700p' >other.txt
"$mha2mla" tokenize --tokenizer "$root/configs/demo/model" --separator '<|endoftext|>' --out other.h5 other.txt
before=$(sets base | head -n 1 | cut -d' ' -f2)
ranks 2 train config.yaml --run.name=other --data.validation.sequences=3 --train.steps=5
grep -q 'validation reads other text than before: from step 4 on' out || die "other text: $(cat out)"
rm -r runs/other/checkpoints/step-00000005
ranks 2 train config.yaml --run.name=other '--data.validation.shards=[other.h5]'
says_changes "after step 4: run.name base -> other (no effect on the result)
after step 4: data.validation.shards [valid.h5] -> [other.h5]"
after=$(sets other | tail -n 1 | cut -d' ' -f2)
[ "$after" != "$before" ] || die 'another shard has the same name'
[ "$(sets other | tr '\n' ' ')" = "0 $before 2 $before 4 $before 4 $after 6 $after 8 $after " ] ||
    die "validation losses: $(sets other)"
cmp runs/other/model/model.safetensors runs/base/model/model.safetensors

# A shard that was only moved is the same text.
mkdir moved
mv other.h5 moved/held-out.h5
ranks 2 train config.yaml --run.name=other --data.validation.shards=moved/held-out.h5 --train.steps=10
! grep -q 'validation reads other text' out || die "moved: $(cat out)"
[ "$(sets other | tail -n 1)" = "10 $after" ] || die "moved: $(sets other)"
