#!/bin/bash
# Submits the sweep and, to follow it, the comparison. From the project's root:
#
#     slurm/submit.sh configs/demo.yaml 16 8 4
#     slurm/submit.sh --partition=cpu --nodes=4 configs/demo.yaml 16 8 4 --train.steps=300
#
# What comes before the config goes to sbatch, written as --option=value; what comes after is
# explained in sweep.sbatch. --at-once=N lets N runs of the sweep go on at a time. The runs go to
# the folder runs, or to that of --run.dir=DIR. The comparison is cancelled if one of them fails.
set -euo pipefail
fail() {
    echo "submit.sh: $*" >&2
    exit 2
}

for_sweep=()
for_both=()
at_once=
while [[ ${1:-} == -* ]]; do
    case $1 in
    --at-once=*[!0-9]* | --at-once= | --at-once=0) fail "'$1': give a number from 1 on" ;;
    --at-once=*) at_once=%${1#*=} ;;
    --array=*) fail "'$1': the array follows from the values of d_kv; --at-once=N limits it" ;;
    --partition=* | --account=* | --qos=* | --reservation=* | --constraint=*) for_both+=("$1") ;;
    --?*) for_sweep+=("$1") ;;
    *) fail "'$1': write sbatch's options as --option=value" ;;
    esac
    shift
done
if [ $# -lt 2 ] || [ ! -f "$1" ]; then
    fail "give a config that exists, seen from $PWD, and values of d_kv:" \
        "slurm/submit.sh [--sbatch-option=value...] CONFIG D_KV..."
fi
[ -f slurm/sweep.sbatch ] ||
    fail "no slurm/sweep.sbatch, seen from $PWD: start it in the project's root"
mha2mla=${MHA2MLA:-build/release/mha2mla}
[ -x "$mha2mla" ] || fail "no program $mha2mla, seen from $PWD: build it or set MHA2MLA"

config=$1
shift
name=$(basename -- "$config")
name=${name%.*}
d_kvs=()
names=("$name-baseline")
overrides=()
run_dir=runs
for word in "$@"; do
    case $word in
    --run.name=*) fail "'$word' would give all runs one name: they are named after the config" ;;
    --run.dir=) fail "'$word' names no folder" ;;
    --run.dir=*) run_dir=${word#*=} ;;
    --*) overrides+=("$word") ;;
    *[!0-9]* | "") fail "'$word' is neither a d_kv nor an override (--section.key=value)" ;;
    *)
        d_kvs+=("$word")
        names+=("$name-dkv$word")
        ;;
    esac
done
[ "${#d_kvs[@]}" -gt 0 ] || fail "give at least one d_kv after the config"
overrides+=("--run.dir=$run_dir")

options=(--parsable ${for_both[@]+"${for_both[@]}"})
sweep=$(sbatch "${options[@]}" ${for_sweep[@]+"${for_sweep[@]}"} \
    "--array=0-${#d_kvs[@]}$at_once" slurm/sweep.sbatch "$config" "${d_kvs[@]}" \
    "${overrides[@]}") || fail "the sweep is not submitted"
sweep=${sweep%%;*}
echo "job $sweep: ${#names[@]} runs into $run_dir: ${names[*]}"
comparison=$(sbatch "${options[@]}" "--dependency=afterok:$sweep" --kill-on-invalid-dep=yes \
    slurm/compare.sbatch "${names[@]/#/$run_dir/}") ||
    fail "the sweep is job $sweep, but its comparison is not submitted"
comparison=${comparison%%;*}
echo "job $comparison: compares them when all are done, in mha2mla-compare-$comparison.log"
