#!/usr/bin/env bash
# Trials of a small run under faults, one after the other for as long as it is given:
#
#     tests/torture.sh SECONDS [SEED [PROGRAM]]
#
#     kill   ranks are killed (kill -9) at random moments, in one to three lives of the run
#     aim    a rank is killed at one of its calls on the run's files: before it, after it, or with
#            half of a write done; saves, renames of manifests, exports and starts are all hit
#     torn   files of a run that was killed or has ended are cut, emptied, removed, overwritten
#     errno  calls on the run's files fail: EIO, ENOSPC, EDQUOT, EINTR and others, once or for good
#     clock  the wall clock jumps, on all ranks or on one
#     disk   the run's disk, a small tmpfs, is full (needs root; else skipped and counted)
#
# Each trial is a run of its own on 1 to 4 ranks. Afterwards the same command is given without
# faults, on another number of ranks: the run must end with the bits of an undisturbed one and leave
# nothing behind that does not belong there. While there is a fault the run may refuse, with a line
# that says why; files that were damaged are then put back. Nothing may take longer than LIMIT_S.
#
# Trial i draws from the seed SEED + i, so `tests/torture.sh 1 SEED_OF_TRIAL` repeats it, up to the
# scheduling of processes. Ends with status 1, and keeps the directories, where a trial was lost.
set -euo pipefail
shopt -s nullglob
[ $# -ge 1 ] || {
    echo "usage: ${0##*/} SECONDS [SEED [PROGRAM]]" >&2
    exit 2
}
if [ -z "${TORTURE_NAMESPACE:-}" ] && unshare -m true 2>/dev/null; then
    TORTURE_NAMESPACE=1 exec unshare -m bash "$0" "$@"
fi
can_mount=${TORTURE_NAMESPACE:-}
seconds=$1 first_seed=${2:-$(date +%s)}
here=$(cd -- "$(dirname -- "$0")" && pwd)
. "$here/support/checks.sh" "${3:-$here/../build/release/mha2mla}"
. "$here/support/background_runs.sh"
. "$here/setup.sh"
setup_mpi
export OMPI_MCA_mpi_yield_when_idle=1 # more ranks than cores
LIMIT_S=240 # for a run of a second: a hang, on any machine
N_STEPS=12
EVERY=3 # steps between checkpoints
kinds=(kill aim torn errno aim clock torn errno aim disk)

# ---- random choices ----------------------------------------------------------------------------

# Not in subshells: those have random numbers of their own. draw N: drawn is 0 to N - 1.
seed_choices() {
    RANDOM=$((($1 * 48271 + 11) % 2147483647))
    for _ in 1 2 3 4 5 6 7 8; do draw 2; done
}

draw() {
    drawn=$(((RANDOM * 32768 + RANDOM) % $1))
}

pick() {
    draw $#
    shift "$drawn"
    picked=$1
}

# ---- lives of a run ----------------------------------------------------------------------------

# start_life [NAME=VALUE...]: one start of the trial's run in the background, with these variables
# in the ranks' environment.
start_life() {
    n_lives=$((n_lives + 1))
    log=$trial/life-$n_lives.log
    timeout -k 10 "$LIMIT_S" mpirun -n "$n_ranks" --oversubscribe --bind-to none env "$@" \
        "$mha2mla" train config.yaml --run.dir="$trial/runs" --run.name=run >"$log" 2>&1 \
        </dev/null &
    job=$! life_begun=$SECONDS
}

processes_of_trial() {
    pgrep -f -- "--run.dir=$trial/runs" || true
}

# end_life: sets status; a hang is a loss. Not counted as one is mpirun that has told of a killed rank,
# has no other rank left and does not end: where a rank is killed while it connects, Open MPI 4.1 may
# wait for it for ever.
end_life() {
    status=0
    wait "$job" || status=$?
    [ $((SECONDS - life_begun)) -ge "$LIMIT_S" ] || return 0
    if grep -q '^mpirun noticed that process rank' "$log" && [ -z "$(processes_of_trial)" ]; then
        n_launcher_hangs=$((n_launcher_hangs + 1))
    else
        lose "hangs: no end after $LIMIT_S s: $log"
    fi
}

