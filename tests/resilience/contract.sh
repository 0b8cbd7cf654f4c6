#!/usr/bin/env bash
# All ranks run the same job: ranks that were given other settings, options or files are refused in
# one line, before anything is written; equal copies at other places are not. And what is missing or
# stopped on one rank alone ends the command on all of them, whichever it is.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
. "$root/tests/support/background_runs.sh"

make_shard train 600
make_shard valid 60
small_config 'every: 2, sequences: 4' <<'EOC'
optim: {lr: 1.0e-3, warmup_steps: 2}
train: {steps: 6, global_batch: 4, micro_batch: 1}
checkpoint: {every: 2, keep: 2}
EOC
ranks 2 train config.yaml
model=runs/base/model
mla="train config.yaml --model.init=none --model.base=$model --model.convert.rope_pairs=2
     --model.convert.d_kv=6 --model.convert.samples=20 --run.name=new"
ranks 1 score "$model" --data train.h5 --out scores.h5 --samples 8 --seq-len 32
host=$(hostname)

# start_pair COMMON -- FIRST -- SECOND: words of both ranks, of rank 0 alone, of rank 1 alone.
start_pair() {
    local common=() first=() second=() at=common word
    for word in "$@"; do
        if [ "$word" = -- ]; then
            [ $at = common ] && at=first || at=second
        elif [ $at = common ]; then
            common+=("$word")
        elif [ $at = first ]; then
            first+=("$word")
        else
            second+=("$word")
        fi
    done
    timeout 300 mpirun --oversubscribe --bind-to none \
        -n 1 ${program0:-"$mha2mla"} "${common[@]}" "${first[@]}" : \
        -n 1 ${program1:-"$mha2mla"} "${common[@]}" "${second[@]}" >out 2>err </dev/null
}

# pair_refuses TEXT WORDS... [-- FIRST -- SECOND]: status 2 and one line, which has TEXT.
pair_refuses() {
    local text=$1 got=0
    shift
    start_pair "$@" || got=$?
    check_refusal 2 "$text" "$got" "$*"
    [ ! -e runs/new ] || [ -z "$(ls -A runs/new | grep -v '^lock$')" ] || die "$*: left $(ls runs/new)"
    rm -rf runs/new
}

# pair_runs WORDS... [-- FIRST -- SECOND]
pair_runs() {
    start_pair "$@" || die "$*: status $?: $(tail -n 3 err)"
}

# differs KEY FIRST SECOND [TEXT FIRST SECOND]: of the config.
differs() {
    pair_refuses "rank 1 on $host: $1 is ${5:-$3}, rank 0 on $host has ${4:-$2}; every rank needs the same config" \
        train config.yaml --run.name=new -- "--$1=$2" -- "--$1=$3"
}

test_another_value_in_the_config() {
    differs optim.lr 1.0e-3 9.0e-3 0.001 0.009
    differs optim.weight_decay 0.5 0.25
    differs run.seed 1 2
    differs train.steps 6 9
    differs train.global_batch 4 8
    differs train.reduce_dtype float32 bfloat16
    differs train.compute float32 bfloat16
    differs checkpoint.every 2 3
    differs data.validation.every 2 3
    differs log.every 1 2
    differs log.tensorboard true false
    differs run.max_minutes 5 6
    differs eval.every 2 3
    differs eval.limit 1 2
    differs eval.rules reference lm-eval
    differs eval.only '[piqa]' '[arc_easy]'
    pair_refuses "eval.tasks is not given, rank 0 on $host" train config.yaml --run.name=new -- \
        --eval.tasks=tasks --
    pair_refuses "rank 1 on $host: run.name is two, rank 0 on $host has new; every rank needs" \
        train config.yaml -- --run.name=new -- --run.name=two
    pair_refuses 'rank 1 on '"$host"': model.convert.d_kv is 8, rank 0 on '"$host"' has 6; every' \
        $mla -- -- --model.convert.d_kv=8
    pair_refuses 'data.validation.shards is not given, rank 0 on ' \
        train config.yaml --run.name=new -- -- --data.validation=none
    pair_refuses 'model.convert.scores is a path, rank 0 on '"$host"' has none' \
        $mla -- -- --model.convert.scores=scores.h5
}

