#!/usr/bin/env bash
# Parameters that ranks share: one copy for all ranks of a host, one for two ranks as on several
# hosts, or one for each rank give the same bits, also where a run is resumed with another number of
# copies; messages where there is no room or the ranks cannot be divided; /dev/shm is left empty.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
. "$root/tests/support/background_runs.sh"

start_small_runs 'log: {every: 1}'

# says_shared N: the plan has the parameters as shared by N ranks.
says_shared() {
    if [ "$1" = 1 ]; then
        ! grep -q 'shared by' out
    else
        grep -q "parameters (shared by $1 ranks)" out
    fi || die "not shared by $1: $(cat out)"
}

ranks 1 $mla --run.name=one
says_shared 1
for copies in '2 0 2' '4 0 4' '4 2 2' '4 1 1' '4 3 1'; do
    set -- $copies
    for overlap in true false; do
        run=n$1-copy$2-$overlap
        ranks $1 $mla --run.name=$run --train.ranks_per_copy=$2 --train.overlap=$overlap
        says_shared $3
        [ "$(grep -c 'every rank keeps its own parameters' out)" = $((${2} == 3)) ] ||
            die "$run said: $(cat out)"
        same_run $run one
    done
done

# Skipped updates; a baseline; a model converted before, whose RoPE pairs are in its files.
"$mha2mla" convert runs/start/model --out mla --rope uniform --rope-pairs 2 --d-kv 6 >/dev/null
ranks 3 convert runs/start/model --out mla-of-3 --rope uniform --rope-pairs 2 --d-kv 6
cmp mla/model.safetensors mla-of-3/model.safetensors || die 'convert on 3 ranks: another model'
# others NAME ARGUMENTS...: the same for another kind of run.
others() {
    local name=$1 copy
    shift
    ranks 1 train config.yaml "$@" --run.name="$name-1"
    for copy in 0 2; do
        ranks 4 train config.yaml "$@" --run.name="$name-$copy" --train.ranks_per_copy=$copy
        same_run "$name-$copy" "$name-1"
    done
}
others skipped --train.skip_spikes=1.01 --train.spike_window=1
grep -q '"skipped":true' runs/skipped-1/metrics.jsonl || die 'no update is skipped'
others baseline --data.validation=none
others converted --model.init=none --model.base=mla

# Stopped with one number of copies, resumed with another.
for copy in 0 1 2; do
    ranks 4 $mla --run.name=resumed-$copy --train.steps=3 --optim.decay_start=4 \
        --train.ranks_per_copy=$copy
    ranks 4 $mla --run.name=resumed-$copy --resume=require --train.ranks_per_copy=$(((copy + 1) % 3))
    cmp runs/resumed-$copy/model/model.safetensors runs/one/model/model.safetensors ||
        die "resumed-$copy: another model"
done

# An error on the rank that reads for all is printed once and ends all ranks.
cp -r runs/start/model damaged
truncate -s -100 damaged/model.safetensors
ranks_refuse 4 2 'error: damaged/model.safetensors: ' train config.yaml --model.init=none \
    --model.base=damaged --run.name=damaged

# After kill -9 no shared memory stays behind, of what the ranks had.
N_RANKS=4
start_held 3 killed
for pid in $(ranks_of_job | cut -d' ' -f2); do
    awk '$6 ~ "^/dev/shm/" { print $6 }' "/proc/$pid/maps"
done | sort -u >windows
grep -q osc_sm windows || die "no windows of MPI among: $(cat windows)"
signal_ranks KILL
ends_with 137
leaves_nobody
while read -r window; do
    [ ! -e "$window" ] || die "$window is left"
done <windows

# Where a host has no room in /dev/shm a warning is printed and every rank has its own copy.
unshare --mount mount -t tmpfs tmpfs /dev/shm 2>/dev/null || exit 0 # needs root
got=0
unshare --mount sh -c 'mount -t tmpfs -o size=1m tmpfs /dev/shm && OMPI_MCA_btl=tcp,self exec "$@"' \
    sh mpirun -n 2 --oversubscribe --bind-to none "$mha2mla" $mla --run.name=no-room >out 2>&1 ||
    got=$?
[ $got = 0 ] || die "no room: status $got: $(tail out)"
[ "$(grep -c 'warning: every rank keeps its own parameters: .*/dev/shm has 1.0 MiB free' out)" = 1 ] ||
    die "no room: $(cat out)"
same_run no-room one
