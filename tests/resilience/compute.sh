#!/usr/bin/env bash
# Training with products in bfloat16, emulated, so that every machine runs it: the same bits on any
# number of ranks, with copies of their own or a shared one, uninterrupted, stopped or killed; going
# on in the other type; what metrics, checkpoints and the exported model say of it. Where the CPU
# has instructions for bfloat16 it also runs by them, elsewhere it is refused.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
. "$root/tests/support/background_runs.sh"

make_shard train 1200
make_shard valid 60
small_config 'every: 3, sequences: 9' <<EOC
optim: {lr: 3.0e-3, warmup_steps: 2, decay_steps: 3}
train: {steps: 7, global_batch: 16, micro_batch: 2}
checkpoint: {every: 2, keep: 10}
log: {every: 1}
EOC
ranks 1 train config.yaml --train.steps=3 --optim.decay_steps=0 --run.name=start
convert='--model.init=none --model.base=runs/start/model --model.convert.rope_pairs=2
         --model.convert.d_kv=6 --model.convert.samples=20'
bf16="$convert --train.compute=bfloat16 --emulate"

# state RUN STEP: the digest of a checkpoint.
state() {
    "$mha2mla" inspect --verify "runs/$1/checkpoints/step-0000000$2" | awk '$1 == "state" { print $2 }'
}

# same_states RUN STEP...: as those of the run whole.
same_states() {
    local name=$1 step
    shift
    for step in "$@"; do
        [ -n "$(state whole "$step")" ] || die "whole: no state at step $step"
        [ "$(state "$name" "$step")" = "$(state whole "$step")" ] ||
            die "$name: another state than whole at step $step"
    done
}

test_same_bits_on_any_number_of_ranks() {
    local n
    N_RANKS=1 finishes whole $bf16
    says 'products     in bfloat16 emulated' || die "the plan names other products: $(cat "$log")"
    N_RANKS=1 finishes float32 $convert
    [ "$(state whole 7)" != "$(state float32 7)" ] || die 'bfloat16 does not show in the bits'
    for n in 2 3; do
        N_RANKS=$n finishes shared-n$n $bf16
        same_run shared-n$n whole
        same_states shared-n$n 2 4 6 7
        # Parameters are sent, rounded to bfloat16.
        N_RANKS=$n finishes copies-n$n $bf16 --train.ranks_per_copy=1 \
            --train.overlap=$([ $n = 3 ] && echo false || echo true)
        same_run copies-n$n whole
        same_states copies-n$n 2 4 6 7
    done
    # The curves lie on each other.
    field loss runs/whole/metrics.jsonl >whole.loss
    field loss runs/float32/metrics.jsonl >float32.loss
    close whole.loss float32.loss 3e-3
}

test_what_a_run_says_of_it() {
    grep -q '"products": "in bfloat16 emulated' runs/whole/run.json || die "run.json: $(cat runs/whole/run.json)"
    grep -q '"train.compute": "bfloat16"' runs/whole/run.json || die 'run.json has another config'
    "$mha2mla" inspect runs/whole >out
    grep -qE '^  products +in bfloat16 emulated' out || die "inspect RUN: $(cat out)"
    "$mha2mla" inspect runs/whole/checkpoints/step-00000004 >out
    grep -qE '^  products +in bfloat16$' out || die "inspect CHECKPOINT: $(cat out)"
    "$mha2mla" inspect runs/float32/checkpoints/step-00000004 >out
    grep -qE '^  products +in float32$' out || die "inspect CHECKPOINT: $(cat out)"
}

# The model is an ordinary one, with the numbers of the newest checkpoint, and its loss is that of
# the run's last validation.
test_the_exported_model() {
    "$mha2mla" export runs/whole --out newest >/dev/null
    cmp newest/model.safetensors runs/whole/model/model.safetensors || die 'export differs from the run'
    local valid tokens=$((9 * 32))
    valid=$(field valid_loss runs/whole/metrics.jsonl | tail -n 1)
    for words in '--compute bfloat16 --emulate' '--compute float32'; do
        "$mha2mla" eval runs/whole/model --perplexity valid.h5 --seq-len 32 --max-tokens $tokens $words >out
        awk -v v="$valid" -v exact=$([ "$words" = '--compute float32' ] && echo 0 || echo 1) \
            '{ e = $2 - v; e = e < 0 ? -e : e; exit !(e < (exact ? 6e-5 : 5e-3)) }' out ||
            die "eval $words says $(cat out), the run $valid"
    done
}

