#!/bin/bash
# Submits a sweep and the comparison that follows it, with evaluations between them if asked:
#
#     slurm/submit.sh configs/demo.yaml 16 8 4
#     slurm/submit.sh configs/demo.yaml --vary=model.convert.rope=high,low,uniform,2-norm
#     slurm/submit.sh --partition=cpu --nodes=4 configs/demo.yaml 16 8 4 --train.steps=300
#     slurm/submit.sh --eval --tasks=DIR --kv=16 --kv=4 -- configs/demo.yaml 16 8 4
#
# Words before the config go to sbatch and are written as --option=value; words after it are
# explained in sweep.sbatch, those between --eval and -- in eval.sbatch. With --at-once=N at most N
# runs or evaluations go on at the same time. All runs are checked before anything is submitted. If
# one of them fails later, Slurm cancels the evaluations and the comparison; if an evaluation fails,
# the comparison is made without it.
#
# The jobs start the program that MHA2MLA names, or else the one built or installed together with
# this script, or else the mha2mla on the PATH. This script asks the same program for the runs.
set -euo pipefail
fail() {
    echo "submit.sh: $*" >&2
    exit 2
}
here=$(dirname -- "${BASH_SOURCE[0]}")

# find_program: sets and exports MHA2MLA, an absolute path that the jobs read.
find_program() {
    local candidate=${MHA2MLA:-}
    if [ -z "$candidate" ]; then
        for candidate in "$here/../build/release/mha2mla" "$here/../../../bin/mha2mla" \
            "$(command -v mha2mla || true)"; do
            [ ! -x "$candidate" ] || break
        done
        [ -x "$candidate" ] || fail "no program beside $here and no mha2mla on the PATH: build or" \
            "install it, or set MHA2MLA to its path"
    fi
    [ -x "$candidate" ] || fail "no program $candidate, seen from $PWD: set MHA2MLA to its path"
    MHA2MLA=$(realpath -- "$candidate")
    export MHA2MLA
}

for_sweep=()
for_both=()
at_once=
evaluation=() # words of eval.sbatch
while [[ ${1:-} == -* ]]; do
    case $1 in
    --at-once=*[!0-9]* | --at-once= | --at-once=0) fail "'$1': give a number from 1 on" ;;
    --at-once=*) at_once=%${1#*=} ;;
    --eval)
        while shift && [ $# -gt 0 ] && [ "$1" != -- ]; do evaluation+=("$1"); done
        if [ $# -eq 0 ] || [ "${#evaluation[@]}" -eq 0 ]; then
            fail "write what to evaluate, then --, as in --eval --tasks=DIR -- CONFIG"
        fi
        ;;
    --array=*) fail "'$1': the array follows from the values; --at-once=N limits it" ;;
    --partition=* | --account=* | --qos=* | --reservation=* | --constraint=*) for_both+=("$1") ;;
    --?*) for_sweep+=("$1") ;;
    *) fail "'$1': write sbatch's options as --option=value" ;;
    esac
    shift
done
if [ $# -lt 2 ] || [ ! -f "$1" ]; then
    fail "give a config that exists, seen from $PWD, and values to vary:" \
        "slurm/submit.sh [--sbatch-option=value...] CONFIG [D_KV...] [--vary=KEY=VALUE,...]"
fi
find_program

config=$1
shift
d_kvs=
others=()
for word in "$@"; do
    case $word in
    --list | --slurm | --submit | --task* | --out*) fail "'$word' is not for a sweep of jobs" ;;
    --*) others+=("$word") ;;
    *[!0-9]* | "") fail "'$word' is neither a d_kv nor an option (--vary=..., --section.key=value)" ;;
    *) d_kvs=${d_kvs:+$d_kvs,}$word ;;
    esac
done
# One directory a line, the baseline's first. The program itself says what is wrong.
list=$("$MHA2MLA" sweep "$config" ${d_kvs:+"--d-kv=$d_kvs"} --baseline \
    ${others[@]+"${others[@]}"} --list) || exit $?
mapfile -t runs <<<"$list"
n_evaluations=0
if [ "${#evaluation[@]}" -gt 0 ]; then
    n_evaluations=$(bash "$here/eval.sbatch" --count "${evaluation[@]}" "${runs[@]}") || exit $?
fi

options=(--parsable ${for_both[@]+"${for_both[@]}"})
sweep=$(sbatch "${options[@]}" ${for_sweep[@]+"${for_sweep[@]}"} \
    "--array=0-$((${#runs[@]} - 1))$at_once" "$here/sweep.sbatch" "$config" "$@") ||
    fail "the sweep is not submitted"
sweep=${sweep%%;*}
echo "job $sweep: ${#runs[@]} runs: ${runs[*]}"
after=afterok:$sweep
if [ "$n_evaluations" -gt 0 ]; then
    evaluations=$(sbatch "${options[@]}" ${for_sweep[@]+"${for_sweep[@]}"} "--dependency=$after" \
        --kill-on-invalid-dep=yes "--array=0-$((n_evaluations - 1))$at_once" "$here/eval.sbatch" \
        "${evaluation[@]}" "${runs[@]}") ||
        fail "the sweep is job $sweep, but its evaluation is not submitted"
    evaluations=${evaluations%%;*}
    echo "job $evaluations: $n_evaluations evaluations of the runs when all have finished"
    after=$after,afterany:$evaluations
fi
comparison=$(sbatch "${options[@]}" "--dependency=$after" --kill-on-invalid-dep=yes \
    "$here/compare.sbatch" "${runs[@]}") ||
    fail "the sweep is job $sweep, but its comparison is not submitted"
comparison=${comparison%%;*}
echo "job $comparison: compares the runs when all have finished, in" \
    "mha2mla-compare-$comparison.log"