test_other_options_and_commands() {
    pair_refuses "--dry-run is given, rank 0 on $host has none; every rank needs the same command" \
        train config.yaml --run.name=new -- -- --dry-run
    pair_refuses '--resume is never, rank 0 on ' train config.yaml --run.name=new -- -- --resume never
    pair_refuses 'unknown option --frobnicate' train config.yaml -- -- --frobnicate
    pair_refuses '--samples is 9, rank 0 on ' score "$model" --data train.h5 --out s.h5 -- \
        --samples 8 -- --samples 9
    pair_refuses '--max-tokens is 320, rank 0 on ' eval "$model" --perplexity valid.h5 -- \
        --max-tokens 640 -- --max-tokens 320
    pair_refuses '--d-kv is 8, rank 0 on ' convert "$model" --out mla --rope high --rope-pairs 2 -- \
        --d-kv 6 -- --d-kv 8
    pair_refuses '--rope is low, rank 0 on ' convert "$model" --out mla --rope-pairs 2 --d-kv 6 -- \
        --rope high -- --rope low
    pair_refuses '--emulate is given, rank 0 on ' train config.yaml --run.name=new -- -- --emulate
    pair_refuses '--compute is bfloat16, rank 0 on ' eval "$model" --perplexity valid.h5 -- \
        --compute float32 -- --compute bfloat16
    pair_refuses '--gflops is 2, rank 0 on ' plan config.yaml -- -- --gflops 2
    pair_refuses '--d-kv is 8,6, rank 0 on ' sweep config.yaml --model.convert.rope_pairs=2 \
        --model.convert.d_kv=6 --run.name=new -- --d-kv 8,4 -- --d-kv 8,6
    pair_refuses '--eos is none, rank 0 on ' tokenize --tokenizer "$root/configs/demo/model" \
        --out t.h5 valid.txt -- -- --eos none
    pair_refuses 'FILE is 1 file of ' tokenize --tokenizer "$root/configs/demo/model" --out t.h5 \
        -- valid.txt -- train.txt
    pair_refuses 'the program is mha2mla 0.' -- train config.yaml -- plan config.yaml
}

test_other_files() {
    # Another fine-tuning of the same model.
    ranks 1 train config.yaml --run.name=other --run.seed=7
    pair_refuses "rank 1 on $host: tensors.model" $mla -- -- --model.base=runs/other/model
    pair_refuses "rank 1 on $host: tensors.model" eval --perplexity valid.h5 -- "$model" -- \
        runs/other/model
    cp -r "$model" theta
    sed -i 's/"rope_theta": 10000\.0/"rope_theta": 20000.0/' theta/config.json
    for command in "$mla" 'plan config.yaml --model.init=none'; do
        pair_refuses "rank 1 on $host: the model's rope_theta is 20000" $command \
            -- "--model.base=$model" -- --model.base=theta
    done
    pair_refuses "the model's rope_theta is 20000" score --data train.h5 --out s.h5 -- "$model" -- theta
    pair_refuses "the model's rope_theta is 20000" convert --out mla --rope high --rope-pairs 2 \
        --d-kv 6 -- "$model" -- theta
    ranks 1 score "$model" --data valid.h5 --out other-scores.h5 --samples 8 --seq-len 32
    pair_refuses 'model.convert.scores is a file with sha256 ' $mla -- \
        --model.convert.scores=scores.h5 -- --model.convert.scores=other-scores.h5
    # A shard of another length, and one of the same length with other tokens.
    sed 600q train.txt | sed 's/ the / a /g' >changed.txt
    sed 590q train.txt >shorter.txt
    for name in changed shorter; do
        "$mha2mla" tokenize --tokenizer "$root/configs/demo/model" --separator '<|endoftext|>' \
            --out "$name.h5" "$name.txt" >tokenized
        pair_refuses "rank 1 on $host: data.sources[0].shards[0]." train config.yaml --run.name=new \
            -- -- "--data.sources=[{name: stories, shards: [$name.h5]}]"
    done
    pair_refuses "rank 1 on $host: data[0]." eval "$model" -- --perplexity train.h5 -- \
        --perplexity changed.h5
    pair_refuses "rank 1 on $host: data.sources[0].shards[0]." score "$model" --out s.h5 -- \
        --data train.h5 -- --data changed.h5
    pair_refuses "rank 1 on $host: data.validation[0]." train config.yaml --run.name=new -- -- \
        --data.validation.shards=train.h5
    mkdir tasks other-tasks
    echo '{"goal": "Dig", "sol1": "Take a spade.", "sol2": "Take a spoon.", "label": 0}' >tasks/piqa.jsonl
    sed 's/spoon/plate/' tasks/piqa.jsonl >other-tasks/piqa.jsonl
    pair_refuses "rank 1 on $host: piqa is a file with sha256 " train config.yaml --run.name=new -- \
        --eval.tasks=tasks -- --eval.tasks=other-tasks
}

