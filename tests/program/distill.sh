#!/usr/bin/env bash
# Local distillation through the program: by itself and in a run, on any number of ranks, after it was
# stopped, and what it refuses.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
start_small_runs
model=runs/start/model
"$mha2mla" convert "$model" --out mla --rope high --rope-pairs 2 --d-kv 6 >/dev/null 2>&1

# By itself: the same bits on any number of ranks; layers' files go when the model is written.
steps="--data train.h5 --seq-len 32 --steps 4 --windows 11"
for layers in sequential apart; do
    ranks 1 distill "$model" mla --out $layers $steps --layers $layers
    grep -q "$layers: 2 layers distilled on 0.000 M tokens" out || die "said $(cat out)"
    grep 'mean square' out >losses
    ranks 3 distill "$model" mla --out $layers-3 $steps --layers $layers
    cmp $layers/model.safetensors $layers-3/model.safetensors || die "$layers: 3 ranks give another"
    grep 'mean square' out | cmp - losses || die "$layers: 3 ranks say $(cat losses out)"
    [ ! -e $layers/distill ] || die "left $(ls $layers/distill)"
done
! cmp -s sequential/model.safetensors apart/model.safetensors || die "two orders, one model"

# Stopped after a layer: the same command goes on, and ends with the same bits.
stops() {
    "$mha2mla" distill "$model" mla --out stopped $steps --steps 400 >out 2>&1 &
    local pid=$!
    until [ -e stopped/distill/layer-0000.bin ]; do
        kill -0 $pid 2>/dev/null || die "not stopped: $(cat out)"
        sleep 0.05
    done
    kill -TERM $pid
    wait $pid && return 0
    [ $? -eq 75 ] || die "stopped: $(cat out)"
}
stops
ranks 2 distill "$model" mla --out stopped $steps --steps 400
ranks 1 distill "$model" mla --out whole $steps --steps 400
cmp stopped/model.safetensors whole/model.safetensors || die "another model after a stop"

refuses 2 "mla: has latent attention already" distill mla mla --out none $steps
refuses 2 "has the original attention; convert it first" distill "$model" "$model" --out none $steps
refuses 2 "was not converted from" distill "$root/configs/demo/model" mla --out none $steps
refuses 2 "is the base model's directory" distill "$model" mla --out mla $steps
refuses 2 "gone.h5" distill "$model" mla --out none --data gone.h5
refuses 2 "--steps" distill "$model" mla --out none --data train.h5 --steps 0
refuses 2 "distill.layers" $mla --distill.layers=other
ranks_refuse 2 2 "gone.h5" distill "$model" mla --out none --data gone.h5
[ ! -e none/config.json ] || die "a model was written"

# A run distills between conversion and training; what it has read counts.
distill="--distill.steps=4 --distill.windows=11"
ranks 1 $mla $distill --run.name=one
ranks 2 $mla $distill --run.name=two
"$mha2mla" compare --assert-equal runs/one runs/two >/dev/null || die "another run on two ranks"
[ ! -e runs/one/distill ] || die "left $(ls runs/one/distill)"
ranks 1 $mla --run.name=plain
"$mha2mla" compare runs/one runs/plain >out
[ "$(grep -c ' distilled' out)" -eq 1 ] || die "compare: $(cat out)"
grep -q '"tokens": 352,' runs/one/run.json || die "run.json: $(cat runs/one/run.json)"
"$mha2mla" inspect runs/one >out
grep -q ' distillation ' out || die "inspect: $(cat out)"
"$mha2mla" plan $distill ${mla#train } --gflops 10 --memory-bandwidth 10 >out
grep -q '^distillation 11 windows of 32 tokens' out || die "plan: $(cat out)"
grep -q ', distillation ' out || die "plan: $(cat out)"

# A baseline of the same config has nothing to distill.
ranks 1 train config.yaml --model.convert=none $distill --run.name=baseline
! grep -q '"distill": {' runs/baseline/run.json || die "a baseline distilled"
