#!/usr/bin/env bash
# Runs that Slurm interrupts, on a cluster of two nodes (tests/support/slurm_cluster.sh): by a
# signal, a job of higher priority, the time limit, and a node that loses its power. Each is
# requeued, resumes, and ends with the bits of an uninterrupted run.
set -euo pipefail
tests=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
if [ -z "${SLURM_CLUSTER:-}" ]; then
    exec "$tests/support/slurm_cluster.sh" bash "$tests/slurm/slurm_requeue.sh" "$1"
fi
. "$tests/support/slurm_jobs.sh" "$1"

# Long enough that a quick machine does not end a run before it is interrupted.
long=(--train.steps=1500 --checkpoint.every=30)

# wait_for_step JOB RUN STEP: until the run has taken this step.
wait_for_step() {
    local deadline=$((SECONDS + 150)) step=
    until [ "${step:-0}" -ge "$3" ]; do
        [ $SECONDS -lt $deadline ] || job_failed "$1" "$2 is not at step $3 after 150 s"
        sleep 0.1
        step=$(tail -n 1 "$2/metrics.jsonl" 2>/dev/null | grep -oE '"step":[0-9]+' | cut -d: -f2) ||
            true
    done
    [ "$step" -lt 1500 ] || job_failed "$1" "$2 was too quick to be interrupted"
}

# restarts JOB: how often Slurm has started it again.
restarts() {
    scontrol show job "$1" | grep -oE 'Restarts=[0-9]+' | cut -d= -f2
}

# expect_bits JOB RUN: the run was resumed from a checkpoint and has the bits of the uninterrupted
# one.
expect_bits() {
    tr -d ' \n' <"$2/run.json" | grep -q '"resumed_steps":\[[1-9]' ||
        job_failed "$1" 'it began anew'
    "$mha2mla" compare --assert-equal runs/whole "$2" >out 2>&1 || job_failed "$1" "$(cat out)"
    cmp -s "$2/model/model.safetensors" runs/whole/model/model.safetensors ||
        job_failed "$1" 'another model'
}

# The job runs on one node, so that the next tests do not disturb it. Slurm checks time limits every
# 30 s, and so small a run would be over by then: after the job's first start the program is stopped
# (SIGSTOP) until the signal arrives.
start_a_job_that_meets_its_time_limit() {
    cat >resting <<END
#!/bin/bash
[ -z "\${SLURM_RESTART_COUNT:-}" ] || exec "$mha2mla" "\$@"
"$mha2mla" "\$@" &
pid=\$!
trap 'kill -CONT \$pid; kill -USR1 \$pid' USR1
until grep -q '"loss"' runs/limited/metrics.jsonl 2>/dev/null; do sleep 0.1; done
kill -STOP \$pid
while kill -0 \$pid 2>/dev/null; do
    wait \$pid
    status=\$?
done
exit \$status
END
    chmod +x resting
    limited=$(MHA2MLA=$PWD/resting submit --nodes=1 --nodelist=n1 --time=1 --signal=USR1@50 \
        slurm/train.sbatch config.yaml --run.name=limited "${long[@]}")
}

test_a_job_of_higher_priority_takes_the_nodes() {
    preempted=$(submit slurm/train.sbatch config.yaml --run.name=preempted "${long[@]}")
    wait_for_step "$preempted" runs/preempted 10
    srun --quiet --partition=urgent --nodelist=n2 --cpus-per-task=4 true
    [ "$(restarts "$preempted")" = 1 ] || job_failed "$preempted" 'it was not preempted'
    # The job continues during the next test; expect_the_preempted_job_to_finish checks it.
}

expect_the_preempted_job_to_finish() {
    expect "$preempted" COMPLETED
    expect_bits "$preempted" runs/preempted
}

# The array's last task has the job id of the whole array: the other task must not be requeued. The
# comparison waits for the requeued task.
test_a_task_of_the_sweep_is_signalled() {
    local sweep comparison
    slurm/submit.sh "${small[@]}" config.yaml 6 "${long[@]}" >submitted
    read -r sweep comparison < <(submitted_jobs)
    wait_for_step "$sweep" runs/config-dkv6 10
    scancel --signal=USR1 "${sweep}_1"
    expect "$sweep" COMPLETED
    expect "$comparison" COMPLETED
    [ "$(restarts "${sweep}_1")" = 1 ] || job_failed "$sweep" 'task 1 was not requeued'
    [ "$(restarts "${sweep}_0")" = 0 ] || job_failed "$sweep" 'task 0 was requeued, too'
    expect_bits "$sweep" runs/config-dkv6
    grep -q config-dkv6 "mha2mla-compare-$comparison.log" || job_failed "$comparison" 'no table'
}

# Slurm would notice after half a minute. The test tells it at once, as a site's monitoring does.
test_a_node_loses_its_power() {
    local job
    job=$(submit slurm/train.sbatch config.yaml --run.name=crashed "${long[@]}")
    wait_for_step "$job" runs/crashed 40
    "$SLURM_CLUSTER" --crash n2
    scontrol update nodename=n2 state=down reason=power
    wait_for_states "$job" PENDING
    "$SLURM_CLUSTER" --boot n2
    expect "$job" COMPLETED
    [ "$(restarts "$job")" = 1 ] || job_failed "$job" 'it was not requeued'
    expect_bits "$job" runs/crashed
}

test_the_time_limit_comes_near() {
    expect "$limited" COMPLETED
    [ "$(restarts "$limited")" = 1 ] || job_failed "$limited" 'it was not requeued'
    expect_bits "$limited" runs/limited
}

make_project
"$mha2mla" train config.yaml --run.name=whole "${long[@]}" >out 2>&1 || die "whole: $(cat out)"
start_a_job_that_meets_its_time_limit
test_a_job_of_higher_priority_takes_the_nodes
test_a_task_of_the_sweep_is_signalled
expect_the_preempted_job_to_finish
test_a_node_loses_its_power
test_the_time_limit_comes_near