test_missing_on_one_rank() {
    local missing
    pair_refuses "rank 0 on $host: gone" $mla -- --model.base=gone --
    for missing in --model.base=gone '--data.sources=[{name: stories, shards: [gone.h5]}]' \
        --data.validation.shards=gone.h5 --model.convert.scores=gone.h5; do
        pair_refuses 'rank 1 on ' $mla --model.convert.scores=scores.h5 -- -- "$missing"
        grep -q 'error: rank 1 on .*gone' err || die "$missing: $(cat err)"
    done
    pair_refuses 'rank 1 on '"$host"': gone' plan config.yaml --model.init=none -- \
        "--model.base=$model" -- --model.base=gone
    pair_refuses 'rank 0 on '"$host"': gone' plan config.yaml --model.init=none -- \
        --model.base=gone -- "--model.base=$model"
    pair_refuses 'gone.yaml' train --run.name=new -- config.yaml -- gone.yaml
    pair_refuses 'gone.yaml' plan -- config.yaml -- gone.yaml
    pair_refuses 'gone.yaml' sweep --vary optim.lr=0.1,0.2 -- config.yaml -- gone.yaml
    pair_refuses 'rank 1 on '"$host"': gone' eval --perplexity valid.h5 -- "$model" -- gone
    pair_refuses 'gone.h5' eval "$model" -- --perplexity valid.h5 -- --perplexity gone.h5
    pair_refuses 'rank 1 on '"$host"': gone' score --data train.h5 --out s.h5 -- "$model" -- gone
    pair_refuses 'gone.h5' score "$model" --out s.h5 -- --data train.h5 -- --data gone.h5
    pair_refuses 'rank 1 on '"$host"': gone' convert --out mla --rope high --rope-pairs 2 \
        --d-kv 6 -- "$model" -- gone
    pair_refuses 'rank 1 on '"$host"': gone' tokenize --out t.h5 valid.txt -- \
        --tokenizer "$root/configs/demo/model" -- --tokenizer gone
}

# Copies at other places, one of them under other names, are the same job, with the same bits.
test_equal_copies_run() {
    mkdir copies
    cp -r "$model" copies/model
    cp train.h5 copies/stories.h5
    cp valid.h5 copies/held-out.h5
    cp scores.h5 copies/pairs.h5
    ranks 2 $mla --run.name=one-place --model.convert.scores=scores.h5
    pair_runs ${mla/new/two-places} -- --model.convert.scores=scores.h5 -- \
        --model.base=copies/model --model.convert.scores=copies/pairs.h5 \
        '--data.sources=[{name: stories, shards: ["copies/stor*.h5"]}]' \
        --data.validation.shards=copies/held-out.h5
    cmp runs/one-place/model/model.safetensors runs/two-places/model/model.safetensors
    # Resumed, too.
    pair_runs ${mla/new/two-places} --train.steps=8 -- --model.convert.scores=scores.h5 -- \
        --model.convert.scores=scores.h5 \
        '--data.sources=[{name: stories, shards: ["copies/stor*.h5"]}]'
    pair_runs eval -- "$model" --perplexity valid.h5 -- copies/model --perplexity copies/held-out.h5
    grep -q '^loss ' out || die "eval of copies: $(cat out)"
}