life() {
    start_life "$@"
    end_life
}

# with_shim NAME=VALUE...: a life with faults by tests/support/fault_shim.c.
with_shim() {
    rm -f "$trial/fired"
    life LD_PRELOAD="$work/fault_shim.so" TORTURE_UNDER="$trial/runs/run" \
        TORTURE_FIRED="$trial/fired" "$@"
}

lose() {
    lost_reason=${lost_reason:-$*}
}

# What a life that had to end early says of it.
check_refusal_text() {
    [ "$status" -eq 0 ] || grep -q '^mha2mla: error: ' "$log" ||
        lose "status $status without a line that says why: $log"
}

last_step() {
    sed -nE 's|^mha2mla: step ([0-9]+)/.*|\1|p' "$1" | tail -n 1
}

# Steps that are trained a second time: those after the checkpoint that the last life resumed from.
count_lost_steps() {
    local before=0 from=0
    [ "$n_lives" -gt 1 ] && before=$(last_step "$trial/life-$((n_lives - 1)).log")
    from=$(sed -nE 's/.*resuming .* from step ([0-9]+),.*/\1/p' "$log")
    ! grep -q ' is finished: ' "$log" || from=$N_STEPS
    n_steps_lost=$((${before:-0} > ${from:-0} ? ${before:-0} - ${from:-0} : 0))
}

# ---- what must hold at the end -----------------------------------------------------------------

check_model() {
    [ "$(sha256sum <"$1/runs/run/model/model.safetensors")" = "$whole_sha256" ]
}

# The same lines, too: compare takes a step that is there twice for one.
check_curve() {
    local what
    for what in step loss grad_norm valid_loss; do
        cmp <(field "$what" "$trial/runs/run/metrics.jsonl") \
            <(field "$what" runs/run/metrics.jsonl) || return 1
    done >"$trial/compare" 2>&1
    "$mha2mla" compare --assert-equal "$trial/runs/run" runs/run >"$trial/compare" 2>&1
}

check_files() {
    local stray own='(config\.yaml|lock|run\.json|metrics\.jsonl)'
    own="$own|model/((config|generation_config|tokenizer|tokenizer_config)\.json|model\.safetensors)"
    own="$own|model/(configuration|modeling)_mha2mla\.py"
    own="$own|checkpoints/step-[0-9]{8}/(manifest\.json|shard-[0-9]{4}\.h5)"
    stray=$(cd "$trial/runs/run" && find . -type f | grep -vE "^\./($own)\$" || true)
    [ -z "$stray" ] || lose "is left behind: $stray"
    [ -s "$trial/runs/run/checkpoints/step-000000$N_STEPS/manifest.json" ] ||
        lose "no checkpoint of the last step"
    [ "$(ls "$trial/runs/run/checkpoints" | wc -l)" -le 2 ] ||
        lose "more checkpoints than checkpoint.keep: $(ls "$trial/runs/run/checkpoints")"
    [ -z "$(processes_of_trial)" ] || lose "processes are left"
}

# finish [no-curve]: the same command without faults, and what must hold then.
finish() {
    draw 4
    n_ranks=$((drawn + 1))
    life NO_FAULT=1
    [ "$status" -eq 0 ] || lose "does not resume: status $status: $log"
    count_lost_steps
    [ "$status" -eq 0 ] || return 0
    check_model "$trial" || lose "another model than the undisturbed run"
    [ "${1-}" = no-curve ] || check_curve || lose "other losses: $(cat "$trial/compare")"
    check_files
}

# ---- the trials --------------------------------------------------------------------------------

