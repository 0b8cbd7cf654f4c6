#!/usr/bin/env bash
# A run in bfloat16: ranks receive the parameters of others rounded, and yet states, losses,
# evaluations and exports have the same bits on 1, 2, 3 and 4 ranks, with one copy of the parameters
# for all, for two or for each, with and without overlap, uninterrupted or resumed. Products are
# emulated, so that every CPU runs this.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
. "$root/tests/support/run_states.sh"

start_small_runs
bf16="$mla --emulate --train.compute=bfloat16"

# same_model RUN REFERENCE
same_model() {
    cmp "runs/$1/model/model.safetensors" "runs/$2/model/model.safetensors" || die "$1: another model than $2"
}

ranks 1 $mla --run.name=float32
ranks 1 $bf16 --run.name=n1
[ "$(state n1 7)" != "$(state float32 7)" ] || die 'bfloat16 does not show in the bits'

# Ranks, ranks to a copy, overlap.
for way in '2 1 true' '2 0 false' '3 1 false' '3 0 true' '4 1 true' '4 2 true' '4 2 false'; do
    set -- $way
    run=n$1-copy$2-$3
    ranks $1 $bf16 --run.name=$run --train.ranks_per_copy=$2 --train.overlap=$3
    same_states $run n1
    same_model $run n1
done

# Gradients that are sent in bfloat16, too, and groups of two micro-batches.
for n in 1 2 3; do
    ranks $n $bf16 --run.name=reduced-n$n --train.ranks_per_copy=1 --train.reduce_dtype=bfloat16 \
        --train.sum_groups=4
    same_states reduced-n$n reduced-n1
    same_model reduced-n$n reduced-n1
done

# Resumed with another number of ranks and copies.
for ways in '1 1 3 1' '3 1 1 1' '2 1 4 2' '4 2 2 0' '4 1 3 1'; do
    set -- $ways
    run=from-$1-$2-to-$3-$4
    ranks $1 $bf16 --run.name=$run --train.ranks_per_copy=$2 --train.steps=3 --optim.decay_start=4
    ranks $3 $bf16 --run.name=$run --train.ranks_per_copy=$4 --resume=require
    [ "$(state $run 7)" = "$(state n1 7)" ] || die "$run: another state"
    same_model $run n1
done

# Evaluations within a run read the exact model, and the steps after them go on as without.
mkdir tasks
echo '{"goal": "Dig", "sol1": "Take a spade.", "sol2": "Take a hat.", "label": 0}' >tasks/piqa.jsonl
for n in 1 3; do
    ranks $n $bf16 --run.name=evaluated-n$n --train.ranks_per_copy=1 --eval.tasks=tasks --eval.every=2
    same_model evaluated-n$n n1
done
same_states evaluated-n3 evaluated-n1
[ "$(grep -c '"tasks"' runs/evaluated-n3/metrics.jsonl)" = 4 ] || die 'not four evaluations'

# What a run exports is what its checkpoint holds.
"$mha2mla" export runs/n4-copy2-true --out newest >/dev/null
cmp newest/model.safetensors runs/n1/model/model.safetensors || die 'export differs from the run'