# A machine whose working directory is another: what lies there under the same names counts, and the
# run directory must be one for all.
test_another_working_directory() {
    mkdir elsewhere
    cp -r config.yaml train.h5 valid.h5 runs elsewhere
    printf '%s\n' '#!/bin/sh' "cd '$work/elsewhere' && exec '$mha2mla' \"\$@\"" >there
    chmod +x there
    program1=$work/there pair_runs ${mla/new/there} --run.dir="$work/runs"
    program1=$work/there pair_refuses "runs/new: is not the directory of rank 0; take one on a file" $mla
    rm -rf elsewhere/runs/new
}

# The same run on processors of two kinds is said, not refused.
test_other_kernels_are_said() {
    local kernel
    printf '%s\n' '#!/bin/sh' "OPENBLAS_CORETYPE=\$KERNEL exec '$mha2mla' \"\$@\"" >old
    chmod +x old
    for kernel in Prescott Haswell; do
        KERNEL=$kernel program1=$work/old pair_runs train config.yaml --run.name=kernels
        mv err err.$kernel
        rm -rf runs/kernels
    done
    cat err.* >all # one of the two is another than rank 0's
    grep -q "warning: rank 1 on $host: the processor's kernel is .*OpenBLAS.*rank 0 on " all ||
        die "other kernels: $(cat all)"
}

# stalls WORDS...: rank 1 waits for ever for a file, the others for it. In the background, in a folder
# of its own with the same files.
n_stalls=0
stalls() {
    n_stalls=$((n_stalls + 1))
    mkdir pair-$n_stalls
    ln -s ../{config.yaml,stuck.yaml,runs,stuck,train.h5,valid.h5,valid.txt} pair-$n_stalls
    (
        cd pair-$n_stalls
        got=0
        start_pair "$@" || got=$?
        check_refusal 1 "stalled for $limit min in " "$got" "$*"
        grep -q "rank 1 on $host is busy in .*; rank 0 waits; raise " err || die "$*: $(cat err)"
    ) &
}

# A file system that does not answer: rank 1 never returns from opening a file whose path has "stuck"
# in it. The limit is long enough for a rank that is only slow to show a sign of life.
test_a_stuck_rank_ends_every_command() {
    local limit=0.25 job
    make_fault_shim
    local program1="env LD_PRELOAD=$work/fault_shim.so TORTURE_UNDER=stuck TORTURE_AT=1
        TORTURE_FAULT=HANG $mha2mla"
    cp -r "$model" stuck
    cp config.yaml stuck.yaml
    mkdir tmp
    export TMPDIR=$work/tmp MHA2MLA_STALL_MINUTES=$limit
    stalls eval --perplexity valid.h5 -- "$model" -- stuck
    stalls score --data train.h5 --out s.h5 -- "$model" -- stuck
    stalls convert --out mla --rope high --rope-pairs 2 --d-kv 6 -- "$model" -- stuck
    stalls train --run.name=new -- config.yaml -- stuck.yaml
    stalls plan -- config.yaml -- stuck.yaml
    stalls sweep --vary optim.lr=0.1,0.2 -- config.yaml -- stuck.yaml
    MHA2MLA_STALL_MINUTES=30 stalls plan config.yaml --run.stall_minutes=$limit --model.init=none \
        -- "--model.base=$model" -- --model.base=stuck
    stalls tokenize --out t.h5 valid.txt -- --tokenizer "$model" -- --tokenizer stuck
    for job in $(jobs -p); do
        wait "$job" || die "a rank that is stuck does not end its command as it must, see above"
    done
    unset TMPDIR MHA2MLA_STALL_MINUTES
}

test_another_value_in_the_config
test_other_options_and_commands
test_other_files
test_missing_on_one_rank
test_equal_copies_run
test_another_working_directory
test_other_kernels_are_said
test_a_stuck_rank_ends_every_command