# kill -9 at a random moment: of one rank or of all at once, as in a power failure.
trial_kill() {
    local lives i ms whose
    draw 3
    lives=$((drawn + 1))
    for ((i = 0; i < lives; i++)); do
        draw $((whole_ms * 11 / 10))
        ms=$drawn
        draw $((n_ranks + 1))
        whose=$drawn
        start_life NO_FAULT=1
        sleep "$(printf '%d.%03d' $((ms / 1000)) $((ms % 1000)))"
        if [ "$whose" -eq "$n_ranks" ]; then
            signal_ranks KILL || true
        else
            signal_rank KILL "$whose" || true
        fi
        end_life
        [ "$status" -eq 0 ] || struck=1
    done
    finish
    [ "$n_steps_lost" -le $((2 * EVERY)) ] || lose "a kill cost $n_steps_lost steps"
}

# pick_call: one of the calls that an undisturbed run makes on its files, as rank, number and name.
# The kinds of calls are equally likely, however often a run makes them.
pick_call() {
    local class lines
    pick "${classes[@]}"
    class=$picked
    mapfile -t lines < <(awk -v class="$class" '$5 == class' calls)
    pick "${lines[@]}"
    read -r rank number call _ <<<"$picked"
    if [ "$rank" -gt 0 ]; then
        draw "$n_ranks"
        rank=$drawn
    fi
}

trial_aim() {
    pick_call
    pick KILL KILL KILL_AFTER KILL_AFTER KILL_HALF
    with_shim TORTURE_RANK="$rank" TORTURE_AT="$number" TORTURE_FAULT="$picked"
    [ -e "$trial/fired" ] && struck=1
    finish
    [ "$n_steps_lost" -le $((2 * EVERY)) ] || lose "a kill cost $n_steps_lost steps"
}

trial_errno() {
    local count=1
    pick_call
    case $call in
    open) pick EIO EACCES EMFILE EINTR ENOSPC ENOENT ;;
    read) pick EIO EINTR SHORT ;;
    write) pick ENOSPC EDQUOT EIO EINTR SHORT ;;
    unlink) pick EIO EACCES ;;
    *) pick EIO ENOSPC EDQUOT EINTR ;;
    esac
    draw 3
    [ "$drawn" -gt 0 ] || [ "$picked" = EINTR ] || count=1000000
    with_shim TORTURE_RANK="$rank" TORTURE_AT="$number" TORTURE_COUNT="$count" \
        TORTURE_FAULT="$picked"
    [ -e "$trial/fired" ] && struck=1
    check_refusal_text
    finish
}

# The clock of all ranks or of one, forwards or backwards, by seconds or by years.
trial_clock() {
    local after rank
    draw "$whole_ms"
    after=$drawn
    draw $((n_ranks + 1))
    rank=$drawn
    pick 1 -1 60 -60 3600 -3600 86400 -86400 40000000 -40000000 1000000000 -1700000000 3000000000
    struck=1
    if [ "$rank" -lt "$n_ranks" ]; then
        with_shim TORTURE_RANK="$rank" TORTURE_CLOCK_S="$picked" TORTURE_CLOCK_AFTER_MS="$after"
    else
        with_shim TORTURE_CLOCK_S="$picked" TORTURE_CLOCK_AFTER_MS="$after"
    fi
    [ "$status" -eq 0 ] || lose "clock moved by $picked s: status $status: $log"
    finish
}

# damage FILE: one of the ways in which crashes and disks leave files.
damage() {
    local size at byte
    size=$(stat -c %s "$1")
    draw $((size > 0 ? size : 1))
    at=$drawn
    pick cut empty remove flip flip zeros append
    echo "$picked at $at: $1" >>"$trial/damage"
    case $picked in
    cut) truncate -s "$at" "$1" ;;
    empty) truncate -s 0 "$1" ;;
    remove) rm "$1" ;;
    flip)
        byte=$(od -An -tu1 -j "$at" -N 1 "$1")
        draw 8
        printf "\\x$(printf %x $((byte ^ (1 << drawn))))" |
            dd of="$1" bs=1 seek="$at" conv=notrunc status=none
        ;;
    zeros) dd if=/dev/zero of="$1" bs=1 seek="$at" count=$((size - at < 4096 ? size - at : 4096)) \
        conv=notrunc status=none ;;
    append) head -c 100 "$mha2mla" >>"$1" ;;
    esac
}

