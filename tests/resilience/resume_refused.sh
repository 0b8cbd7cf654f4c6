#!/usr/bin/env bash
# What an existing run must not lose: checkpoints that cannot be read now, lines of its metrics, the
# export of its last step; and changes of the config that a checkpoint cannot be resumed with.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"

make_shard train 600
make_shard valid 60
small_config 'every: 2, sequences: 4' <<'EOC'
optim: {lr: 3.0e-3}
train: {steps: 4, global_batch: 4, micro_batch: 1}
checkpoint: {every: 2, keep: 2}
EOC
ranks 2 train config.yaml
original=runs/base/checkpoints/step-00000004

# copy NAME: makes a finished run of that name.
copy() {
    rm -rf "runs/$1"
    cp -r runs/base "runs/$1"
}

# kept NAME: nothing of the run has changed.
kept() {
    [ "$(ls "runs/$1/checkpoints")" = "$(ls runs/base/checkpoints)" ] || die "$1: lost checkpoints"
    cmp "runs/$1/metrics.jsonl" runs/base/metrics.jsonl || die "$1: lost metrics"
}

# Checkpoints are there and none can be read: made by a newer program, or on a disk with errors.
copy newer
sed -i 's/"version": 2,/"version": 3,/' runs/newer/checkpoints/*/manifest.json
ranks_refuse 2 2 'runs/newer: none of its checkpoints can be resumed from; restore them, or remove' \
    train config.yaml --run.name=newer
kept newer
rm -r runs/newer/checkpoints # as it says
ranks 2 train config.yaml --run.name=newer
cmp runs/newer/model/model.safetensors runs/base/model/model.safetensors

# A first save that was interrupted is nothing to keep: the run starts from the beginning.
copy cut
rm runs/cut/checkpoints/*/manifest.json
ranks 2 train config.yaml --run.name=cut
cmp runs/cut/model/model.safetensors runs/base/model/model.safetensors

# A directory with checkpoints and no metrics is a run.
copy never
rm runs/never/metrics.jsonl
ranks_refuse 2 2 'there is a run already' train config.yaml --run.name=never --resume=never
[ -s "runs/never/${original#runs/base/}/manifest.json" ] || die 'never: lost a checkpoint'

# Killed between the last checkpoint and the export, where RUN/model is of an earlier last step.
copy longer
ranks 2 train config.yaml --run.name=longer --train.steps=6
cp -r runs/longer/model expected
cp -r runs/base/model runs/base/run.json runs/longer
ranks 2 train config.yaml --run.name=longer --train.steps=6
cmp runs/longer/model/model.safetensors expected/model.safetensors ||
    die "the model is of an earlier end: $(cat out)"
ranks 2 train config.yaml --run.name=longer --train.steps=6
grep -q 'is finished: 6 steps' out || die "a finished run said: $(cat out)"

# A stop in the last step leaves a checkpoint before its validation: the next start validates and
# exports, the one after it has nothing left to do.
ranks 2 train config.yaml --run.name=late --data.validation=none
rm -r runs/late/model
ranks 2 train config.yaml --run.name=late
grep -q 'validation loss' out && [ -s runs/late/model/config.json ] || die "late: $(cat out)"
ranks 2 train config.yaml --run.name=late
grep -q 'is finished: 4 steps' out || die "validated again: $(cat out)"

# A finished run is exported again if it is to have another type.
ranks 2 train config.yaml --run.name=late --run.export_dtype=bfloat16
grep -q '"torch_dtype": "bfloat16"' runs/late/model/config.json || die "another type: $(cat out)"
# What was left of the lock of an export goes.
: >runs/late/model/.lock
ranks 2 train config.yaml --run.name=late --run.export_dtype=bfloat16
grep -q 'is finished: 4 steps' out || die "exported again: $(cat out)"
[ ! -e runs/late/model/.lock ] || die 'an old lock is left'

# A checkpoint of another run of the same shape, in a new directory and in that of a run; and a whole
# run that was copied, which may go on under its new name.
mkdir -p runs/foreign/checkpoints
cp -r $original runs/foreign/checkpoints
ranks_refuse 2 2 "step-00000004: is of the run 'base', not of 'foreign'; remove it, or" train \
    config.yaml --run.name=foreign
cp -r $original runs/late/checkpoints/step-00000006
ranks_refuse 2 2 "is of the run 'base', not of 'late'" train config.yaml --run.name=late --train.steps=6
rm -r runs/late/checkpoints/step-00000006
copy renamed
ranks 2 train config.yaml --run.name=renamed --train.steps=6

# A file that cannot be read now is no reason to go back behind its checkpoint, which the next save
# would then remove.
copy away
shard=runs/away/checkpoints/step-00000004/shard-0001.h5
mv $shard there
ln -s shard-0001.h5 $shard # to itself
ranks_refuse 2 1 'shard-0001.h5: cannot be read now: ' train config.yaml --run.name=away --train.steps=6
mv there $shard
kept away

# Another conversion, and another base, in the same directory.
mla='--model.init=none --model.convert.rope_pairs=2 --model.convert.d_kv=6
     --model.convert.samples=20 --run.name=mla'
cp -r runs/base/model other
ranks 2 train config.yaml $mla --model.base=runs/base/model
ranks_refuse 2 2 'made with model.convert.rope 2-norm, the config has high' train config.yaml $mla \
    --model.base=runs/base/model --model.convert.rope=high --train.steps=6
ranks 2 train config.yaml $mla --model.base=other --train.steps=6
grep -q 'warning: model.base is another one than before: the weights stay those of the ch' out &&
    grep -q 'after step 4: model.base runs/base/model -> other' out ||
    die "another base: $(cat out)"

# A base that was removed is needed for the export alone: training continues and is saved.
mv other gone
ranks_refuse 2 2 "other: " train config.yaml $mla --model.base=other --train.steps=8
grep -q 'warning: other: is not there; its shape is taken from the run' err || die "no base: $(cat err)"
[ -s runs/mla/checkpoints/step-00000008/manifest.json ] || die "no base: $(cat err)"
refuses 2 'name it with --base' export runs/mla --out exported
mv gone other
ranks 2 train config.yaml $mla --model.base=other --train.steps=8
"$mha2mla" export runs/mla --out exported >/dev/null
cmp exported/model.safetensors runs/mla/model/model.safetensors
