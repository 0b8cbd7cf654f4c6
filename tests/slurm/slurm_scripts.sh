#!/usr/bin/env bash
# What the job scripts ask of Slurm. Stand-ins for its commands note how they are called, in folders
# with a space in their names. This needs no cluster; tests/slurm/slurm_run.sh has one.
# shellcheck disable=SC2016 # the stand-ins expand what is quoted here
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree="$work/a tree"

fail() {
    echo "slurm_scripts: $*" >&2
    cat "$work/out" >&2
    exit 1
}

# stand_in NAME: a command that notes its words; the lines of stdin follow.
stand_in() {
    {
        printf '#!/bin/bash\necho "%s $*" >>"$CALLS"\n' "$1"
        cat
    } >"$work/bin/$1"
    chmod +x "$work/bin/$1"
}

make_tree() {
    mkdir -p "$tree/build/release" "$tree/configs" "$work/bin"
    cp -r "$root/slurm" "$tree/"
    : >"$tree/configs/demo.yaml"
    unset MHA2MLA
    export CALLS="$work/calls" PATH="$work/bin:$PATH"
    # Lists runs as `mha2mla sweep --list` does, without being noted.
    cat >"$tree/build/release/mha2mla" <<'END'
#!/bin/bash
[ "${LIST_STATUS:-0}" -eq 0 ] || { echo "mha2mla: error: sweep: a mistake" >&2; exit "$LIST_STATUS"; }
echo "$*" >"$CALLS.list"
printf '%s\n' 'my runs/demo-baseline' 'my runs/demo-dkv16' 'my runs/demo-dkv8'
END
    chmod +x "$tree/build/release/mha2mla"
    # The same installed below a prefix, and a folder of a user's that has a config alone.
    mkdir -p "$work/prefix/bin" "$work/prefix/share/mha2mla" "$work/a project/configs"
    cp "$tree/build/release/mha2mla" "$work/prefix/bin/"
    cp -r "$root/slurm" "$work/prefix/share/mha2mla/"
    : >"$work/a project/configs/demo.yaml"
    stand_in sbatch <<'END'
echo "${MHA2MLA:-}" >"$CALLS.program"
[[ $* != *"${FAILING:-none}"* ]] && wc -l <"$CALLS"
END
    stand_in srun <<<'exit "${STATUS:-0}"'
    stand_in squeue <<<'echo "${STATE:-RUNNING}"'
    stand_in scontrol <<<'exit "${SCONTROL_STATUS:-0}"'
}

# expect_calls NAME: what was called is, line by line, what stdin says.
expect_calls() {
    diff -u - "$work/calls" >&2 || fail "$1: called something else (expected -, seen +)"
}

# run STATUS SCRIPT WORDS...: in $tree; the script must end with this status.
run() {
    local status=0 expected=$1
    shift
    : >"$work/calls"
    (cd "$tree" && bash "$@" >"$work/out" 2>&1) || status=$?
    [ "$status" -eq "$expected" ] || fail "$*: status $status, expected $expected"
}

# refuses TEXT SCRIPT WORDS...: status 2 and one line with TEXT in it, and nothing is submitted.
refuses() {
    local text=$1
    shift
    run 2 "$@"
    grep -qF -- "$text" "$work/out" || fail "$*: does not say '$text'"
    [ "$(wc -l <"$work/out")" -eq 1 ] || fail "$*: more than one line"
    [ ! -s "$work/calls" ] || fail "$*: called $(cat "$work/calls")"
}

test_a_sweep_is_submitted_with_its_comparison() {
    run 0 slurm/submit.sh --partition=cpu --nodes=4 --at-once=2 configs/demo.yaml 16 \
        --optim.lr=1e-4 8 '--run.dir=my runs' --vary=train.compute=float32,bfloat16 --emulate
    expect_calls submit.sh <<'END'
sbatch --parsable --partition=cpu --nodes=4 --array=0-2%2 slurm/sweep.sbatch configs/demo.yaml 16 --optim.lr=1e-4 8 --run.dir=my runs --vary=train.compute=float32,bfloat16 --emulate
sbatch --parsable --partition=cpu --dependency=afterok:1 --kill-on-invalid-dep=yes slurm/compare.sbatch my runs/demo-baseline my runs/demo-dkv16 my runs/demo-dkv8
END
    [ "$(<"$work/calls.list")" = "sweep configs/demo.yaml --d-kv=16,8 --baseline --optim.lr=1e-4 \
--run.dir=my runs --vary=train.compute=float32,bfloat16 --emulate --list" ] || fail "it asked: $(<"$work/calls.list")"
    grep -q 'job 2: .*mha2mla-compare-2.log' "$work/out" || fail 'it does not say where the table is'
}

