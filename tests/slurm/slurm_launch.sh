#!/usr/bin/env bash
# How a job of several ranks may be started on a Slurm cluster (tests/support/slurm_cluster.sh): by
# srun --mpi=pmix and by mpirun. Tasks of srun that do not find each other are refused, instead of
# doing the same work several times; a batch script that starts one process is not.
set -euo pipefail
tests=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
if [ -z "${SLURM_CLUSTER:-}" ]; then
    exec "$tests/support/slurm_cluster.sh" bash "$tests/slurm/slurm_launch.sh" "$1"
fi
. "$tests/support/slurm_jobs.sh" "$1"

# launch NAME LINE: a batch job of four tasks on two nodes that runs this line of shell; its output is
# in NAME.log, its status in $got.
launch() {
    local name=$1
    printf '%s\n' '#!/bin/bash' "cd '$work'" "$2" >"$name.sh"
    got=0
    sbatch --wait --nodes=2 --ntasks-per-node=2 --output="$name.log" "$name.sh" >submitted || got=$?
}

test_tasks_without_pmix_are_refused() {
    launch alone "srun --mpi=none '$mha2mla' train config.yaml --run.name=alone"
    [ "$got" -eq 2 ] || die "status $got: $(cat alone.log)"
    [ "$(grep -c '^mha2mla: ' alone.log)" -eq 1 ] || die "not one line: $(cat alone.log)"
    grep -qx 'mha2mla: error: started by srun as 1 of 4 tasks, but MPI sees one rank: use srun --mpi=pmix' \
        alone.log || die "another text: $(cat alone.log)"
    [ ! -e runs/alone ] || die "it made $(ls runs/alone)"
}

# expect_ranks NAME RANKS LINE: the line runs a job on so many ranks.
expect_ranks() {
    launch "$1" "$3 '$mha2mla' train config.yaml --train.micro_batch=1 --run.name=$1"
    [ "$got" -eq 0 ] || die "$3: status $got: $(cat "$1.log")"
    ! grep -q warning: "$1.log" || die "$3: $(cat "$1.log")" # the ranks share a directory
    grep -q "\"ranks\": $2," "runs/$1/run.json" || die "$3: not $2 ranks: $(cat "runs/$1/run.json")"
}

test_the_ways_that_work() {
    expect_ranks pmix 4 'srun --mpi=pmix'
    expect_ranks mpirun 4 'mpirun --allow-run-as-root --bind-to none'
    expect_ranks one-of-mpirun 1 'mpirun --allow-run-as-root --bind-to none -n 1'
    expect_ranks one-process 1 ''
}

make_project
test_tasks_without_pmix_are_refused
test_the_ways_that_work
