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
. "$tests/support/background_runs.sh"

long=(--train.steps=60 --checkpoint.every=5)

# The program of the jobs. The first start of a run NAME waits at the step in hold/NAME until it gets
# a signal, so that the run is interrupted there, however quick or slow the machine is.
cat >holding <<END
#!/bin/bash
for word; do
    case \$word in --run.name=*) name=\${word#*=} ;; --task=1) name=config-dkv6 ;; esac
done
if [ -z "\${SLURM_RESTART_COUNT:-}" ] && [ -e "$work/hold/\${name:-}" ]; then
    export LD_PRELOAD=$work/fault_shim.so TORTURE_FAULT=WAIT TORTURE_AT=1
    export TORTURE_UNDER=/metrics.jsonl TORTURE_TEXT="\"step\":\$(<"$work/hold/\$name"),.*\"loss\""
    export TORTURE_FIRED="$work/held-\$name"
fi
exec "$mha2mla" "\$@"
END
chmod +x holding
export MHA2MLA=$PWD/holding

# hold NAME STEP: before the run is submitted.
hold() {
    mkdir -p hold
    echo "$2" >"hold/$1"
}

job_is_held() {
    [ -s "held-$1" ] && ls runs/"$1"/checkpoints/step-*/manifest.json >checkpoints 2>&1
}

# until_job_is_held JOB NAME: until the run waits at its step and has a checkpoint.
until_job_is_held() {
    local deadline=$((SECONDS + 600))
    until job_is_held "$2"; do
        [ $SECONDS -lt $deadline ] || job_failed "$1" "$2 is not at step $(<"hold/$2") after 600 s"
        sleep 0.1
    done
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

# The job runs on one node, so that the next tests do not disturb it. Its limit is moved when it is
# held: then three to four minutes are left, of which the warning is for the last four. Slurm checks
# time limits every 30 s.
start_a_job_that_meets_its_time_limit() {
    local started
    hold limited 8
    limited=$(submit --nodes=1 --nodelist=n1 --time=60 --signal=USR1@240 \
        slurm/train.sbatch config.yaml --run.name=limited "${long[@]}")
    until_job_is_held "$limited" limited
    started=$(date -d "$(squeue --noheader --jobs="$limited" --format=%S)" +%s)
    scontrol update jobid="$limited" timelimit=$((($(date +%s) - started) / 60 + 4))
}

test_a_job_of_higher_priority_takes_the_nodes() {
    hold preempted 8
    preempted=$(submit slurm/train.sbatch config.yaml --run.name=preempted "${long[@]}")
    until_job_is_held "$preempted" preempted
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
    hold config-dkv6 8
    slurm/submit.sh "${small[@]}" config.yaml 6 "${long[@]}" >submitted
    read -r sweep comparison < <(submitted_jobs)
    until_job_is_held "$sweep" config-dkv6
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
    hold crashed 40
    job=$(submit slurm/train.sbatch config.yaml --run.name=crashed "${long[@]}")
    until_job_is_held "$job" crashed
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
    # More than once if the job, started again with the same limit, meets it again.
    [ "$(restarts "$limited")" -ge 1 ] || job_failed "$limited" 'it was not requeued'
    expect_bits "$limited" runs/limited
}

make_project
make_fault_shim
"$mha2mla" train config.yaml --run.name=whole "${long[@]}" >out 2>&1 || die "whole: $(cat out)"
start_a_job_that_meets_its_time_limit
test_a_job_of_higher_priority_takes_the_nodes
test_a_task_of_the_sweep_is_signalled
expect_the_preempted_job_to_finish
test_a_node_loses_its_power
test_the_time_limit_comes_near