test_evaluations_are_between_the_sweep_and_the_comparison() {
    run 0 slurm/submit.sh --nodes=4 --eval --tasks=my/tasks --kv=16 --kv=4:hqq --limit=9 -- \
        --account=me --at-once=5 configs/demo.yaml 16 8
    expect_calls submit.sh <<'END'
sbatch --parsable --account=me --nodes=4 --array=0-2%5 slurm/sweep.sbatch configs/demo.yaml 16 8
sbatch --parsable --account=me --nodes=4 --dependency=afterok:1 --kill-on-invalid-dep=yes --array=0-5%5 slurm/eval.sbatch --tasks=my/tasks --kv=16 --kv=4:hqq --limit=9 my runs/demo-baseline my runs/demo-dkv16 my runs/demo-dkv8
sbatch --parsable --account=me --dependency=afterok:1,afterany:2 --kill-on-invalid-dep=yes slurm/compare.sbatch my runs/demo-baseline my runs/demo-dkv16 my runs/demo-dkv8
END
    grep -q '^job 2: 6 evaluations' "$work/out" || fail 'it does not tell of the evaluations'
    refuses 'write what to evaluate' slurm/submit.sh --eval --tasks=x configs/demo.yaml 16
    refuses 'write what to evaluate' slurm/submit.sh --eval -- configs/demo.yaml 16
    refuses 'give what to evaluate on' slurm/submit.sh --eval --kv=4 -- configs/demo.yaml 16
    FAILING=eval.sbatch run 2 slurm/submit.sh --eval --tasks=x -- configs/demo.yaml 16
    grep -q 'the sweep is job 1, but its evaluation' "$work/out" || fail 'the sweep is not named'
}

# evaluate TASK WORDS...: in a tree with a model of the run "my runs/a", and none of b.
evaluate() {
    local task=$1
    shift
    mkdir -p "$tree/my runs/a/model" "$tree/my runs/b"
    touch -d '2020-01-01' "$tree/my runs/a/model/config.json"
    SLURM_ARRAY_TASK_ID=$task run "${expected:-0}" slurm/eval.sbatch "$@" 'my runs/a/' 'my runs/b'
}

test_each_task_of_an_array_is_one_evaluation() {
    local words=(--tasks=t --longbench='my texts' --kv=32 '--kv=2,4:quanto:reference' --limit=9
        --compute=bfloat16 --emulate)
    local start='srun --mpi=pmix --kill-on-bad-exit=0 --wait=60 build/release/mha2mla eval my runs/a/model'
    evaluate 0 "${words[@]}"
    expect_calls 'task 0' <<<"$start --tasks=t --kv-bits=32 --out=my runs/a/eval-tasks-kv32.json --limit=9 \
--compute=bfloat16 --emulate"
    local answers='my runs/a/eval-longbench-kv2-4-quanto-reference.predictions.jsonl'
    mkdir -p "$tree/my runs/a"
    echo 'of an older model' >"$tree/$answers"
    touch -d '2019-01-01' "$tree/$answers"
    evaluate 3 "${words[@]}"
    [ ! -e "$tree/$answers" ] || fail "the answers of an older model are there"
    echo 'of this one' >"$tree/$answers"
    evaluate 3 "${words[@]}"
    [ -e "$tree/$answers" ] || fail "the answers so far are gone"
    expect_calls 'task 3' <<<"$start --longbench=my texts --kv-bits=2,4 --kv-scheme=quanto \
--kv-policy=reference --predictions=$answers --out=my runs/a/eval-longbench-kv2-4-quanto-reference.json \
--limit=9 --compute=bfloat16 --emulate"
    evaluate 0 --tasks=t
    expect_calls 'without --kv' <<<"$start --tasks=t --out=my runs/a/eval-tasks.json"
    expected=2 evaluate 4 "${words[@]}"
    grep -q 'no model my runs/b/model, .*has the run ended' "$work/out" || fail 'another error'
    expected=2 evaluate 8 "${words[@]}"
    grep -q 'with 2 runs, 2 caches and 2 kinds it is --array=0-7' "$work/out" || fail 'another array'
    touch "$tree/my runs/a/eval-tasks.json"
    evaluate 0 --tasks=t
    [ ! -s "$work/calls" ] || fail "what is done is done again: $(<"$work/calls")"
    touch "$tree/my runs/a/model/config.json" -d '2099-01-01'
    SLURM_ARRAY_TASK_ID=0 run 0 slurm/eval.sbatch --tasks=t 'my runs/a'
    [ -s "$work/calls" ] || fail 'a newer model is not evaluated'
    rm -r "$tree/my runs"
    refuses 'write --tasks=DIR' slurm/eval.sbatch --tasks runs/a
    refuses 'write --kv=BITS' slurm/eval.sbatch --tasks=t --kv='4 hqq' runs/a
    refuses 'this script sets it' slurm/eval.sbatch --tasks=t --kv-bits=4 runs/a
    refuses 'this script sets it' slurm/eval.sbatch --tasks=t --out=x runs/a
    refuses 'give the run directories' slurm/eval.sbatch --tasks=t --kv=4
}

