#!/usr/bin/env bash
# A disk that is full when a checkpoint is due: the error is printed, the last good checkpoint stays,
# the run continues or stops as configured, and afterwards has the bits of an uninterrupted one. The
# disk is a small tmpfs in a mount namespace of the test's own, which ends with it.
set -euo pipefail
if [ -z "${FAULTS_NAMESPACE:-}" ]; then
    unshare -m true 2>/dev/null || {
        echo "skipped: mounting a small disk needs root"
        exit 77
    }
    FAULTS_NAMESPACE=1 exec unshare -m bash "$0" "$@"
fi
. "$(dirname -- "$0")/../support/checks.sh" "$1"
. "$root/tests/support/background_runs.sh"

mkdir runs
mount -t tmpfs -o size=24m tmpfs runs
mounts=("$work/runs")

make_shard train 1200
make_shard valid 100
cat >config.yaml <<EOC
run: {name: whole, dir: runs}
model:
  init: $tiny_model
data:
  seq_len: 32
  sources: [{name: stories, shards: [train.h5]}]
  validation: {shards: [valid.h5], every: 8, sequences: 8}
optim: {lr: 3.0e-3, warmup_steps: 2}
train: {steps: 200, global_batch: 4, micro_batch: 1}
checkpoint: {every: 5, keep: 2}
log: {every: 1}
EOC
finishes whole

# has_saved STEP N: the run has N checkpoints, the newest of which is that of the step.
has_saved() {
    [ "$(newest)" = "$1" ] && [ "$(ls "$run_dir/checkpoints" | wc -l)" -eq "$2" ]
}

# fill_disk [STEP N]: while the run is held, once it has_saved so. Where there is one checkpoint, it
# must not be removed to make room.
fill_disk() {
    [ $# -eq 0 ] || until_true has_saved "$@" || die "$run_dir: has $(ls "$run_dir/checkpoints")"
    dd if=/dev/zero of=runs/filler bs=16k status=none 2>/dev/null || true
    dd if=/dev/zero of=runs/filler bs=1k oflag=append conv=notrunc status=none 2>/dev/null || true
    [ "$(df --output=avail runs | tail -n 1)" -eq 0 ] || die "the disk is not full: $(df runs)"
}

free_disk() {
    rm runs/filler
}

# on_error: continue. One error is printed for each checkpoint that is due; when there is room again
# the run saves, and ends like an undisturbed one.
start_held '7|150' goes-on
fill_disk 5 1
release
until_held
[ "$(grep -c ' is not written, the newest is that of step 5' goes-on.log)" -ge 25 ] ||
    die "goes-on: $(grep -v ': step' goes-on.log)"
grep -q ' is not written.*No space left on device' goes-on.log ||
    die "no reason: $(grep ' is not written' goes-on.log)"
[ "$(newest)" = 5 ] || die "the last good checkpoint is gone"
for pid in $(ranks_of_job | cut -d' ' -f2); do
    held=$(find "/proc/$pid/fd" -lname '*(deleted)' -lname '*checkpoints*')
    [ -z "$held" ] || die "a file that was given up is held open: $(ls -l "$held")"
done
free_disk
release
ends_with 0
[ "$(newest)" = 200 ] || die "no checkpoint at the end: $(ls runs/goes-on/checkpoints)"
same_run goes-on whole

# on_error: stop. The run ends with status 1 and resumes from the last good checkpoint when there is
# room.
start_held 7 stops --checkpoint.on_error=stop
fill_disk 5 1
release
ends_with 1
grep '^mha2mla: error: ' stops.log | grep -q 'checkpoint of step 10 is not written' ||
    die "stops: $(cat stops.log)"
[ "$(grep -c '^mha2mla: error: ' stops.log)" -eq 1 ] || die "not one error line: $(cat stops.log)"
[ -z "$(temporaries runs/stops)" ] || die "left $(temporaries runs/stops)"
free_disk
finishes stops --checkpoint.on_error=stop
says "resuming runs/stops from step 5" || die "stops: $(cat stops.log)"
same_run stops whole

# A stop is requested where the state cannot be saved: one error, which gives both causes.
start_held 7 full --train.steps=1000000 --data.validation=none --checkpoint.every=0
fill_disk
release
until_it_says 'metrics.jsonl: the disk is full'
signal_ranks USR1
ends_with 1
free_disk
grep '^mha2mla: error: ' full.log | grep -q 'stopped by SIGUSR1: checkpoint of step .*No space left' ||
    die "full: $(cat full.log)"
[ "$(grep -c '^mha2mla: error: ' full.log)" -eq 1 ] || die "not one error line: $(cat full.log)"

# No room for the exported model: nothing that could be taken for one is left, and the next start of
# the run writes it. Two checkpoints are replaced by two others until then; lines of metrics.jsonl
# need some room beside them, a sixth of what the model does.
start_held 192 export
fill_disk 190 2
truncate -s -64K runs/filler
release
got=0
wait "$job" || got=$?
[ "$got" -eq 1 ] || die "export: status $got: $(tail -n 5 export.log)"
[ ! -e runs/export/model/config.json ] || die "a model where there is no room: $(tail -n 9 export.log)"
free_disk
finishes export
same_run export whole

# A disk for two checkpoints and a half, with keep 2: a new one fits as soon as the older of the two is
# gone, which keep would remove after it anyway. The run loses no save, and says at its start what it
# needs.
kilobytes=$(du -sk runs/whole/checkpoints/step-00000200 | cut -f1)
mkdir small
mount -t tmpfs -o size=$((kilobytes * 5 / 2 + 400))k tmpfs small
mounts+=("$work/small")
start room --run.dir=small --train.steps=40
ends_with 0
grep -q 'warning: small/room: .* MB are free on its disk, the run needs .* MB at most: 3 more checkpoints of' room.log ||
    die "no numbers at the start: $(cat room.log)"
grep -q 'cannot be written yet: .*No space left on device.*; removing 1 older, as checkpoint.keep would' room.log ||
    die "no room was made: $(cat room.log)"
says 'is not written' && die "a save is lost: $(cat room.log)"
[ "$(ls small/room/checkpoints | tr '\n' ' ')" = 'step-00000035 step-00000040 ' ] ||
    die "room: kept $(ls small/room/checkpoints)"

# There is room for one checkpoint and a half: nothing can be removed without losing the last good
# one. The run says in its last line what is not saved, and does not end as a success.
rm -r small/room
mount -o remount,size=$((kilobytes * 3 / 2 + 400))k small
start unsaved --run.dir=small --train.steps=40
ends_with 1
grep '^mha2mla: ' unsaved.log | tail -n 1 | grep -q 'error: small/unsaved: trained to step 40 and exported to small/unsaved/model, but the checkpoint of this step could not be written, the newest is that of step 5;' ||
    die "the last line: $(tail -n 9 unsaved.log)"
[ -s small/unsaved/checkpoints/step-00000005/manifest.json ] || die 'unsaved: the last good one is gone'
mount -o remount,size=$((kilobytes * 5 + 400))k small
start unsaved --run.dir=small --train.steps=40
ends_with 0
says 'resuming small/unsaved from step 5' || die "unsaved: $(cat unsaved.log)"
