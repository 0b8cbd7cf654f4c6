#!/usr/bin/env bash
# A run's state is a function of its config and the step alone: parameters and both moments have the
# same bits on 1, 2, 3, 4, 5 and 8 ranks, with and without accumulation, uninterrupted or resumed at
# any step, also on another number of ranks.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
. "$root/tests/support/run_states.sh"

start_small_runs

# One group for each micro-batch, then groups of two micro-batches. The order of the sums is another
# one, and so are the bits, but they are again the same for every number of ranks.
for groups in 8 4; do
    ranks 1 $mla --run.name=g$groups-n1 --train.sum_groups=$groups
    for n in 2 3 4 5 8; do
        [ $n -le $groups ] || continue
        ranks $n $mla --run.name=g$groups-n$n --train.sum_groups=$groups
        same_states g$groups-n$n g$groups-n1
    done
done

# The same bits without overlap. Gradients that are sent in bfloat16 give other bits, which are also
# the same for every number of ranks, including one.
for n in 2 3; do
    ranks $n $mla --run.name=blocking-n$n --train.overlap=false
    same_states blocking-n$n g8-n1
done
ranks 1 $mla --run.name=bf16-n1 --train.reduce_dtype=bfloat16
for n in 2 3 4; do
    ranks $n $mla --run.name=bf16-n$n --train.reduce_dtype=bfloat16 --train.overlap=$([ $n = 3 ] && echo false || echo true)
    same_states bf16-n$n bf16-n1
done
[ "$(state g8-n1 7)" != "$(state bf16-n1 7)" ] || die 'bfloat16 does not show in the bits'
ranks 2 $mla --run.name=changed --train.steps=4 --optim.decay_start=4
ranks 2 $mla --run.name=changed --train.reduce_dtype=bfloat16
grep -q 'after step 4: train.reduce_dtype float32 -> bfloat16' out || die "a changed dtype: $(cat out)"
cmp runs/g8-n1/model/model.safetensors runs/blocking-n2/model/model.safetensors ||
    die 'without overlap: another model'

[ "$(state g8-n1 7)" != "$(state g4-n1 7)" ] || die 'the groups of a sum do not show in its bits'

# Resumed at every step, on another number of ranks each time.
for step in 1 2 3 4 5 6; do
    n=$((step % 4 + 1))
    ranks $n $mla --run.name=resumed-$step --train.steps=$step --optim.decay_start=4
    ranks $((5 - n)) $mla --run.name=resumed-$step --resume=require
    grep -q "resuming runs/resumed-$step from step $step," out || die "resumed-$step: $(cat out)"
    [ "$(state resumed-$step 7)" = "$(state g8-n1 7)" ] || die "resumed at step $step: another state"
    diff <(losses resumed-$step | grep -v valid) <(losses g8-n1 | grep -v valid) >difference ||
        die "resumed at step $step: other losses: $(cat difference)"
done

# The shared form, its latent narrow and normed, and wide: attention in the latent space and on
# expanded keys and values.
shared="train config.yaml --model.init=none --model.base=runs/start/model --model.convert.samples=20
        --model.convert.form=shared"
for widths in '--model.convert.slots=2 --model.convert.latent=4 --model.convert.latent_norm=true' \
    '--model.convert.slots=5 --model.convert.latent=12'; do
    name=shared-${widths##*=}
    ranks 1 $shared $widths --run.name=$name-n1
    for n in 2 4; do
        ranks $n $shared $widths --run.name=$name-n$n
        same_states $name-n$n $name-n1
    done
    ranks 2 $shared $widths --run.name=$name-resumed --train.steps=3 --optim.decay_start=4
    ranks 1 $shared $widths --run.name=$name-resumed --resume=require
    [ "$(state $name-resumed 7)" = "$(state $name-n1 7)" ] || die "$name: resumed to another state"
done

# Changes of the config that are refused at a resume, and a run that is finished.
ranks_refuse 2 2 'has no checkpoint to resume from' $mla --run.name=new --resume=require
ranks_refuse 2 2 'there is a run already' $mla --run.name=g8-n1 --resume=never
ranks_refuse 2 2 'its model has d_kv 6, the config'"'"'s 8' $mla --run.name=g8-n1 --model.convert.d_kv=8
ranks_refuse 2 2 'made with train.global_batch 16, the config has 8' $mla --run.name=g8-n1 \
    --train.global_batch=8
ranks_refuse 2 2 'made with run.seed 42, now 1' $mla --run.name=g8-n1 --run.seed=1 --train.steps=9
ranks_refuse 2 2 'is of step 7, train.steps is 5' $mla --run.name=g8-n1 --train.steps=5 --optim.decay_steps=1
refuses 2 "--resume is 'maybe'" train config.yaml --resume=maybe
ranks 2 $mla --run.name=g8-n1
grep -q 'is finished: 7 steps' out || die "a finished run said: $(cat out)"

# Every checkpoint can be exported and evaluated.
"$mha2mla" export runs/g8-n1 --out newest >/dev/null
cmp newest/model.safetensors runs/g8-n1/model/model.safetensors || die 'export differs from the run'
"$mha2mla" export runs/g8-n1/checkpoints/step-00000004 --out step-4 --dtype bfloat16 >/dev/null
"$mha2mla" eval step-4 --perplexity valid.h5 --seq-len 32 --max-tokens 64 >/dev/null
refuses 2 'neither a checkpoint nor a run' export runs --out nowhere