test_submit_refuses_what_it_cannot_do() {
    refuses 'give a config that exists' slurm/submit.sh
    refuses 'give a config that exists' slurm/submit.sh configs/missing.yaml 16
    refuses 'give a config that exists' slurm/submit.sh configs/demo.yaml
    LIST_STATUS=2 refuses 'error: sweep: a mistake' slurm/submit.sh configs/demo.yaml --optim.lr=1e-4
    refuses "'16x' is neither" slurm/submit.sh configs/demo.yaml 16x
    refuses "'--task=1' is not for a sweep of jobs" slurm/submit.sh configs/demo.yaml 16 --task=1
    refuses '--at-once=N limits it' slurm/submit.sh --array=0-1 configs/demo.yaml 16
    refuses 'give a number' slurm/submit.sh --at-once=two configs/demo.yaml 16
    refuses '--option=value' slurm/submit.sh -N 4 configs/demo.yaml 16
    MHA2MLA=missing refuses 'no program missing' slurm/submit.sh configs/demo.yaml 16
}

test_submit_hands_the_program_of_its_tree_to_the_jobs() {
    run 0 slurm/submit.sh configs/demo.yaml 16
    [ "$(<"$work/calls.program")" = "$tree/build/release/mha2mla" ] ||
        fail "the jobs get $(<"$work/calls.program")"
}

test_submit_says_which_part_was_not_submitted() {
    FAILING=sweep.sbatch run 2 slurm/submit.sh configs/demo.yaml 16
    grep -q 'the sweep is not submitted' "$work/out" || fail 'the failed sweep is not named'
    FAILING=compare.sbatch run 2 slurm/submit.sh configs/demo.yaml 16
    grep -q 'the sweep is job 1, but' "$work/out" || fail 'the submitted sweep is not named'
}

test_a_saved_run_is_requeued() {
    SLURM_JOB_ID=7 STATUS=75 run 75 slurm/train.sbatch configs/demo.yaml
    tail -n 1 "$work/calls" | grep -qx 'scontrol requeue 7' || fail 'it is not requeued'
    for status in 1 2 137; do
        SLURM_JOB_ID=7 STATUS=$status run $status slurm/train.sbatch configs/demo.yaml
        [ "$(wc -l <"$work/calls")" -eq 1 ] || fail "requeued after status $status"
    done
}

# The array's last task has the array's own job id, by which scontrol would requeue all of it.
test_only_the_task_itself_is_requeued() {
    SLURM_JOB_ID=7 SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=1 STATUS=75 \
        run 75 slurm/sweep.sbatch configs/demo.yaml 16
    tail -n 1 "$work/calls" | grep -qx 'scontrol requeue 7_1' || fail 'it requeues something else'
    mkdir -p "$tree/runs/a/model"
    : >"$tree/runs/a/model/config.json"
    SLURM_JOB_ID=7 SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=0 STATUS=75 \
        run 75 slurm/eval.sbatch --tasks=t runs/a
    tail -n 1 "$work/calls" | grep -qx 'scontrol requeue 7_0' || fail 'an evaluation is not requeued'
}

test_a_cancelled_run_is_not_requeued() {
    SLURM_JOB_ID=7 STATUS=75 STATE=COMPLETING run 75 slurm/train.sbatch configs/demo.yaml
    if grep -q scontrol "$work/calls"; then fail 'it is requeued'; fi
    grep -q 'not requeued, it is COMPLETING' "$work/out" || fail 'it does not say why'
}

