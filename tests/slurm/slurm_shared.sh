#!/usr/bin/env bash
# Ranks on two hosts (tests/support/slurm_cluster.sh) share one copy of the parameters per host,
# however they are distributed. Where the hosts have different numbers of ranks, every rank has a
# copy of its own. The bits are those of a run on one rank.
set -euo pipefail
tests=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
if [ -z "${SLURM_CLUSTER:-}" ]; then
    exec "$tests/support/slurm_cluster.sh" bash "$tests/slurm/slurm_shared.sh" "$1"
fi
. "$tests/support/slurm_jobs.sh" "$1"
. "$tests/support/background_runs.sh"

# on_hosts NAME WORDS TEXT ARGUMENTS...: a run by srun with these words, which must print TEXT.
on_hosts() {
    local name=$1 words=$2 text=$3
    shift 3
    # shellcheck disable=SC2086 # several words
    timeout 600 srun --mpi=pmix --nodes=2 $words "$mha2mla" train config.yaml --run.name="$name" \
        "$@" >out 2>&1 || die "$name: status $?: $(tail -n 5 out)"
    grep -qF -- "$text" out || die "$name does not say '$text': $(cat out)"
    same_run "$name" one
}

make_project
sed -i 's/steps: 4, global_batch: 4, micro_batch: 2/steps: 12, global_batch: 12, micro_batch: 2/' \
    config.yaml
"$mha2mla" train config.yaml --run.name=one >out 2>&1 || die "one: $(cat out)"
on_hosts block '--ntasks-per-node=3 --distribution=block' 'parameters (shared by 3 ranks)'
on_hosts cyclic '--ntasks-per-node=2 --distribution=cyclic' 'parameters (shared by 2 ranks)'
on_hosts blocking '--ntasks-per-node=2' 'parameters (shared by 2 ranks)' --train.overlap=false
on_hosts uneven '--ntasks=3' 'every rank keeps its own parameters: 1 to 2 ranks of a host'