# damage_some: one or two files that the newest checkpoint or the run's log and description are made
# of, or the manifests of all checkpoints.
damage_some() {
    local manifests=("$trial"/runs/run/checkpoints/*/manifest.json) newest files i
    newest=${manifests[-1]}
    files=("$newest" "${newest%/*}"/*.h5 "$trial"/runs/run/{metrics.jsonl,run.json,config.yaml})
    draw 6
    if [ "$drawn" -eq 0 ]; then
        for i in "${manifests[@]}"; do damage "$i"; done
        return
    fi
    for ((i = 0; i <= drawn % 2; i++)); do
        pick "$newest" "${files[@]}" # the manifest twice
        [ ! -e "$picked" ] || damage "$picked"
    done
}

trial_torn() {
    local from curve=''
    pick killed ended
    from=$picked
    cp -r "$from" "$trial/runs"
    damage_some
    struck=1
    ! grep -q metrics.jsonl "$trial/damage" || curve=no-curve
    life NO_FAULT=1
    check_refusal_text
    if [ "$status" -ne 0 ]; then
        n_refused=$((n_refused + 1))
        rm -rf "$trial/runs"
        cp -r "$from" "$trial/runs"
        curve=''
    fi
    finish $curve
}

# A disk of 0.3 to 4 MB; a checkpoint has 1.2 MB, of which two are kept, and the model 0.5 MB.
trial_disk() {
    local kb
    if [ -z "$can_mount" ]; then
        skipped=1
        return
    fi
    draw 3700
    kb=$((drawn + 300))
    mkdir "$trial/runs"
    mount -t tmpfs -o size="${kb}k" tmpfs "$trial/runs"
    life NO_FAULT=1
    check_refusal_text
    ! grep -q 'No space left\|disk is full' "$log" || struck=1
    mount -o remount,size=64m "$trial/runs"
    finish
    [ -n "$lost_reason" ] && cp -r "$trial/runs" "$trial/kept"
    umount "$trial/runs"
}

# ---- counts ------------------------------------------------------------------------------------

declare -A tried=() survived=() hit=() steps=() most=()

# count KIND: the trial that has just ended.
count() {
    tried[$1]=$((${tried[$1]:-0} + 1))
    hit[$1]=$((${hit[$1]:-0} + struck))
    steps[$1]=$((${steps[$1]:-0} + n_steps_lost))
    [ "$n_steps_lost" -le "${most[$1]:-0}" ] || most[$1]=$n_steps_lost
    if [ -z "$lost_reason" ]; then
        survived[$1]=$((${survived[$1]:-0} + 1))
        rm -rf "$trial"
        return
    fi
    n_lost=$((n_lost + 1))
    echo "LOST: $1, seed $seed, in $trial: $lost_reason"
}

run_trial() {
    local kind=${kinds[$(($1 % ${#kinds[@]}))]}
    seed=$1 trial=$work/trial-$1
    n_lives=0 lost_reason='' n_steps_lost=0 struck=0 skipped=0
    mkdir "$trial"
    seed_choices "$seed"
    draw 4
    n_ranks=$((drawn + 1))
    "trial_$kind"
    if [ "$skipped" -eq 1 ]; then
        n_skipped=$((n_skipped + 1))
        rmdir "$trial"
    else
        count "$kind"
    fi
}

print_counts() {
    local kind sums=(0 0 0 0)
    printf '%-8s %8s %8s %9s %11s %14s\n' kind tried struck survived 'lost steps' 'most in one'
    for kind in "${!tried[@]}"; do
        printf '%-8s %8d %8d %9d %11d %14d\n' "$kind" "${tried[$kind]}" "${hit[$kind]}" \
            "${survived[$kind]:-0}" "${steps[$kind]}" "${most[$kind]:-0}"
        sums=($((sums[0] + tried[$kind])) $((sums[1] + hit[$kind]))
            $((sums[2] + ${survived[$kind]:-0})) $((sums[3] + steps[$kind])))
    done
    printf '%-8s %8d %8d %9d %11d\n' all "${sums[@]}"
    echo "seeds $first_seed to $seed; $n_refused damaged runs refused by name until mended;" \
        "$n_skipped full disks skipped (mounting needs root);" \
        "$n_launcher_hangs times mpirun did not end after its ranks had"
}

# ---- all of it ---------------------------------------------------------------------------------

# The undisturbed run, the calls it makes, and two states of it for trial_torn.
prepare() {
    local begun
    make_fault_shim
    make_shard train 300
    make_shard valid 40
    cat >base.yaml <<EOC
run: {name: base, dir: runs}
model:
  init: $tiny_model
data: {seq_len: 16, sources: [{name: stories, shards: [train.h5]}]}
train: {steps: 2, global_batch: 4, micro_batch: 1}
EOC
    ranks 1 train base.yaml
    cat >config.yaml <<EOC
run: {name: run, dir: runs}
model:
  base: $work/runs/base/model
  convert: {rope_pairs: 2, d_kv: 6, samples: 8}
data:
  seq_len: 16
  sources: [{name: stories, shards: [$work/train.h5]}]
  validation: {shards: [$work/valid.h5], every: 6, sequences: 4}
optim: {lr: 3.0e-3, warmup_steps: 2, decay_steps: 3}
train: {steps: $N_STEPS, global_batch: 4, micro_batch: 1}
checkpoint: {every: $EVERY, keep: 2}
log: {every: 1}
EOC
    trial=$work n_lives=0 n_ranks=2 lost_reason=''
    begun=$(date +%s%N)
    with_shim TORTURE_LOG="$work/log"
    whole_ms=$((($(date +%s%N) - begun) / 1000000))
    [ "$status" -eq 0 ] || die "the undisturbed run: $(tail -n 3 "$log")"
    awk '{ name = $4; sub(/.*\//, "", name)
           sub(/step-.*/, "step", name); sub(/shard-.*/, "shard", name)
           print $0, $1 "-" $3 "-" name }' log >calls
    mapfile -t classes < <(cut -d' ' -f5 calls | sort -u)
    whole_sha256=$(sha256sum <runs/run/model/model.safetensors)
    mkdir ended killed
    cp -r runs/run ended/
    trial=$work/killing
    mkdir "$trial"
    number=$(awk '$1 == 0 && $3 == "write" && /metrics.jsonl/ { n = $2 } END { print n }' calls)
    with_shim TORTURE_RANK=0 TORTURE_AT="$number" TORTURE_FAULT=KILL # at the last step
    [ "$status" -ne 0 ] && [ -e "$trial/runs/run/checkpoints/step-0000000$((N_STEPS - EVERY))" ] ||
        die "the killed run: $(tail -n 3 "$log")"
    mv "$trial/runs/run" killed/
    rm -rf "$trial"
}

n_lost=0 n_refused=0 n_skipped=0 n_launcher_hangs=0
trap 'rm -rf "$sessions"' EXIT
prepare
echo "${#classes[@]} kinds of calls; a run takes $whole_ms ms; first seed $first_seed; in $work"
begun=$SECONDS
for ((i = 0; i == 0 || SECONDS - begun < seconds; i++)); do
    run_trial $((first_seed + i))
done
print_counts
[ "$n_lost" -eq 0 ] || {
    echo "$n_lost trials lost; they are kept in $work" >&2
    exit 1
}
rm -rf "$work"