test_where_requeueing_is_forbidden_the_cure_is_named() {
    SLURM_JOB_ID=7 STATUS=75 SCONTROL_STATUS=1 run 75 slurm/train.sbatch configs/demo.yaml
    grep -q 'give the same sbatch command again' "$work/out" || fail 'the cure is not named'
}

test_jobs_refuse_wrong_words() {
    refuses 'give a config' slurm/train.sbatch
    refuses 'give a config' slurm/train.sbatch configs/missing.yaml
    MHA2MLA=missing refuses 'no program missing' slurm/train.sbatch configs/demo.yaml
    refuses "'16x' is neither" slurm/sweep.sbatch configs/demo.yaml 16x
    refuses 'give the run directories' slurm/compare.sbatch
    refuses 'no run directory runs/missing' slurm/compare.sbatch runs/missing --out table
}

test_installed_scripts_find_the_program() {
    local tree="$work/a project" scripts="$work/prefix/share/mha2mla/slurm"
    run 0 "$scripts/submit.sh" configs/demo.yaml 16
    [ "$(<"$work/calls.program")" = "$work/prefix/bin/mha2mla" ] ||
        fail "the jobs get $(<"$work/calls.program")"
    grep -qF "$scripts/sweep.sbatch configs/demo.yaml 16" "$work/calls" || fail 'another sweep'
    MHA2MLA=$work/prefix/bin/mha2mla SLURM_ARRAY_TASK_ID=0 \
        run 0 "$scripts/sweep.sbatch" configs/demo.yaml 16
    grep -qF "$work/prefix/bin/mha2mla sweep configs/demo.yaml --d-kv=16 --baseline --task=0" \
        "$work/calls" || fail 'the sweep starts something else'
    mkdir -p "$tree/runs/a/model"
    : >"$tree/runs/a/model/config.json"
    MHA2MLA=$work/prefix/bin/mha2mla SLURM_ARRAY_TASK_ID=0 \
        run 0 "$scripts/eval.sbatch" --tasks=t runs/a
    grep -qF "$work/prefix/bin/mha2mla eval runs/a/model --tasks=t" "$work/calls" ||
        fail 'eval.sbatch starts something else'
    PATH=$work/prefix/bin:$PATH run 0 "$scripts/train.sbatch" configs/demo.yaml
    grep -qF "$work/prefix/bin/mha2mla train configs/demo.yaml" "$work/calls" ||
        fail 'train.sbatch does not start the program on the PATH'
    PATH=$work/prefix/bin:$PATH run 0 "$scripts/compare.sbatch" configs
    grep -qF "$work/prefix/bin/mha2mla compare configs" "$work/calls" ||
        fail 'compare.sbatch does not start the program on the PATH'
    PATH=$work/prefix/bin:$PATH SLURM_ARRAY_TASK_ID=1 \
        run 0 "$scripts/sweep.sbatch" configs/demo.yaml 16
    grep -qF "$work/prefix/bin/mha2mla sweep configs/demo.yaml --d-kv=16 --baseline --task=1" \
        "$work/calls" || fail 'the sweep does not start the program on the PATH'
}

# A PATH with the commands that the scripts need and no program.
test_scripts_without_a_program_say_so() {
    local tree="$work/a project" scripts="$work/prefix/share/mha2mla/slurm" few="$work/few" command
    mkdir "$few"
    for command in bash basename dirname grep wc cat; do
        ln -s "$(command -v "$command")" "$few/"
    done
    PATH=$few refuses 'no mha2mla on the PATH' "$scripts/train.sbatch" configs/demo.yaml
    PATH=$few refuses 'no mha2mla on the PATH' "$scripts/compare.sbatch" configs
    PATH=$few refuses 'none beside the program' "$scripts/sweep.sbatch" configs/demo.yaml 16
    rm "$work/prefix/bin/mha2mla"
    PATH=$few refuses 'no mha2mla on the PATH' "$scripts/submit.sh" configs/demo.yaml 16
}

make_tree
test_a_sweep_is_submitted_with_its_comparison
test_evaluations_are_between_the_sweep_and_the_comparison
test_each_task_of_an_array_is_one_evaluation
test_submit_refuses_what_it_cannot_do
test_submit_hands_the_program_of_its_tree_to_the_jobs
test_submit_says_which_part_was_not_submitted
test_a_saved_run_is_requeued
test_only_the_task_itself_is_requeued
test_a_cancelled_run_is_not_requeued
test_where_requeueing_is_forbidden_the_cure_is_named
test_jobs_refuse_wrong_words
test_installed_scripts_find_the_program
test_scripts_without_a_program_say_so
