#!/usr/bin/env bash
# The job scripts on a Slurm cluster of two nodes (tests/support/slurm_cluster.sh): one run, the
# sweep, its evaluation and its comparison, from the project's root and from an installation.
set -euo pipefail
tests=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
if [ -z "${SLURM_CLUSTER:-}" ]; then
    exec "$tests/support/slurm_cluster.sh" bash "$tests/slurm/slurm_run.sh" "$1"
fi
. "$tests/support/slurm_jobs.sh" "$1"

test_a_run_on_two_nodes() {
    local job
    job=$(submit slurm/train.sbatch config.yaml --run.name=single)
    expect "$job" COMPLETED
    [ "$(field step runs/single/metrics.jsonl | tail -n 1)" -eq 4 ] ||
        job_failed "$job" 'not 4 steps'
    grep -q '"ranks": 2' runs/single/run.json || job_failed "$job" 'not 2 ranks'
    grep -q 'NodeList=n\[1-2\]' <(scontrol show job "$job") || job_failed "$job" 'not on both nodes'
}

test_a_wrong_config_is_not_requeued() {
    local job
    job=$(submit slurm/train.sbatch config.yaml --run.name=wrong --train.stops=4)
    expect "$job" FAILED
    grep -q 'ExitCode=2:0' <(scontrol show job "$job") || job_failed "$job" 'another exit status'
    grep -q 'Restarts=0' <(scontrol show job "$job") || job_failed "$job" 'it was requeued'
}

test_the_sweep_ends_in_the_comparison() {
    local sweep evaluations comparison run
    mkdir tasks
    printf '{"goal": "open a jar", "sol1": "turn the lid", "sol2": "eat it", "label": %d}\n' 0 1 0 \
        >tasks/piqa.jsonl
    slurm/submit.sh "${small[@]}" --eval --tasks=tasks --kv=32 --kv=4 -- config.yaml 6 \
        --vary=model.convert.svd=joint,split --train.steps=2 >submitted
    read -r sweep evaluations comparison < <(submitted_jobs)
    expect "$sweep" COMPLETED
    expect "$evaluations" COMPLETED
    expect "$comparison" COMPLETED
    for run in config-baseline config-dkv6-svd-joint config-dkv6-svd-split; do
        grep -q "$run" "mha2mla-compare-$comparison.log" || job_failed "$comparison" "no $run"
        grep -q '"piqa"' "runs/$run/eval-tasks-kv32.json" "runs/$run/eval-tasks-kv4.json" ||
            job_failed "$evaluations" "$run is not evaluated"
    done
    grep -q piqa "mha2mla-compare-$comparison.log" || job_failed "$comparison" 'no scores'
}

# What is evaluated already is not again.
test_an_evaluation_is_made_once() {
    local job
    cp -p runs/config-baseline/eval-tasks-kv4.json before
    job=$(submit --array=1 slurm/eval.sbatch --tasks=tasks --kv=32 --kv=4 runs/config-baseline)
    expect "$job" COMPLETED
    grep -q 'nothing to do' "mha2mla-eval-${job}_1.log" || job_failed "$job" 'it evaluates again'
    cmp before runs/config-baseline/eval-tasks-kv4.json
}

# Files where `cmake --install` puts them, used from a folder that has no scripts and no program.
test_an_installation_runs_from_any_folder() (
    mkdir -p prefix/bin prefix/share/mha2mla elsewhere
    cp "$mha2mla" prefix/bin/mha2mla
    cp -r slurm prefix/share/mha2mla/
    cd elsewhere
    ln -s ../base ../train.h5 ../valid.h5 ../config.yaml .
    unset MHA2MLA
    ../prefix/share/mha2mla/slurm/submit.sh "${small[@]}" config.yaml 6 --train.steps=1 >submitted
    read -r sweep comparison < <(submitted_jobs)
    expect "$sweep" COMPLETED
    expect "$comparison" COMPLETED
    grep -q 'config-dkv6' "mha2mla-compare-$comparison.log" || job_failed "$comparison" 'no table'
    PATH=$work/prefix/bin:$PATH
    job=$(submit ../prefix/share/mha2mla/slurm/train.sbatch config.yaml --train.steps=1)
    expect "$job" COMPLETED
)

# A file where the run's checkpoints belong is found by its task alone.
test_a_failed_task_cancels_the_comparison() {
    local sweep comparison
    mkdir -p failing/config-dkv6
    : >failing/config-dkv6/checkpoints
    slurm/submit.sh "${small[@]}" config.yaml 6 4 --train.steps=1 --run.dir=failing >submitted
    read -r sweep comparison < <(submitted_jobs)
    expect "$sweep" COMPLETED FAILED
    expect "$comparison" CANCELLED
    [ -e failing/config-dkv4/model ] || job_failed "$sweep" 'the task beside did not finish'
}

make_project
test_a_run_on_two_nodes
test_a_wrong_config_is_not_requeued
test_the_sweep_ends_in_the_comparison
test_an_evaluation_is_made_once
test_an_installation_runs_from_any_folder
test_a_failed_task_cancels_the_comparison