test_going_on() {
    local step
    # In the same type, on another number of ranks.
    for step in 1 3 4; do
        N_RANKS=$((step % 3 + 1)) finishes resumed-$step $bf16 --train.steps=$step --optim.decay_start=4
        N_RANKS=$((3 - step % 3)) finishes resumed-$step $bf16 --resume=require
        [ "$(state resumed-$step 7)" = "$(state whole 7)" ] || die "resumed at step $step: another state"
        ! says 'changed setting, after step '$step': train.compute' || die "a change is said: $(cat "$log")"
    done
    # In the other: said once, by the first process that does.
    finishes changed $convert --train.steps=4 --optim.decay_start=4
    finishes changed $bf16 --train.steps=6 --optim.decay_start=4
    says 'changed setting, after step 4: train.compute float32 -> bfloat16' || die "changed: $(cat "$log")"
    finishes changed $bf16
    ! says 'train.compute' || die "a change is said twice: $(cat "$log")"
    [ "$(state changed 4)" = "$(state float32 4)" ] || die 'other steps in float32'
    [ "$(state changed 7)" != "$(state float32 7)" ] || die 'went on in float32'
    finishes back $bf16 --train.steps=4 --optim.decay_start=4
    finishes back $convert
    says 'changed setting, after step 4: train.compute bfloat16 -> float32' || die "back: $(cat "$log")"
    [ "$(state back 4)" = "$(state whole 4)" ] || die 'other steps in bfloat16'
}

test_interruptions() {
    start_held 5 stopped $bf16 --train.ranks_per_copy=1
    signal_rank USR1 1
    release
    ends_with 75
    N_RANKS=3 finishes stopped $bf16
    same_run stopped whole
    start_held 5 killed $bf16 --train.ranks_per_copy=1
    signal_ranks KILL
    wait "$job" || true
    leaves_nobody
    finishes killed $bf16
    same_run killed whole
}

# other_bytes A B: how many bytes differ between two files of one length. HDF5's times of creation,
# with their checksums, are up to 60 of them.
other_bytes() {
    { cmp -l "$1" "$2" || true; } | wc -l
}

test_scores() {
    "$mha2mla" score runs/start/model --data train.h5 --out f32.h5 --samples 6 --seq-len 32 >/dev/null
    "$mha2mla" score runs/start/model --data train.h5 --out bf16.h5 --samples 6 --seq-len 32 \
        --compute bfloat16 --emulate >/dev/null
    ranks 2 score runs/start/model --data train.h5 --out bf16-n2.h5 --samples 6 --seq-len 32 \
        --compute bfloat16 --emulate
    [ "$(other_bytes bf16.h5 bf16-n2.h5)" -le 60 ] || die 'other scores on two ranks'
    [ "$(other_bytes bf16.h5 f32.h5)" -gt 120 ] || die 'bfloat16 does not show in the scores'
}

test_sweep() {
    ranks 2 sweep config.yaml --vary train.compute=float32,bfloat16 --emulate --train.steps=2 \
        --optim.decay_steps=0 --run.name=types
    for name in types-compute-float32 types-compute-bfloat16; do
        [ -f "runs/$name/model/config.json" ] || die "the sweep made no $name: $(ls runs)"
    done
    [ -e runs/sweep-types-compute/report.html ] || die "no report: $(ls runs)"
    # The report has a column for it; both values are in the table on stdout.
    grep -qE '^types-compute-bfloat16 .*bfloat16' out || die "the table: $(cat out)"
}

test_the_cpu_decides() {
    local run="train config.yaml $convert --run.name=cpu --train.compute=bfloat16 --train.steps=1
               --optim.decay_steps=0"
    if grep -qwE 'avx512_bf16|amx_bf16' /proc/cpuinfo; then
        ranks 2 $run
        grep -qE 'products +in bfloat16 by (AMX|AVX512-BF16)' out || die "no kernel is named: $(cat out)"
        return
    fi
    refuses 2 'train.compute is bfloat16, but this CPU has neither AVX512-BF16 nor AMX-BF16' $run
    refuses 2 '--compute is bfloat16, but this CPU' score runs/start/model --data train.h5 --out s.h5 \
        --compute bfloat16
    refuses 2 '--compute is bfloat16, but this CPU' eval runs/start/model --perplexity valid.h5 \
        --compute bfloat16
    refuses 2 'or --gflops-bf16 with the rate' plan config.yaml --train.compute=bfloat16
}

test_same_bits_on_any_number_of_ranks
test_what_a_run_says_of_it
test_the_exported_model
test_going_on
test_interruptions
test_scores
test_sweep
test_the_cpu_decides
